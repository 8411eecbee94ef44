//! Every name that this engine uses in Redis, and which commands go with them. One place, so that a
//! cluster and a single server differ here and nowhere else.
//!
//! | what | name (prefix `P`, channel `C`) |
//! |---|---|
//! | messages of a channel, pub/sub | `P.client.C` |
//! | a process's own probes, pub/sub | `P.node.ORIGIN` |
//! | history | stream `P.stream.C`, hash `P.meta.C` |
//! | result of a publish by its idempotency key | `P.result.LENGTH.C.KEY` |
//! | presence | hash `P.presence.C` |
//!
//! No two things can have the same name, whatever a channel, a key or a node is called.
//!
//! In a cluster `C` stands in braces: all keys of a channel share a slot with its sharded pub/sub
//! channel, so that one script may touch them all and one node serves them.

use flux_registry::slot_of;

/// How names are made, and which pub/sub goes with them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum KeyLayout {
    /// One server, or several that know nothing of each other.
    #[default]
    Plain,
    /// Redis Cluster: hash tags and sharded pub/sub.
    Cluster,
}

/// What begins a tag that could not stand for itself: an empty tag (`{}`) is none to a cluster.
const TAG_ESCAPE: char = '~';

/// The names.
#[derive(Debug, Clone)]
pub(super) struct Keys {
    prefix: String,
    layout: KeyLayout,
    /// What stands before a channel's name in its pub/sub channel.
    channel_prefix: String,
}

impl Keys {
    pub(super) fn new(prefix: &str, layout: KeyLayout) -> Self {
        Self {
            prefix: prefix.to_owned(),
            layout,
            channel_prefix: format!("{prefix}.client."),
        }
    }

    /// The pub/sub channel of `channel`.
    pub(super) fn channel(&self, channel: &str) -> String {
        format!("{}{}", self.channel_prefix, self.tag(channel))
    }

    /// The channel whose messages come in this pub/sub channel; none where it is not one of ours.
    pub(super) fn channel_of<'a>(&self, name: &'a [u8]) -> Option<&'a str> {
        let name = std::str::from_utf8(name.strip_prefix(self.channel_prefix.as_bytes())?).ok()?;
        match self.layout {
            KeyLayout::Plain => Some(name),
            KeyLayout::Cluster => {
                let tag = name.strip_prefix('{')?.strip_suffix('}')?;
                Some(tag.strip_prefix(TAG_ESCAPE).unwrap_or(tag))
            }
        }
    }

    /// The slot of everything that belongs to `channel`, in a cluster.
    pub(super) fn slot(&self, channel: &str) -> u16 {
        slot_of(self.channel(channel).as_bytes())
    }

    /// The pub/sub channel of this process's own probes.
    pub(super) fn probe(&self, origin: u64) -> String {
        format!("{}.node.{origin:016x}", self.prefix)
    }

    /// The same where it has to be in a slot that a certain server has. One is found, unless the server has
    /// next to none.
    pub(super) fn probe_in(&self, origin: u64, is_its: impl Fn(u16) -> bool) -> String {
        const TRIES: u32 = 1 << 18;
        let name = |n| format!("{}.{n}", self.probe(origin));
        let mut found = (0..TRIES).map(name);
        let found = found.find(|name| is_its(slot_of(name.as_bytes())));
        found.unwrap_or_else(|| self.probe(origin))
    }

    /// The publications of `channel`.
    pub(super) fn stream(&self, channel: &str) -> String {
        format!("{}.stream.{}", self.prefix, self.tag(channel))
    }

    /// Epoch, newest offset and version of `channel`.
    pub(super) fn meta(&self, channel: &str) -> String {
        format!("{}.meta.{}", self.prefix, self.tag(channel))
    }

    /// What became of the publish with this idempotency key.
    pub(super) fn result(&self, channel: &str, key: &str) -> String {
        let (prefix, len) = (&self.prefix, channel.len());
        format!("{prefix}.result.{len}.{}.{key}", self.tag(channel))
    }

    /// Who is in `channel`.
    pub(super) fn presence(&self, channel: &str) -> String {
        format!("{}.presence.{}", self.prefix, self.tag(channel))
    }

    /// The command that publishes.
    pub(super) fn publish_command(&self) -> &'static str {
        match self.layout {
            KeyLayout::Plain => "PUBLISH",
            KeyLayout::Cluster => "SPUBLISH",
        }
    }

    /// Whether subscriptions are made with SSUBSCRIBE.
    pub(super) fn is_sharded(&self) -> bool {
        self.layout == KeyLayout::Cluster
    }

    fn tag(&self, channel: &str) -> String {
        match self.layout {
            KeyLayout::Plain => channel.to_owned(),
            KeyLayout::Cluster if channel.starts_with(['}', TAG_ESCAPE]) => {
                format!("{{{TAG_ESCAPE}{channel}}}")
            }
            KeyLayout::Cluster => format!("{{{channel}}}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_channel_is_found_again_in_its_name() {
        for layout in [KeyLayout::Plain, KeyLayout::Cluster] {
            let keys = Keys::new("p", layout);
            for channel in ["a", "ns:a.b", "}", "}x", "~x", "~", "{a}", "a}b{", "meta.a"] {
                let name = keys.channel(channel);
                assert_eq!(
                    keys.channel_of(name.as_bytes()),
                    Some(channel),
                    "{layout:?}"
                );
            }
            for foreign in ["p.client", "q.client.a", "p.node.a", ""] {
                assert_eq!(keys.channel_of(foreign.as_bytes()), None);
            }
        }
        let cluster = Keys::new("p", KeyLayout::Cluster);
        assert_eq!(cluster.channel_of(b"p.client.a"), None);
        assert_eq!(cluster.stream("a"), "p.stream.{a}");
    }

    #[test]
    fn in_a_cluster_all_keys_of_a_channel_have_one_tag() {
        let keys = Keys::new("p", KeyLayout::Cluster);
        for channel in ["a", "}", "}x}", "{", "a}b"] {
            // As the cluster specification finds it.
            let tag = |name: &str| {
                let open = name.find('{').expect("a brace");
                let rest = &name[open + 1..];
                rest[..rest.find('}').expect("a brace")].to_owned()
            };
            let expected = tag(&keys.channel(channel));
            assert!(!expected.is_empty(), "{channel}");
            for name in [
                keys.stream(channel),
                keys.meta(channel),
                keys.result(channel, "k}{"),
                keys.presence(channel),
            ] {
                assert_eq!(tag(&name), expected, "{name}");
            }
        }
    }
}

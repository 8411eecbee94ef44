//! Which channels exist and what a client may do there. Names and meaning as in Centrifugo, so
//! that a team can bring its configuration.
//!
//! | what | file |
//! |---|---|
//! | from a channel's name to its options | this one |
//! | what holds in a channel | `options` |
//! | a named set of options | `namespace` |
//! | what names look like | `pattern` |

mod namespace;
mod options;
mod pattern;

use std::time::Duration;

pub use namespace::Namespace;
pub use options::{ChannelOptions, DataFormat, DeltaType};
pub use pattern::ChannelPattern;

use crate::engine::history::HistoryOptions;
use crate::protocol::ErrorCode;

/// How long offset and epoch of a channel are kept where nothing else is said
/// (`channel.history_meta_ttl`).
const HISTORY_META_TTL: Duration = Duration::from_secs(720 * 3600);

/// The options of every channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChannelRules {
    /// For channels without a namespace.
    pub without_namespace: ChannelOptions,
    /// For the others; an unknown namespace is error 102.
    pub namespaces: Vec<Namespace>,
    /// How names are put together.
    pub naming: Naming,
    /// How long offset and epoch are kept where the options do not say
    /// (`channel.history_meta_ttl`).
    pub history_meta_ttl: Duration,
}

impl Default for ChannelRules {
    fn default() -> Self {
        Self::flat(ChannelOptions::default())
    }
}

/// How the names of channels are put together; an empty text switches its meaning off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Naming {
    /// Stands before the namespace of a channel that needs a subscription token
    /// (`channel.private_prefix`).
    pub private_prefix: String,
    /// Ends the namespace (`channel.namespace_boundary`).
    pub namespace_boundary: String,
    /// Begins the users that a user-limited channel is for (`channel.user_boundary`).
    pub user_boundary: String,
    /// Stands between them (`channel.user_separator`).
    pub user_separator: String,
}

impl Default for Naming {
    fn default() -> Self {
        Self {
            private_prefix: "$".to_owned(),
            namespace_boundary: ":".to_owned(),
            user_boundary: "#".to_owned(),
            user_separator: ",".to_owned(),
        }
    }
}

impl Naming {
    /// The namespace of a channel, if any.
    #[must_use]
    pub fn namespace<'c>(&self, channel: &'c str) -> Option<&'c str> {
        self.split(channel).0
    }

    /// The namespace, if any, and what stands behind it.
    fn split<'c>(&self, channel: &'c str) -> (Option<&'c str>, &'c str) {
        let name = channel
            .strip_prefix(&*self.private_prefix)
            .unwrap_or(channel);
        if self.namespace_boundary.is_empty() {
            return (None, name);
        }
        match name.split_once(&*self.namespace_boundary) {
            Some((namespace, rest)) => (Some(namespace), rest),
            None => (None, name),
        }
    }

    /// Whether subscribing to the channel takes a token.
    fn is_private(&self, channel: &str) -> bool {
        !self.private_prefix.is_empty() && channel.starts_with(&*self.private_prefix)
    }

    /// The users that the channel is for; none: it is not limited to any.
    fn users<'c>(&self, channel: &'c str) -> Option<&'c str> {
        if self.user_boundary.is_empty() {
            return None;
        }
        channel
            .split_once(&*self.user_boundary)
            .map(|(_, users)| users)
    }

    /// Whether `user` is among `users`.
    fn includes(&self, users: &str, user: &str) -> bool {
        if user.is_empty() {
            return false;
        }
        if self.user_separator.is_empty() {
            return users == user;
        }
        users.split(&*self.user_separator).any(|one| one == user)
    }
}

/// Who decides whether a client may subscribe without a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Gate {
    /// It may.
    Open,
    /// The backend does.
    Backend,
    /// It may not.
    Closed,
}

impl ChannelRules {
    /// The same options for every channel without a namespace, and no namespaces.
    #[must_use]
    pub fn flat(options: ChannelOptions) -> Self {
        Self {
            without_namespace: options,
            namespaces: Vec::new(),
            naming: Naming::default(),
            history_meta_ttl: HISTORY_META_TTL,
        }
    }

    /// Whether the rules agree with one another; for the configuration's check.
    ///
    /// # Errors
    /// One line that names the key, the value and what is allowed.
    pub fn validate(&self) -> Result<(), String> {
        self.without_namespace
            .validate()
            .map_err(|error| format!("channel.without_namespace: {error}"))?;
        for (at, namespace) in self.namespaces.iter().enumerate() {
            namespace
                .options
                .validate()
                .map_err(|error| format!("channel.namespaces, `{}`: {error}", namespace.name))?;
            if self.namespaces[..at]
                .iter()
                .any(|other| other.name == namespace.name)
            {
                return Err(format!(
                    "channel.namespaces, `{}`: there is another one of this name",
                    namespace.name
                ));
            }
        }
        Ok(())
    }

    /// The options of a channel.
    ///
    /// # Errors
    /// 102 where its namespace is not configured, 107 where its name does not look as the
    /// namespace's `channel_regex` wants, or without one is not ASCII.
    pub fn options(&self, channel: &str) -> Result<&ChannelOptions, ErrorCode> {
        let (namespace, rest) = self.naming.split(channel);
        let options = match namespace {
            None => &self.without_namespace,
            Some(name) => self
                .namespaces
                .iter()
                .find(|namespace| namespace.name == name)
                .map(|namespace| &namespace.options)
                .ok_or(ErrorCode::UnknownChannel)?,
        };
        let is_valid = options
            .channel_regex
            .matches(rest)
            .unwrap_or_else(|| channel.is_ascii());
        if is_valid {
            Ok(options)
        } else {
            Err(ErrorCode::BadRequest)
        }
    }

    /// How the history of a channel with these options is kept; none: it has none.
    #[must_use]
    pub fn history(&self, options: &ChannelOptions) -> Option<HistoryOptions> {
        let meta_ttl = if options.history_meta_ttl.is_zero() {
            self.history_meta_ttl
        } else {
            options.history_meta_ttl
        };
        options.has_history().then(|| HistoryOptions {
            size: options.history_size,
            ttl: options.history_ttl,
            meta_ttl: meta_ttl.max(options.history_ttl),
        })
    }

    /// The channel of a user's own in a namespace; without a namespace where it is empty.
    pub(super) fn personal(&self, namespace: &str, user: &str) -> String {
        let Naming {
            namespace_boundary,
            user_boundary,
            ..
        } = &self.naming;
        if namespace.is_empty() {
            format!("{user_boundary}{user}")
        } else {
            format!("{namespace}{namespace_boundary}{user_boundary}{user}")
        }
    }

    /// Whether subscribing to the channel takes a token.
    pub(super) fn is_private(&self, channel: &str) -> bool {
        self.naming.is_private(channel)
    }

    /// Who decides whether `user` may subscribe to a channel that is not private, without a token.
    pub(super) fn gate(&self, channel: &str, options: &ChannelOptions, user: &str) -> Gate {
        if options.allow_user_limited_channels
            && let Some(users) = self.naming.users(channel)
        {
            return if self.naming.includes(users, user) {
                Gate::Open
            } else {
                Gate::Closed
            };
        }
        if options.subscribe_proxy_enabled {
            Gate::Backend
        } else if options.may_subscribe(user) {
            Gate::Open
        } else {
            Gate::Closed
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_namespace_is_what_stands_before_the_first_colon() {
        let naming = Naming::default();
        for (channel, expected) in [
            ("news", (None, "news")),
            ("chat:room", (Some("chat"), "room")),
            ("chat:room:1", (Some("chat"), "room:1")),
            ("$chat:room", (Some("chat"), "room")),
            ("$room", (None, "room")),
            (":room", (Some(""), "room")),
            ("chat:", (Some("chat"), "")),
        ] {
            assert_eq!(naming.split(channel), expected, "{channel}");
        }
    }

    #[test]
    fn names_are_put_together_as_configured() {
        let mut rules = ChannelRules::flat(ChannelOptions::open());
        rules.naming = Naming {
            private_prefix: String::new(),
            namespace_boundary: "::".to_owned(),
            user_boundary: "@".to_owned(),
            user_separator: String::new(),
        };
        assert!(!rules.is_private("$a"));
        assert!(rules.options("a:b").is_ok());
        assert_eq!(rules.options("a::b"), Err(ErrorCode::UnknownChannel));
        assert_eq!(rules.personal("", "7"), "@7");
        assert_eq!(rules.personal("own", "7"), "own::@7");
        let options = ChannelOptions {
            allow_user_limited_channels: true,
            ..ChannelOptions::open()
        };
        assert_eq!(rules.gate("a@7,8", &options, "7"), Gate::Closed);
        assert_eq!(rules.gate("a@7", &options, "7"), Gate::Open);
    }

    #[test]
    fn an_unknown_namespace_is_unknown_before_its_name_is_judged() {
        let rules = ChannelRules::flat(ChannelOptions::open());
        assert_eq!(rules.options("chat:room"), Err(ErrorCode::UnknownChannel));
        assert_eq!(rules.options("chat:\u{e9}"), Err(ErrorCode::UnknownChannel));
        assert_eq!(rules.options("\u{e9}"), Err(ErrorCode::BadRequest));
        assert!(rules.options("room").is_ok());
    }

    #[test]
    fn a_pattern_judges_what_stands_behind_the_namespace() {
        let mut rules = ChannelRules::default();
        rules.namespaces.push(Namespace {
            name: "chat".to_owned(),
            options: ChannelOptions {
                channel_regex: ChannelPattern::new("^[a-zé]+$").expect("a pattern"),
                ..ChannelOptions::default()
            },
        });
        assert!(rules.options("chat:room").is_ok());
        assert!(rules.options("$chat:room").is_ok());
        assert!(rules.options("chat:é").is_ok(), "the pattern says so");
        assert_eq!(rules.options("chat:Room"), Err(ErrorCode::BadRequest));
    }

    #[test]
    fn a_user_limited_channel_is_for_its_users_alone() {
        let rules = ChannelRules::default();
        let mut options = ChannelOptions::open();
        let gate = |options: &ChannelOptions, channel, user| rules.gate(channel, options, user);
        assert_eq!(gate(&options, "dialog#1,2", ""), Gate::Open, "just a name");
        options.allow_user_limited_channels = true;
        options.subscribe_proxy_enabled = true;
        for (channel, user, expected) in [
            ("dialog#1,2", "1", Gate::Open),
            ("dialog#1,2", "2", Gate::Open),
            ("dialog#1,2", "12", Gate::Closed),
            ("dialog#1,2", "", Gate::Closed),
            ("dialog#", "", Gate::Closed),
            ("dialog", "1", Gate::Backend),
        ] {
            assert_eq!(gate(&options, channel, user), expected, "{channel} {user}");
        }
        options.subscribe_proxy_enabled = false;
        assert_eq!(gate(&options, "dialog", ""), Gate::Open);
    }

    #[test]
    fn a_history_needs_size_and_time_and_keeps_its_position_longer() {
        let rules = ChannelRules::default();
        let mut options = ChannelOptions {
            history_size: 10,
            ..ChannelOptions::default()
        };
        assert_eq!(rules.history(&options), None);
        options.history_ttl = Duration::from_secs(60);
        let history = rules.history(&options).expect("both");
        assert_eq!((history.size, history.ttl), (10, Duration::from_secs(60)));
        assert_eq!(history.meta_ttl, HISTORY_META_TTL);
        options.history_meta_ttl = Duration::from_secs(90);
        let history = rules.history(&options).expect("both");
        assert_eq!(history.meta_ttl, Duration::from_secs(90));
    }

    #[test]
    fn rules_that_cannot_hold_name_their_namespace() {
        let mut rules = ChannelRules::default();
        let namespace = |name: &str| Namespace {
            name: name.to_owned(),
            options: ChannelOptions::default(),
        };
        rules.namespaces = vec![namespace("one"), namespace("one")];
        assert!(rules.validate().expect_err("twice").contains("`one`"));
        rules.namespaces.pop();
        assert_eq!(rules.validate(), Ok(()));
        rules.namespaces[0].options.force_recovery = true;
        let error = rules.validate().expect_err("no history");
        assert!(error.contains("`one`") && error.contains("force_recovery"));
    }
}

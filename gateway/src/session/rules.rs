//! Which channels exist and what a client may do there. Names and meaning as in Centrifugo, so
//! that a team can bring its configuration.

use serde::{Deserialize, Serialize};

use crate::protocol::ErrorCode;

/// Stands before the namespace of a channel that needs a subscription token.
const PRIVATE_PREFIX: u8 = b'$';
/// Ends the namespace.
const NAMESPACE_BOUNDARY: u8 = b':';
/// Begins the users that a user-limited channel is for.
const USER_BOUNDARY: u8 = b'#';
/// Stands between them.
const USER_SEPARATOR: char = ',';

/// The options of every channel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChannelRules {
    /// For channels without a namespace.
    pub without_namespace: ChannelOptions,
    /// For the others; an unknown namespace is error 102.
    pub namespaces: Vec<Namespace>,
}

/// A named set of options.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "serde_json::Map<String, serde_json::Value>")]
pub struct Namespace {
    /// What stands before the first `:` of its channels.
    pub name: String,
    /// What applies there.
    #[serde(flatten)]
    pub options: ChannelOptions,
}

impl TryFrom<serde_json::Map<String, serde_json::Value>> for Namespace {
    type Error = String;

    /// serde cannot refuse unknown fields of a flattened struct, so the name is taken out first.
    fn try_from(mut map: serde_json::Map<String, serde_json::Value>) -> Result<Self, String> {
        let Some(serde_json::Value::String(name)) = map.remove("name") else {
            return Err("a namespace needs a `name`".to_owned());
        };
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        if name.len() < 2 || !name.bytes().all(allowed) {
            return Err(format!(
                "namespace `{name}`: a name is at least two of a-z A-Z 0-9 - _ ."
            ));
        }
        let options = serde_json::from_value(serde_json::Value::Object(map))
            .map_err(|error| format!("namespace `{name}`: {error}"))?;
        Ok(Self { name, options })
    }
}

/// What holds in a channel. Everything is off unless switched on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[allow(
    clippy::struct_excessive_bools,
    reason = "each is a switch of its own in Centrifugo's configuration"
)]
pub struct ChannelOptions {
    /// Clients may subscribe without a token.
    pub allow_subscribe_for_client: bool,
    /// Anonymous clients too.
    pub allow_subscribe_for_anonymous: bool,
    /// Clients may publish.
    pub allow_publish_for_client: bool,
    /// Clients may publish where they are subscribed.
    pub allow_publish_for_subscriber: bool,
    /// Anonymous clients too, where one of the two holds.
    pub allow_publish_for_anonymous: bool,
    /// Clients may ask who is there, and for join and leave pushes.
    pub allow_presence_for_client: bool,
    /// Clients may do so where they are subscribed.
    pub allow_presence_for_subscriber: bool,
    /// Anonymous clients too, where one of the two holds.
    pub allow_presence_for_anonymous: bool,
    /// Joins and leaves are told to the subscribers that asked for them.
    pub join_leave: bool,
    /// And to those that did not ask.
    pub force_push_join_leave: bool,
    /// `name#user1,user2` is for these users only.
    pub allow_user_limited_channels: bool,
}

impl ChannelOptions {
    /// Everything that exists is allowed to everybody: the demo configuration.
    #[must_use]
    pub const fn open() -> Self {
        Self {
            allow_subscribe_for_client: true,
            allow_subscribe_for_anonymous: true,
            allow_publish_for_client: true,
            allow_publish_for_subscriber: true,
            allow_publish_for_anonymous: true,
            allow_presence_for_client: true,
            allow_presence_for_subscriber: true,
            allow_presence_for_anonymous: true,
            join_leave: true,
            force_push_join_leave: false,
            allow_user_limited_channels: false,
        }
    }

    /// Whether a client may subscribe without a token.
    #[must_use]
    pub fn may_subscribe(&self, channel: &str, user: &str) -> bool {
        if self.allow_user_limited_channels
            && let Some(users) = limited_to(channel)
        {
            return !user.is_empty() && users.split(USER_SEPARATOR).any(|one| one == user);
        }
        self.allow_subscribe_for_client && (!user.is_empty() || self.allow_subscribe_for_anonymous)
    }

    /// Whether a client may publish.
    #[must_use]
    pub fn may_publish(&self, user: &str, subscribed: bool) -> bool {
        (self.allow_publish_for_client || (self.allow_publish_for_subscriber && subscribed))
            && (!user.is_empty() || self.allow_publish_for_anonymous)
    }

    /// Whether a subscriber gets join and leave pushes.
    #[must_use]
    pub fn pushes_join_leave(&self, user: &str, asked: bool) -> bool {
        let may_ask = (self.allow_presence_for_client || self.allow_presence_for_subscriber)
            && (!user.is_empty() || self.allow_presence_for_anonymous);
        self.force_push_join_leave || (asked && self.join_leave && may_ask)
    }
}

impl ChannelRules {
    /// The same options for every channel without a namespace, and no namespaces.
    #[must_use]
    pub const fn flat(options: ChannelOptions) -> Self {
        Self {
            without_namespace: options,
            namespaces: Vec::new(),
        }
    }

    /// The options of a channel.
    ///
    /// # Errors
    /// 102 where its namespace is not configured, 107 where its name is not ASCII.
    pub fn options(&self, channel: &str) -> Result<&ChannelOptions, ErrorCode> {
        let options = match namespace(channel) {
            None => &self.without_namespace,
            Some(name) => self
                .namespaces
                .iter()
                .find(|namespace| namespace.name == name)
                .map(|namespace| &namespace.options)
                .ok_or(ErrorCode::UnknownChannel)?,
        };
        if channel.is_ascii() {
            Ok(options)
        } else {
            Err(ErrorCode::BadRequest)
        }
    }
}

/// Whether subscribing to the channel takes a token.
#[must_use]
pub(super) fn is_private(channel: &str) -> bool {
    channel.as_bytes().first() == Some(&PRIVATE_PREFIX)
}

fn namespace(channel: &str) -> Option<&str> {
    let name = channel
        .strip_prefix(char::from(PRIVATE_PREFIX))
        .unwrap_or(channel);
    name.split_once(char::from(NAMESPACE_BOUNDARY))
        .map(|(namespace, _)| namespace)
}

fn limited_to(channel: &str) -> Option<&str> {
    channel
        .split_once(char::from(USER_BOUNDARY))
        .map(|(_, users)| users)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn only(set: impl FnOnce(&mut ChannelOptions)) -> ChannelOptions {
        let mut options = ChannelOptions::default();
        set(&mut options);
        options
    }

    #[test]
    fn the_namespace_is_what_stands_before_the_first_colon() {
        for (channel, expected) in [
            ("news", None),
            ("chat:room", Some("chat")),
            ("chat:room:1", Some("chat")),
            ("$chat:room", Some("chat")),
            ("$room", None),
            (":room", Some("")),
            ("chat:", Some("chat")),
        ] {
            assert_eq!(namespace(channel), expected, "{channel}");
        }
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
    fn nothing_is_allowed_unless_switched_on() {
        let closed = ChannelOptions::default();
        for user in ["", "42"] {
            assert!(!closed.may_subscribe("a", user));
            assert!(!closed.may_publish(user, true));
            assert!(!closed.pushes_join_leave(user, true));
        }
    }

    #[test]
    fn anonymous_clients_need_their_own_switch() {
        let options = only(|options| {
            options.allow_subscribe_for_client = true;
            options.allow_publish_for_subscriber = true;
        });
        assert!(options.may_subscribe("a", "42"));
        assert!(!options.may_subscribe("a", ""));
        assert!(options.may_publish("42", true));
        assert!(!options.may_publish("42", false));
        assert!(!options.may_publish("", true));
        // The switch for anonymous clients alone opens nothing.
        let options = only(|options| {
            options.allow_subscribe_for_anonymous = true;
            options.allow_publish_for_anonymous = true;
        });
        assert!(!options.may_subscribe("a", ""));
        assert!(!options.may_publish("", true));
    }

    #[test]
    fn a_user_limited_channel_is_for_its_users_alone() {
        let mut options = ChannelOptions::open();
        assert!(options.may_subscribe("dialog#1,2", ""), "an ordinary name");
        options.allow_user_limited_channels = true;
        assert!(options.may_subscribe("dialog#1,2", "1"));
        assert!(options.may_subscribe("dialog#1,2", "2"));
        assert!(!options.may_subscribe("dialog#1,2", "12"));
        assert!(!options.may_subscribe("dialog#1,2", ""));
        assert!(!options.may_subscribe("dialog#", ""));
        assert!(options.may_subscribe("dialog", ""));
    }

    #[test]
    fn join_and_leave_go_to_those_who_ask_and_may_or_to_all() {
        let mut options = ChannelOptions::open();
        assert!(options.pushes_join_leave("", true));
        assert!(!options.pushes_join_leave("", false));
        options.allow_presence_for_anonymous = false;
        assert!(!options.pushes_join_leave("", true));
        options.force_push_join_leave = true;
        assert!(options.pushes_join_leave("", false));
    }

    #[test]
    fn a_namespace_refuses_what_it_does_not_know() {
        let read = |text: &str| serde_json::from_str::<Namespace>(text).map_err(|e| e.to_string());
        let namespace = read(r#"{"name":"chat","join_leave":true}"#).expect("valid");
        assert!(namespace.options.join_leave);
        for (text, names) in [
            (r#"{"name":"chat","histroy_size":1}"#, "histroy_size"),
            (r#"{"name":"c"}"#, "`c`"),
            (r#"{"name":"a b"}"#, "`a b`"),
            (r#"{"join_leave":true}"#, "name"),
        ] {
            let error = read(text).expect_err(text);
            assert!(error.contains(names), "{error}");
        }
    }
}

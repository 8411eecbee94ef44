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

/// The options of every channel: `channel` of the configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ChannelRules {
    /// For channels without a namespace.
    pub without_namespace: ChannelOptions,
    /// For the others; an unknown namespace is error 102.
    pub namespaces: Vec<Namespace>,
}

/// A named set of options.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Namespace {
    /// What stands before the first `:` of its channels.
    pub name: String,
    /// What applies there.
    #[serde(flatten)]
    pub options: ChannelOptions,
}

/// What holds in a channel. Everything is off unless switched on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
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

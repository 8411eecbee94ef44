//! What holds in a channel, and what that allows to whom.

use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::ChannelPattern;
use crate::engine::history::RecoveryMode;

/// What holds in a channel. Everything is off unless switched on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[allow(
    clippy::struct_excessive_bools,
    reason = "each is a switch of its own in Centrifugo's configuration"
)]
pub struct ChannelOptions {
    /// The engine knows who is subscribed.
    pub presence: bool,
    /// Joins and leaves are told to the subscribers that asked for them.
    pub join_leave: bool,
    /// And to those that did not ask.
    pub force_push_join_leave: bool,
    /// Publications kept at most; 0: no history.
    pub history_size: u32,
    /// How long after the last publication they are kept; 0: no history.
    #[serde(with = "humantime_serde")]
    pub history_ttl: Duration,
    /// How long after the last use offset and epoch are kept; 0: `channel.history_meta_ttl`.
    #[serde(with = "humantime_serde")]
    pub history_meta_ttl: Duration,
    /// The position of subscribers that ask for it is watched over.
    pub allow_positioning: bool,
    /// And of those that do not ask.
    pub force_positioning: bool,
    /// Subscribers that ask for it may recover.
    pub allow_recovery: bool,
    /// And those that do not ask.
    pub force_recovery: bool,
    /// What a subscriber gets that recovers.
    #[serde(with = "recovery_mode")]
    pub force_recovery_mode: RecoveryMode,
    /// With `force_recovery_mode` `cache`: every subscriber gets the newest publication, whether it
    /// asked to recover or not.
    pub auto_cache_recover: bool,
    /// Formats in which publications may come as deltas.
    pub allowed_delta_types: Vec<DeltaType>,
    /// What clients publish may come as deltas.
    pub delta_publish: bool,
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
    /// Clients may read the history.
    pub allow_history_for_client: bool,
    /// Clients may do so where they are subscribed; these may also recover.
    pub allow_history_for_subscriber: bool,
    /// Anonymous clients too, where one of the two holds.
    pub allow_history_for_anonymous: bool,
    /// `name#user1,user2` is for these users only.
    pub allow_user_limited_channels: bool,
    /// What the part of the name behind the namespace looks like; without one names are ASCII.
    pub channel_regex: ChannelPattern,
    /// What clients may publish.
    pub publication_data_format: DataFormat,
    /// The backend decides who may subscribe.
    pub subscribe_proxy_enabled: bool,
    /// Which of the backends; empty: the default one.
    pub subscribe_proxy_name: String,
    /// The backend decides what may be published.
    pub publish_proxy_enabled: bool,
    /// Which of the backends; empty: the default one.
    pub publish_proxy_name: String,
    /// The backend renews the credentials of subscriptions, instead of their clients.
    pub sub_refresh_proxy_enabled: bool,
    /// Which of the backends; empty: the default one.
    pub sub_refresh_proxy_name: String,
    /// Centrifugo's; only its default is taken.
    #[serde(deserialize_with = "unsupported::tags_filter", skip_serializing)]
    pub allow_tags_filter: (),
    /// Centrifugo's; only its default is taken.
    #[serde(deserialize_with = "unsupported::subscription_type", skip_serializing)]
    pub subscription_type: (),
    /// Centrifugo's; only its default is taken.
    #[serde(deserialize_with = "unsupported::map", skip_serializing)]
    pub map: (),
    /// Centrifugo's; only its default is taken.
    #[serde(deserialize_with = "unsupported::shared_poll", skip_serializing)]
    pub shared_poll: (),
}

/// A format of deltas.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DeltaType {
    /// Of the version control system of that name.
    #[serde(rename = "fossil")]
    Fossil,
}

/// What clients may publish in a channel; anything else is error 107.
///
/// Clients of the JSON format can send nothing but JSON. Clients of the Protobuf format can send any
/// bytes, which clients of the JSON format could not be given: a channel either takes JSON only and
/// serves everybody, or takes anything and serves clients of the Protobuf format alone. (Centrifugo
/// lets them publish any bytes in other channels as well, and closes the connections of JSON clients
/// that would have to be given them, 3506; here only the server's API gets that far.)
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum DataFormat {
    /// Any JSON value.
    #[default]
    #[serde(rename = "json", alias = "")]
    Json,
    /// A JSON object.
    #[serde(rename = "json_object")]
    JsonObject,
    /// Anything. Clients of the JSON format may publish, and nothing else: subscribing and reading
    /// the history is error 107 for them.
    #[serde(rename = "binary")]
    Binary,
}

/// Whether a client may do something: by the two switches for clients, and the one for clients
/// without a user.
const fn allows(
    client: bool,
    subscriber: bool,
    anonymous: bool,
    user: &str,
    subscribed: bool,
) -> bool {
    (client || (subscriber && subscribed)) && (anonymous || !user.is_empty())
}

impl ChannelOptions {
    /// Everything that needs no history, presence or backend is allowed to everybody: the demo
    /// configuration.
    #[must_use]
    pub fn open() -> Self {
        Self {
            join_leave: true,
            allow_subscribe_for_client: true,
            allow_subscribe_for_anonymous: true,
            allow_publish_for_client: true,
            allow_publish_for_subscriber: true,
            allow_publish_for_anonymous: true,
            allow_presence_for_client: true,
            allow_presence_for_subscriber: true,
            allow_presence_for_anonymous: true,
            allow_history_for_client: true,
            allow_history_for_subscriber: true,
            allow_history_for_anonymous: true,
            ..Self::default()
        }
    }

    /// Whether the options agree with one another.
    ///
    /// # Errors
    /// One line that names the option and what it needs.
    pub fn validate(&self) -> Result<(), String> {
        let has_history = self.has_history();
        for (is_set, name) in [
            (self.force_positioning, "force_positioning"),
            (self.force_recovery, "force_recovery"),
            (self.auto_cache_recover, "auto_cache_recover"),
        ] {
            if is_set && !has_history {
                return Err(format!(
                    "{name} = true: there is nothing to go by without history_size and history_ttl"
                ));
            }
        }
        if (self.history_size > 0) == self.history_ttl.is_zero() {
            return Err(format!(
                "history_size = {}, history_ttl = {:?}: a history needs both",
                self.history_size, self.history_ttl
            ));
        }
        if !self.history_meta_ttl.is_zero() && self.history_meta_ttl < self.history_ttl {
            return Err(format!(
                "history_meta_ttl = {:?}: at least history_ttl ({:?})",
                self.history_meta_ttl, self.history_ttl
            ));
        }
        if self.auto_cache_recover && self.force_recovery_mode != RecoveryMode::Cache {
            return Err(
                "auto_cache_recover = true: needs force_recovery_mode \"cache\"".to_owned(),
            );
        }
        Ok(())
    }

    /// Whether publications are kept.
    #[must_use]
    pub fn has_history(&self) -> bool {
        self.history_size > 0 && !self.history_ttl.is_zero()
    }

    /// Whether a client may subscribe by these switches alone.
    #[must_use]
    pub fn may_subscribe(&self, user: &str) -> bool {
        let Self {
            allow_subscribe_for_client,
            allow_subscribe_for_anonymous,
            ..
        } = *self;
        allows(
            allow_subscribe_for_client,
            false,
            allow_subscribe_for_anonymous,
            user,
            false,
        )
    }

    /// Whether a client may publish.
    #[must_use]
    pub fn may_publish(&self, user: &str, subscribed: bool) -> bool {
        allows(
            self.allow_publish_for_client,
            self.allow_publish_for_subscriber,
            self.allow_publish_for_anonymous,
            user,
            subscribed,
        )
    }

    /// Whether a client may ask who is there.
    #[must_use]
    pub fn may_see_presence(&self, user: &str, subscribed: bool) -> bool {
        allows(
            self.allow_presence_for_client,
            self.allow_presence_for_subscriber,
            self.allow_presence_for_anonymous,
            user,
            subscribed,
        )
    }

    /// Whether a client may read the history.
    #[must_use]
    pub fn may_read_history(&self, user: &str, subscribed: bool) -> bool {
        allows(
            self.allow_history_for_client,
            self.allow_history_for_subscriber,
            self.allow_history_for_anonymous,
            user,
            subscribed,
        )
    }
}

/// `force_recovery_mode` as text.
mod recovery_mode {
    use super::{Deserialize, Deserializer, RecoveryMode, Serializer};

    pub(super) fn serialize<S: Serializer>(
        mode: &RecoveryMode,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(match mode {
            RecoveryMode::Stream => "stream",
            RecoveryMode::Cache => "cache",
        })
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<RecoveryMode, D::Error> {
        match &*String::deserialize(deserializer)? {
            "" | "stream" => Ok(RecoveryMode::Stream),
            "cache" => Ok(RecoveryMode::Cache),
            other => Err(serde::de::Error::custom(format!(
                "force_recovery_mode `{other}`: stream or cache"
            ))),
        }
    }
}

/// Options of Centrifugo that do not exist here: a file may carry them with their default, and is
/// refused by the option's name otherwise.
mod unsupported {
    use serde::de::Error;
    use serde_json::Value;

    use super::{Deserialize, Deserializer};

    fn is_default(value: &Value) -> bool {
        match value {
            Value::Null => true,
            Value::Bool(is_set) => !is_set,
            Value::Number(number) => number.as_f64() == Some(0.0),
            Value::String(text) => text.is_empty(),
            Value::Array(values) => values.is_empty(),
            Value::Object(fields) => fields.values().all(is_default),
        }
    }

    fn only_default<'de, D: Deserializer<'de>>(
        deserializer: D,
        name: &str,
    ) -> Result<(), D::Error> {
        if is_default(&Value::deserialize(deserializer)?) {
            Ok(())
        } else {
            Err(D::Error::custom(format!(
                "`{name}` is not supported: leave it out"
            )))
        }
    }

    pub(super) fn tags_filter<'de, D: Deserializer<'de>>(deserializer: D) -> Result<(), D::Error> {
        only_default(deserializer, "allow_tags_filter")
    }

    pub(super) fn subscription_type<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<(), D::Error> {
        match Value::deserialize(deserializer)? {
            Value::String(text) if text == "stream" => Ok(()),
            value => only_default(value, "subscription_type").map_err(D::Error::custom),
        }
    }

    pub(super) fn map<'de, D: Deserializer<'de>>(deserializer: D) -> Result<(), D::Error> {
        only_default(deserializer, "map")
    }

    pub(super) fn shared_poll<'de, D: Deserializer<'de>>(deserializer: D) -> Result<(), D::Error> {
        only_default(deserializer, "shared_poll")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn only(set: impl FnOnce(&mut ChannelOptions)) -> ChannelOptions {
        let mut options = ChannelOptions::default();
        set(&mut options);
        options
    }

    fn read(text: &str) -> Result<ChannelOptions, String> {
        serde_json::from_str(text).map_err(|error| error.to_string())
    }

    #[test]
    fn nothing_is_allowed_unless_switched_on() {
        let closed = ChannelOptions::default();
        for user in ["", "42"] {
            assert!(!closed.may_subscribe(user));
            assert!(!closed.may_publish(user, true));
            assert!(!closed.may_see_presence(user, true));
            assert!(!closed.may_read_history(user, true));
        }
        assert!(!closed.has_history());
    }

    #[test]
    fn anonymous_clients_need_their_own_switch() {
        let options = only(|options| {
            options.allow_subscribe_for_client = true;
            options.allow_publish_for_subscriber = true;
            options.allow_history_for_client = true;
        });
        assert!(options.may_subscribe("42"));
        assert!(!options.may_subscribe(""));
        assert!(options.may_publish("42", true));
        assert!(!options.may_publish("42", false));
        assert!(!options.may_publish("", true));
        assert!(options.may_read_history("42", false));
        assert!(!options.may_read_history("", true));
        // The switch for anonymous clients alone opens nothing.
        let options = only(|options| {
            options.allow_subscribe_for_anonymous = true;
            options.allow_publish_for_anonymous = true;
            options.allow_presence_for_anonymous = true;
            options.allow_history_for_anonymous = true;
        });
        assert!(!options.may_subscribe(""));
        assert!(!options.may_publish("", true));
        assert!(!options.may_see_presence("", true));
        assert!(!options.may_read_history("", true));
    }

    #[test]
    fn options_are_read_as_centrifugo_writes_them() {
        let options = read(
            r#"{"history_size":100,"history_ttl":"300s","history_meta_ttl":"720h",
                "force_recovery":true,"force_recovery_mode":"cache","auto_cache_recover":true,
                "allowed_delta_types":["fossil"],"channel_regex":"^[a-z]+$",
                "publication_data_format":"json_object","allow_tags_filter":false,
                "subscription_type":"","map":{},"shared_poll":{"refresh_interval":0}}"#,
        )
        .expect("Centrifugo's");
        assert_eq!(options.validate(), Ok(()));
        assert!(options.has_history());
        assert_eq!(options.history_ttl, Duration::from_secs(300));
        assert_eq!(options.history_meta_ttl, Duration::from_secs(720 * 3600));
        assert_eq!(options.force_recovery_mode, RecoveryMode::Cache);
        assert_eq!(options.allowed_delta_types, [DeltaType::Fossil]);
        assert_eq!(options.publication_data_format, DataFormat::JsonObject);
        // What is printed can be read again.
        let text = serde_json::to_string(&options).expect("plain data");
        assert_eq!(read(&text), Ok(options));
    }

    #[test]
    fn what_is_not_supported_is_refused_by_name() {
        for (text, name) in [
            (r#"{"allow_tags_filter":true}"#, "allow_tags_filter"),
            (r#"{"subscription_type":"map"}"#, "subscription_type"),
            (r#"{"map":{"mode":"ephemeral"}}"#, "map"),
            (
                r#"{"shared_poll":{"refresh_interval":"1s"}}"#,
                "shared_poll",
            ),
            (r#"{"allowed_delta_types":["xdelta"]}"#, "xdelta"),
            (r#"{"force_recovery_mode":"all"}"#, "force_recovery_mode"),
            (r#"{"channel_regex":"("}"#, "channel_regex"),
            (r#"{"publication_data_format":"xml"}"#, "xml"),
            (r#"{"histroy_size":1}"#, "histroy_size"),
        ] {
            let error = read(text).expect_err(text);
            assert!(error.contains(name), "{error}");
        }
    }

    #[test]
    fn options_that_contradict_each_other_are_named() {
        type Set = fn(&mut ChannelOptions);
        let cases: [(Set, &str); 5] = [
            (|options| options.force_recovery = true, "force_recovery"),
            (
                |options| options.force_positioning = true,
                "force_positioning",
            ),
            (|options| options.history_size = 1, "history_ttl"),
            (
                |options| options.history_ttl = Duration::from_secs(1),
                "history_size",
            ),
            (
                |options| {
                    options.history_size = 1;
                    options.history_ttl = Duration::from_secs(60);
                    options.history_meta_ttl = Duration::from_secs(59);
                },
                "history_meta_ttl",
            ),
        ];
        for (set, name) in cases {
            let error = only(set).validate().expect_err(name);
            assert!(error.contains(name), "{error}");
        }
    }
}

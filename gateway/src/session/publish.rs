//! Publications of clients.

use std::borrow::Cow;
use std::rc::Rc;
use std::time::Instant;

use super::commands::{Denied, channel_options};
use super::particulars::Asking;
use super::{ChannelOptions, DataFormat, Effect, Session};
use crate::authority::{PublishGrant, QuestionKind};
use crate::engine::PublishOptions;
use crate::protocol::command::PublishRequest;
use crate::protocol::{Disconnect, ErrorCode, Reply, Tags, json};
use crate::pubsub::{MessageRef, StreamPosition};

impl Session {
    pub(super) fn publish(
        &mut self,
        id: u32,
        request: &PublishRequest<'_>,
        now: Instant,
        effect: &mut impl FnMut(Effect<'_>),
    ) -> Result<(), Denied> {
        let channel = &*request.channel;
        if request.data.is_empty() {
            return Err(Disconnect::BAD_REQUEST.into());
        }
        let config = Rc::clone(&self.config);
        let options = channel_options(&config, channel)?;
        let asks_backend = options.publish_proxy_enabled && !config.insecure;
        // A subscribe that waits passed the same rules, and the engine gets it first.
        let subscribed = self.subscriptions.contains(channel);
        if !asks_backend && !config.insecure && !options.may_publish(self.user(), subscribed) {
            return Err(ErrorCode::PermissionDenied.into());
        }
        if request.kind != 0 {
            return Err(ErrorCode::NotAvailable.into());
        }
        if let Some(rate) = config.limits.publishes_rate
            && !self.more().publishes.take(rate, now)
        {
            return Err(ErrorCode::TooManyRequests.into());
        }
        // The decoder lets nothing else through from a JSON client.
        let is_json = self.is_json();
        let data = acceptable(options.publication_data_format, &request.data, is_json)
            .ok_or(ErrorCode::BadRequest)?;
        if !asks_backend {
            return self.publish_data(id, channel, &data, options, false, effect);
        }
        let question = QuestionKind::Publish {
            channel: channel.to_owned(),
            data: data.to_vec(),
        };
        let asking = Asking::Publish {
            id,
            channel: channel.into(),
            data: data.into_owned(),
        };
        self.ask(asking, question, effect);
        Ok(())
    }

    /// The backend lets the client publish.
    pub(super) fn publish_granted(
        &mut self,
        id: u32,
        channel: &str,
        data: &[u8],
        grant: &PublishGrant,
        effect: &mut impl FnMut(Effect<'_>),
    ) -> Result<(), Denied> {
        let config = Rc::clone(&self.config);
        let options = channel_options(&config, channel)?;
        let data = match &grant.data {
            None => Cow::Borrowed(data),
            // What the backend makes of it has to fit too.
            Some(data) => acceptable(options.publication_data_format, data, false)
                .ok_or(ErrorCode::Internal)?,
        };
        self.publish_data(id, channel, &data, options, grant.skip_history, effect)
    }

    fn publish_data(
        &mut self,
        id: u32,
        channel: &str,
        data: &[u8],
        options: &ChannelOptions,
        skip_history: bool,
        effect: &mut impl FnMut(Effect<'_>),
    ) -> Result<(), Denied> {
        self.hand_over()?;
        let chan_info = self
            .subscriptions
            .get(channel)
            .map_or(&b""[..], |subscription| subscription.chan_info());
        let history = self.config.channels.history(options);
        effect(Effect::Publish {
            id,
            channel,
            message: MessageRef::Publication {
                data,
                info: Some(self.info(chan_info)),
                tags: Tags::NONE,
                delta: options.delta_publish,
            },
            options: PublishOptions {
                history: history.filter(|_| !skip_history),
                ..PublishOptions::default()
            },
        });
        Ok(())
    }

    /// The engine's answer to [`Effect::Publish`].
    pub fn on_published(
        &mut self,
        id: u32,
        result: Result<Option<StreamPosition>, ErrorCode>,
        out: &mut Vec<u8>,
    ) {
        if !self.is_answer_wanted() {
            return;
        }
        // Clients are not told the offset of what they publish: the publication itself has it.
        let reply = result.map_or_else(Reply::from, |_| Reply::Publish);
        self.reply(out, id, &reply);
        self.settle();
    }
}

/// What becomes of data from a client: JSON on one line, or in a channel that takes anything, as it
/// is. None: it does not fit the channel. `is_json`: it is known to be JSON on one line.
fn acceptable(format: DataFormat, data: &[u8], is_json: bool) -> Option<Cow<'_, [u8]>> {
    let line = match format {
        DataFormat::Binary => return Some(Cow::Borrowed(data)),
        DataFormat::Json | DataFormat::JsonObject if is_json => Cow::Borrowed(data),
        DataFormat::Json | DataFormat::JsonObject => json_line(data)?,
    };
    let is_object = || {
        let first = line.iter().find(|byte| !byte.is_ascii_whitespace());
        first == Some(&b'{')
    };
    (format == DataFormat::Json || is_object()).then_some(line)
}

/// A JSON value on one line; none where it is none.
pub(super) fn json_line(data: &[u8]) -> Option<Cow<'_, [u8]>> {
    json::is_value(data).then(|| json::on_one_line(data))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_fits_the_channel_or_is_refused() {
        let fits = |format, data: &'static [u8]| acceptable(format, data, false);
        assert_eq!(
            fits(DataFormat::Binary, b"\xff").as_deref(),
            Some(&b"\xff"[..])
        );
        for bad in [&b"\xff"[..], b"{", b"", b"{} {}", b"\"a\nb\""] {
            assert_eq!(fits(DataFormat::Json, bad), None, "{bad:?}");
        }
        assert_eq!(
            fits(DataFormat::Json, b"[1,\n2]").as_deref(),
            Some(&b"[1, 2]"[..])
        );
        assert_eq!(fits(DataFormat::JsonObject, b"[1]"), None);
        assert!(fits(DataFormat::JsonObject, b" {\"a\":1}").is_some());
        assert_eq!(acceptable(DataFormat::JsonObject, b"1", true), None);
    }
}

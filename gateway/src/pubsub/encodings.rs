//! The encodings of one message, each made once, when the first variant needs it.
//!
//! | form | data in JSON | data in Protobuf |
//! |---|---|---|
//! | plain | the JSON value | the bytes |
//! | whole, for subscribers that understand deltas | the payload as a JSON string | as plain |
//! | delta | the delta as a JSON string | the delta |

use std::borrow::Cow;

use super::{MessageRef, Variant, Wire};
use crate::protocol::{ClientInfo, Push, WireFormat, delta, json};

/// A message, and all that its encodings depend on.
#[derive(Clone, Copy)]
pub(super) struct Content<'m> {
    pub(super) channel: &'m str,
    pub(super) message: MessageRef<'m>,
    /// 0 without history.
    pub(super) offset: u64,
    /// The payload before this one, where that is known.
    pub(super) previous: Option<&'m [u8]>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Plain,
    Whole,
    Delta,
}

struct Encoding {
    format: WireFormat,
    unidirectional: bool,
    form: Form,
    bytes: Vec<u8>,
}

/// The encodings of the message at hand; their memory serves the next one.
#[derive(Default)]
pub(super) struct Encodings {
    made: Vec<Encoding>,
    pub(super) used: usize,
    /// Whether JSON clients can have the message; none while nobody has asked.
    is_json: Option<bool>,
    /// Whether there is a delta; none while nobody has asked.
    has_delta: Option<bool>,
    delta: Vec<u8>,
    encoder: delta::Encoder,
    quoted: Vec<u8>,
}

impl Encodings {
    /// Forgets the last message.
    pub(super) fn begin(&mut self) {
        self.used = 0;
        self.is_json = None;
        self.has_delta = None;
    }

    /// Whether clients of `variant` can have the message: not where they want JSON and it is none.
    pub(super) fn is_appropriate(&mut self, content: &Content<'_>, variant: Variant) -> bool {
        let message = &content.message;
        variant.wire.format != WireFormat::Json
            || *self.is_json.get_or_insert_with(|| is_json(message))
    }

    /// The message as `variant` has it when nothing is known to the client: but for the framing.
    pub(super) fn whole(&mut self, content: &Content<'_>, variant: Variant) -> &[u8] {
        // Protobuf has the payload's bytes either way.
        let form = match variant.delta && variant.wire.format == WireFormat::Json {
            false => Form::Plain,
            true => Form::Whole,
        };
        self.of(content, variant.wire, form)
    }

    /// The message as a delta against the one before, where `variant` has deltas, the publisher
    /// wants one, and it is smaller than the message.
    pub(super) fn delta(&mut self, content: &Content<'_>, variant: Variant) -> Option<&[u8]> {
        if !variant.delta || !content.message.wants_delta() {
            return None;
        }
        let previous = content.previous?;
        let has_delta = *self.has_delta.get_or_insert_with(|| {
            self.delta.clear();
            let payload = content.message.payload();
            self.encoder.encode(previous, payload, &mut self.delta)
        });
        has_delta.then(|| self.of(content, variant.wire, Form::Delta))
    }

    fn of(&mut self, content: &Content<'_>, wire: Wire, form: Form) -> &[u8] {
        let same = |made: &Encoding| {
            (made.format, made.unidirectional, made.form)
                == (wire.format, wire.unidirectional, form)
        };
        let at = match self.made[..self.used].iter().position(same) {
            Some(at) => at,
            None => self.make(content, wire, form),
        };
        &self.made[at].bytes
    }

    fn make(&mut self, content: &Content<'_>, wire: Wire, form: Form) -> usize {
        let at = self.used;
        self.used += 1;
        if at == self.made.len() {
            self.made.push(Encoding {
                format: wire.format,
                unidirectional: wire.unidirectional,
                form,
                bytes: Vec::new(),
            });
        }
        let new = &mut self.made[at];
        new.format = wire.format;
        new.unidirectional = wire.unidirectional;
        new.form = form;
        new.bytes.clear();

        let payload = match form {
            Form::Plain | Form::Whole => content.message.payload(),
            Form::Delta => &self.delta,
        };
        let data = match (wire.format, form) {
            (WireFormat::Protobuf, _) => Cow::Borrowed(payload),
            (WireFormat::Json, Form::Plain) => json::on_one_line(payload),
            (WireFormat::Json, Form::Whole | Form::Delta) => {
                self.quoted.clear();
                // Text: the payload has been found to be JSON, and a delta of text is text.
                let text = std::str::from_utf8(payload).unwrap_or_default();
                json::encode_text(&mut self.quoted, text);
                Cow::Borrowed(&*self.quoted)
            }
        };
        let info = content.message.info().map(|info| Lines::of(info, wire));
        let message = match content.message {
            MessageRef::Publication { tags, delta, .. } => MessageRef::Publication {
                data: &data,
                info: info.as_ref().map(Lines::as_info),
                tags,
                delta,
            },
            MessageRef::Join(was) => MessageRef::Join(info.as_ref().map_or(was, Lines::as_info)),
            MessageRef::Leave(was) => MessageRef::Leave(info.as_ref().map_or(was, Lines::as_info)),
        };
        let mut push = message.push(content.channel, content.offset);
        if let Push::Publication { publication, .. } = &mut push {
            publication.delta = form == Form::Delta;
        }
        wire.push(&mut new.bytes, &push);
        at
    }
}

/// A client's info with what it says on one line where it goes to JSON clients.
struct Lines<'i> {
    info: ClientInfo<'i>,
    conn_info: Cow<'i, [u8]>,
    chan_info: Cow<'i, [u8]>,
}

impl<'i> Lines<'i> {
    fn of(info: ClientInfo<'i>, wire: Wire) -> Self {
        let line = |value| match wire.format {
            WireFormat::Json => json::on_one_line(value),
            WireFormat::Protobuf => Cow::Borrowed(value),
        };
        Self {
            conn_info: line(info.conn_info),
            chan_info: line(info.chan_info),
            info,
        }
    }

    fn as_info(&self) -> ClientInfo<'_> {
        ClientInfo {
            conn_info: &self.conn_info,
            chan_info: &self.chan_info,
            ..self.info
        }
    }
}

/// Whether everything in it that JSON clients would get as JSON is JSON: what comes from a Protobuf
/// client or from another process may be anything, and would break their frames.
fn is_json(message: &MessageRef<'_>) -> bool {
    let is_data_json = match message {
        MessageRef::Publication { data, .. } => json::is_value(data),
        MessageRef::Join(_) | MessageRef::Leave(_) => true,
    };
    is_data_json
        && message.info().is_none_or(|info| {
            [info.conn_info, info.chan_info]
                .iter()
                .all(|value| value.is_empty() || json::is_value(value))
        })
}

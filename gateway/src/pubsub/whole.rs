//! A publication that was handed out as a delta, for those who have had none that it could be a
//! delta of.
//!
//! Only newcomers need it, and only for their first publication: so it travels as the message, and
//! the shard with the newcomer encodes it.

use flux_runtime::log::{LogSlice, LogWriter};

use super::encodings::{Content, Encodings};
use super::{Message, Variant};

/// What a delta stands for, not encoded yet.
#[derive(Debug, Clone)]
pub struct Whole {
    message: Message,
    variant: Variant,
}

impl Whole {
    /// `message`, for those who listen to `variant`.
    pub(super) fn new(message: Message, variant: Variant) -> Self {
        Self { message, variant }
    }

    /// Bytes of memory that it keeps.
    pub fn size(&self) -> usize {
        self.message.size()
    }

    /// The message as the variant has it when nothing is known to the client, ready for the socket.
    /// `offset`: its place in the channel's history, 0 for what has none.
    pub fn encode(&self, offset: u64) -> LogSlice {
        let content = Content {
            channel: self.message.channel(),
            message: self.message.as_ref(),
            offset,
            previous: None,
        };
        let mut encodings = Encodings::default();
        let encoded = encodings.whole(&content, self.variant);
        self.variant.wire.append(&mut LogWriter::new(), encoded)
    }
}

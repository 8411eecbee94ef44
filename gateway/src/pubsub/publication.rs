//! What travels through a channel.

use flux_runtime::log::{LogSlice, LogWriter};

use crate::protocol::{ClientId, ClientInfo, Publication, Push, Tags};

/// What kind of push a message becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MessageKind {
    /// Data that somebody published.
    Publication,
    /// A client has subscribed.
    Join,
    /// A client has left.
    Leave,
}

/// A message in its publisher's memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MessageRef<'a> {
    /// Data that somebody published.
    Publication {
        /// The payload: a JSON value on one line, unless a Protobuf client or the server's API put
        /// other bytes there.
        data: &'a [u8],
        /// Who published it, where that was a client.
        info: Option<ClientInfo<'a>>,
        /// What the publisher attached.
        tags: Tags<'a>,
        /// Whether subscribers that understand deltas may get it as one.
        delta: bool,
    },
    /// A client has subscribed.
    Join(ClientInfo<'a>),
    /// A client has left.
    Leave(ClientInfo<'a>),
}

impl<'a> MessageRef<'a> {
    /// A publication of nothing but a payload.
    #[must_use]
    pub fn data(data: &'a [u8]) -> Self {
        Self::Publication {
            data,
            info: None,
            tags: Tags::NONE,
            delta: false,
        }
    }

    /// What it is.
    pub fn kind(&self) -> MessageKind {
        match self {
            Self::Publication { .. } => MessageKind::Publication,
            Self::Join(_) => MessageKind::Join,
            Self::Leave(_) => MessageKind::Leave,
        }
    }

    /// The payload; empty for join and leave.
    pub fn payload(&self) -> &'a [u8] {
        match self {
            Self::Publication { data, .. } => data,
            Self::Join(_) | Self::Leave(_) => b"",
        }
    }

    /// Who published, came or went.
    pub fn info(&self) -> Option<ClientInfo<'a>> {
        match self {
            Self::Publication { info, .. } => *info,
            Self::Join(info) | Self::Leave(info) => Some(*info),
        }
    }

    /// What the publisher attached.
    pub fn tags(&self) -> Tags<'a> {
        match self {
            Self::Publication { tags, .. } => *tags,
            Self::Join(_) | Self::Leave(_) => Tags::NONE,
        }
    }

    /// Whether subscribers that understand deltas may get it as one.
    pub fn wants_delta(&self) -> bool {
        matches!(self, Self::Publication { delta: true, .. })
    }

    /// Length of its parts in bytes.
    pub fn size(&self) -> usize {
        let info = self.info().map_or(0, |info| {
            size_of::<ClientId>() + info.user.len() + info.conn_info.len() + info.chan_info.len()
        });
        self.payload().len() + self.tags().packed().len() + info
    }

    /// The push that subscribers of `channel` get. `offset` is its place in the history, 0 without.
    pub fn push(self, channel: &'a str, offset: u64) -> Push<'a> {
        match self {
            Self::Publication {
                data, info, tags, ..
            } => Push::Publication {
                channel,
                publication: Publication {
                    data,
                    info,
                    offset,
                    tags,
                    delta: false,
                },
            },
            Self::Join(info) => Push::Join { channel, info },
            Self::Leave(info) => Push::Leave { channel, info },
        }
    }

    /// Copies it and its channel's name into `arena`, from where both may travel to another thread.
    /// The arena gives memory for many messages at once, so a message costs no allocation of its
    /// own.
    pub fn store(&self, arena: &mut LogWriter, channel: &str) -> Message {
        let (name, data, tags) = (channel.as_bytes(), self.payload(), self.tags().packed());
        let (bytes, info) = match self.info() {
            None => (arena.append(&[name, data, tags]), None),
            Some(info) => (
                arena.append(&[
                    name,
                    data,
                    tags,
                    info.user.as_bytes(),
                    info.conn_info,
                    info.chan_info,
                ]),
                Some(StoredInfo {
                    client: info.client,
                    user_len: info.user.len() as u32,
                    conn_info_len: info.conn_info.len() as u32,
                }),
            ),
        };
        Message {
            kind: self.kind(),
            delta: self.wants_delta(),
            // At most `TAGS_BYTES_MAX`.
            tags_len: tags.len() as u16,
            channel_len: channel.len() as u32,
            data_len: data.len() as u32,
            info,
            bytes,
        }
    }
}

/// Who a client is, in memory of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnedClientInfo {
    /// Id of the connection.
    pub client: ClientId,
    /// Id of the user, empty for an anonymous client.
    pub user: Box<str>,
    /// What the connection's credentials say: JSON on one line, empty without.
    pub conn_info: Box<[u8]>,
    /// What the subscription's credentials say: JSON on one line, empty without.
    pub chan_info: Box<[u8]>,
}

impl OwnedClientInfo {
    /// As the protocol has it.
    #[must_use]
    pub fn as_ref(&self) -> ClientInfo<'_> {
        ClientInfo {
            user: &self.user,
            client: self.client,
            conn_info: &self.conn_info,
            chan_info: &self.chan_info,
        }
    }
}

impl From<ClientInfo<'_>> for OwnedClientInfo {
    fn from(info: ClientInfo<'_>) -> Self {
        Self {
            client: info.client,
            user: info.user.into(),
            conn_info: info.conn_info.into(),
            chan_info: info.chan_info.into(),
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct StoredInfo {
    client: ClientId,
    user_len: u32,
    conn_info_len: u32,
}

/// A message on its way between threads.
#[derive(Debug, Clone)]
pub struct Message {
    kind: MessageKind,
    delta: bool,
    tags_len: u16,
    channel_len: u32,
    data_len: u32,
    info: Option<StoredInfo>,
    /// Channel, data, tags, user, connection info, channel info.
    bytes: LogSlice,
}

impl Message {
    /// The name of its channel.
    pub fn channel(&self) -> &str {
        // It was text when it was stored.
        std::str::from_utf8(&self.bytes.as_bytes()[..self.channel_len as usize]).unwrap_or_default()
    }

    /// Its parts.
    pub fn as_ref(&self) -> MessageRef<'_> {
        let rest = &self.bytes.as_bytes()[self.channel_len as usize..];
        let (data, rest) = rest.split_at(self.data_len as usize);
        let (tags, rest) = rest.split_at(usize::from(self.tags_len));
        let info = self.info.map(|info| {
            let (user, rest) = rest.split_at(info.user_len as usize);
            let (conn_info, chan_info) = rest.split_at(info.conn_info_len as usize);
            ClientInfo {
                // It was text when it was stored.
                user: std::str::from_utf8(user).unwrap_or_default(),
                client: info.client,
                conn_info,
                chan_info,
            }
        });
        match (self.kind, info) {
            (MessageKind::Join, Some(info)) => MessageRef::Join(info),
            (MessageKind::Leave, Some(info)) => MessageRef::Leave(info),
            (_, info) => MessageRef::Publication {
                data,
                info,
                tags: Tags::packed_before(tags),
                delta: self.delta,
            },
        }
    }

    /// Length of its parts and of the channel's name in bytes.
    pub fn size(&self) -> usize {
        self.bytes.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::tags;

    #[test]
    fn a_stored_message_comes_back_whole() {
        let mut arena = LogWriter::new();
        let info = ClientInfo {
            user: "u",
            client: ClientId::from_random(7),
            conn_info: b"{\"a\":1}",
            chan_info: b"2",
        };
        let packed = tags::pack([("a", "1"), ("b", "")]).expect("few");
        let tags = Tags::from_packed(&packed).expect("as packed");
        let messages = [
            MessageRef::Publication {
                data: b"[1,2]",
                info: Some(info),
                tags,
                delta: true,
            },
            MessageRef::Publication {
                data: b"\xff",
                info: None,
                tags,
                delta: false,
            },
            MessageRef::data(b"{}"),
            MessageRef::Join(info),
            MessageRef::Leave(info),
        ];
        for message in messages {
            let stored = message.store(&mut arena, "ch");
            assert_eq!((stored.channel(), stored.as_ref()), ("ch", message));
        }
    }
}

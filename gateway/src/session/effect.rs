//! What a session asks of the shard that runs it.

use crate::protocol::{ClientInfo, Disconnect};

/// An effect of a command, an answer or the time on the world outside the session. They have to be
/// carried out in the order in which they come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect<'a> {
    /// Subscribe this client. Answer with
    /// [`Session::on_subscribed`](crate::session::Session::on_subscribed); no publication may
    /// reach the client before the reply that this writes, and none that is published after this
    /// effect should be missed once it is answered.
    Subscribe {
        /// The command's id, which belongs into the answer.
        id: u32,
        /// Passed the channel rules.
        channel: &'a str,
        /// Whether the client gets the channel's join and leave pushes.
        join_leave: bool,
    },
    /// End a subscription, or the attempt: a pending [`Effect::Subscribe`] needs no answer any
    /// more.
    Unsubscribe {
        /// The name given when subscribing.
        channel: &'a str,
    },
    /// Publish. Answer with [`Session::on_published`](crate::session::Session::on_published).
    Publish {
        /// The command's id, which belongs into the answer.
        id: u32,
        /// Passed the channel rules.
        channel: &'a str,
        /// The payload; from a JSON client a value on one line.
        data: &'a [u8],
        /// Who publishes.
        info: ClientInfo<'a>,
    },
    /// Tell the channel's subscribers that this client came. No answer.
    Join {
        /// Where.
        channel: &'a str,
        /// Who.
        info: ClientInfo<'a>,
    },
    /// Tell the channel's subscribers that this client left. No answer.
    Leave {
        /// Where.
        channel: &'a str,
        /// Who.
        info: ClientInfo<'a>,
    },
    /// A message to the backend. No answer; nobody listens yet, so it is counted and dropped.
    Message {
        /// The payload; from a JSON client a value on one line.
        data: &'a [u8],
    },
    /// Send what the call wrote, then close the connection. Always the last effect.
    Close(Disconnect<'a>),
}

//! What a session asks of the shard that runs it.

use crate::authority::{Notice, Question};
use crate::engine::PublishOptions;
use crate::engine::history::{HistoryOptions, HistoryQuery, Recovery, RecoveryRequest};
use crate::protocol::{ClientId, ClientInfo, Disconnect};
use crate::pubsub::{MessageRef, StreamPosition};

/// An effect of a command, an answer or the time on the world outside the session. They have to be
/// carried out in the order in which they come.
#[derive(Clone, Debug)]
pub enum Effect<'a> {
    /// Subscribe this client. Answer with
    /// [`Session::on_subscribed`](crate::session::Session::on_subscribed); no publication may
    /// reach the client before the reply that this writes, and none that is published after this
    /// effect should be missed once it is answered. While
    /// [`Session::holds_publications`](crate::session::Session::holds_publications), publications
    /// of channels that are answered already wait too.
    Subscribe {
        /// The command's id, which belongs into the answer; 0: the server subscribes the client.
        id: u32,
        /// Passed the channel rules.
        channel: &'a str,
        /// Whether the client gets the channel's join and leave pushes.
        join_leave: bool,
        /// Whether the client gets publications as deltas.
        delta: bool,
        /// How the channel's history is kept; none: it has none.
        history: Option<HistoryOptions>,
        /// What the client missed belongs into the answer too.
        recover: Option<RecoveryRequest>,
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
        /// The publication.
        message: MessageRef<'a>,
        /// Whether and how it is kept.
        options: PublishOptions<'a>,
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
    /// This client is present in the channel; once more: with another info. No answer.
    Enter {
        /// Where.
        channel: &'a str,
        /// Who.
        info: ClientInfo<'a>,
    },
    /// This client is no longer present in the channel. No answer.
    Exit {
        /// Where.
        channel: &'a str,
        /// Who.
        client: ClientId,
    },
    /// Read the channel's past. Answer with
    /// [`Session::on_history`](crate::session::Session::on_history).
    History {
        /// The command's id, which belongs into the answer.
        id: u32,
        /// Passed the channel rules.
        channel: &'a str,
        /// Which part of it.
        query: HistoryQuery,
        /// How it is kept.
        options: HistoryOptions,
    },
    /// Find out who is present. Answer with
    /// [`Session::on_presence`](crate::session::Session::on_presence).
    Presence {
        /// The command's id, which belongs into the answer.
        id: u32,
        /// Passed the channel rules.
        channel: &'a str,
    },
    /// Find out how many are present. Answer with
    /// [`Session::on_presence_stats`](crate::session::Session::on_presence_stats).
    PresenceStats {
        /// The command's id, which belongs into the answer.
        id: u32,
        /// Passed the channel rules.
        channel: &'a str,
    },
    /// Ask the authority. Answer with
    /// [`Session::on_answer`](crate::session::Session::on_answer), once for each question and in
    /// any order.
    Ask(Question),
    /// Tell the backend. No answer.
    Notify(Notice),
    /// The client has connected; its reply is written. No answer.
    Connected {
        /// Whom calls of the server's API find it by; empty: nobody in particular.
        user: &'a str,
    },
    /// A message to the backend (`send`). No answer; nobody listens yet, so it is counted and
    /// dropped.
    Message {
        /// The payload; from a JSON client a value on one line.
        data: &'a [u8],
    },
    /// Send what the call wrote, then close the connection. Always the last effect.
    Close(Disconnect<'a>),
}

/// The engine's good news for [`Effect::Subscribe`].
#[derive(Clone, Copy, Debug, Default)]
pub struct Subscribed<'a> {
    /// Where the client begins in the channel's history; none: the channel has none.
    pub position: Option<StreamPosition>,
    /// What it missed, where it asked: then `position` is the recovery's.
    pub recovery: Option<&'a Recovery>,
}

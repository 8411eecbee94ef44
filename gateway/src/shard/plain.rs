//! Requests on the client port that the control plane answers: the server API where it is external,
//! and emulation for another node. The shard reads them whole, bounded, and hands them over; no
//! socket crosses threads.

use flux_runtime::mailbox::Sender;
use tokio::sync::mpsc;

/// Requests of one shard that the control plane has not answered yet; beyond it 503.
pub const PLAIN_REQUESTS_MAX: usize = 256;

/// A whole request.
#[derive(Debug)]
pub struct PlainRequest {
    /// What is asked.
    pub kind: PlainKind,
    /// Where the answer goes.
    pub answer: PlainReply,
}

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PlainKind {
    /// A request under `/api`.
    Api(ApiRequest),
    /// Commands for a session of another node. Answer with 204, also where there is no such
    /// session, or 404 where there is no such node.
    Emulation {
        /// The node's id.
        node: String,
        /// The session's text.
        session: String,
        /// A frame of commands in the session's wire format.
        data: Vec<u8>,
    },
}

/// A request under `/api`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ApiRequest {
    /// As sent.
    pub method: String,
    /// As sent, for example `/api/publish?api_key=K`.
    pub path_and_query: String,
    /// Names in lower case. Only those that the API reads: `authorization`, `content-type`,
    /// `x-api-key`, `x-centrifugo-error-mode`.
    pub headers: Vec<(&'static str, String)>,
    /// At most `http_api`'s bound in bytes.
    pub body: Vec<u8>,
}

/// What is answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlainAnswer {
    /// HTTP status.
    pub status: u16,
    /// May be empty where the body is.
    pub content_type: String,
    /// The whole body.
    pub body: Vec<u8>,
}

/// The way back to the connection that asked. Dropped without an answer it answers 503.
#[derive(Debug)]
pub struct PlainReply {
    connection: u64,
    sender: Option<Sender<PlainAnswered>>,
}

/// An answer on its way to its connection.
#[derive(Debug)]
pub struct PlainAnswered {
    /// As asked with.
    pub connection: u64,
    /// What is answered.
    pub answer: PlainAnswer,
}

impl PlainReply {
    /// For tests of whoever answers: the answer arrives in the mailbox.
    #[must_use]
    pub fn new(connection: u64, sender: Sender<PlainAnswered>) -> Self {
        Self {
            connection,
            sender: Some(sender),
        }
    }

    /// Answers.
    pub fn answer(mut self, answer: PlainAnswer) {
        self.give(answer);
    }

    fn give(&mut self, answer: PlainAnswer) {
        if let Some(sender) = self.sender.take() {
            let connection = self.connection;
            // There is room: a shard has no more requests out than its mailbox holds.
            let _ = sender.try_send(PlainAnswered { connection, answer });
        }
    }
}

impl Drop for PlainReply {
    fn drop(&mut self) {
        self.give(PlainAnswer {
            status: 503,
            content_type: "text/plain; charset=utf-8".to_owned(),
            body: b"The request was dropped unanswered: try again.\n".to_vec(),
        });
    }
}

/// The end of the control plane.
pub type PlainRequests = mpsc::Receiver<PlainRequest>;

/// Answers every request with 404 until the shards are gone: for a node that has nothing to ask.
pub async fn refuse_all(mut requests: PlainRequests) {
    while let Some(PlainRequest { answer, .. }) = requests.recv().await {
        answer.answer(PlainAnswer {
            status: 404,
            content_type: "text/plain; charset=utf-8".to_owned(),
            body: b"There is nothing here.\n".to_vec(),
        });
    }
}

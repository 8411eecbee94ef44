//! Between nodes: what one node asks of all, or of one, and who did not answer.
//!
//! | what | file |
//! |---|---|
//! | what can be asked, and what is reported | `operation` (pure) |
//! | the documents on the way | `document` (pure) |
//! | this node's part | `local` |
//! | who is still to answer what | `waiting` (pure) |
//! | where in a Redis deployment the documents travel | `place` |
//! | the connection: made, watched, made again | `link` |
//! | counters | `metrics` |
//!
//! Requests to all nodes travel on `PREFIX.control`, those to one node and all answers on
//! `PREFIX.node.ID`. Which nodes there are is known from the registry: an answer is waited for as
//! long as one of them is missing, and no longer than [`PATIENCE`]; those that are missing then are
//! named. Without Redis there is this node alone.
//!
//! Invariants
//! - A node carries out what it is asked at most once for each document; Redis gives a document to
//!   a connected node once, and to a node that is not connected never.
//! - Nothing is kept for a node that is away: it is named as missing instead.
//! - Everything that waits is bounded: requests of this node ([`ASKED_MAX`]), documents not looked
//!   at yet ([`RECEIVED_MAX`]), operations under way for others ([`PERFORMED_MAX`]).

mod document;
mod link;
mod local;
mod metrics;
pub mod operation;
mod place;
mod waiting;

use std::sync::Arc;
use std::time::{Duration, Instant};

use flux_registry::{RedisDeployment, Snapshot};
use tokio::sync::{mpsc, oneshot, watch};

pub use document::{DOCUMENT_BYTES_MAX, Document, Refused};
pub use local::LocalNode;
pub use metrics::BusMetrics;

use self::link::Link;
use self::operation::{Found, Operation, Report};
use self::waiting::Gathered;

/// How long other nodes may take to answer.
pub const PATIENCE: Duration = Duration::from_secs(2);
/// How long Redis may take to take a message; beyond it the connection is replaced.
const IO_PATIENCE: Duration = Duration::from_secs(1);
/// Requests of this node that wait for answers; beyond it they are answered without other nodes.
pub const ASKED_MAX: usize = 1_024;
/// Documents that have come and were not looked at yet; beyond it they are dropped and counted.
pub const RECEIVED_MAX: usize = 1_024;
/// Operations that are under way for other nodes; beyond it they are dropped and counted.
pub const PERFORMED_MAX: usize = 256;

/// How the bus reaches other nodes.
#[derive(Clone, Debug)]
pub struct BusConfig {
    /// Through which Redis.
    pub deployment: RedisDeployment,
    /// What the names of the channels begin with (`engine.redis.prefix`).
    pub prefix: String,
    /// Longest wait for a connection.
    pub connect_timeout: Duration,
    /// Longest wait for Redis to answer.
    pub io_timeout: Duration,
}

/// The way to all nodes, this one included; cheap to clone.
#[derive(Clone, Debug)]
pub struct Bus {
    local: Arc<LocalNode>,
    others: Option<Others>,
    metrics: Arc<BusMetrics>,
}

/// The way to other nodes.
#[derive(Clone, Debug)]
struct Others {
    asks: mpsc::Sender<Ask>,
    nodes: watch::Receiver<Arc<Snapshot>>,
}

/// What the task is to send.
#[derive(Debug)]
struct Ask {
    /// When.
    at: Instant,
    to: Recipient,
    operation: Operation,
    /// Who is to answer; nobody: it is not waited for.
    expected: Vec<String>,
    reply: Option<oneshot::Sender<Gathered>>,
}

/// Who gets a request.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Recipient {
    Everybody,
    Node(String),
}

/// What all nodes said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reports {
    /// Node and report.
    pub reports: Vec<(String, Found)>,
    /// Nodes that did not answer in time, or not wholly.
    pub unanswered: Vec<String>,
}

/// There is no such node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the registry knows no live node of this name")]
pub struct NoSuchNode;

impl Bus {
    /// This node alone.
    #[must_use]
    pub fn alone(local: LocalNode) -> Self {
        Self {
            local: Arc::new(local),
            others: None,
            metrics: Arc::default(),
        }
    }

    /// This node and those that `nodes` lists. The future keeps the connection; it ends when
    /// `stop` does, and must run for anybody else to be reached.
    ///
    /// # Errors
    /// What is wrong with the deployment, for a person.
    pub fn over_redis(
        config: BusConfig,
        local: LocalNode,
        nodes: watch::Receiver<Arc<Snapshot>>,
        stop: impl Future<Output = ()> + Send + 'static,
    ) -> Result<(Self, impl Future<Output = ()> + Send), String> {
        let local = Arc::new(local);
        let metrics = Arc::new(BusMetrics::default());
        let (asks, asked) = mpsc::channel(ASKED_MAX);
        let mut link = Link::new(config, Arc::clone(&local), Arc::clone(&metrics), asked)?;
        let bus = Self {
            local,
            others: Some(Others { asks, nodes }),
            metrics,
        };
        let task = async move {
            tokio::select! {
                () = link.run() => {}
                () = stop => {}
            }
        };
        Ok((bus, task))
    }

    /// This node's id.
    #[must_use]
    pub fn node(&self) -> &str {
        &self.local.id
    }

    /// What is counted.
    #[must_use]
    pub fn metrics(&self) -> &Arc<BusMetrics> {
        &self.metrics
    }

    /// Has every node carry the operation out. Takes [`PATIENCE`] at most, and a second more where
    /// Redis has just fallen silent.
    ///
    /// Cancel-safe: what was asked is carried out all the same.
    pub async fn everywhere(&self, operation: &Operation) -> Reports {
        let (here, elsewhere) = tokio::join!(
            self.local.perform(operation, PATIENCE),
            self.elsewhere(operation)
        );
        let mut all = Reports {
            reports: Vec::with_capacity(elsewhere.answers.len() + 1),
            unanswered: elsewhere.missing,
        };
        let answers = std::iter::once((self.local.id.clone(), here)).chain(elsewhere.answers);
        for (node, Report { found, is_partial }) in answers {
            if is_partial {
                all.unanswered.push(node.clone());
            }
            all.reports.push((node, found));
        }
        all.unanswered.sort_unstable();
        all
    }

    async fn elsewhere(&self, operation: &Operation) -> Gathered {
        let expected = self.live_others();
        let Some(others) = self.others.as_ref().filter(|_| !expected.is_empty()) else {
            return Gathered::default();
        };
        let (reply, gathered) = oneshot::channel();
        let nobody = Gathered {
            answers: Vec::new(),
            missing: expected.clone(),
        };
        let ask = Ask {
            at: Instant::now(),
            to: Recipient::Everybody,
            operation: operation.clone(),
            expected,
            reply: Some(reply),
        };
        if others.asks.try_send(ask).is_err() {
            self.metrics.dropped.add(1);
            return nobody;
        }
        // The task answers in time; this is for when it has ended, or Redis has just fallen silent.
        match tokio::time::timeout(PATIENCE + IO_PATIENCE, gathered).await {
            Ok(Ok(gathered)) => gathered,
            Ok(Err(_)) | Err(_) => nobody,
        }
    }

    /// Hands commands to a session of another node, or of this one. Nobody says whether there is
    /// such a session.
    ///
    /// # Errors
    /// [`NoSuchNode`].
    pub fn commands(&self, node: &str, session: &str, data: Vec<u8>) -> Result<(), NoSuchNode> {
        if node == self.local.id {
            if !self.local.commands(session, data) {
                self.metrics.dropped.add(1);
            }
            return Ok(());
        }
        let Some(others) = self.others.as_ref().filter(|_| self.is_live(node)) else {
            return Err(NoSuchNode);
        };
        let ask = Ask {
            at: Instant::now(),
            to: Recipient::Node(node.to_owned()),
            operation: Operation::Commands {
                session: session.to_owned(),
                data: operation::Bytes(data),
            },
            expected: Vec::new(),
            reply: None,
        };
        if others.asks.try_send(ask).is_err() {
            self.metrics.dropped.add(1);
        }
        Ok(())
    }

    fn live_others(&self) -> Vec<String> {
        let Some(others) = &self.others else {
            return Vec::new();
        };
        let snapshot = others.nodes.borrow();
        let live = snapshot
            .nodes
            .values()
            .filter(|view| view.fresh || view.held);
        live.map(|view| view.record.id.clone())
            .filter(|id| *id != self.local.id)
            .collect()
    }

    fn is_live(&self, node: &str) -> bool {
        self.others.as_ref().is_some_and(|others| {
            let snapshot = others.nodes.borrow();
            let view = snapshot.nodes.get(node);
            view.is_some_and(|view| view.fresh || view.held)
        })
    }
}

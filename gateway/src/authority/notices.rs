//! Notices on their way to the backend: at most once each, in order for each client.
//!
//! Clients are spread over lanes; a lane sends one notice after the other. What does not fit into a
//! lane, and what the backend does not take, is dropped and counted.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::decide::Decider;
use super::{AuthorityMetrics, Notice};
use crate::backend::wire;
use crate::limits::{NOTICES_A_LANE_MAX, NOTICES_END_MAX};

/// Notices under way at the same time.
const LANES: usize = 32;

/// All lanes.
pub(super) struct Notices {
    lanes: Vec<mpsc::Sender<Notice>>,
    work: JoinSet<()>,
    /// In the lanes, or under way.
    waiting: Arc<AtomicU64>,
    metrics: Arc<AuthorityMetrics>,
}

impl Notices {
    pub(super) fn new(decider: &Arc<Decider>, metrics: &Arc<AuthorityMetrics>) -> Self {
        let mut work = JoinSet::new();
        let waiting = Arc::new(AtomicU64::new(0));
        let lanes = (0..LANES)
            .map(|_| {
                let (lane, notices) = mpsc::channel(NOTICES_A_LANE_MAX);
                let lane_work = Lane {
                    decider: Arc::clone(decider),
                    waiting: Arc::clone(&waiting),
                    metrics: Arc::clone(metrics),
                };
                work.spawn(lane_work.send(notices));
                lane
            })
            .collect();
        Self {
            lanes,
            work,
            waiting,
            metrics: Arc::clone(metrics),
        }
    }

    /// Puts a notice into its client's lane.
    pub(super) fn take(&mut self, notice: Notice) {
        let bits = notice.who.client.map_or(0, |client| client.random_bits());
        self.waiting.fetch_add(1, Ordering::Relaxed);
        if self.lanes[bits as usize % LANES].try_send(notice).is_err() {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
            self.metrics.notices_dropped.add(1);
        }
    }

    /// Gives those that wait a short while to leave; the rest is dropped and counted.
    pub(super) async fn finish(mut self) {
        // A lane ends when it is empty.
        self.lanes.clear();
        let all = async { while self.work.join_next().await.is_some() {} };
        if tokio::time::timeout(NOTICES_END_MAX, all).await.is_err() {
            let left = self.waiting.load(Ordering::Relaxed);
            self.metrics.notices_dropped.add(left);
        }
    }
}

struct Lane {
    decider: Arc<Decider>,
    waiting: Arc<AtomicU64>,
    metrics: Arc<AuthorityMetrics>,
}

impl Lane {
    async fn send(self, mut notices: mpsc::Receiver<Notice>) {
        while let Some(Notice { who, kind }) = notices.recv().await {
            if let Some(endpoint) = self.decider.routes().of_notice(&kind) {
                let document = wire::notice(&who, &kind, endpoint.config());
                let is_taken = match document {
                    Ok(document) => endpoint.ask(document, &who.headers).await.is_ok(),
                    Err(_) => false,
                };
                let count = if is_taken {
                    &self.metrics.notices_sent
                } else {
                    &self.metrics.notices_failed
                };
                count.add(1);
            }
            self.waiting.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

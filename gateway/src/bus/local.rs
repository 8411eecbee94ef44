//! Operations on this node: its shards are asked, and what they say is put together.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::operation::{Found, NodeReport, Operation, Report, known_position};
use crate::engine::EngineMetrics;
use crate::shard::call::{Call, Calls, EmulatedSession, ShardChannels, ShardInfo, Step, Target};

/// Most bytes of channel names in one report: it has to fit into a document.
const CHANNEL_BYTES_MAX: usize = super::document::DOCUMENT_BYTES_MAX / 4;

/// This node, as far as operations go.
#[derive(Clone, Debug)]
pub struct LocalNode {
    /// Its id.
    pub id: String,
    calls: Calls,
    engines: Vec<Arc<EngineMetrics>>,
    started: Instant,
}

impl LocalNode {
    /// The node with these shards, and these parts of its engine.
    #[must_use]
    pub fn new(
        id: String,
        calls: Calls,
        engines: Vec<Arc<EngineMetrics>>,
        started: Instant,
    ) -> Self {
        Self {
            id,
            calls,
            engines,
            started,
        }
    }

    /// Carries an operation out, and reports after `patience` at the latest.
    ///
    /// Cancel-safe: what was asked of the shards is done all the same.
    pub async fn perform(&self, operation: &Operation, patience: Duration) -> Report {
        match operation {
            Operation::Disconnect {
                target,
                code,
                reason,
                whitelist,
            } => {
                let step = Step::Disconnect {
                    code: *code,
                    reason: reason.clone(),
                    whitelist: whitelist.iter().map(|client| client.0).collect(),
                };
                self.sessions(patience, target.to_shards(), step).await
            }
            Operation::Unsubscribe {
                target,
                channel,
                code,
                reason,
            } => {
                let step = Step::Unsubscribe {
                    channel: channel.clone(),
                    code: *code,
                    reason: reason.clone(),
                };
                self.sessions(patience, target.to_shards(), step).await
            }
            Operation::Subscribe {
                target,
                channel,
                grant,
                recover_since,
            } => {
                let step = Step::Subscribe {
                    channel: channel.clone(),
                    grant: grant.to_shards(),
                    recover_since: recover_since.as_ref().map(known_position),
                };
                self.sessions(patience, target.to_shards(), step).await
            }
            Operation::Refresh {
                target,
                expired,
                expires_in_ms,
                info,
            } => {
                let step = Step::Refresh {
                    expired: *expired,
                    expires_in: expires_in_ms.map(Duration::from_millis),
                    info: info.as_ref().map(|info| info.0.clone()),
                };
                self.sessions(patience, target.to_shards(), step).await
            }
            Operation::Info {} => self.info(patience).await,
            Operation::Channels { pattern } => self.channels(pattern, patience).await,
            Operation::Commands { session, data } => Report {
                is_partial: !self.commands(session, data.0.clone()),
                found: Found::Sessions(0),
            },
        }
    }

    /// Hands commands to a session of this node, or to nobody where there is no such session.
    /// Whether there was room for them.
    #[must_use]
    pub fn commands(&self, session: &str, data: Vec<u8>) -> bool {
        match EmulatedSession::parse(session) {
            Some(session) => self.calls.commands(session, data).is_ok(),
            None => true,
        }
    }

    async fn sessions(&self, patience: Duration, target: Target, step: Step) -> Report {
        let call = |reply| Call::Sessions {
            target: target.clone(),
            step: step.clone(),
            reply,
        };
        let said = self.calls.all(patience, call).await;
        Report {
            found: Found::Sessions(said.answers.iter().map(|count| *count as u64).sum()),
            is_partial: said.missing > 0,
        }
    }

    async fn info(&self, patience: Duration) -> Report {
        let (info, users) = tokio::join!(
            self.calls.all(patience, |reply| Call::Info { reply }),
            self.calls.all(patience, |reply| Call::Users { reply }),
        );
        // A user with clients on several shards is one user.
        let mut names: Vec<Box<str>> = users.answers.into_iter().flatten().collect();
        names.sort_unstable();
        names.dedup();
        let sum =
            |part: fn(&ShardInfo) -> usize| info.answers.iter().map(part).sum::<usize>() as u64;
        let node = NodeReport {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            clients: sum(|shard| shard.clients),
            users: names.len() as u64,
            channels: EngineMetrics::channels_of(&self.engines),
            subscriptions: sum(|shard| shard.subscriptions),
            uptime_s: self.started.elapsed().as_secs(),
        };
        Report {
            found: Found::Node(node),
            is_partial: info.missing + users.missing > 0,
        }
    }

    async fn channels(&self, pattern: &str, patience: Duration) -> Report {
        let (names, mut is_partial) = self.channel_names(pattern, patience).await;
        let mut room = CHANNEL_BYTES_MAX;
        let mut found = Vec::with_capacity(names.len());
        for (name, count) in names {
            let Some(rest) = room.checked_sub(name.len() + 32) else {
                is_partial = true;
                break;
            };
            room = rest;
            found.push((name, count));
        }
        Report {
            found: Found::Channels(found),
            is_partial,
        }
    }

    async fn channel_names(
        &self,
        pattern: &str,
        patience: Duration,
    ) -> (BTreeMap<String, u64>, bool) {
        let said = self
            .calls
            .all(patience, |reply| Call::Channels {
                pattern: pattern.to_owned(),
                reply,
            })
            .await;
        let mut is_partial = said.missing > 0;
        let mut names = BTreeMap::new();
        for ShardChannels { channels, is_cut } in said.answers {
            is_partial |= is_cut;
            for (name, count) in channels {
                *names.entry(name.to_string()).or_default() += count as u64;
            }
        }
        (names, is_partial)
    }
}

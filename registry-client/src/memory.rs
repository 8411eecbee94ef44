//! The registry in this process's memory: for a node without a cluster, and for tests of those who read it.
//! It decides exactly as the Redis scripts do; a differential test compares the two.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::error::RegistryError;
use crate::lease::{Reply, ServerClock};
use crate::limits;
use crate::membership::{Entry, Reading};
use crate::record::{Departure, NodeRecord};

/// A registry that everybody with a clone of it shares.
#[derive(Clone, Debug)]
pub struct MemoryStore {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    started: Instant,
    started_ms: u64,
    changed: Notify,
    data: Mutex<Data>,
}

#[derive(Debug, Default)]
struct Data {
    away: bool,
    version: u64,
    nodes: BTreeMap<String, (NodeRecord, u64)>,
    departed: BTreeMap<String, Departure>,
}

impl Default for MemoryStore {
    fn default() -> Self {
        MemoryStore::new()
    }
}

impl MemoryStore {
    /// An empty registry.
    pub fn new() -> MemoryStore {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH);
        MemoryStore {
            shared: Arc::new(Shared {
                started: Instant::now(),
                started_ms: since_epoch.map_or(0, |d| d.as_millis() as u64),
                changed: Notify::new(),
                data: Mutex::default(),
            }),
        }
    }

    /// Makes the registry unreachable, or reachable again.
    pub fn set_away(&self, away: bool) {
        self.lock().away = away;
    }

    /// Forgets everything, as FLUSHALL does.
    pub fn clear(&self) {
        let mut data = self.lock();
        data.nodes.clear();
        data.departed.clear();
        data.version = 0;
    }

    fn lock(&self) -> MutexGuard<'_, Data> {
        self.shared
            .data
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn reach(&self) -> Result<(MutexGuard<'_, Data>, u64), RegistryError> {
        let data = self.lock();
        if data.away {
            return Err(RegistryError::Unreachable("away".into()));
        }
        let now_ms = self.shared.started_ms + self.shared.started.elapsed().as_millis() as u64;
        Ok((data, now_ms))
    }

    pub(crate) fn prepare(&self) -> Result<(Option<IpAddr>, ServerClock), RegistryError> {
        let (data, now_ms) = self.reach()?;
        drop(data);
        let mut clock = ServerClock::default();
        clock.set(now_ms, Instant::now().into_std());
        Ok((Some(Ipv4Addr::LOCALHOST.into()), clock))
    }

    pub(crate) fn write(
        &self,
        record: &NodeRecord,
        register: bool,
        announce: bool,
    ) -> Result<Reply, RegistryError> {
        let (mut data, now_ms) = self.reach()?;
        let stored = data
            .nodes
            .get(&record.id)
            .map(|(r, _)| (r.generation, r.nonce.clone()));
        let (stored, stored_nonce) = stored.unwrap_or_default();
        let own = stored_nonce == record.nonce;
        let generation = if register {
            let left = data.departed.get(&record.id).map_or(0, |d| d.generation);
            (stored + 1).max(left + 1).max(now_ms)
        } else if !own && stored >= record.generation && stored > 0 {
            return Ok(Reply::Fenced { by: stored });
        } else if own {
            stored.max(record.generation)
        } else {
            record.generation
        };
        let appeared = stored == 0;
        let mut written = record.clone();
        written.generation = generation;
        let deadline_ms = now_ms + record.ttl_ms;
        data.nodes.insert(record.id.clone(), (written, deadline_ms));
        data.departed.remove(&record.id);
        let listed_ms = limits::LISTED_AFTER_END.as_millis() as u64;
        data.nodes
            .retain(|_, (_, deadline_ms)| *deadline_ms + listed_ms > now_ms);
        if register || appeared || announce {
            data.version += 1;
            self.shared.changed.notify_waiters();
        }
        Ok(Reply::Held { generation })
    }

    pub(crate) fn deregister(
        &self,
        record: &NodeRecord,
        reason: &str,
    ) -> Result<Reply, RegistryError> {
        let (mut data, now_ms) = self.reach()?;
        let holder = data
            .nodes
            .get(&record.id)
            .map(|(r, _)| (r.nonce.clone(), r.generation));
        if let Some((nonce, generation)) = holder
            && nonce == record.nonce
        {
            data.nodes.remove(&record.id);
            data.departed.insert(
                record.id.clone(),
                Departure {
                    generation,
                    reason: reason.to_owned(),
                    at_ms: now_ms,
                    addr: record.addr,
                },
            );
            let listed_ms = limits::LISTED_AFTER_END.as_millis() as u64;
            data.departed
                .retain(|_, left| left.at_ms + listed_ms > now_ms);
            while data.departed.len() > limits::DEPARTED_MAX {
                let oldest = data.departed.iter().min_by_key(|(_, left)| left.at_ms);
                let Some(oldest) = oldest.map(|(id, _)| id.clone()) else {
                    break;
                };
                data.departed.remove(&oldest);
            }
            data.version += 1;
            self.shared.changed.notify_waiters();
        }
        Ok(Reply::Left)
    }

    pub(crate) fn read(&self) -> Result<Reading, RegistryError> {
        let (data, now_ms) = self.reach()?;
        Ok(Reading {
            server_time_ms: now_ms,
            version: data.version,
            entries: data
                .nodes
                .values()
                .map(|(record, deadline_ms)| Entry {
                    id: record.id.clone(),
                    deadline_ms: *deadline_ms,
                    json: serde_json::to_vec(record).unwrap_or_default(),
                })
                .collect(),
            departed: data
                .departed
                .iter()
                .map(|(id, left)| (id.clone(), serde_json::to_vec(left).unwrap_or_default()))
                .collect(),
            refused: 0,
        })
    }

    /// Wakes `changed` whenever something changes. Runs until it is dropped.
    pub(crate) async fn listen(self, changed: Arc<Notify>) {
        loop {
            self.shared.changed.notified().await;
            changed.notify_one();
        }
    }
}

//! A registry snapshot as plain data for the pure part.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use flux_registry::{NodeState, NodeView, Ring, Snapshot};

use crate::document::{RegistryState, Shard};
use crate::observe::{Departure, Load, Member, Observation, RecordState};

/// What `snapshot` says at `now`; probes and balancers are still missing.
pub(crate) fn read(snapshot: &Snapshot, now: Instant) -> Observation {
    let age = snapshot.age_at(now);
    let since = age.unwrap_or_default();
    let clock = age.map(|age| {
        let age = u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
        snapshot.server_time_ms.saturating_add(age)
    });
    Observation {
        registry: match snapshot.state {
            flux_registry::RegistryState::Ok => RegistryState::Ok,
            flux_registry::RegistryState::Stale => RegistryState::Stale,
            flux_registry::RegistryState::Unreachable => RegistryState::Unreachable,
        },
        registry_age: since,
        registry_unix_ms: clock,
        rejected: snapshot.rejected,
        members: snapshot
            .nodes
            .iter()
            .map(|(id, view)| (id.clone(), member(view, since)))
            .collect(),
        departed: snapshot
            .departed
            .iter()
            .map(|(id, departure)| {
                let ago = clock.unwrap_or_default().saturating_sub(departure.at_ms);
                let departure = Departure {
                    orderly: departure.reason.contains("drain"),
                    reason: departure.reason.clone(),
                    age: Duration::from_millis(ago),
                    generation: departure.generation,
                    addr: departure.addr.to_string(),
                };
                (id.clone(), departure)
            })
            .collect(),
        ..Observation::default()
    }
}

fn member(view: &NodeView, since: Duration) -> Member {
    let record = &view.record;
    Member {
        generation: record.generation,
        nonce: record.nonce.clone(),
        state: match record.state {
            NodeState::Starting => RecordState::Starting,
            NodeState::Ready => RecordState::Ready,
            NodeState::Draining => RecordState::Draining,
        },
        addr: record.addr.to_string(),
        admin: record.admin.map(|a| a.to_string()).unwrap_or_default(),
        fresh: view.fresh,
        held: view.held,
        heartbeat_age: Duration::from_millis(view.heartbeat_age_ms) + since,
        ttl: Duration::from_millis(record.ttl_ms),
        weight: record.weight,
        zone: record.zone.clone(),
        build: record.build.clone(),
        seq: record.seq,
        capacity: record.capacity,
        started_ms: record.started_ms,
        load: Load {
            connections: record.connections,
            channels: record.channels,
            messages_per_s: record.messages_per_s,
            shards: record
                .shards
                .iter()
                .enumerate()
                .map(|(shard, connections)| Shard {
                    shard,
                    connections: *connections,
                })
                .collect(),
        },
        drain: record.drain_started_ms.zip(record.drain_deadline_ms),
        drain_remaining: (record.state == NodeState::Draining).then_some(record.drain_remaining),
    }
}

/// Each member's share of the keys, reckoned as the balancer does.
pub(crate) fn shares(snapshot: &Snapshot) -> BTreeMap<String, f64> {
    let members = snapshot
        .nodes
        .iter()
        .filter(|(_, view)| view.fresh || view.held);
    Ring::new(members.map(|(id, view)| (id.as_str(), view.record.weight)))
        .shares()
        .into_iter()
        .map(|(id, share)| (id.to_string(), share))
        .collect()
}

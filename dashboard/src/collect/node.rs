//! A node's admin answers.

use std::net::SocketAddr;

use flux_registry::NodeRecord;
use serde_json::Value;

use super::ask;
use crate::document::Shard;
use crate::observe::LoadNow;
use crate::probe::{Answer, Probe};

/// One node that is probed.
pub(crate) struct Target {
    /// Whom the results belong to.
    pub(crate) identity: Identity,
    /// The results so far.
    pub(crate) probe: Probe,
}

/// A process at an address: another one of either begins anew.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    /// Where it is asked.
    pub(crate) admin: Option<SocketAddr>,
    generation: u64,
}

impl Identity {
    /// Of the process that holds the record.
    pub(crate) fn of(record: &NodeRecord) -> Self {
        Self {
            admin: record.admin,
            generation: record.generation,
        }
    }
}

/// `/ready` and, where that answers, `/api/status`.
pub(crate) async fn ask(
    client: &reqwest::Client,
    id: &str,
    admin: SocketAddr,
) -> Result<Answer, String> {
    let base = format!("http://{admin}");
    let (ready, reasons, degraded) = ask::ready(client, &base).await?;
    let status = ask::get(client, &format!("{base}/api/status")).await;
    let status = match status {
        Ok((200, status)) => status,
        // Readiness is the promise; the figures then are those of the heartbeat.
        Ok(_) | Err(_) => Value::Null,
    };
    match status.get("id").and_then(Value::as_str) {
        Some(other) if other != id => {
            let other: String = other.chars().take(64).collect();
            return Err(format!("its address answers as {other}"));
        }
        Some(_) | None => {}
    }
    Ok(Answer {
        ready,
        reasons,
        degraded,
        load: load(&status),
    })
}

fn load(status: &Value) -> LoadNow {
    LoadNow {
        connections: status.get("connections").and_then(Value::as_u64),
        channels: status.get("channels").and_then(Value::as_u64),
        messages_per_s: status
            .get("messages_per_s")
            .and_then(Value::as_f64)
            .filter(|rate| rate.is_finite() && *rate >= 0.0),
        shards: status
            .get("shards")
            .and_then(Value::as_array)
            .and_then(|shards| {
                let shards = shards.iter().take(1024).enumerate();
                shards
                    .map(|(index, shard)| one_shard(index, shard))
                    .collect()
            }),
    }
}

/// A shard is an object with its `connections`, or just that number.
fn one_shard(index: usize, shard: &Value) -> Option<Shard> {
    let connections = shard
        .as_u64()
        .or_else(|| shard.get("connections").and_then(Value::as_u64))?;
    let named = shard.get("shard").and_then(Value::as_u64);
    Some(Shard {
        shard: named.and_then(|n| usize::try_from(n).ok()).unwrap_or(index),
        connections,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_a_status_does_not_say_is_left_to_the_record() {
        assert_eq!(load(&Value::Null), LoadNow::default());
        let status = json!({"connections": 7, "shards": 2, "messages_per_s": -1.0});
        let now = load(&status);
        assert_eq!(now.connections, Some(7));
        assert_eq!((now.shards, now.messages_per_s), (None, None));
    }

    #[test]
    fn shards_come_as_numbers_or_objects() {
        let status = json!({"shards": [3, {"shard": 5, "connections": 4}]});
        let shards = load(&status).shards.expect("a list");
        assert_eq!((shards[0].shard, shards[0].connections), (0, 3));
        assert_eq!((shards[1].shard, shards[1].connections), (5, 4));
    }
}

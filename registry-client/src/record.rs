//! What a node says about itself: one JSON document in the registry.
//!
//! Invariants:
//! * A [`NodeRecord`] that came out of [`NodeRecord::parse`] is within every limit of [`crate::limits`];
//!   what is not is a [`RecordError`], never a panic and never a half-valid record.
//! * Unknown fields are ignored, so that an older reader works beside a newer writer of the same
//!   [`RECORD_VERSION`]; a record of a later version is refused, since its fields may mean something else.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::limits;

/// Version of the record's meaning. Raised only when a reader of the old one would go wrong.
pub const RECORD_VERSION: u32 = 1;

/// What a node wants from those who route to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NodeState {
    /// Not yet able to take clients.
    Starting,
    /// Takes clients.
    Ready,
    /// Is going away: no new clients, the present ones leave in order.
    Draining,
}

impl NodeState {
    /// The word that stands in the record.
    pub fn as_str(self) -> &'static str {
        match self {
            NodeState::Starting => "starting",
            NodeState::Ready => "ready",
            NodeState::Draining => "draining",
        }
    }
}

/// One node as the registry shows it.
///
/// `v`, `generation`, `nonce`, `seq`, `ttl_ms` and `registered_ms` belong to the lease: it fills them in
/// at each heartbeat, whatever the node's own source says. Times in `_ms` are Redis TIME (Unix, in
/// milliseconds), never the node's wall clock.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NodeRecord {
    /// [`RECORD_VERSION`] of the writer.
    #[serde(default = "record_version")]
    pub v: u32,
    /// Stable name of the node; the ring is keyed on it.
    pub id: String,
    /// Which holder of the id this is: a later one fences every earlier one.
    pub generation: u64,
    /// Drawn once per process; tells two processes of one id apart.
    pub nonce: String,
    /// What the node wants from those who route to it.
    pub state: NodeState,
    /// Where clients (through the balancer) connect.
    pub addr: SocketAddr,
    /// Where `/live`, `/ready`, `/metrics` and `/api/status` answer; the balancer probes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub admin: Option<SocketAddr>,
    /// Share of the ring in units of [`limits::VNODES_PER_WEIGHT`] virtual nodes. 0: gets no keys.
    #[serde(default = "one")]
    pub weight: u32,
    /// Failure domain, as the operator names it. Empty if none.
    #[serde(default)]
    pub zone: String,
    /// Client connections now.
    #[serde(default)]
    pub connections: u64,
    /// Client connections that the node will take at most. 0: unknown.
    #[serde(default)]
    pub capacity: u64,
    /// Counts this process's heartbeats; readers see that it advances on their own clock.
    pub seq: u64,
    /// Version and build of the program.
    #[serde(default)]
    pub build: String,
    /// When this process took the id.
    #[serde(default)]
    pub started_ms: u64,
    /// Lease length that the writer asked for.
    #[serde(default = "default_ttl_ms")]
    pub ttl_ms: u64,
    /// When the drain began. `None` unless draining.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drain_started_ms: Option<u64>,
    /// When the drain ends at the latest. `None` unless draining.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drain_deadline_ms: Option<u64>,
    /// Connections that the drain has still to close.
    #[serde(default)]
    pub drain_remaining: u64,
    /// Client connections of each shard.
    #[serde(default)]
    pub shards: Vec<u64>,
    /// Channels with at least one subscriber on the node.
    #[serde(default)]
    pub channels: u64,
    /// Messages in and out per second, over the last heartbeat interval.
    #[serde(default)]
    pub messages_per_s: f64,
    /// Messages in and out since the start.
    #[serde(default)]
    pub messages_total: u64,
}

fn record_version() -> u32 {
    RECORD_VERSION
}

fn one() -> u32 {
    1
}

fn default_ttl_ms() -> u64 {
    15_000
}

/// Why a record was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// The id has characters or a length that no node may have.
    #[error("id is not 1..={} of [A-Za-z0-9._:-]", limits::ID_BYTES_MAX)]
    Id,
    /// Larger than [`limits::RECORD_BYTES_MAX`].
    #[error("record is larger than {} bytes", limits::RECORD_BYTES_MAX)]
    TooLarge,
    /// Not JSON, or a field has the wrong type.
    #[error("not a node record: {0}")]
    Json(String),
    /// Written by a later program.
    #[error("record version {0} is later than {RECORD_VERSION}: upgrade this process")]
    FutureVersion(u32),
    /// The id in the record is not the one it is stored under.
    #[error("stored under an id that is not its own")]
    WrongId,
    /// A field is outside its limits.
    #[error("{0} is outside its limits")]
    Limit(&'static str),
}

/// Whether `id` may name a node.
pub fn valid_id(id: &str) -> bool {
    !id.is_empty()
        && id.len() <= limits::ID_BYTES_MAX
        && id
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b':' | b'-'))
}

impl NodeRecord {
    /// A record of a node that has just started, with every figure at zero.
    pub fn new(id: impl Into<String>, addr: SocketAddr) -> NodeRecord {
        NodeRecord {
            v: RECORD_VERSION,
            id: id.into(),
            generation: 0,
            nonce: String::new(),
            state: NodeState::Starting,
            addr,
            admin: None,
            weight: 1,
            zone: String::new(),
            connections: 0,
            capacity: 0,
            seq: 0,
            build: String::new(),
            started_ms: 0,
            ttl_ms: default_ttl_ms(),
            drain_started_ms: None,
            drain_deadline_ms: None,
            drain_remaining: 0,
            shards: Vec::new(),
            channels: 0,
            messages_per_s: 0.0,
            messages_total: 0,
        }
    }

    /// Reads the record stored under `id`.
    pub fn parse(id: &str, json: &[u8]) -> Result<NodeRecord, RecordError> {
        if json.len() > limits::RECORD_BYTES_MAX {
            return Err(RecordError::TooLarge);
        }
        if !valid_id(id) {
            return Err(RecordError::Id);
        }
        let record: NodeRecord = match serde_json::from_slice(json) {
            Ok(record) => record,
            Err(error) => return Err(unreadable(json, &error)),
        };
        if record.v > RECORD_VERSION {
            return Err(RecordError::FutureVersion(record.v));
        }
        if record.id != id {
            return Err(RecordError::WrongId);
        }
        record.check()?;
        Ok(record)
    }

    /// Whether every field is within its limits.
    pub fn check(&self) -> Result<(), RecordError> {
        let text_ok = |text: &str| text.len() <= limits::TEXT_BYTES_MAX;
        let ttl = std::time::Duration::from_millis(self.ttl_ms);
        if !valid_id(&self.id) {
            Err(RecordError::Id)
        } else if self.weight > limits::WEIGHT_MAX {
            Err(RecordError::Limit("weight"))
        } else if self.shards.len() > limits::SHARDS_MAX {
            Err(RecordError::Limit("shards"))
        } else if !text_ok(&self.zone) || !text_ok(&self.build) || !text_ok(&self.nonce) {
            Err(RecordError::Limit("zone, build or nonce"))
        } else if self.nonce.is_empty() {
            Err(RecordError::Limit("nonce"))
        } else if self.addr.port() == 0 || self.addr.ip().is_unspecified() {
            Err(RecordError::Limit("addr"))
        } else if ttl < limits::TTL_MIN || ttl > limits::TTL_MAX {
            Err(RecordError::Limit("ttl_ms"))
        } else if !self.messages_per_s.is_finite() {
            Err(RecordError::Limit("messages_per_s"))
        } else {
            Ok(())
        }
    }

    /// What routers act on: when any of this changes, readers are woken at once.
    pub(crate) fn routing(&self) -> (NodeState, SocketAddr, Option<SocketAddr>, u32, &str) {
        (
            self.state,
            self.addr,
            self.admin,
            self.weight,
            self.zone.as_str(),
        )
    }

    /// The record as JSON, split where the generation's digits go: only the registry knows it.
    pub(crate) fn to_json_around_generation(&self) -> (String, String) {
        // No other field can produce this text unescaped before `generation`, since only `v` and `id`
        // (a checked charset) stand before it.
        const MARK: &str = "\"generation\":18446744073709551615";
        let marked = NodeRecord {
            generation: u64::MAX,
            ..self.clone()
        };
        let json = serde_json::to_string(&marked).unwrap_or_default();
        match json.split_once(MARK) {
            Some((head, tail)) => (format!("{head}\"generation\":"), tail.to_owned()),
            None => (json, String::new()),
        }
    }
}

/// Why `json` is no record of ours. One of a later version need not have the fields of this one.
fn unreadable(json: &[u8], error: &serde_json::Error) -> RecordError {
    #[derive(Deserialize)]
    struct Version {
        v: u32,
    }
    if let Ok(Version { v }) = serde_json::from_slice(json)
        && v > RECORD_VERSION
    {
        return RecordError::FutureVersion(v);
    }
    let mut text = error.to_string();
    // Serde quotes what it found, which may be long.
    let mut end = text.len().min(limits::TEXT_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
    RecordError::Json(text)
}

/// How a node left the registry by itself; kept for [`limits::LISTED_AFTER_END`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Departure {
    /// Generation that left.
    pub generation: u64,
    /// For a person: `left after its drain`.
    pub reason: String,
    /// When, by Redis TIME.
    pub at_ms: u64,
    /// Where its clients connected.
    pub addr: SocketAddr,
}

impl Departure {
    /// Reads a departure; `None` if it is none.
    pub fn parse(json: &[u8]) -> Option<Departure> {
        if json.len() > limits::RECORD_BYTES_MAX {
            return None;
        }
        let departure: Departure = serde_json::from_slice(json).ok()?;
        (departure.reason.len() <= limits::TEXT_BYTES_MAX).then_some(departure)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> NodeRecord {
        let mut record = NodeRecord::new("gateway-1", "10.0.0.1:8000".parse().expect("address"));
        record.nonce = "abc".into();
        record.generation = 7;
        record
    }

    #[test]
    fn a_record_survives_its_json() {
        let mut record = record();
        record.zone = "\"generation\":18446744073709551615".into();
        record.shards = vec![1, 2, 3];
        let (head, tail) = record.to_json_around_generation();
        let parsed = NodeRecord::parse("gateway-1", format!("{head}7{tail}").as_bytes());
        assert_eq!(parsed, Ok(record));
    }

    #[test]
    fn unknown_fields_are_ignored_and_optional_ones_have_defaults() {
        let json = br#"{"id":"a","generation":1,"nonce":"n","state":"ready","addr":"10.0.0.1:80","seq":1,"new":{"x":[1]}}"#;
        let record = NodeRecord::parse("a", json).expect("valid");
        assert_eq!((record.weight, record.ttl_ms, record.v), (1, 15_000, 1));
    }

    #[test]
    fn bad_records_are_refused_by_reason() {
        let json = |record: &NodeRecord| serde_json::to_vec(record).expect("json");
        assert!(matches!(
            NodeRecord::parse("a", b"\xff\xfe"),
            Err(RecordError::Json(_))
        ));
        assert!(matches!(
            NodeRecord::parse("a", b"[]"),
            Err(RecordError::Json(_))
        ));
        assert_eq!(
            NodeRecord::parse("a", br#"{"v":2,"everything":"else"}"#),
            Err(RecordError::FutureVersion(2))
        );
        assert_eq!(
            NodeRecord::parse("b", &json(&record())),
            Err(RecordError::WrongId)
        );
        assert_eq!(
            NodeRecord::parse("a", &vec![b' '; limits::RECORD_BYTES_MAX + 1]),
            Err(RecordError::TooLarge)
        );
        assert_eq!(NodeRecord::parse("a b", b"{}"), Err(RecordError::Id));
        let mut heavy = record();
        heavy.weight = limits::WEIGHT_MAX + 1;
        assert_eq!(
            NodeRecord::parse("gateway-1", &json(&heavy)),
            Err(RecordError::Limit("weight"))
        );
        let mut nowhere = record();
        nowhere.addr = "0.0.0.0:8000".parse().expect("address");
        assert_eq!(
            NodeRecord::parse("gateway-1", &json(&nowhere)),
            Err(RecordError::Limit("addr"))
        );
        assert!(
            NodeRecord::parse(
                "a",
                format!("{}1", "[".repeat(limits::RECORD_BYTES_MAX - 1)).as_bytes()
            )
            .is_err()
        );
    }
}

//! Redis Cluster's map: key to slot, slot to master. Nothing here connects.

use redis::Value;

use crate::limits::CLUSTER_NODES_MAX;

/// Slots of a cluster.
pub const SLOTS: u16 = 16_384;

/// A server's address as Redis names it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Endpoint {
    /// Address or name.
    pub host: String,
    /// Port for clients.
    pub port: u16,
}

impl std::fmt::Display for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl Endpoint {
    /// From `host:port`, where the host of an IPv6 address may stand without brackets, as in redirections.
    /// Without a host it is `asked`'s.
    pub fn parse(text: &str, asked: &Endpoint) -> Option<Endpoint> {
        let (host, port) = text.rsplit_once(':')?;
        let port = port.parse().ok().filter(|&port| port != 0)?;
        Some(Endpoint {
            host: known_host(host, asked),
            port,
        })
    }
}

/// The slot of a key: of what stands between its first `{` and the next `}`, unless that is nothing.
pub fn slot_of(key: &[u8]) -> u16 {
    let tag = key
        .iter()
        .position(|&byte| byte == b'{')
        .and_then(|open| {
            let rest = &key[open + 1..];
            let close = rest.iter().position(|&byte| byte == b'}')?;
            (close > 0).then(|| &rest[..close])
        })
        .unwrap_or(key);
    crc16(tag) % SLOTS
}

/// CRC-16/XMODEM.
fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0u16, |crc, &byte| {
        (0..8).fold(crc ^ (u16::from(byte) << 8), |crc, _| {
            let shifted = crc << 1;
            if crc & 0x8000 == 0 {
                shifted
            } else {
                shifted ^ 0x1021
            }
        })
    })
}

/// Who is the master of which slots.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClusterSlots {
    /// Masters with slots, sorted.
    masters: Vec<Endpoint>,
    /// All servers that are named, replicas too, sorted.
    nodes: Vec<Endpoint>,
    /// First slot, last slot, index of the master; sorted.
    ranges: Vec<(u16, u16, u16)>,
}

impl ClusterSlots {
    /// From the answer of `asked` to CLUSTER SLOTS; none when it is not such an answer, is longer than the
    /// limits, or gives a slot to two masters.
    pub fn parse(answer: &Value, asked: &Endpoint) -> Option<ClusterSlots> {
        let Value::Array(rows) = answer else {
            return None;
        };
        if rows.len() > usize::from(SLOTS) {
            return None;
        }
        let mut found = Vec::with_capacity(rows.len());
        let mut slots = ClusterSlots::default();
        for row in rows {
            let Value::Array(row) = row else { return None };
            let [first, last, servers @ ..] = &row[..] else {
                return None;
            };
            let (first, last) = (slot(first)?, slot(last)?);
            if first > last {
                return None;
            }
            let mut servers = servers.iter().map(|server| endpoint(server, asked));
            // A range whose master has no known address belongs to nobody for now.
            if let Some(master) = servers.next()?? {
                slots.nodes.push(master.clone());
                found.push((first, last, master));
            }
            slots.nodes.extend(servers.flatten().flatten());
            slots.nodes.sort();
            slots.nodes.dedup();
            if slots.nodes.len() > CLUSTER_NODES_MAX {
                return None;
            }
        }
        slots.masters = found.iter().map(|(_, _, master)| master.clone()).collect();
        slots.masters.sort();
        slots.masters.dedup();
        for (first, last, master) in found {
            let index = slots.masters.binary_search(&master).ok()? as u16;
            slots.ranges.push((first, last, index));
        }
        slots.ranges.sort_unstable();
        let is_clear = slots.ranges.windows(2).all(|pair| pair[0].1 < pair[1].0);
        is_clear.then_some(slots)
    }

    /// The master of `slot`; none while the cluster has none for it.
    pub fn master_of(&self, slot: u16) -> Option<&Endpoint> {
        let at = self.ranges.partition_point(|&(_, last, _)| last < slot);
        let &(first, _, master) = self.ranges.get(at)?;
        (first <= slot).then(|| &self.masters[usize::from(master)])
    }

    /// Masters that have slots.
    pub fn masters(&self) -> &[Endpoint] {
        &self.masters
    }

    /// All servers that are named.
    pub fn nodes(&self) -> &[Endpoint] {
        &self.nodes
    }

    /// Whether every slot has a master.
    pub fn is_whole(&self) -> bool {
        let covered: u32 = self
            .ranges
            .iter()
            .map(|&(first, last, _)| u32::from(last - first) + 1)
            .sum();
        covered == u32::from(SLOTS)
    }
}

fn slot(value: &Value) -> Option<u16> {
    match value {
        Value::Int(slot) => u16::try_from(*slot).ok().filter(|&slot| slot < SLOTS),
        _ => None,
    }
}

/// None when it is no server; `Some(None)` when its address is not known.
#[expect(
    clippy::option_option,
    reason = "nonsense is one thing, not known yet another"
)]
fn endpoint(value: &Value, asked: &Endpoint) -> Option<Option<Endpoint>> {
    let Value::Array(parts) = value else {
        return None;
    };
    let [host, Value::Int(port), ..] = &parts[..] else {
        return None;
    };
    let host = match host {
        Value::Nil => "",
        Value::BulkString(bytes) => std::str::from_utf8(bytes).ok()?,
        Value::SimpleString(text) => text,
        _ => return None,
    };
    // A preferred hostname that is not set.
    if host == "?" {
        return Some(None);
    }
    let port = u16::try_from(*port).ok()?;
    Some((port != 0).then(|| Endpoint {
        host: known_host(host, asked),
        port,
    }))
}

/// A server that does not know its own address names none: it is where it was asked.
fn known_host(host: &str, asked: &Endpoint) -> String {
    match host.trim_matches(['[', ']']) {
        "" => asked.host.clone(),
        host => host.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(host: &str, port: u16) -> Endpoint {
        let host = host.to_owned();
        Endpoint { host, port }
    }

    fn row(first: i64, last: i64, servers: &[(&str, i64)]) -> Value {
        let mut row = vec![Value::Int(first), Value::Int(last)];
        row.extend(servers.iter().map(|&(host, port)| {
            let host = Value::BulkString(host.into());
            Value::Array(vec![
                host,
                Value::Int(port),
                Value::BulkString(b"id".to_vec()),
            ])
        }));
        Value::Array(row)
    }

    fn parse(rows: Vec<Value>) -> Option<ClusterSlots> {
        ClusterSlots::parse(&Value::Array(rows), &at("asked", 1))
    }

    #[test]
    fn slots_are_those_that_redis_computes() {
        // CLUSTER KEYSLOT of redis-server 7.0.
        for (key, slot) in [
            ("", 0),
            ("foo", 12182),
            ("123456789", 12739),
            ("{user1000}.following", 3443),
            ("{user1000}.followers", 3443),
            ("foo{}{bar}", 8363),
            ("foo{{bar}}zap", 4015),
            ("foo{bar}{zap}", 5061),
        ] {
            assert_eq!(slot_of(key.as_bytes()), slot, "{key}");
        }
    }

    #[test]
    fn a_slot_has_the_master_of_its_range() {
        let slots = parse(vec![
            row(8192, 16383, &[("b", 2), ("d", 4)]),
            row(0, 99, &[("a", 1), ("c", 3)]),
            row(101, 8191, &[("", 7)]),
        ])
        .expect("a map");
        assert_eq!(slots.master_of(0), Some(&at("a", 1)));
        assert_eq!(slots.master_of(99), Some(&at("a", 1)));
        assert_eq!(slots.master_of(100), None);
        assert_eq!(slots.master_of(101), Some(&at("asked", 7)));
        assert_eq!(slots.master_of(16383), Some(&at("b", 2)));
        assert_eq!(slots.masters(), [at("a", 1), at("asked", 7), at("b", 2)]);
        assert_eq!(slots.nodes().len(), 5);
        assert!(!slots.is_whole());
        assert!(
            parse(vec![row(0, 16383, &[("a", 1)])])
                .expect("a map")
                .is_whole()
        );
    }

    #[test]
    fn other_answers_are_refused() {
        for rows in [
            vec![Value::Nil],
            vec![row(5, 4, &[("a", 1)])],
            vec![row(0, 16384, &[("a", 1)])],
            vec![row(-1, 5, &[("a", 1)])],
            vec![row(0, 5, &[])],
            vec![row(0, 5, &[("a", 70_000)])],
            vec![row(0, 5, &[("a", 1)]), row(5, 6, &[("b", 1)])],
        ] {
            assert_eq!(parse(rows.clone()), None, "{rows:?}");
        }
        assert_eq!(ClusterSlots::parse(&Value::Nil, &at("a", 1)), None);
        let unknown = parse(vec![row(0, 5, &[("?", 1)])]).expect("a map without it");
        assert_eq!(unknown.master_of(0), None);
    }

    #[test]
    fn redirections_name_hosts_in_their_own_way() {
        let asked = at("asked", 1);
        assert_eq!(
            Endpoint::parse("10.0.0.1:7", &asked),
            Some(at("10.0.0.1", 7))
        );
        assert_eq!(Endpoint::parse("::1:7", &asked), Some(at("::1", 7)));
        assert_eq!(Endpoint::parse(":7", &asked), Some(at("asked", 7)));
        for text in ["", "h", "h:", "h:0", "h:70000"] {
            assert_eq!(Endpoint::parse(text, &asked), None, "{text}");
        }
        assert_eq!(at("::1", 7).to_string(), "[::1]:7");
    }

    proptest! {
        #[test]
        fn ranges_of_any_kind_never_panic(ranges in prop::collection::vec((-2i64..17_000, -2i64..17_000, -1i64..70_000), 0..20), slot: u16) {
            let rows = ranges.iter().map(|&(first, last, port)| row(first, last, &[("h", port)])).collect();
            if let Some(slots) = parse(rows) {
                let _ = slots.master_of(slot);
            }
        }
    }
}

//! What can be configured, typed once at start; see [`crate::limits`] for what is fixed.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use flux_runtime::doctor;
use serde::{Deserialize, Serialize};

use crate::limits;

/// What a new connection is placed by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Affinity {
    /// `sid` of the request head (query or cookie `flux_sid`), else the source address.
    #[default]
    Sid,
    /// The source address; nothing is read before the node is connected (TLS passthrough).
    Source,
}

/// The balancer's configuration: flags over environment (`FLUX_`) over file over these defaults.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Name of this balancer on the dashboard.
    pub id: String,
    /// Where clients connect.
    pub listen: SocketAddr,
    /// Where /live, /ready, /metrics and /api answer.
    pub admin: SocketAddr,
    /// The registry (`redis://`, `rediss://`).
    pub redis: String,
    /// File of PEM certificates to trust for `rediss://`; empty: the public authorities.
    pub redis_ca_file: String,
    /// Prefix of the registry's keys.
    pub redis_prefix: String,
    /// What connections are placed by.
    pub affinity: Affinity,
    /// Shards; 0: one for each core that this process may use.
    pub shards: usize,
    /// How long flows may go on after SIGTERM; those that are left are cut evenly over that time.
    pub drain_seconds: u64,
    /// Tell the nodes the client's address (PROXY protocol v2).
    pub proxy_protocol: bool,
    /// Addresses to connect to nodes from, in turn; each adds some 28,000 flows per node.
    pub source_addresses: Vec<IpAddr>,
    /// Flows at once; 0: what the descriptor limit allows.
    pub flows_max: usize,
    /// Flows at once from one source (IPv4 address, IPv6 /64); 0: half of `flows_max`, and no bound
    /// for loopback.
    pub flows_per_source_max: usize,
    /// New connections taken per second; more wait in the kernel's backlog. 0: no bound.
    pub accepts_per_s: u32,
    /// Time for a whole request head, after which the connection is passed on by source address.
    pub head_timeout_ms: u64,
    /// Time to connect to a node before the next one is tried.
    pub connect_timeout_ms: u64,
    /// Time for a node's first byte after a whole request head before the next one is tried.
    pub answer_timeout_ms: u64,
    /// How long a flow may stand with one direction closed.
    pub half_closed_timeout_ms: u64,
    /// How long one side may take nothing while bytes wait for it.
    pub stalled_timeout_ms: u64,
    /// Bytes that may wait for one side of a flow; the other side is not read meanwhile.
    pub queue_bytes_max: usize,
    /// A node's load may exceed the mean by this factor before its keys walk on; at least 1.
    pub load_bound: f64,
    /// A node that returns takes its share over this time.
    pub slow_start_seconds: u64,
    /// Where the last known good nodes are kept over a restart, if anywhere.
    pub state_file: Option<PathBuf>,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            id: "lb-1".to_owned(),
            listen: SocketAddr::from(([127, 0, 0, 1], 8080)),
            admin: SocketAddr::from(([127, 0, 0, 1], 8090)),
            redis: "redis://127.0.0.1:6390".to_owned(),
            redis_ca_file: String::new(),
            redis_prefix: "gateway".to_owned(),
            affinity: Affinity::Sid,
            shards: 0,
            drain_seconds: 5,
            proxy_protocol: true,
            source_addresses: Vec::new(),
            flows_max: 0,
            flows_per_source_max: 0,
            accepts_per_s: 20_000,
            head_timeout_ms: 5_000,
            connect_timeout_ms: 500,
            answer_timeout_ms: 2_000,
            half_closed_timeout_ms: 60_000,
            stalled_timeout_ms: 30_000,
            queue_bytes_max: 128 * 1024,
            load_bound: 1.25,
            slow_start_seconds: 30,
            state_file: None,
        }
    }
}

/// A value that cannot work, in one line with the remedy.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{key} = {value}: {allowed}")]
pub struct Refused {
    key: &'static str,
    value: String,
    allowed: String,
}

impl Config {
    /// Checks what types cannot say.
    ///
    /// # Errors
    /// The first value that cannot work.
    pub fn check(&self) -> Result<(), Refused> {
        let refuse = |key, value: &dyn std::fmt::Display, allowed: &str| {
            Err(Refused {
                key,
                value: value.to_string(),
                allowed: allowed.to_owned(),
            })
        };
        if self.shards > limits::SHARDS_MAX {
            return refuse("shards", &self.shards, "at most 1024; 0 takes one per core");
        }
        if !(1.0..=100.0).contains(&self.load_bound) {
            return refuse("load_bound", &self.load_bound, "1 to 100; 1.25 suits most");
        }
        if self.queue_bytes_max < limits::QUEUE_BYTES_LEAST {
            return refuse(
                "queue_bytes_max",
                &self.queue_bytes_max,
                "at least 16384 bytes",
            );
        }
        for (key, value) in [
            ("head_timeout_ms", self.head_timeout_ms),
            ("connect_timeout_ms", self.connect_timeout_ms),
            ("answer_timeout_ms", self.answer_timeout_ms),
            ("half_closed_timeout_ms", self.half_closed_timeout_ms),
            ("stalled_timeout_ms", self.stalled_timeout_ms),
        ] {
            if !(1..=limits::TIMEOUT_MS_MAX).contains(&value) {
                return refuse(key, &value, "1 to 3600000 milliseconds");
            }
        }
        if let Some(address) = self
            .source_addresses
            .iter()
            .find(|address| address.is_unspecified())
        {
            return refuse("source_addresses", address, "addresses of this machine");
        }
        Ok(())
    }

    /// Flows at once that `nofile` descriptors and the rings of `shards` allow: two sockets each, and some
    /// descriptors for everything else.
    ///
    /// # Errors
    /// `flows_max` is set above it.
    pub fn flows_max_within(
        &self,
        nofile: u64,
        shards: usize,
        direct_slots: u32,
    ) -> Result<usize, Refused> {
        let reserved = limits::DESCRIPTORS_RESERVED;
        let sockets = doctor::sockets_max(nofile, reserved, shards as u64, direct_slots);
        let possible = usize::try_from(sockets / 2).unwrap_or(usize::MAX);
        match self.flows_max {
            0 => Ok(possible.max(1)),
            wanted if wanted <= possible => Ok(wanted),
            wanted => Err(Refused {
                key: "flows_max",
                value: wanted.to_string(),
                allowed: format!(
                    "at most {possible} (two sockets a flow) with {nofile} descriptors and {direct_slots} direct ones in each of {shards} shards; raise `ulimit -n` / LimitNOFILE"
                ),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_allowed() {
        assert_eq!(Config::default().check(), Ok(()));
    }

    #[test]
    fn a_refused_value_names_key_value_and_what_is_allowed() {
        let text = |change: fn(&mut Config)| {
            let mut config = Config::default();
            change(&mut config);
            config.check().expect_err("refused").to_string()
        };
        assert_eq!(
            text(|c| c.load_bound = 0.5),
            "load_bound = 0.5: 1 to 100; 1.25 suits most"
        );
        assert!(text(|c| c.load_bound = f64::NAN).starts_with("load_bound = NaN"));
        assert!(text(|c| c.queue_bytes_max = 1).contains("at least"));
        assert!(text(|c| c.connect_timeout_ms = 0).contains("milliseconds"));
        assert!(
            text(|c| c.source_addresses = vec!["0.0.0.0".parse().expect("address")])
                .contains("this machine")
        );
    }

    #[test]
    fn more_flows_than_descriptors_are_refused_with_the_remedy() {
        let config = Config {
            flows_max: 20_000,
            ..Config::default()
        };
        let error = config
            .flows_max_within(20_000, 1, 0)
            .expect_err("two descriptors a flow")
            .to_string();
        assert!(error.contains("ulimit -n"), "{error}");
        let within = |direct_slots| Config::default().flows_max_within(20_000, 2, direct_slots);
        assert_eq!(within(0), Ok(9_860));
        assert_eq!(within(20_000), Ok(29_860));
    }
}

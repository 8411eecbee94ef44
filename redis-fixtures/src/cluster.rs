//! A Redis Cluster: three masters, a replica each.

use std::time::{Duration, Instant};

use crate::reply::Reply;
use crate::server::{Program, Server};
use crate::wait_until;

const MASTERS: usize = 3;
const SLOTS: usize = 16_384;

/// A running cluster.
#[derive(Debug)]
pub struct Cluster {
    /// First the masters, then the replica of each; the roles change.
    pub nodes: Vec<Server>,
    ids: Vec<String>,
}

impl Cluster {
    /// Starts one and waits until every node thinks all is well; `None` where redis-server is missing.
    pub fn start() -> Option<Cluster> {
        let arguments = [
            "--cluster-enabled",
            "yes",
            "--cluster-config-file",
            "nodes.conf",
            "--cluster-port",
            "$OTHER",
            "--cluster-node-timeout",
            "1500",
        ];
        let nodes: Vec<Server> = (0..2 * MASTERS)
            .map(|_| Server::start_with(Program::Redis, &arguments))
            .collect::<Option<_>>()?;
        let ids: Vec<String> = nodes
            .iter()
            .map(|node| node.ask(&["CLUSTER", "MYID"]).text().to_owned())
            .collect();
        let cluster = Cluster { nodes, ids };
        for (at, node) in cluster.nodes.iter().enumerate() {
            node.tell(&["CLUSTER", "SET-CONFIG-EPOCH", &(at + 1).to_string()]);
            if at < MASTERS {
                let (first, last) = (SLOTS * at / MASTERS, SLOTS * (at + 1) / MASTERS - 1);
                node.tell(&[
                    "CLUSTER",
                    "ADDSLOTSRANGE",
                    &first.to_string(),
                    &last.to_string(),
                ]);
            }
            let (port, bus) = (node.port().to_string(), node.argument("--cluster-port"));
            let first = &cluster.nodes[0];
            first.tell(&[
                "CLUSTER",
                "MEET",
                "127.0.0.1",
                &port,
                bus.expect("its bus port"),
            ]);
        }
        wait_until("the nodes to meet", || {
            let count = format!("cluster_known_nodes:{}", cluster.nodes.len());
            cluster.everybody_says(&["cluster_state:ok", &count])
        });
        for at in 0..MASTERS {
            let replica = &cluster.nodes[MASTERS + at];
            replica.tell(&["CLUSTER", "REPLICATE", &cluster.ids[at]]);
        }
        cluster.wait_until_whole();
        Some(cluster)
    }

    /// All nodes' addresses, host:port.
    pub fn addresses(&self) -> Vec<String> {
        self.nodes
            .iter()
            .map(|node| format!("127.0.0.1:{}", node.port()))
            .collect()
    }

    /// Whether every node is up, sees the whole cluster, and every replica is whole.
    pub fn is_whole(&self) -> bool {
        self.everybody_says(&["cluster_state:ok", "cluster_slots_ok:16384"])
            && self.nodes.iter().all(|node| match &node.info("role")[..] {
                "slave" => node.info("master_link_status") == "up",
                role => role == "master",
            })
            && self.masters().len() == MASTERS
    }

    /// Waits until that is so.
    pub fn wait_until_whole(&self) {
        wait_until("a whole cluster", || self.is_whole());
    }

    fn everybody_says(&self, lines: &[&str]) -> bool {
        self.nodes.iter().all(|node| {
            let info = node.try_ask(&["CLUSTER", "INFO"]);
            info.is_ok_and(|info| {
                lines
                    .iter()
                    .all(|line| info.text().lines().any(|said| said == *line))
            })
        })
    }

    /// Indices of the masters that have slots, as the first node that answers knows them.
    pub fn masters(&self) -> Vec<usize> {
        let mut masters: Vec<usize> = self
            .map()
            .into_iter()
            .map(|(_, _, master)| master)
            .collect();
        masters.sort_unstable();
        masters.dedup();
        masters
    }

    /// First slot, last slot, master.
    fn map(&self) -> Vec<(i64, i64, usize)> {
        let mut maps = (0..self.nodes.len()).map(|node| self.map_of(node));
        maps.find(|map| !map.is_empty()).expect("a node is up")
    }

    /// The same as a node knows it; empty while that is away.
    fn map_of(&self, node: usize) -> Vec<(i64, i64, usize)> {
        let slots = self.nodes[node].try_ask(&["CLUSTER", "SLOTS"]);
        slots
            .unwrap_or(Reply::Nil)
            .list()
            .iter()
            .filter_map(|row| {
                let [first, last, master, ..] = row.list() else {
                    return None;
                };
                let port = master.list().get(1)?.int()?;
                let at = self
                    .nodes
                    .iter()
                    .position(|node| i64::from(node.port()) == port)?;
                Some((first.int()?, last.int()?, at))
            })
            .collect()
    }

    /// The slot of a key.
    pub fn slot(&self, key: &str) -> u16 {
        let up = self
            .nodes
            .iter()
            .find_map(|node| node.try_ask(&["CLUSTER", "KEYSLOT", key]).ok());
        let slot = up.and_then(|slot| slot.int()).expect("a node is up");
        slot as u16
    }

    /// The master of a slot.
    pub fn master_of(&self, slot: u16) -> Option<usize> {
        let slot = i64::from(slot);
        let map = self.map();
        map.iter()
            .find_map(|&(first, last, at)| (first..=last).contains(&slot).then_some(at))
    }

    /// The replica of a master.
    pub fn replica_of(&self, master: usize) -> Option<usize> {
        let port = self.nodes[master].port().to_string();
        self.nodes
            .iter()
            .position(|node| node.info("role") == "slave" && node.info("master_port") == port)
    }

    /// Moves a slot and its keys, as resharding tools do it: what happens between its steps is seen by
    /// clients.
    pub fn migrate(&self, slot: u16, to: usize, mut between: impl FnMut(&str)) {
        let from = self.master_of(slot).expect("the slot has a master");
        assert_ne!(from, to, "it is there already");
        let slot = slot.to_string();
        let (source, target) = (&self.nodes[from], &self.nodes[to]);
        target.tell(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", &self.ids[from]]);
        source.tell(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", &self.ids[to]]);
        between("migrating");
        let port = target.port().to_string();
        loop {
            let keys = source.ask(&["CLUSTER", "GETKEYSINSLOT", &slot, "100"]);
            if keys.list().is_empty() {
                break;
            }
            let mut command = vec!["MIGRATE", "127.0.0.1", &port, "", "0", "5000", "KEYS"];
            command.extend(keys.list().iter().map(|key| key.text()));
            source.tell(&command);
        }
        between("moved");
        // The target first, so that the slot has an owner at every moment.
        target.tell(&["CLUSTER", "SETSLOT", &slot, "NODE", &self.ids[to]]);
        source.tell(&["CLUSTER", "SETSLOT", &slot, "NODE", &self.ids[to]]);
        between("owned");
    }

    /// Waits until those that are up all see a whole cluster in which `node` is no master.
    pub fn wait_until_another_serves(&self, node: usize) {
        let others = || (0..self.nodes.len()).filter(|&at| at != node);
        wait_until("a replica to take over", || {
            others().all(|at| {
                let info = self.nodes[at].try_ask(&["CLUSTER", "INFO"]);
                let is_ok = info.is_ok_and(|info| info.text().contains("cluster_state:ok"));
                is_ok && !self.map_of(at).iter().any(|&(.., master)| master == node)
            })
        });
    }

    /// Makes the replica of `master` the master (CLUSTER FAILOVER); returns its index when that is so.
    pub fn fail_over(&self, master: usize) -> usize {
        let replica = self.replica_of(master).expect("it has a replica");
        // A failover that does not come about within 5 s (somebody missed a packet) is given up.
        let mut asked: Option<Instant> = None;
        wait_until("the failover", || {
            if asked.is_none_or(|at| at.elapsed() > Duration::from_secs(6)) {
                self.nodes[replica].ask(&["CLUSTER", "FAILOVER"]);
                asked = Some(Instant::now());
            }
            self.nodes[replica].info("role") == "master"
        });
        replica
    }
}

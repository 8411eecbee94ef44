//! Redis Cluster: slots move, masters change and die.

use flux_redis_fixtures::Cluster;
use flux_registry::{RedisDeployment, RedisSettings};

use crate::node::{HISTORY, Node, deployment};
use crate::traffic::{CHANNELS, survives};

fn of(cluster: &Cluster) -> RedisDeployment {
    deployment(&RedisSettings {
        cluster_address: cluster.addresses()[..2].to_vec(),
        ..RedisSettings::default()
    })
}

/// The slot of a channel of the tests.
fn slot(cluster: &Cluster, channel: &str) -> u16 {
    cluster.slot(&format!("{{{channel}}}"))
}

#[test]
fn slots_move_between_masters_under_their_publications() {
    let Some(cluster) = Cluster::start() else {
        return;
    };
    let deployment = of(&cluster);
    let nodes = [Node::joined(&deployment), Node::joined(&deployment)];
    for history in [None, Some(HISTORY)] {
        let verdict = survives("Cluster, three slots moved", &nodes, history, || {
            for channel in &CHANNELS[..3] {
                let slot = slot(&cluster, channel);
                let from = cluster.master_of(slot).expect("an owner");
                cluster.migrate(slot, (from + 1) % 3, |_| {
                    std::thread::sleep(std::time::Duration::from_millis(100));
                });
            }
        });
        if history.is_some() {
            assert_eq!(verdict.refused, 0, "it costs publishers time, no errors");
            assert_eq!(verdict.told, 0, "the history has it all");
        }
    }
}

#[test]
fn a_replica_that_takes_over_in_peace_loses_nothing() {
    let Some(cluster) = Cluster::start() else {
        return;
    };
    let deployment = of(&cluster);
    let nodes = [Node::joined(&deployment), Node::joined(&deployment)];
    let master = cluster
        .master_of(slot(&cluster, CHANNELS[0]))
        .expect("an owner");
    let verdict = survives("Cluster, failover ordered", &nodes, Some(HISTORY), || {
        cluster.fail_over(master);
        cluster.wait_until_whole();
    });
    assert_eq!(verdict.told, 0, "the replica has it all");
}

#[test]
fn a_master_that_dies_is_followed_by_its_replica() {
    let Some(mut cluster) = Cluster::start() else {
        return;
    };
    let deployment = of(&cluster);
    let nodes = [Node::joined(&deployment), Node::joined(&deployment)];
    let master = cluster
        .master_of(slot(&cluster, CHANNELS[0]))
        .expect("an owner");
    survives("Cluster, master killed", &nodes, Some(HISTORY), || {
        cluster.nodes[master].kill();
        cluster.wait_until_another_serves(master);
    });
}

#[test]
fn a_master_that_stands_still_is_followed_by_its_replica() {
    let Some(cluster) = Cluster::start() else {
        return;
    };
    let deployment = of(&cluster);
    let nodes = [Node::joined(&deployment), Node::joined(&deployment)];
    let master = cluster
        .master_of(slot(&cluster, CHANNELS[0]))
        .expect("an owner");
    survives("Cluster, master stopped", &nodes, Some(HISTORY), || {
        cluster.nodes[master].pause();
        cluster.wait_until_another_serves(master);
        for node in &nodes {
            node.wait_until_up();
        }
        cluster.nodes[master].resume();
        cluster.wait_until_whole();
    });
}

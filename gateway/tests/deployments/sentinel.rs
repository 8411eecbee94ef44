//! Sentinel: the master changes in every way that it can.

use flux_redis_fixtures::Sentinels;
use flux_registry::{RedisDeployment, RedisSettings};

use crate::node::{HISTORY, Node, deployment};
use crate::traffic::survives;

fn of(sentinels: &Sentinels) -> RedisDeployment {
    deployment(&RedisSettings {
        sentinel_address: sentinels.addresses(),
        sentinel_master_name: sentinels.master_name().into(),
        ..RedisSettings::default()
    })
}

#[test]
fn a_failover_that_was_ordered_loses_nothing() {
    let Some(sentinels) = Sentinels::start() else {
        return;
    };
    let deployment = of(&sentinels);
    let nodes = [Node::joined(&deployment), Node::joined(&deployment)];
    for history in [None, Some(HISTORY)] {
        let to = 1 - sentinels.master().expect("a master");
        let verdict = survives("Sentinel, failover ordered", &nodes, history, || {
            sentinels.fail_over();
            sentinels.wait_until_master_is(to);
            sentinels.wait_until_whole();
        });
        if history.is_some() {
            assert_eq!(verdict.refused, 0, "it costs publishers time, no errors");
            assert_eq!(verdict.told, 0, "the new master has it all");
        }
    }
}

#[test]
fn a_master_that_dies_is_followed_by_its_replica() {
    let Some(mut sentinels) = Sentinels::start() else {
        return;
    };
    let deployment = of(&sentinels);
    let nodes = [Node::joined(&deployment), Node::joined(&deployment)];
    survives("Sentinel, master killed", &nodes, Some(HISTORY), || {
        sentinels.servers[0].kill();
        sentinels.wait_until_master_is(1);
    });
}

#[test]
fn a_master_that_stands_still_is_followed_by_its_replica() {
    let Some(sentinels) = Sentinels::start() else {
        return;
    };
    let deployment = of(&sentinels);
    let nodes = [Node::joined(&deployment), Node::joined(&deployment)];
    survives("Sentinel, master stopped", &nodes, Some(HISTORY), || {
        sentinels.servers[0].pause();
        sentinels.wait_until_master_is(1);
        for node in &nodes {
            node.wait_until_up();
        }
        sentinels.servers[0].resume();
        sentinels.wait_until_whole();
    });
}

//! Promise: two gateways joined by a Redis deployment keep their clients through a failover of it, and no
//! subscriber misses a publication without being told.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use flux_redis_fixtures::{Cluster, Sentinels};
use serde_json::{Value, json};

use super::client::Client;
use super::gateway::{Gateway, Plan, until};

fn start(id: &str, redis: &str) -> Gateway {
    let channels = json!({
        "allow_subscribe_for_client": true, "allow_subscribe_for_anonymous": true,
        "allow_publish_for_client": true, "allow_publish_for_anonymous": true,
        "history_size": 100_000, "history_ttl": "600s", "force_recovery": true,
        "presence": true, "allow_presence_for_subscriber": true, "allow_presence_for_anonymous": true,
    });
    let settings =
        json!({ "id": id, "redis": redis, "channel": { "without_namespace": channels } });
    let gateway = Plan::new(settings).start();
    until("everything to travel through Redis", || {
        let ready: Value = serde_json::from_str(&gateway.ask("/ready").1).ok()?;
        (ready["degraded"] == json!([])).then_some(())
    });
    gateway
}

fn connected(gateway: &Gateway) -> Client {
    let mut client = Client::open(gateway.clients, "/connection/websocket");
    let reply = client.ask(&json!({ "connect": {} }));
    assert!(reply.get("connect").is_some(), "{reply}");
    client
}

/// Publishes at one gateway while something happens to Redis; a subscriber is at each.
fn survives(redis: &str, happen: impl FnOnce()) {
    let gateways = [start("one", redis), start("two", redis)];
    let mut readers = gateways.each_ref().map(connected);
    for reader in &mut readers {
        let reply = reader.ask(&json!({ "subscribe": { "channel": "room" } }));
        assert_eq!(reply["subscribe"]["recoverable"], true, "{reply}");
    }
    let stop = AtomicBool::new(false);
    let sent = std::thread::scope(|scope| {
        let mut writer = connected(&gateways[0]);
        let stop = &stop;
        let writing = scope.spawn(move || {
            let mut sent = 0u64;
            while !stop.load(Ordering::SeqCst) {
                let publish = json!({ "publish": { "channel": "room", "data": sent } });
                until("a publication to be accepted", || {
                    let reply = writer.ask(&publish);
                    let is_accepted = reply.get("publish").is_some();
                    assert!(is_accepted || reply["error"]["code"] == 100, "{reply}");
                    is_accepted.then_some(())
                });
                sent += 1;
                std::thread::sleep(Duration::from_millis(2));
            }
            sent
        });
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            std::thread::sleep(Duration::from_millis(300));
            happen();
            std::thread::sleep(Duration::from_millis(1_000));
        }));
        stop.store(true, Ordering::SeqCst);
        let sent = writing.join().expect("the writer ends well");
        result.expect("it happens");
        sent
    });
    let mut present = 0;
    for reader in &mut readers {
        present += usize::from(reads_on(reader, sent));
    }
    let mut asker = connected(&gateways[1]);
    asker.ask(&json!({ "subscribe": { "channel": "room" } }));
    present += 1;
    let mut last = Value::Null;
    until(
        "who is still subscribed is present, as every node is told",
        || {
            let stats = asker.ask(&json!({ "presence_stats": { "channel": "room" } }));
            let (result, error) = (&stats["presence_stats"], &stats["error"]);
            if last != json!([result, error]) {
                last = json!([result, error]);
                println!("present: {last} of {present}");
            }
            (result["num_clients"] == present).then_some(())
        },
    );
}

/// Reads all of `sent` publications, in order; false if the reader was told instead that it has missed some, which
/// ends its subscription.
fn reads_on(reader: &mut Client, sent: u64) -> bool {
    let mut next = 0;
    while next < sent {
        let line = reader.line().expect("no client is cut off");
        if line["push"].get("unsubscribe").is_some() {
            println!("told after {next} of {sent}");
            return false;
        }
        if let Some(number) = line["push"]["pub"]["data"].as_u64() {
            // One whose answer was lost may have been stored, and was published again.
            assert!(
                number == next || number + 1 == next,
                "{number} instead of {next}"
            );
            next = next.max(number + 1);
        }
    }
    true
}

#[test]
fn clients_stay_through_the_death_of_a_sentinels_master() {
    let Some(mut sentinels) = Sentinels::start() else {
        return;
    };
    let [first, others @ ..] = &sentinels.addresses()[..] else {
        panic!("no sentinel");
    };
    let name = sentinels.master_name();
    let mut redis = format!("redis+sentinel://{first}?sentinel_master_name={name}");
    for other in others {
        redis.push_str(&format!("&addr={other}"));
    }
    survives(&redis, || {
        sentinels.servers[0].kill();
        sentinels.wait_until_master_is(1);
    });
}

#[test]
fn clients_stay_through_the_death_of_a_clusters_master() {
    let Some(mut cluster) = Cluster::start() else {
        return;
    };
    let redis = format!("redis+cluster://{}", cluster.addresses()[4]);
    survives(&redis, || {
        let master = cluster.master_of(cluster.slot("{room}")).expect("an owner");
        cluster.nodes[master].kill();
        cluster.wait_until_another_serves(master);
    });
}

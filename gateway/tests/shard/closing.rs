//! What a connection is owed before it ends.

use flux_gateway::pubsub::SubscriptionsConfig;
use flux_gateway::shard::Order;

use super::client::{Client, Got, wait_for};
use super::node::Settings;

#[test]
fn what_was_published_before_the_drain_closes_a_client_stands_before_its_close_frame() {
    const COUNT: u64 = 400;
    let node = Settings {
        subscriptions: SubscriptionsConfig {
            lag_bytes_max: 1 << 30,
            ..SubscriptionsConfig::default()
        },
        ..Settings::default()
    }
    .start();
    let mut reader = Client::connect_narrow(node.address);
    reader.subscribe("c");
    let mut publisher = Client::connect(node.address);
    let padding = "x".repeat(30_000);
    for n in 0..COUNT {
        publisher.ask(&format!(
            r#""publish":{{"channel":"c","data":"{n} {padding}"}}"#
        ));
    }
    wait_for("everything to be on its way", || {
        node.count(|counters| &counters.deliveries) == COUNT
    });
    node.order(Order::Close(2));
    let mut seen = 0;
    loop {
        match reader.next() {
            Got::Text(text) => {
                let number = format!(r#""data":"{seen} "#);
                assert!(text.contains(&number), "{seen} is missing");
                seen += 1;
            }
            Got::Closed(code) => {
                assert_eq!((code, seen), (3001, COUNT));
                return;
            }
        }
    }
}

#[test]
fn a_shard_that_has_ended_counts_no_connection_and_lists_no_client() {
    let node = Settings::default().start();
    let client = Client::connect(node.address);
    let id = client.id();
    assert!(node.shared.directory.find(id).is_some());
    wait_for("the client to be counted", || {
        node.count(|counters| &counters.connections) == 1
    });
    node.order(Order::Stop);
    wait_for("nobody to be left", || {
        node.count(|counters| &counters.connections) == 0
            && node.count(|counters| &counters.clients) == 0
            && node.shared.directory.find(id).is_none()
    });
}

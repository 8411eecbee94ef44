//! A slow consumer costs only itself.

use flux_gateway::pubsub::SubscriptionsConfig;

use super::client::{Client, wait_for};
use super::node::Settings;

#[test]
fn a_shard_goes_on_after_the_last_subscriber_of_a_busy_channel_was_too_slow() {
    let node = Settings {
        subscriptions: SubscriptionsConfig {
            lag_bytes_max: 40_000,
            ..SubscriptionsConfig::default()
        },
        ..Settings::default()
    }
    .start();
    let mut slow = Client::connect_narrow(node.address);
    slow.subscribe("busy");
    let mut publisher = Client::connect(node.address);
    let data = format!("\"{}\"", "x".repeat(30_000));
    wait_for("the slow consumer's end", || {
        publisher.ask(&format!(r#""publish":{{"channel":"busy","data":{data}}}"#));
        node.count(|counters| &counters.slow_bytes) == 1
    });
    let mut other = Client::connect(node.address);
    other.subscribe("quiet");
    publisher.send_publish("quiet", "1");
    other.wait(|line| line.contains(r#""push""#));
}

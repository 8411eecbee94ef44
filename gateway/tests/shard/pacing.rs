//! Sends of a busy shard, and what is said of them.

use std::time::{Duration, Instant};

use flux_gateway::pubsub::PacingConfig;

use super::client::Client;
use super::node::Settings;

const REST: Duration = Duration::from_secs(3);

#[test]
fn on_a_busy_shard_publications_wait_for_the_rest_to_end_and_replies_do_not() {
    let node = Settings {
        pacing: PacingConfig {
            budget: REST,
            // Busy at whatever load.
            least: REST,
            ..PacingConfig::default()
        },
        ..Settings::default()
    }
    .start();
    let mut reader = Client::connect(node.address);
    reader.subscribe("c");
    let mut publisher = Client::connect(node.address);
    let mut publish = |n: u32| publisher.ask(&format!(r#""publish":{{"channel":"c","data":{n}}}"#));
    // Who has been sent nothing for long gets it at once.
    let begun = Instant::now();
    publish(0);
    reader.wait(|line| line.contains(r#""data":0"#));
    assert!(begun.elapsed() < REST, "{:?}", begun.elapsed());
    let rested_from = begun;
    for n in 1..=5 {
        publish(n);
    }
    reader.ask(r#""rpc":{"method":"m","data":1}"#);
    let sends = node.count(|counters| &counters.sends);
    for n in 6..=9 {
        publish(n);
    }
    reader.wait(|line| line.contains(r#""data":9"#));
    assert!(rested_from.elapsed() >= REST, "{:?}", rested_from.elapsed());
    // Four replies to the publisher; what was published in the rest is one send.
    assert_eq!(node.count(|counters| &counters.sends) - sends, 5);
    assert_eq!(node.count(|counters| &counters.rest_us), 3_000_000);
}

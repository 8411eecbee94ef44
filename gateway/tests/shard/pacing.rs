//! Rounds of a busy shard, and what is said of them.

use std::time::Duration;

use flux_gateway::pubsub::PacingConfig;

use super::client::Client;
use super::node::Settings;

#[test]
fn a_round_that_waits_counts_once_however_many_turns_pass_meanwhile() {
    let node = Settings {
        pacing: PacingConfig {
            budget: Duration::from_millis(1_500),
            // Busy at whatever load.
            busy_above: -1.0,
            quiet_below: -2.0,
        },
        ..Settings::default()
    }
    .start();
    let mut reader = Client::connect(node.address);
    reader.subscribe("c");
    let mut publisher = Client::connect(node.address);
    // The first round is due at once, the second waits.
    for n in 1..=2 {
        publisher.ask(&format!(r#""publish":{{"channel":"c","data":{n}}}"#));
        if n == 2 {
            for _ in 0..20 {
                publisher.ask(r#""rpc":{"method":"m","data":1}"#);
            }
        }
        reader.wait(|line| line.contains(&format!(r#""data":{n}"#)));
    }
    assert_eq!(node.count(|counters| &counters.rounds), 2);
    assert_eq!(node.count(|counters| &counters.rounds_delayed), 1);
}

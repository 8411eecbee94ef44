//! Pings come when the client was told they would.

use std::time::{Duration, Instant};

use super::client::Client;
use super::node::Settings;

#[test]
fn the_first_ping_comes_in_its_time_however_long_newcomers_may_take() {
    let mut settings = Settings::default();
    settings.session.limits.ping_interval = Duration::from_secs(1);
    settings.session.limits.pong_timeout = Duration::from_millis(500);
    settings.session.limits.stale_close_delay = Duration::from_secs(6);
    let node = settings.start();
    let mut client = Client::connect(node.address);
    let connected = Instant::now();
    client.wait(|line| line == "{}");
    let took = connected.elapsed();
    assert!(took < Duration::from_secs(3), "{took:?}");
}

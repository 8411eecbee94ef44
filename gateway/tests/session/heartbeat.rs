//! A client that is gone is found out; one that is there is left alone.

use std::rc::Rc;
use std::time::Duration;

use flux_gateway::protocol::ClientId;

use crate::client::{Client, Seen, open_config};

const SECOND: Duration = Duration::from_secs(1);
const MILLISECOND: Duration = Duration::from_millis(1);

#[test]
fn a_client_that_does_not_connect_is_closed_as_stale() {
    let mut client = Client::new(open_config());
    assert!(client.waits(10 * SECOND - MILLISECOND).is_empty());
    assert_eq!(client.effects(), []);
    client.waits(MILLISECOND);
    assert_eq!(client.effects(), [Seen::Close(3502, "stale".to_owned())]);
    assert_eq!(client.session.deadline(), None);
}

#[test]
fn a_client_that_connects_at_the_last_moment_stays() {
    let mut client = Client::new(open_config());
    client.waits(10 * SECOND - MILLISECOND);
    client.sends(r#"{"id":1,"connect":{}}"#);
    client.effects();
    client.waits(12 * SECOND);
    assert_eq!(client.effects(), []);
    assert!(client.session.is_connected());
}

#[test]
fn first_pings_spread_over_the_second_half_of_the_interval() {
    let config = Rc::new(open_config());
    let mut slices = [0_u32; 5];
    let mut random = fastrand::Rng::with_seed(7);
    for _ in 0..1_000 {
        let id = ClientId::from_random(random.u128(..));
        let mut client = Client::with_id(&config, id);
        client.sends(r#"{"id":1,"connect":{}}"#);
        let due = client.session.deadline().expect("a ping is due") - client.now;
        assert!(
            due >= Duration::from_millis(12_500) && due <= 25 * SECOND,
            "{due:?}"
        );
        let slice = (due - Duration::from_millis(12_500)).as_millis() / 2_501;
        slices[slice as usize] += 1;
    }
    assert!(
        slices.iter().all(|&count| (150..250).contains(&count)),
        "{slices:?}"
    );
}

#[test]
fn pings_come_every_interval_as_long_as_pongs_do() {
    let mut client = Client::connected(open_config());
    let mut last = None;
    for _ in 0..10 {
        let ping = client.session.deadline().expect("a ping is due");
        client.now = ping;
        assert_eq!(client.fires().as_deref(), Some("{}"));
        if let Some(last) = last {
            assert_eq!(ping - last, 25 * SECOND);
        }
        last = Some(ping);
        client.now += 3 * SECOND;
        assert_eq!(client.sends("{}"), "");
    }
    assert_eq!(client.effects(), []);
}

#[test]
fn no_pong_in_time_closes_whatever_else_the_client_sends() {
    let mut client = Client::connected(open_config());
    client.now = client.session.deadline().expect("a ping is due");
    assert_eq!(client.fires().as_deref(), Some("{}"));
    client.now += 7 * SECOND;
    client.sends(r#"{"id":2,"rpc":{}}"#);
    assert!(client.waits(SECOND - MILLISECOND).is_empty());
    assert_eq!(client.effects(), []);
    client.waits(MILLISECOND);
    assert_eq!(client.effects(), [Seen::Close(3012, "no pong".to_owned())]);
}

#[test]
fn a_second_pong_is_one_too_many() {
    let mut client = Client::connected(open_config());
    client.now = client.session.deadline().expect("a ping is due");
    client.fires();
    assert_eq!(client.sends("{}\n{}"), "");
    assert_eq!(
        client.effects(),
        [Seen::Close(3501, "bad request".to_owned())]
    );
}

#[test]
fn a_timer_that_fires_early_does_nothing() {
    let mut client = Client::connected(open_config());
    let due = client.session.deadline();
    assert_eq!(client.fires(), None);
    assert_eq!(client.session.deadline(), due);
}

//! What a client missed it gets when it comes back, or it is told that it does not.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use flux_gateway::session::ChannelOptions;
use serde_json::Value;

use super::client::{Client, Got};
use super::node::{Node, Settings};

/// Channels keep 200 publications; clients may do everything.
fn node() -> Node {
    let mut settings = Settings {
        shards: 2,
        ..Settings::default()
    };
    settings.session.channels.without_namespace = ChannelOptions {
        history_size: 200,
        history_ttl: Duration::from_secs(300),
        presence: true,
        ..ChannelOptions::open()
    };
    settings.start()
}

/// The last publication in the test of clients that come and go.
const LAST: u64 = 3_001;

/// Where a subscriber is.
#[derive(Clone, Debug, Default)]
struct Position {
    epoch: String,
    offset: u64,
}

fn json(line: &str) -> Value {
    serde_json::from_str(line).expect("JSON")
}

fn subscribe(recover: Option<&Position>) -> String {
    let since = recover.map_or_else(String::new, |position| {
        format!(
            r#","recover":true,"epoch":"{}","offset":{}"#,
            position.epoch, position.offset
        )
    });
    format!(r#""subscribe":{{"channel":"c","recoverable":true,"positioned":true{since}}}"#)
}

/// The result of a subscribe, and the offsets that came with it.
fn subscribed(reply: &str) -> (Value, Vec<u64>) {
    let result = json(reply)["subscribe"].take();
    assert!(result.is_object(), "{reply}");
    let publications = result["publications"].as_array().cloned();
    let offsets = publications
        .unwrap_or_default()
        .iter()
        .map(|publication| {
            let offset = publication["offset"].as_u64().expect("an offset");
            assert_eq!(publication["data"], offset, "{reply}");
            offset
        })
        .collect();
    (result, offsets)
}

fn publish(publisher: &mut Client, offset: u64) {
    let reply = publisher.ask(&format!(r#""publish":{{"channel":"c","data":{offset}}}"#));
    assert!(reply.contains("\"publish\":{}"), "{reply}");
}

#[test]
fn a_client_that_comes_back_gets_all_it_missed_or_is_told_that_it_does_not() {
    let node = node();
    let mut publisher = Client::connect(node.address);
    let mut published = 0;
    for missed in [0, 1, 100, 300] {
        let (start, _) = subscribed(&Client::connect(node.address).ask(&subscribe(None)));
        let position = Position {
            epoch: start["epoch"].as_str().expect("an epoch").to_owned(),
            offset: start["offset"].as_u64().unwrap_or(0),
        };
        assert_eq!(position.offset, published);
        for _ in 0..missed {
            published += 1;
            publish(&mut publisher, published);
        }
        let mut client = Client::connect(node.address);
        let (result, offsets) = subscribed(&client.ask(&subscribe(Some(&position))));
        assert_eq!(result["was_recovering"], true, "{missed} missed");
        if missed <= 200 {
            assert_eq!(result["recovered"], true, "{missed} missed");
            let expected: Vec<_> = (position.offset + 1..=published).collect();
            assert_eq!(offsets, expected);
        } else {
            assert_eq!(result.get("recovered"), None, "{missed} missed");
            assert_eq!(result["offset"], published);
            assert!(offsets.is_empty());
        }
        // And what comes next, once.
        published += 1;
        publish(&mut publisher, published);
        let push = json(&client.wait(|line| line.contains("\"push\"")));
        assert_eq!(push["push"]["pub"]["offset"], published);
    }
    // Of another life of the channel nothing is known.
    let foreign = Position {
        epoch: "abcdefgh".to_owned(),
        offset: published,
    };
    let (result, _) = subscribed(&Client::connect(node.address).ask(&subscribe(Some(&foreign))));
    assert_eq!(result.get("recovered"), None);
}

#[test]
fn clients_that_come_and_go_see_every_publication_once_and_in_order() {
    let node = node();
    let is_over = AtomicBool::new(false);
    let address = node.address;
    std::thread::scope(|scope| {
        let readers: Vec<_> = (0..4)
            .map(|seed| {
                let is_over = &is_over;
                scope.spawn(move || {
                    let mut random = fastrand::Rng::with_seed(seed);
                    let mut position: Option<Position> = None;
                    let mut lives = 0;
                    while !is_over.load(Ordering::Relaxed) {
                        live_once(address, &mut position, random.u32(1..40));
                        lives += 1;
                    }
                    (lives, position.expect("subscribed").offset)
                })
            })
            .collect();
        let mut publisher = Client::connect(address);
        for offset in 1..LAST {
            publish(&mut publisher, offset);
        }
        is_over.store(true, Ordering::Relaxed);
        // Whoever waits for a push gets one.
        publish(&mut publisher, LAST);
        for reader in readers {
            let (lives, offset) = reader.join().expect("a reader ends well");
            assert!(lives > 1 && offset > 0, "{lives} lives up to {offset}");
        }
    });
}

/// Subscribes from where the last life ended, and reads `pushes` publications at most.
fn live_once(address: std::net::SocketAddr, position: &mut Option<Position>, pushes: u32) {
    let mut client = Client::connect(address);
    let (result, offsets) = subscribed(&client.ask(&subscribe(position.as_ref())));
    let epoch = result["epoch"].as_str().expect("an epoch").to_owned();
    let mut offset = match position {
        Some(last) if result["recovered"] == true => {
            assert_eq!(last.epoch, epoch);
            last.offset
        }
        // Told that something is missing: a new beginning.
        Some(_) | None => {
            assert!(offsets.is_empty());
            result["offset"].as_u64().unwrap_or(0)
        }
    };
    for next in offsets {
        assert_eq!(next, offset + 1, "a gap or a repetition in what was missed");
        offset = next;
    }
    for _ in 0..pushes {
        // The publisher is done.
        if offset >= LAST {
            break;
        }
        let Got::Text(text) = client.next() else {
            panic!("closed");
        };
        for line in text.lines().filter(|line| line.contains("\"pub\"")) {
            let next = json(line)["push"]["pub"]["offset"].as_u64();
            assert_eq!(next, Some(offset + 1), "a gap or a repetition");
            offset += 1;
        }
    }
    *position = Some(Position { epoch, offset });
}

#[test]
fn who_is_present_is_seen_from_every_shard_until_it_leaves() {
    let node = node();
    let mut clients: Vec<_> = (0..6).map(|_| Client::connect(node.address)).collect();
    for client in &mut clients {
        client.subscribe("c");
    }
    let stats = |client: &mut Client| json(&client.ask(r#""presence_stats":{"channel":"c"}"#));
    for client in &mut clients {
        super::client::wait_for("six present", || {
            stats(client)["presence_stats"]["num_clients"] == 6
        });
    }
    let presence = json(&clients[0].ask(r#""presence":{"channel":"c"}"#));
    for client in &clients {
        let id = client.id().to_string();
        assert_eq!(presence["presence"]["presence"][&id]["client"], *id);
    }
    clients.truncate(2);
    clients[1].ask(r#""unsubscribe":{"channel":"c"}"#);
    super::client::wait_for("one present", || {
        stats(&mut clients[0])["presence_stats"]["num_clients"] == 1
    });
}

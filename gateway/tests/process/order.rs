//! Promise: per channel there is one order for every subscriber on every shard, nothing is lost and
//! nothing comes twice.

use serde_json::json;

use super::client::Client;
use super::gateway::Plan;

const WRITERS: u64 = 3;
const MESSAGES_EACH: u64 = 400;
/// The kernel spreads connections by a hash: so many find both shards but once in 2^20 runs.
const READERS: usize = 20;

#[test]
fn subscribers_on_two_shards_see_the_publications_of_three_in_one_order() {
    let gateway = Plan::new(json!({})).start();
    let readers: Vec<_> = (0..READERS)
        .map(|_| Client::subscribed(&gateway, "c"))
        .collect();
    let shards = gateway.status()["shards"].clone();
    let subscriptions: Vec<_> = shards
        .as_array()
        .expect("shards")
        .iter()
        .map(|shard| shard["subscriptions"].as_u64().expect("a number"))
        .collect();
    assert_eq!(subscriptions.len(), 2);
    assert!(
        subscriptions.iter().all(|count| *count > 0),
        "{subscriptions:?}"
    );

    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let mut client = Client::connect(&gateway);
            std::thread::spawn(move || {
                for number in 0..MESSAGES_EACH {
                    client.publish("c", json!([writer, number]));
                }
            })
        })
        .collect();
    let readers: Vec<_> = readers
        .into_iter()
        .map(|mut client| {
            std::thread::spawn(move || {
                let next = |_| client.publication().expect("a publication").to_string();
                (0..WRITERS * MESSAGES_EACH).map(next).collect::<Vec<_>>()
            })
        })
        .collect();
    for writer in writers {
        writer.join().expect("all published");
    }
    let seen: Vec<_> = readers
        .into_iter()
        .map(|reader| reader.join().expect("all received"))
        .collect();
    for writer in 0..WRITERS {
        let own: Vec<_> = seen[0]
            .iter()
            .filter(|data| data.starts_with(&format!("[{writer},")))
            .cloned()
            .collect();
        let sent: Vec<_> = (0..MESSAGES_EACH)
            .map(|number| json!([writer, number]).to_string())
            .collect();
        assert_eq!(own, sent, "publisher {writer}");
    }
    for other in &seen[1..] {
        assert_eq!(*other, seen[0]);
    }
}

//! Promises under pressure: descriptors run out and come back; clients come and go and leave nothing.

use std::net::TcpStream;

use serde_json::json;

use super::client::Client;
use super::gateway::{Plan, until};

#[test]
fn when_descriptors_run_out_it_says_so_serves_who_is_there_and_recovers() {
    let gateway = Plan::new(json!({})).descriptors(300).start();
    let mut before = Client::subscribed(&gateway, "c");
    // Clients are bounded to what is left beside the reserve; visitors of the admin port use that up.
    let mut crowd = Vec::new();
    until("all descriptors are in use", || {
        crowd.push(TcpStream::connect(gateway.admin).expect("the backlog has room"));
        (gateway.descriptors() >= 300).then_some(())
    });
    crowd.push(TcpStream::connect(gateway.clients).expect("the backlog has room"));
    until("the log says that accepting fails", || {
        gateway
            .lines()
            .iter()
            .any(|line| line.contains("could not be accepted"))
            .then_some(())
    });
    before.publish("c", json!("under pressure"));
    assert_eq!(before.publication().expect("served"), "under pressure");
    crowd.clear();
    let mut after = Client::subscribed(&gateway, "c");
    after.publish("c", json!("recovered"));
    assert_eq!(before.publication().expect("served"), "recovered");
    assert!(gateway.metric("flux_accept_failures", "") > 0);
    gateway.settles_at(2);
}

#[test]
fn clients_that_come_and_go_leave_no_descriptor_and_no_memory_behind() {
    const ROUNDS: usize = 6;
    const CLIENTS: usize = 400;
    let gateway = Plan::new(json!({})).start();
    let idle = gateway.descriptors();
    let mut resident = Vec::new();
    for round in 0..ROUNDS {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|number| {
                let mut client = Client::subscribed(&gateway, &format!("channel-{}", number % 50));
                if number % 10 == 0 {
                    client.publish("channel-1", json!({ "round": round }));
                }
                client
            })
            .collect();
        // Some say goodbye, most just go.
        for (number, mut client) in clients.into_iter().enumerate() {
            if number % 4 == 0 {
                client.send(tungstenite::Message::Close(None));
                client.end();
            }
        }
        gateway.settles_at(0);
        resident.push(gateway.resident_kib());
    }
    until("descriptors are back", || {
        (gateway.descriptors() <= idle).then_some(())
    });
    assert_eq!(gateway.metric("flux_subscriptions", ""), 0);
    assert_eq!(gateway.metric("flux_channels", ""), 0);
    // The first rounds fill what is kept for reuse; from then on it stays flat.
    let (early, late) = (resident[1], resident[ROUNDS - 1]);
    assert!(
        late <= early + 1024,
        "resident KiB after each round of {CLIENTS}: {resident:?}"
    );
}

//! Promise: a hostile client gets the right rejection, it is counted, and nobody else is disconnected.

use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::json;

use super::attack;
use super::client::Client;
use super::gateway::{Plan, until};

const NEIGHBOURS: usize = 20;
const HALF_OPEN: usize = 2000;

#[test]
fn every_attack_gets_its_rejection_and_the_neighbours_notice_nothing() {
    let gateway = Plan::new(json!({})).start();
    let is_over = Arc::new(AtomicBool::new(false));
    let neighbours: Vec<_> = (0..NEIGHBOURS)
        .map(|number| {
            let mut client = if number % 2 == 0 {
                Client::subscribed(&gateway, &format!("own-{number}"))
            } else {
                Client::open(gateway.clients, "/echo")
            };
            let is_over = Arc::clone(&is_over);
            std::thread::spawn(move || {
                let mut count = 0_u64;
                while !is_over.load(Ordering::Relaxed) {
                    count += 1;
                    if number % 2 == 0 {
                        client.publish(&format!("own-{number}"), json!(count));
                        assert_eq!(client.publication().expect("still connected"), count);
                    } else {
                        client.send(tungstenite::Message::text(count.to_string()));
                        let echo = client.message().expect("still connected");
                        assert_eq!(echo.into_text().expect("text").as_str(), count.to_string());
                    }
                    std::thread::sleep(std::time::Duration::from_millis(20));
                }
                count
            })
        })
        .collect();

    let half_open: Vec<_> = (0..HALF_OPEN)
        .map(|_| TcpStream::connect(gateway.clients).expect("a listener"))
        .collect();
    let attacks = Arc::new(attack::all());
    let before: Vec<_> = attacks
        .iter()
        .map(|attack| {
            attack
                .counted
                .map(|(metric, label)| gateway.metric(metric, &format!("\"{label}\"")))
        })
        .collect();
    let running: Vec<_> = (0..attacks.len())
        .map(|index| {
            let (attacks, address) = (Arc::clone(&attacks), gateway.clients);
            std::thread::spawn(move || attacks[index].run(address))
        })
        .collect();
    let failures: Vec<_> = running
        .into_iter()
        .filter_map(|thread| thread.join().expect("no panic").err())
        .collect();
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    for (attack, before) in attacks.iter().zip(before) {
        let Some((metric, label)) = attack.counted else {
            continue;
        };
        let after = gateway.metric(metric, &format!("\"{label}\""));
        assert!(
            Some(after) > before,
            "{}: {metric} {label} was {before:?}, is {after}",
            attack.name
        );
    }

    // Those that said nothing are gone after ten seconds, whether they close or not.
    until("the half-open connections are gone", || {
        (gateway.metric("flux_connections", "") <= NEIGHBOURS as u64).then_some(())
    });
    is_over.store(true, Ordering::Relaxed);
    for neighbour in neighbours {
        assert!(neighbour.join().expect("a neighbour was served to the end") > 10);
    }
    drop(half_open);
    gateway.settles_at(0);
}

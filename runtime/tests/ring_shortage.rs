//! Promise: out of descriptors, accepting rests, is counted, never spins, and goes on by itself
//! when there are descriptors again; connections that are there are served all the while.
//!
//! The limit is the process's, so the test runs itself again in a child process.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic)]

mod support;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::time::{Duration, Instant};

use flux_runtime::mailbox::wake_pair;
use flux_runtime::ring::{Completion, Features, Key, NetRing, Payload, RingConfig};
use support::set_limit;

const CHILD: &str = "FLUX_TEST_FEW_DESCRIPTORS";

#[test]
fn accepting_rests_while_descriptors_are_short_and_goes_on_after() {
    if std::env::var_os(CHILD).is_some() {
        for allowed in [Features::all(), Features::none()] {
            short_of_descriptors(allowed);
        }
        return;
    }
    let output = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "accepting_rests_while_descriptors_are_short_and_goes_on_after",
            "--nocapture",
        ])
        .env(CHILD, "1")
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

fn short_of_descriptors(allowed: Features) {
    set_limit(4096);
    let (_waker, source) = wake_pair().unwrap();
    let config = RingConfig {
        accept_pause: Duration::from_millis(20),
        allowed,
        ..RingConfig::default()
    };
    let mut ring = NetRing::new(&config, source).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    ring.accept(&listener, Key(0));
    let mut first = TcpStream::connect(address).unwrap();
    let mut more: Vec<_> = (0..20)
        .map(|_| TcpStream::connect(address).unwrap())
        .collect();
    // Room for the first few of the accepted ones only: those beyond the 21 clients.
    let used = std::fs::read_dir("/proc/self/fd").unwrap().count() as u64;
    set_limit(used + 3);

    let mut sockets = Vec::new();
    let mut shortages = 0;
    let deadline = Instant::now() + Duration::from_secs(20);
    let mut turns = 0;
    while shortages < 5 {
        assert!(ring.wait(Some(deadline)) < deadline);
        turns += 1;
        while let Some(completion) = ring.next_completion() {
            match completion {
                Completion::Accepted { socket, .. } => sockets.push(socket),
                Completion::AcceptFailed { error, again, .. } => {
                    assert_eq!(error.raw_os_error(), Some(libc::EMFILE));
                    assert!(again);
                    shortages += 1;
                }
                other => panic!("{other:?}"),
            }
        }
    }
    assert!(
        turns < 60,
        "it spins: {turns} turns for {shortages} attempts"
    );
    assert_eq!(ring.stats().accept_shortages, shortages);
    assert!(!sockets.is_empty() && sockets.len() < 21);

    // The first connection is served all the same.
    ring.recv(&sockets[0], Key(1));
    first.write_all(b"ping").unwrap();
    let mut answered = false;
    while !answered {
        assert!(ring.wait(Some(deadline)) < deadline);
        while let Some(completion) = ring.next_completion() {
            match completion {
                Completion::Received { buffer, .. } => {
                    ring.send(&sockets[0], Key(1), Payload::from(buffer));
                }
                Completion::Sent { .. } => answered = true,
                _ => {}
            }
        }
    }
    let mut back = [0; 4];
    first.read_exact(&mut back).unwrap();
    assert_eq!(&back, b"ping");

    // Descriptors come back: the rest is accepted, with nobody asking again.
    set_limit(4096);
    while sockets.len() < 21 {
        assert!(ring.wait(Some(deadline)) < deadline);
        while let Some(completion) = ring.next_completion() {
            if let Completion::Accepted { socket, .. } = completion {
                sockets.push(socket);
            }
        }
    }
    more.clear();
}

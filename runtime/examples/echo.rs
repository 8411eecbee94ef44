//! The smallest service on a shard: a TCP server that returns every byte. It shows what the
//! runtime itself costs, and is what the net ring is measured with:
//!
//! ```text
//! taskset -c 0 target/release/examples/echo 127.0.0.1:7000
//! taskset -c 1 flux-bench relay tcp://127.0.0.1:7000 --server-pid PID --connections 100
//! ```
//!
//! Ends when its standard input does, and prints the ring's counters then.
#![allow(clippy::print_stdout, missing_docs)]

use std::io::{self, Read};
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::time::Instant;

use anyhow::Context;
use flux_runtime::mailbox::{Receiver, mailbox, wake_pair};
use flux_runtime::ring::{Completion, Key, NetRing, Payload, RingConfig};
use flux_runtime::shard::{self, Service, ShardSpec, Turn};
use flux_runtime::{cpu, doctor};

const LISTENER: Key = Key(u64::MAX);

struct Echo {
    _listener: TcpListener,
    connections: slab::Slab<OwnedFd>,
    stop: Receiver<()>,
}

impl Echo {
    fn send(&self, ring: &mut NetRing, key: Key, payload: Payload) {
        if let Some(socket) = self.connections.get(key.0 as usize) {
            ring.send(socket, key, payload);
        }
    }
}

impl Service for Echo {
    fn on_completion(&mut self, ring: &mut NetRing, completion: Completion, _now: Instant) {
        match completion {
            Completion::Accepted { socket, .. } => {
                let entry = self.connections.vacant_entry();
                ring.recv(&socket, Key(entry.key() as u64));
                entry.insert(socket);
            }
            Completion::Received { key, buffer } => self.send(ring, key, buffer.into()),
            Completion::Sent {
                key,
                mut payload,
                result: Ok(count),
            } if count < payload.len() => {
                payload.advance(count);
                self.send(ring, key, payload);
            }
            Completion::ReceiveEnded { key, .. } => {
                if let Some(socket) = self.connections.try_remove(key.0 as usize) {
                    ring.close(socket, None);
                }
            }
            Completion::Sent { .. }
            | Completion::AcceptFailed { .. }
            | Completion::Connected { .. } => {}
        }
    }

    fn on_turn(&mut self, ring: &mut NetRing, _now: Instant) -> Turn {
        if self.stop.pop().is_some() {
            println!("{:?}", ring.stats());
            return Turn::Stop;
        }
        Turn::WaitUntil(None)
    }
}

fn main() -> anyhow::Result<()> {
    let address = std::env::args()
        .nth(1)
        .unwrap_or_else(|| "127.0.0.1:0".to_owned());
    doctor::raise_nofile()?;
    if let Some(reason) = doctor::examine().fatal() {
        anyhow::bail!(reason);
    }
    let listener = TcpListener::bind(&address)?;
    println!("{}", listener.local_addr()?);
    let (waker, source) = wake_pair()?;
    let (stop, stopped) = mailbox(1, waker);
    let spec = ShardSpec {
        index: 0,
        cpu: cpu::available().placement(1).first().copied().flatten(),
        name: "echo".to_owned(),
        ring: RingConfig::default(),
    };
    let shard = shard::spawn(spec, source, move |ring| {
        ring.accept(&listener, LISTENER);
        Ok(Echo {
            _listener: listener,
            connections: slab::Slab::new(),
            stop: stopped,
        })
    })?;
    io::stdin().read_to_end(&mut Vec::new())?;
    stop.try_send(()).context("the shard's mailbox")?;
    shard.join()?;
    Ok(())
}

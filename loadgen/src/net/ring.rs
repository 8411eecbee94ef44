//! The event loop over the runtime's net ring, the same that the gateway's shards use.
//!
//! Invariants beside those of `net`: at most one send of a connection is in the ring, what
//! is sent meanwhile waits in `pending` and goes out as the next one.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use flux_runtime::mailbox::wake_pair;
use flux_runtime::ring::{
    Completion, Key as RingKey, NetRing, Payload, RecvHandle, RingConfig, RingError, Socket,
};
use slab::Slab;

use super::{Event, Key, Net, PENDING_MAX, WAIT_MAX, socket, stuck};

/// Bytes of a receive buffer: all that a server has gathered for a subscriber comes in one. With a gateway's, of
/// 4 KiB, a third of what a delivery cost at millions a second was receiving.
const BUFFER_LEN: u32 = 16 << 10;
/// At the start: as much memory as 512 of 4 KiB.
const BUFFERS: u16 = 128;

/// Emptied send buffers that are kept for the next sends.
const SPARE_MAX: usize = 4096;
/// A larger one is not kept.
const SPARE_LEN_MAX: usize = 64 << 10;

#[derive(Debug)]
struct Connection {
    socket: Socket,
    generation: u32,
    tag: usize,
    /// Set once the connection stands.
    receiver: Option<RecvHandle>,
    sending: bool,
    pending: Vec<u8>,
}

/// The loop.
pub(crate) struct RingNet {
    ring: NetRing,
    connections: Slab<Connection>,
    generation: u32,
    spare: Vec<Vec<u8>>,
    /// Connections that got stuck: their `Closed` comes in the next turn.
    broken: Vec<(Key, io::Error)>,
}

impl RingNet {
    /// Fails, with the remedy, where io_uring is not to be had.
    pub(crate) fn new() -> Result<Self, RingError> {
        Self::with(&RingConfig {
            buffer_len: BUFFER_LEN,
            buffer_count: BUFFERS,
            ..RingConfig::default()
        })
    }

    /// As `new`, with sizes other than the default ones.
    pub(crate) fn with(config: &RingConfig) -> Result<Self, RingError> {
        let (_, wake) = wake_pair().map_err(|source| RingError::Buffers { source })?;
        Ok(Self {
            ring: NetRing::new(config, wake)?,
            connections: Slab::new(),
            generation: 0,
            spare: Vec::new(),
            broken: Vec::new(),
        })
    }

    fn get(&mut self, key: Key) -> Option<&mut Connection> {
        self.connections
            .get_mut(key.slot as usize)
            .filter(|connection| connection.generation == key.generation)
    }

    /// The connection that a completion is about, if it still stands.
    fn key(&self, RingKey(name): RingKey) -> Option<Key> {
        let (slot, generation) = (name as u32, (name >> 32) as u32);
        let connection = self.connections.get(slot as usize)?;
        (connection.generation == generation).then_some(Key {
            slot,
            generation,
            tag: connection.tag,
        })
    }

    fn finish(
        &mut self,
        key: Key,
        error: Option<io::Error>,
        on_event: &mut impl FnMut(&mut Self, Key, Event<'_>),
    ) {
        if self.get(key).is_some() {
            self.close(key);
            on_event(self, key, Event::Closed(error));
        }
    }

    /// A connection's send is over: what is left of it, or what waited meanwhile, is next.
    fn sent(&mut self, key: Key, mut payload: Payload, taken: usize) {
        payload.advance(taken);
        let Some(connection) = self.connections.get_mut(key.slot as usize) else {
            return;
        };
        if payload.is_empty() {
            connection.sending = false;
            if !connection.pending.is_empty() {
                payload.push(std::mem::take(&mut connection.pending));
            }
        }
        if !payload.is_empty() {
            connection.sending = true;
            self.ring.send(&connection.socket, name(key), payload);
        }
    }

    /// Keeps the buffer of a completed send for the next one.
    fn recycle(&mut self, payload: Payload) {
        if let Some(bytes) = payload.into_spare_vec()
            && bytes.capacity() <= SPARE_LEN_MAX
            && self.spare.len() < SPARE_MAX
        {
            self.spare.push(bytes);
        }
    }

    fn on_completion(
        &mut self,
        completion: Completion,
        on_event: &mut impl FnMut(&mut Self, Key, Event<'_>),
    ) {
        match completion {
            Completion::Received { key, buffer } => {
                if let Some(key) = self.key(key) {
                    on_event(self, key, Event::Data(&buffer));
                }
            }
            Completion::Sent {
                key,
                payload,
                result,
            } => {
                let Some(key) = self.key(key) else {
                    return self.recycle(payload);
                };
                match result {
                    Ok(taken) if taken == payload.len() => {
                        self.recycle(payload);
                        self.sent(key, Payload::new(), 0);
                    }
                    Ok(taken) => self.sent(key, payload, taken),
                    Err(error) => self.finish(key, Some(error), on_event),
                }
            }
            Completion::Connected { key, result } => {
                let Some(key) = self.key(key) else { return };
                if let Err(error) = result {
                    return self.finish(key, Some(error), on_event);
                }
                if let Some(connection) = self.connections.get_mut(key.slot as usize) {
                    let receiver = self.ring.recv(&connection.socket, name(key));
                    connection.receiver = Some(receiver);
                    on_event(self, key, Event::Connected);
                }
            }
            Completion::ReceiveEnded { key, error } => {
                if let Some(key) = self.key(key) {
                    self.finish(key, error, on_event);
                }
            }
            Completion::Accepted { .. } | Completion::AcceptFailed { .. } => {}
        }
    }
}

impl Net for RingNet {
    fn connect(&mut self, to: SocketAddr, source: Option<IpAddr>, tag: usize) -> io::Result<Key> {
        let socket = self.ring.adopt(socket(to, source)?);
        self.generation = self.generation.wrapping_add(1);
        let entry = self.connections.vacant_entry();
        let key = Key {
            slot: entry.key() as u32,
            generation: self.generation,
            tag,
        };
        self.ring.connect(&socket, name(key), to);
        entry.insert(Connection {
            socket,
            generation: key.generation,
            tag,
            receiver: None,
            sending: false,
            pending: Vec::new(),
        });
        Ok(key)
    }

    fn send(&mut self, key: Key, bytes: &[u8]) {
        let Some(connection) = self
            .connections
            .get_mut(key.slot as usize)
            .filter(|connection| connection.generation == key.generation)
        else {
            return;
        };
        if connection.sending || connection.receiver.is_none() {
            if connection.pending.len() + bytes.len() > PENDING_MAX {
                self.broken.push((key, stuck()));
            } else {
                connection.pending.extend_from_slice(bytes);
            }
            return;
        }
        let mut buffer = self.spare.pop().unwrap_or_default();
        buffer.extend_from_slice(bytes);
        let mut payload = Payload::new();
        payload.push(buffer);
        connection.sending = true;
        self.ring.send(&connection.socket, name(key), payload);
    }

    fn close(&mut self, key: Key) {
        if self.get(key).is_some() {
            let connection = self.connections.remove(key.slot as usize);
            self.ring.close(connection.socket, connection.receiver);
        }
    }

    fn gather(&mut self, at_least: Duration) {
        self.ring.gather(at_least);
    }

    fn turn(
        &mut self,
        until: Option<Instant>,
        on_event: &mut impl FnMut(&mut Self, Key, Event<'_>),
    ) -> io::Result<()> {
        let now = Instant::now();
        let latest = if self.broken.is_empty() {
            now + WAIT_MAX
        } else {
            now
        };
        self.ring
            .wait(Some(until.map_or(latest, |until| until.min(latest))));
        for (key, error) in std::mem::take(&mut self.broken) {
            self.finish(key, Some(error), on_event);
        }
        while let Some(completion) = self.ring.next_completion() {
            self.on_completion(completion, on_event);
        }
        Ok(())
    }
}

fn name(key: Key) -> RingKey {
    RingKey(u64::from(key.generation) << 32 | u64::from(key.slot))
}

//! New connections: their bounds, and the request head that they are placed by.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use flux_registry::key_hash;
use flux_runtime::ring::{NetRing, OpHandle};
use socket2::{SockRef, Socket};

use super::Flows;
use super::flow::{CLIENT, Flow, LISTENER, Opening, Stage};
use crate::caps::Refusal;
use crate::config::Affinity;
use crate::head::{HeadReader, Progress, Source};
use crate::sockets;

/// How long the listener rests when there is no room or its socket has failed.
const REST: Duration = Duration::from_millis(100);

/// Read of a new connection at once; most request heads are shorter.
const FIRST_BYTES: usize = 2048;

/// The listener and the rate at which it is read. What is not accepted waits in the kernel: a
/// connection that comes too fast is late, not lost.
pub(super) struct Accepting {
    listener: Option<Socket>,
    accept: Option<OpHandle>,
    resume_at: Option<Instant>,
    /// 0: no bound.
    per_s: f64,
    tokens: f64,
    filled: Instant,
}

impl Accepting {
    pub(super) fn new(listener: Socket, per_s: u32, now: Instant) -> Accepting {
        let per_s = f64::from(per_s);
        Accepting {
            listener: Some(listener),
            accept: None,
            resume_at: None,
            per_s,
            tokens: per_s,
            filled: now,
        }
    }

    pub(super) fn resume(&mut self, ring: &mut NetRing) {
        self.resume_at = None;
        if let (Some(listener), None) = (&self.listener, self.accept) {
            self.accept = Some(ring.accept(listener, LISTENER));
        }
    }

    fn pause(&mut self, ring: &mut NetRing, until: Instant) {
        if let Some(accept) = self.accept.take() {
            ring.cancel(accept);
        }
        self.resume_at = Some(until);
    }

    /// Takes a token; `Err` with the time to rest when they are used up.
    fn take_token(&mut self, now: Instant) -> Result<(), Duration> {
        if self.per_s == 0.0 {
            return Ok(());
        }
        let gained = now.saturating_duration_since(self.filled).as_secs_f64() * self.per_s;
        self.filled = self.filled.max(now);
        // Connections accepted before the pause took effect leave a debt.
        self.tokens = (self.tokens + gained).min(self.per_s) - 1.0;
        if self.tokens >= 0.0 {
            return Ok(());
        }
        // Rest until a tenth of a second's worth is there: one cancel for many connections.
        Err(Duration::from_secs_f64(
            ((0.1 * self.per_s).max(1.0) - self.tokens) / self.per_s,
        ))
    }

    pub(super) fn due(&self) -> Option<Instant> {
        self.resume_at
    }

    /// Stops for good. What the kernel has queued already is handed out first: closing the listener
    /// would reset it.
    pub(super) fn close(&mut self, ring: &mut NetRing) -> Vec<OwnedFd> {
        if let Some(accept) = self.accept.take() {
            ring.cancel(accept);
        }
        self.resume_at = None;
        let mut queued = Vec::new();
        if let Some(listener) = self.listener.take()
            && listener.set_nonblocking(true).is_ok()
        {
            while let Ok((socket, _)) = listener.accept() {
                queued.push(socket.into());
            }
        }
        queued
    }
}

impl Flows {
    pub(super) fn run_accepting(&mut self, ring: &mut NetRing, now: Instant) {
        if self.accepting.resume_at.is_some_and(|at| at <= now) {
            if self.caps.has_room() {
                self.accepting.resume(ring);
            } else {
                self.accepting.resume_at = Some(now + REST);
            }
        }
    }

    pub(super) fn on_accept_failed(&mut self, error: &io::Error, again: bool, now: Instant) {
        self.meters.accept_shortages.add(1);
        tracing::warn!(%error, again, "accept failed");
        if !again {
            self.accepting.accept = None;
            self.accepting.resume_at = Some(now + REST);
        }
    }

    pub(super) fn on_accepted(&mut self, ring: &mut NetRing, socket: OwnedFd, now: Instant) {
        self.meters.accepted.add(1);
        if let Err(rest) = self.accepting.take_token(now)
            && self.accepting.accept.is_some()
        {
            self.meters.accept_pauses.add(1);
            self.accepting.pause(ring, now + rest);
        }
        // A connection that is gone already has no peer any more.
        let Ok(Some(peer)) = SockRef::from(&socket)
            .peer_addr()
            .map(|peer| peer.as_socket())
        else {
            return;
        };
        let local = match self.settings.local {
            Some(local) => local,
            None => match SockRef::from(&socket)
                .local_addr()
                .map(|local| local.as_socket())
            {
                Ok(Some(local)) => local,
                _ => return,
            },
        };
        match self.caps.acquire(peer.ip()) {
            Ok(()) => {}
            Err(Refusal::SourceFull) => return self.meters.refused_source_full.add(1),
            Err(Refusal::Full) => {
                self.meters.refused_full.add(1);
                if self.accepting.accept.is_some() {
                    self.meters.accept_pauses.add(1);
                    self.accepting.pause(ring, now + REST);
                }
                return;
            }
        }
        let mut first = [0; FIRST_BYTES];
        let first = match self.settings.affinity {
            // They have come, most often, while the shard woke: a turn for them alone is saved. An error or the end
            // is for the receiver to tell.
            Affinity::Sid => {
                let count = sockets::read_at_once(socket.as_fd(), &mut first).unwrap_or(0);
                self.read_at_once += count as u64;
                &first[..count]
            }
            Affinity::Source => &[],
        };
        let generation = self.next_generation();
        let side = self.new_side(ring, socket, generation);
        let opening = Box::new(Opening {
            peer,
            local,
            reader: HeadReader::default(),
            held: Vec::new(),
            replayable: false,
            http: false,
            key: 0,
            tried: Vec::new(),
            give_up_at: None,
            sources_tried: 0,
            connect: None,
            timer: None,
        });
        let slot = self.slots.insert(Flow::new(peer.ip(), side, opening));
        self.meters.flows.set(self.slots.len() as u64);
        self.sweep.begin(now);
        match self.settings.affinity {
            Affinity::Sid => {
                if !first.is_empty() {
                    self.on_head_bytes(ring, slot, first, now);
                }
                if self
                    .slots
                    .get(slot)
                    .is_some_and(|flow| flow.stage == Stage::Head)
                {
                    self.set_timer(slot, now + self.settings.head_timeout);
                }
                self.receive_from(ring, slot, CLIENT);
            }
            Affinity::Source => self.place_by_source(ring, slot, now),
        }
    }

    /// Bytes of a client whose head is being read.
    pub(super) fn on_head_bytes(
        &mut self,
        ring: &mut NetRing,
        slot: usize,
        bytes: &[u8],
        now: Instant,
    ) {
        let Some(Flow {
            opening: Some(opening),
            ..
        }) = self.slots.get_mut(slot)
        else {
            return;
        };
        opening.held.extend_from_slice(bytes);
        match opening.reader.read(&opening.held) {
            Progress::More => {}
            Progress::Opaque(_) => {
                self.meters.opaque_heads.add(1);
                self.place_by_source(ring, slot, now);
            }
            Progress::Complete(head) => {
                opening.http = true;
                opening.replayable = head.safe;
                match head.sid {
                    Some(sid) => {
                        opening.key = key_hash(&sid);
                        self.meters.placed_by_sid.add(1);
                        self.try_next_node(ring, slot, now);
                    }
                    None => self.place_by_source(ring, slot, now),
                }
            }
        }
    }

    /// The head has not come in time, or not at all.
    pub(super) fn on_head_given_up(&mut self, ring: &mut NetRing, slot: usize, now: Instant) {
        self.meters.opaque_heads.add(1);
        self.place_by_source(ring, slot, now);
    }

    fn place_by_source(&mut self, ring: &mut NetRing, slot: usize, now: Instant) {
        let Some(Flow {
            opening: Some(opening),
            ..
        }) = self.slots.get_mut(slot)
        else {
            return;
        };
        opening.key = key_hash(Source::of(opening.peer.ip()).to_string().as_bytes());
        self.meters.placed_by_source.add(1);
        self.try_next_node(ring, slot, now);
    }

    /// Has the ring receive from a side, if it does not and something may still come.
    pub(super) fn receive_from(&mut self, ring: &mut NetRing, slot: usize, side: usize) {
        let key = self.name(slot, side).into();
        let Some(flow) = self.slots.get_mut(slot) else {
            return;
        };
        let side = &mut flow.sides[side];
        if let (Some(socket), None, false) = (&side.socket, side.receiver, side.ended) {
            side.receiver = Some(ring.recv(socket, key));
        }
    }

    /// The client's stream ended before its flow was open.
    pub(super) fn on_client_ended_early(
        &mut self,
        ring: &mut NetRing,
        slot: usize,
        reset: bool,
        now: Instant,
    ) {
        let Some(flow) = self.slots.get_mut(slot) else {
            return;
        };
        let nothing_said = flow
            .opening
            .as_ref()
            .is_none_or(|opening| opening.held.is_empty());
        match flow.stage {
            _ if reset => self.remove(ring, slot),
            // A port check.
            Stage::Head if nothing_said => self.remove(ring, slot),
            Stage::Head => self.on_head_given_up(ring, slot, now),
            // Its end is passed on behind the head.
            Stage::Connecting | Stage::Pausing | Stage::Open | Stage::Refusing => {}
            Stage::Answering => self.on_drained(ring, slot, super::flow::UPSTREAM),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accepting(per_s: u32, now: Instant) -> Accepting {
        let listener = crate::sockets::listener(([127, 0, 0, 1], 0).into()).expect("a listener");
        Accepting::new(listener, per_s, now)
    }

    #[test]
    fn the_rate_is_a_second_of_burst_and_then_even() {
        let start = Instant::now();
        let mut accepting = accepting(100, start);
        for _ in 0..100 {
            assert_eq!(accepting.take_token(start), Ok(()));
        }
        let rest = accepting.take_token(start).expect_err("used up");
        assert_eq!(rest, Duration::from_millis(110));
        let later = start + rest;
        for _ in 0..10 {
            assert_eq!(accepting.take_token(later), Ok(()));
        }
        assert!(accepting.take_token(later).is_err());
    }

    #[test]
    fn no_rate_is_no_bound() {
        let now = Instant::now();
        let mut accepting = accepting(0, now);
        assert!((0..100_000).all(|_| accepting.take_token(now).is_ok()));
    }
}

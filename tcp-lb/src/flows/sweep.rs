//! What no single event ends: flows that stand still, and the drain. Looks at each flow about once a
//! second, a tenth of them at a time, so that no timer is kept per open flow.

use std::time::{Duration, Instant};

use flux_runtime::ring::NetRing;

use super::Flows;
use super::flow::Stage;

const TICK: Duration = Duration::from_millis(100);
const TICKS_PER_VISIT: usize = 10;

#[derive(Default)]
pub(super) struct Sweep {
    at: Option<Instant>,
    next: usize,
}

impl Sweep {
    pub(super) fn due(&self) -> Option<Instant> {
        self.at
    }

    /// There is something to look at.
    pub(super) fn begin(&mut self, now: Instant) {
        self.at.get_or_insert(now + TICK);
    }
}

impl Flows {
    pub(super) fn run_sweep(&mut self, ring: &mut NetRing, now: Instant) {
        if self.sweep.at.is_none_or(|at| at > now) {
            return;
        }
        self.meters.take_ring(ring.stats(), self.read_at_once);
        let slots = self.slots.capacity();
        let visits = slots.div_ceil(TICKS_PER_VISIT);
        for _ in 0..visits {
            let slot = self.sweep.next % slots.max(1);
            self.sweep.next = slot + 1;
            self.visit(ring, slot);
        }
        self.cut_for_drain(ring, now);
        self.sweep.at = (!self.slots.is_empty()).then_some(now + TICK);
    }

    fn visit(&mut self, ring: &mut NetRing, slot: usize) {
        let Some(flow) = self.slots.get_mut(slot) else {
            return;
        };
        if matches!(flow.stage, Stage::Head | Stage::Connecting | Stage::Pausing) {
            return;
        }
        let grown = flow.stage == Stage::Open && flow.sides.iter().any(|side| side.young);
        let mut stalled = false;
        for side in flow.sides.iter_mut().filter(|side| side.sending) {
            side.stalled = side.stalled.saturating_add(1);
            stalled |= side.stalled > self.settings.stalled_s;
        }
        if flow.sides.iter().any(|side| side.ended) {
            flow.half_closed = flow.half_closed.saturating_add(1);
        }
        if stalled {
            self.meters.stalled.add(1);
            self.remove(ring, slot);
        } else if flow.half_closed > self.settings.half_closed_s {
            self.meters.half_closed_expired.add(1);
            self.remove(ring, slot);
        } else if grown {
            self.grow_up(ring, slot);
        }
    }

    pub(super) fn drain(&mut self, ring: &mut NetRing, until: Instant, now: Instant) {
        if self.drain_until.is_some() {
            return;
        }
        self.drain_until = Some(until);
        for socket in self.accepting.close(ring) {
            self.on_accepted(ring, socket, now);
        }
        self.accepting.close(ring);
        self.sweep.at = Some(now);
    }

    /// Cuts flows at an even rate, so that their clients do not come back all at once.
    fn cut_for_drain(&mut self, ring: &mut NetRing, now: Instant) {
        let Some(until) = self.drain_until else {
            return;
        };
        let ticks_left = until.saturating_duration_since(now).as_millis() / TICK.as_millis();
        let ticks_left = usize::try_from(ticks_left)
            .unwrap_or(usize::MAX)
            .saturating_add(1);
        let due = match until <= now {
            true => self.slots.len(),
            false => self.slots.len().div_ceil(ticks_left),
        };
        let all: Vec<usize> = self.slots.iter().map(|(slot, _)| slot).collect();
        if all.is_empty() {
            return;
        }
        let first = fastrand::usize(..all.len());
        for slot in all.iter().cycle().skip(first).take(due) {
            self.meters.drained.add(1);
            self.remove(ring, *slot);
        }
    }
}

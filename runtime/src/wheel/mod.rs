//! A hierarchical timing wheel: insert, cancel and move in constant time, 16 bytes a timer beside
//! its value.
//!
//! Time is counted in ticks since `start`. Six levels of 64 slots; a timer lies at the level of
//! the highest six-bit group in which its tick differs from the wheel's, in the slot of that
//! group. When the wheel's time enters a slot of a higher level, the slot's timers move down.
//!
//! Invariants
//! - No timer fires before its deadline; it fires in the first `advance` that is a whole tick (or
//!   less) behind it.
//! - A timer fires or is cancelled exactly once; its key names nothing afterwards.
//! - A level's bit is set exactly when its slot has timers (checked in debug builds by the tests'
//!   `check_invariants`).

use std::num::NonZeroU32;
use std::time::{Duration, Instant};

const LEVELS: usize = 6;
const SLOT_BITS: u32 = 6;
const SLOTS: usize = 1 << SLOT_BITS;
const _: () = assert!(LEVELS as u32 * SLOT_BITS >= u32::BITS, "ticks are 32 bits");

/// Longest time ahead in ticks; later deadlines fire then (99 days at 4 ms).
const AHEAD_MAX: u64 = 1 << 31;

const END: u32 = u32::MAX;
/// In `prev`: the entry is on the free list.
const FREE: u32 = u32::MAX - 1;

/// Granularity of [`TimerWheel::new`].
pub const TICK: Duration = Duration::from_millis(4);

/// Names one timer. After the timer fired or was cancelled it names nothing; using it then is
/// harmless.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TimerKey {
    index: u32,
    generation: NonZeroU32,
}

#[derive(Clone, Copy, Debug)]
struct Link {
    tick: u32,
    next: u32,
    prev: u32,
    generation: NonZeroU32,
}

/// Timers with a small value each (such as the slot and generation of a connection).
#[derive(Debug)]
pub struct TimerWheel<T> {
    start: Instant,
    tick: Duration,
    /// Ticks that have passed for the wheel.
    elapsed: u64,
    heads: [[u32; SLOTS]; LEVELS],
    occupied: [u64; LEVELS],
    links: Vec<Link>,
    values: Vec<T>,
    free: u32,
    len: usize,
}

impl<T: Copy> TimerWheel<T> {
    /// An empty wheel with a granularity of [`TICK`]. No deadline may be before `start`; such a
    /// one fires at once.
    pub fn new(start: Instant) -> Self {
        Self::with_tick(start, TICK)
    }

    /// An empty wheel with a granularity of `tick` (at least 1 us).
    pub fn with_tick(start: Instant, tick: Duration) -> Self {
        Self {
            start,
            tick: tick.max(Duration::from_micros(1)),
            elapsed: 0,
            heads: [[END; SLOTS]; LEVELS],
            occupied: [0; LEVELS],
            links: Vec::new(),
            values: Vec::new(),
            free: END,
            len: 0,
        }
    }

    /// Timers that are armed.
    pub fn len(&self) -> usize {
        self.len
    }

    /// True when no timer is armed.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Arms a timer.
    pub fn insert(&mut self, deadline: Instant, value: T) -> TimerKey {
        let tick = self.tick_of(deadline);
        let index = if self.free == END {
            let index = self.links.len() as u32;
            self.links.push(Link {
                tick,
                next: END,
                prev: END,
                generation: NonZeroU32::MIN,
            });
            self.values.push(value);
            index
        } else {
            let index = self.free;
            self.free = self.links[index as usize].next;
            self.values[index as usize] = value;
            index
        };
        self.len += 1;
        self.attach(index, tick);
        TimerKey {
            index,
            generation: self.links[index as usize].generation,
        }
    }

    /// Disarms a timer and returns its value; `None` when it has fired or was cancelled before.
    pub fn cancel(&mut self, key: TimerKey) -> Option<T> {
        self.is_armed(key).then(|| {
            self.detach(key.index);
            self.release(key.index)
        })
    }

    /// Moves an armed timer to another deadline. False when it has fired or was cancelled.
    pub fn reset(&mut self, key: TimerKey, deadline: Instant) -> bool {
        let armed = self.is_armed(key);
        if armed {
            self.detach(key.index);
            let tick = self.tick_of(deadline);
            self.attach(key.index, tick);
        }
        armed
    }

    /// Fires what is due at `now`, tick by tick; within one tick in no particular order.
    pub fn advance(&mut self, now: Instant, fire: &mut impl FnMut(T)) {
        let since = now.saturating_duration_since(self.start);
        let target = (since.as_nanos() / self.tick.as_nanos()) as u64;
        let target = target.max(self.elapsed);
        while let Some((level, slot, at)) = self.first_slot() {
            if at > target {
                break;
            }
            self.elapsed = at;
            let mut index = self.heads[level][slot];
            self.heads[level][slot] = END;
            self.occupied[level] &= !(1 << slot);
            while index != END {
                let link = self.links[index as usize];
                if level == 0 {
                    fire(self.release(index));
                } else {
                    self.attach(index, link.tick);
                }
                index = link.next;
            }
        }
        self.elapsed = target;
    }

    /// When to call [`Self::advance`] next: never later than the first deadline (plus a tick),
    /// perhaps earlier when that is far off. `None` without timers.
    pub fn next_deadline(&self) -> Option<Instant> {
        let (_, _, at) = self.first_slot()?;
        let nanos = self.tick.as_nanos() * u128::from(at);
        Some(self.start + Duration::from_nanos(nanos as u64))
    }

    /// The first tick at or after the deadline, as the wheel's entries hold it.
    fn tick_of(&self, deadline: Instant) -> u32 {
        let since = deadline.saturating_duration_since(self.start);
        let tick = since.as_nanos().div_ceil(self.tick.as_nanos());
        let tick = u64::try_from(tick).unwrap_or(u64::MAX);
        tick.clamp(self.elapsed, self.elapsed + AHEAD_MAX - 1) as u32
    }

    fn is_armed(&self, key: TimerKey) -> bool {
        self.links
            .get(key.index as usize)
            .is_some_and(|link| link.generation == key.generation && link.prev != FREE)
    }

    /// Level and slot of a tick. It stays right while the wheel's time moves on, because entering
    /// a slot moves its timers down.
    fn place(&self, tick: u32) -> (usize, usize) {
        let difference = tick ^ self.elapsed as u32;
        let level = (u32::BITS - (difference | 1).leading_zeros() - 1) / SLOT_BITS;
        let slot = (tick >> (level * SLOT_BITS)) as usize % SLOTS;
        (level as usize, slot)
    }

    fn attach(&mut self, index: u32, tick: u32) {
        let (level, slot) = self.place(tick);
        let head = std::mem::replace(&mut self.heads[level][slot], index);
        self.occupied[level] |= 1 << slot;
        let link = &mut self.links[index as usize];
        link.tick = tick;
        link.next = head;
        link.prev = END;
        if head != END {
            self.links[head as usize].prev = index;
        }
    }

    fn detach(&mut self, index: u32) {
        let Link {
            tick, next, prev, ..
        } = self.links[index as usize];
        if next != END {
            self.links[next as usize].prev = prev;
        }
        if prev != END {
            self.links[prev as usize].next = next;
            return;
        }
        let (level, slot) = self.place(tick);
        self.heads[level][slot] = next;
        if next == END {
            self.occupied[level] &= !(1 << slot);
        }
    }

    /// Puts a detached entry on the free list.
    fn release(&mut self, index: u32) -> T {
        self.len -= 1;
        let link = &mut self.links[index as usize];
        link.generation = link.generation.checked_add(1).unwrap_or(NonZeroU32::MIN);
        link.prev = FREE;
        link.next = self.free;
        self.free = index;
        self.values[index as usize]
    }

    /// The slot that is entered next and the tick at which it is. Timers of a lower level are
    /// always before those of a higher one.
    fn first_slot(&self) -> Option<(usize, usize, u64)> {
        let level = self.occupied.iter().position(|slots| *slots != 0)?;
        let shift = level as u32 * SLOT_BITS;
        let now = self.elapsed as u32;
        let current = (now >> shift) % SLOTS as u32;
        // The top level has four slots of 2^30 ticks; behind its last comes its first again.
        let rotated = self.occupied[level].rotate_right(current);
        let slot = (current + rotated.trailing_zeros()) % SLOTS as u32;
        let above = u32::MAX.checked_shl(shift + SLOT_BITS).unwrap_or(0);
        let at = (now & above) | slot.wrapping_shl(shift);
        // A slot of level 0 may be the current one, and then `ahead` is 0.
        let ahead = at.wrapping_sub(now);
        Some((level, slot as usize, self.elapsed + u64::from(ahead)))
    }
}

#[cfg(test)]
mod tests;

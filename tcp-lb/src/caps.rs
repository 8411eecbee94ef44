//! How many flows there may be, in all and from one source.
//!
//! The one thing that shards share beside counters: a bound on a process is no bound if each shard
//! has its own. Taken once when a flow begins and once when it ends, in stripes, so that two shards
//! hardly ever meet.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::head::Source;

const STRIPES: usize = 64;

/// Why a connection gets no flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// The process has as many flows as it may.
    Full,
    /// The source has.
    SourceFull,
}

/// Counts flows against their bounds.
#[derive(Debug)]
pub struct Caps {
    flows: AtomicUsize,
    flows_max: usize,
    per_source_max: usize,
    /// Everything of this machine comes from loopback; bounding it only makes sense when asked for.
    loopback_exempt: bool,
    stripes: Vec<Mutex<HashMap<Source, usize>>>,
}

impl Caps {
    /// `per_source_max` 0: half of `flows_max`, loopback exempt.
    pub fn new(flows_max: usize, per_source_max: usize) -> Caps {
        Caps {
            flows: AtomicUsize::new(0),
            flows_max,
            per_source_max: if per_source_max == 0 {
                flows_max.div_ceil(2)
            } else {
                per_source_max
            },
            loopback_exempt: per_source_max == 0,
            stripes: (0..STRIPES).map(|_| Mutex::default()).collect(),
        }
    }

    /// Flows at once, at most.
    pub fn flows_max(&self) -> usize {
        self.flows_max
    }

    /// Flows at once from one source, at most.
    pub fn per_source_max(&self) -> usize {
        self.per_source_max
    }

    /// Whether there is room for a flow of any source.
    pub fn has_room(&self) -> bool {
        self.flows.load(Relaxed) < self.flows_max
    }

    /// Counts a flow from `address`, if it may be. To be paired with [`Caps::release`].
    ///
    /// # Errors
    /// The bound that stands against it; nothing is counted then.
    pub fn acquire(&self, address: IpAddr) -> Result<(), Refusal> {
        if self.flows.fetch_add(1, Relaxed) >= self.flows_max {
            self.flows.fetch_sub(1, Relaxed);
            return Err(Refusal::Full);
        }
        if self.exempt(address) {
            return Ok(());
        }
        let mut stripe = self.stripe(address);
        let count = stripe.entry(Source::of(address)).or_default();
        if *count >= self.per_source_max {
            self.flows.fetch_sub(1, Relaxed);
            return Err(Refusal::SourceFull);
        }
        *count += 1;
        Ok(())
    }

    /// A flow from `address` is over.
    pub fn release(&self, address: IpAddr) {
        self.flows.fetch_sub(1, Relaxed);
        if self.exempt(address) {
            return;
        }
        let mut stripe = self.stripe(address);
        let source = Source::of(address);
        if let Some(count) = stripe.get_mut(&source) {
            *count -= 1;
            if *count == 0 {
                stripe.remove(&source);
            }
        }
    }

    fn exempt(&self, address: IpAddr) -> bool {
        self.loopback_exempt && address.to_canonical().is_loopback()
    }

    fn stripe(&self, address: IpAddr) -> MutexGuard<'_, HashMap<Source, usize>> {
        // Both halves of what tells sources apart; equal sources share a stripe.
        let index = match address.to_canonical() {
            IpAddr::V4(address) => u64::from(u32::from(address)),
            IpAddr::V6(address) => (u128::from(address) >> 64) as u64,
        };
        let spread = index.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 58;
        // A panic elsewhere leaves a count behind at worst.
        self.stripes[spread as usize % STRIPES]
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn a_source_is_bounded_and_freed_again() {
        let caps = Caps::new(10, 2);
        let (one, other) = (address("192.0.2.1"), address("192.0.2.2"));
        assert_eq!((caps.acquire(one), caps.acquire(one)), (Ok(()), Ok(())));
        assert_eq!(caps.acquire(one), Err(Refusal::SourceFull));
        assert_eq!(caps.acquire(other), Ok(()));
        caps.release(one);
        assert_eq!(caps.acquire(one), Ok(()));
    }

    #[test]
    fn an_ipv6_source_is_its_64() {
        let caps = Caps::new(10, 1);
        assert_eq!(caps.acquire(address("2001:db8::1")), Ok(()));
        assert_eq!(
            caps.acquire(address("2001:db8::2")),
            Err(Refusal::SourceFull)
        );
        assert_eq!(caps.acquire(address("2001:db8:0:1::2")), Ok(()));
    }

    #[test]
    fn the_whole_is_bounded() {
        let caps = Caps::new(2, 0);
        let local = address("127.0.0.1");
        assert_eq!((caps.acquire(local), caps.acquire(local)), (Ok(()), Ok(())));
        assert!(!caps.has_room());
        assert_eq!(caps.acquire(local), Err(Refusal::Full));
        caps.release(local);
        assert_eq!(caps.acquire(local), Ok(()));
    }

    #[test]
    fn loopback_is_bounded_only_when_asked_for() {
        let caps = Caps::new(10, 1);
        assert_eq!(caps.acquire(address("127.0.0.1")), Ok(()));
        assert_eq!(caps.acquire(address("127.0.0.1")), Err(Refusal::SourceFull));
    }
}

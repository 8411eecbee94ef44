//! A delta from two payloads.
//!
//! What both begin with and what both end with is found by comparing, which for most updates of a
//! document leaves next to nothing. In what is left of the target, stretches of the source are
//! looked for by the hash of 16 bytes, as rsync does: of the source every 16th place is indexed, of
//! the target every place is looked up.
//!
//! Invariants
//! - Time is linear: of the places of the source with the same hash only `CANDIDATES_MAX` are looked
//!   at, a comparison that gets far is a stretch that is taken, and payloads are bounded
//!   ([`DELTA_BYTES_MAX`]).
//! - The delta of text is text, since JSON clients get it as such: a stretch begins and ends between
//!   the target's characters, so new bytes do too.

use super::{DIGITS, checksum};
use crate::limits::DELTA_BYTES_MAX;

/// Bytes of a place's hash; shorter stretches are not looked for.
const BLOCK: usize = 16;
/// Places of the source that are looked at for one place of the target.
const CANDIDATES_MAX: usize = 8;
/// Base of the rolling hash; any odd number that spreads bits.
const BASE: u32 = 0x0100_01b3;
/// No block.
const NONE: u32 = u32::MAX;

// Offsets of blocks fit, and none is taken for `NONE`.
const _: () = assert!(DELTA_BYTES_MAX < NONE as usize);

/// Makes deltas; keeps its memory for the next one.
#[derive(Debug, Default)]
pub struct Encoder {
    /// The first block of each hash.
    heads: Vec<u32>,
    /// For each block of the source the next one of the same hash.
    next: Vec<u32>,
}

/// A stretch that source and target have in common.
#[derive(Clone, Copy)]
struct Stretch {
    source: usize,
    target: usize,
    len: usize,
}

/// The delta so far.
struct Output<'o> {
    out: &'o mut Vec<u8>,
    len_max: usize,
}

impl Encoder {
    /// An encoder without memory.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends the delta that makes `target` of `source`. False, and nothing is appended, when it
    /// would not be smaller than the target itself, or one of them is longer than
    /// [`DELTA_BYTES_MAX`].
    pub fn encode(&mut self, source: &[u8], target: &[u8], out: &mut Vec<u8>) -> bool {
        if source.len().max(target.len()) > DELTA_BYTES_MAX || target.is_empty() {
            return false;
        }
        let start = out.len();
        let mut output = Output {
            len_max: start + target.len() - 1,
            out,
        };
        let is_smaller = self.commands(source, target, &mut output).is_some();
        if !is_smaller {
            out.truncate(start);
        }
        is_smaller
    }

    fn commands(&mut self, source: &[u8], target: &[u8], output: &mut Output<'_>) -> Option<()> {
        let is_text = simdutf8::basic::from_utf8(target).is_ok();
        // Whether a stretch may begin or end here.
        let is_border =
            |at: usize| !is_text || target.get(at).is_none_or(|byte| byte & 0xc0 != 0x80);
        output.number(target.len() as u32, b'\n')?;

        let mut prefix = common_prefix(source, target);
        while !is_border(prefix) {
            prefix -= 1;
        }
        let mut suffix = common_suffix(&source[prefix..], &target[prefix..]);
        while !is_border(target.len() - suffix) {
            suffix -= 1;
        }
        let end = target.len() - suffix;
        output.stretch(Stretch {
            source: 0,
            target: 0,
            len: prefix,
        })?;

        let mut done = prefix;
        if end - done >= BLOCK && source.len() >= BLOCK {
            self.index(source);
            let mut at = done;
            let mut rolling = hash(&target[at..at + BLOCK]);
            loop {
                let found = self
                    .find(source, &target[done..end], at - done, rolling)
                    .map(|found| Stretch {
                        target: found.target + done,
                        ..found
                    })
                    .and_then(|found| trimmed(found, is_border));
                if let Some(found) = found.filter(|found| found.len >= BLOCK) {
                    output.insert(&target[done..found.target])?;
                    output.stretch(found)?;
                    done = found.target + found.len;
                    at = done;
                    if at + BLOCK > end {
                        break;
                    }
                    rolling = hash(&target[at..at + BLOCK]);
                } else {
                    if at + BLOCK >= end {
                        break;
                    }
                    rolling = roll(rolling, target[at], target[at + BLOCK]);
                    at += 1;
                }
            }
        }
        output.insert(&target[done..end])?;
        output.stretch(Stretch {
            source: source.len() - suffix,
            target: end,
            len: suffix,
        })?;
        output.number(checksum(target), b';')
    }

    /// Notes the hash of every block of `source`.
    fn index(&mut self, source: &[u8]) {
        let (blocks, _) = source.as_chunks::<BLOCK>();
        // Four places a block: of payloads that have nothing in common, which cost the most, few
        // places of the target are then compared with anything.
        let places = (blocks.len() * 4).next_power_of_two();
        self.heads.clear();
        self.heads.resize(places, NONE);
        self.next.clear();
        self.next.resize(blocks.len(), NONE);
        // Backwards, so that the first of equal blocks is looked at first.
        for (number, block) in blocks.iter().enumerate().rev() {
            let head = &mut self.heads[place(hash(block), places)];
            self.next[number] = std::mem::replace(head, number as u32);
        }
    }

    /// The longest stretch around place `at` of `target` that `source` has too.
    fn find(&self, source: &[u8], target: &[u8], at: usize, hash: u32) -> Option<Stretch> {
        let mut best: Option<Stretch> = None;
        let mut block = self.heads[place(hash, self.heads.len())];
        for _ in 0..CANDIDATES_MAX {
            if block == NONE {
                break;
            }
            let from = block as usize * BLOCK;
            block = self.next[block as usize];
            let ahead = common_prefix(&source[from..], &target[at..]);
            if ahead < BLOCK {
                continue;
            }
            let behind = common_suffix(&source[..from], &target[..at]);
            let len = behind + ahead;
            if best.is_none_or(|best| len > best.len) {
                best = Some(Stretch {
                    source: from - behind,
                    target: at - behind,
                    len,
                });
            }
        }
        best
    }
}

impl Output<'_> {
    /// A number and what stands behind it; none when the delta becomes too long.
    fn number(&mut self, number: u32, behind: u8) -> Option<()> {
        let mut text = [0; 7];
        let mut at = text.len() - 1;
        text[at] = behind;
        let mut rest = number;
        loop {
            at -= 1;
            text[at] = DIGITS[(rest & 63) as usize];
            rest >>= 6;
            if rest == 0 {
                break;
            }
        }
        self.bytes(&text[at..])
    }

    fn stretch(&mut self, stretch: Stretch) -> Option<()> {
        if stretch.len == 0 {
            return Some(());
        }
        self.number(stretch.len as u32, b'@')?;
        self.number(stretch.source as u32, b',')
    }

    fn insert(&mut self, bytes: &[u8]) -> Option<()> {
        if bytes.is_empty() {
            return Some(());
        }
        self.number(bytes.len() as u32, b':')?;
        self.bytes(bytes)
    }

    fn bytes(&mut self, bytes: &[u8]) -> Option<()> {
        if self.out.len() + bytes.len() > self.len_max {
            return None;
        }
        self.out.extend_from_slice(bytes);
        Some(())
    }
}

/// The stretch without the pieces of characters that it begins and ends with.
fn trimmed(mut stretch: Stretch, is_border: impl Fn(usize) -> bool) -> Option<Stretch> {
    while stretch.len > 0 && !is_border(stretch.target) {
        stretch.source += 1;
        stretch.target += 1;
        stretch.len -= 1;
    }
    while stretch.len > 0 && !is_border(stretch.target + stretch.len) {
        stretch.len -= 1;
    }
    (stretch.len > 0).then_some(stretch)
}

fn common_prefix(a: &[u8], b: &[u8]) -> usize {
    let len = a.len().min(b.len());
    let (a, b) = (&a[..len], &b[..len]);
    let words = a
        .as_chunks::<16>()
        .0
        .iter()
        .zip(b.as_chunks::<16>().0)
        .take_while(|(a, b)| a == b)
        .count();
    let from = words * 16;
    let rest = a[from..].iter().zip(&b[from..]);
    from + rest.take_while(|(a, b)| a == b).count()
}

fn common_suffix(a: &[u8], b: &[u8]) -> usize {
    let pairs = a.iter().rev().zip(b.iter().rev());
    pairs.take_while(|(a, b)| a == b).count()
}

fn hash(block: &[u8]) -> u32 {
    block.iter().fold(0u32, |hash, byte| {
        hash.wrapping_mul(BASE).wrapping_add(u32::from(*byte))
    })
}

/// The hash one place further: without `gone`, with `come`.
fn roll(hash: u32, gone: u8, come: u8) -> u32 {
    const OLDEST: u32 = BASE.wrapping_pow(BLOCK as u32);
    hash.wrapping_mul(BASE)
        .wrapping_add(u32::from(come))
        .wrapping_sub(u32::from(gone).wrapping_mul(OLDEST))
}

/// Where a hash stands in a table of `places`, a power of two: its best mixed bits.
fn place(hash: u32, places: usize) -> usize {
    let mixed = hash.wrapping_mul(0x9e37_79b1);
    (mixed >> 8) as usize & (places - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_that_rolls_is_the_hash_of_the_place() {
        let bytes: Vec<u8> = (0..100u32).map(|n| (n * n * 31) as u8).collect();
        let mut rolling = hash(&bytes[..BLOCK]);
        for at in 0..bytes.len() - BLOCK {
            assert_eq!(rolling, hash(&bytes[at..at + BLOCK]));
            rolling = roll(rolling, bytes[at], bytes[at + BLOCK]);
        }
    }
}

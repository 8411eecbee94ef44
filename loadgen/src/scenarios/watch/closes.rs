//! Which connections ended when, by node and close code, and whether a drain closed them evenly. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

const SLICE: Duration = Duration::from_secs(5);
/// A slice may differ from the mean by this share, or by `SLICE_SPREAD_CONNECTIONS`.
const SLICE_SPREAD_SHARE: f64 = 0.10;
const SLICE_SPREAD_CONNECTIONS: f64 = 2.0;

/// All ends of established connections.
#[derive(Debug, Default)]
pub(crate) struct Closes {
    at: BTreeMap<(String, u16), Vec<Duration>>,
}

/// The closes of one node with one code.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct CloseGroup {
    pub(crate) node: String,
    /// Close code; 0: the transport ended without a close frame.
    pub(crate) code: u16,
    pub(crate) count: usize,
    pub(crate) first_at_ms: u64,
    pub(crate) last_at_ms: u64,
    /// Closes in each 5 s from the first one.
    pub(crate) slices_5s: Vec<usize>,
    /// Every slice but the last is within 10 % or 2 connections of their mean.
    pub(crate) even: bool,
}

impl Closes {
    pub(crate) fn add(&mut self, node: &str, code: u16, at: Duration) {
        self.at.entry((node.to_owned(), code)).or_default().push(at);
    }

    pub(crate) fn count(&self) -> usize {
        self.at.values().map(Vec::len).sum()
    }

    pub(crate) fn groups(&self) -> Vec<CloseGroup> {
        self.at
            .iter()
            .filter_map(|((node, code), times)| {
                let (first, last) = (*times.iter().min()?, *times.iter().max()?);
                let slices_5s = slices(first, times);
                Some(CloseGroup {
                    node: node.clone(),
                    code: *code,
                    count: times.len(),
                    first_at_ms: first.as_millis() as u64,
                    last_at_ms: last.as_millis() as u64,
                    even: even(&slices_5s),
                    slices_5s,
                })
            })
            .collect()
    }
}

fn slices(first: Duration, times: &[Duration]) -> Vec<usize> {
    let mut slices = Vec::new();
    for time in times {
        let index = ((*time - first).as_nanos() / SLICE.as_nanos()) as usize;
        if slices.len() <= index {
            slices.resize(index + 1, 0);
        }
        slices[index] += 1;
    }
    slices
}

fn even(slices: &[usize]) -> bool {
    let full = &slices[..slices.len().saturating_sub(1)];
    let mean = full.iter().sum::<usize>() as f64 / full.len().max(1) as f64;
    let spread = (mean * SLICE_SPREAD_SHARE).max(SLICE_SPREAD_CONNECTIONS);
    full.iter()
        .all(|count| (*count as f64 - mean).abs() <= spread)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_steady_drain_is_even_and_a_burst_is_not() {
        let mut closes = Closes::default();
        for n in 0..190u64 {
            closes.add("gateway-1", 3001, Duration::from_millis(7000 + n * 100));
        }
        for n in 0..100u64 {
            closes.add("gateway-2", 3001, Duration::from_millis(n));
        }
        closes.add("gateway-2", 3001, Duration::from_secs(9));
        closes.add("gateway-2", 3001, Duration::from_secs(14));
        let groups = closes.groups();
        assert_eq!(groups[0].slices_5s, [50, 50, 50, 40]);
        assert!(groups[0].even && groups[0].first_at_ms == 7000);
        assert_eq!(groups[1].slices_5s, [100, 1, 1]);
        assert!(!groups[1].even);
        assert_eq!(closes.count(), 292);
    }

    #[test]
    fn few_connections_may_differ_by_two() {
        assert!(even(&[5, 3, 4, 0]));
        assert!(even(&[9]));
        assert!(!even(&[9, 1, 5, 5]));
    }
}

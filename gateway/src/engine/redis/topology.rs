//! Which of our endpoints serves which slot of a cluster, and how that follows the cluster's map. No I/O.
//!
//! An endpoint stands for a shard of the cluster and outlives its masters: when a replica takes the place of
//! a master, the endpoint that had these slots goes to the replica, and its channels stay with it. Only where
//! slots go from one living master to another do channels change endpoints.
//!
//! Invariants
//! - Every slot belongs to an endpoint that exists. While nobody is known, that is the first.
//! - An address stands at one endpoint at most; an endpoint without address serves no slot that a master
//!   has.

use flux_registry::{ClusterSlots, Endpoint as Address, SLOTS};

/// See the module.
#[derive(Debug)]
pub(super) struct Topology {
    /// Slot to endpoint.
    owners: Box<[u16]>,
    /// Endpoint to address.
    addresses: Vec<Option<Address>>,
}

/// What follows from a new map.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Changes {
    /// Endpoints that are to go to an address; an index that is not in use yet is a new endpoint, in order.
    pub(super) moved: Vec<(usize, Address)>,
    /// Endpoints that serve nothing any more.
    pub(super) retired: Vec<usize>,
    /// Whether a slot belongs to another endpoint than before.
    pub(super) slots_changed: bool,
}

impl Topology {
    /// With one endpoint, whose address is not known.
    pub(super) fn new() -> Self {
        Self {
            owners: vec![0; usize::from(SLOTS)].into(),
            addresses: vec![None],
        }
    }

    /// The endpoint of a slot.
    pub(super) fn endpoint_of(&self, slot: u16) -> usize {
        let owner = self.owners.get(usize::from(slot));
        owner.copied().unwrap_or_default().into()
    }

    /// Takes in a map.
    pub(super) fn apply(&mut self, map: &ClusterSlots) -> Changes {
        let mut changes = Changes::default();
        for master in map.masters() {
            if !self.addresses.contains(&Some(master.clone())) {
                let at = self.place_for(master, map);
                changes.moved.push((at, master.clone()));
                match self.addresses.get_mut(at) {
                    Some(address) => *address = Some(master.clone()),
                    None => self.addresses.push(Some(master.clone())),
                }
            }
        }
        let index = |master: &Address| {
            let mut addresses = self.addresses.iter();
            addresses.position(|address| address.as_ref() == Some(master))
        };
        for slot in 0..SLOTS {
            // A slot without a master stays where it was.
            if let Some(at) = map.master_of(slot).and_then(index) {
                let owner = &mut self.owners[usize::from(slot)];
                if usize::from(*owner) != at {
                    *owner = at as u16;
                    changes.slots_changed = true;
                }
            }
        }
        for at in 0..self.addresses.len() {
            if self.addresses[at].is_some() && !self.owners.contains(&(at as u16)) {
                self.addresses[at] = None;
                changes.retired.push(at);
            }
        }
        changes
    }

    /// The endpoint that goes to `master`: the one that had most of its slots and whose own master is none
    /// any more; else one that is not in use, else a new one.
    fn place_for(&self, master: &Address, map: &ClusterSlots) -> usize {
        let mut counts = vec![0u32; self.addresses.len()];
        for slot in 0..SLOTS {
            if map.master_of(slot) == Some(master) {
                counts[self.endpoint_of(slot)] += 1;
            }
        }
        let is_free = |at: usize| match &self.addresses[at] {
            Some(address) => counts[at] > 0 && !map.masters().contains(address),
            None => true,
        };
        let mut free: Vec<usize> = (0..self.addresses.len())
            .filter(|&at| is_free(at))
            .collect();
        free.sort_by_key(|&at| std::cmp::Reverse(counts[at]));
        free.first().copied().unwrap_or(self.addresses.len())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use redis::Value;

    use super::*;

    fn at(port: u16) -> Address {
        let host = "h".to_owned();
        Address { host, port }
    }

    /// First slot, last slot, port of the master.
    fn map(rows: &[(u16, u16, u16)]) -> ClusterSlots {
        let rows = rows.iter().map(|&(first, last, port)| {
            let server = vec![Value::BulkString(b"h".to_vec()), Value::Int(port.into())];
            let (first, last) = (Value::Int(first.into()), Value::Int(last.into()));
            Value::Array(vec![first, last, Value::Array(server)])
        });
        ClusterSlots::parse(&Value::Array(rows.collect()), &at(1)).expect("a map")
    }

    #[test]
    fn the_first_map_gives_every_master_an_endpoint() {
        let mut topology = Topology::new();
        let changes = topology.apply(&map(&[(0, 99, 1), (100, 199, 2), (200, 16_383, 3)]));
        assert_eq!(changes.moved, [(0, at(1)), (1, at(2)), (2, at(3))]);
        assert!(changes.slots_changed && changes.retired.is_empty());
        assert_eq!(topology.endpoint_of(99), 0);
        assert_eq!(topology.endpoint_of(100), 1);
        assert_eq!(topology.endpoint_of(16_383), 2);
        let again = topology.apply(&map(&[(0, 99, 1), (100, 199, 2), (200, 16_383, 3)]));
        assert_eq!(again, Changes::default());
    }

    #[test]
    fn a_replica_that_takes_over_gets_the_endpoint_of_its_master() {
        let mut topology = Topology::new();
        topology.apply(&map(&[(0, 8_191, 1), (8_192, 16_383, 2)]));
        let before = topology.endpoint_of(0);
        let changes = topology.apply(&map(&[(0, 8_191, 9), (8_192, 16_383, 2)]));
        assert_eq!(changes.moved, [(before, at(9))]);
        assert!(!changes.slots_changed && changes.retired.is_empty());
        // Both at once.
        let other = topology.endpoint_of(16_383);
        let changes = topology.apply(&map(&[(0, 8_191, 1), (8_192, 16_383, 5)]));
        assert_eq!(changes.moved, [(before, at(1)), (other, at(5))]);
        assert!(!changes.slots_changed);
    }

    #[test]
    fn a_slot_that_moves_changes_its_endpoint_and_an_emptied_master_retires() {
        let mut topology = Topology::new();
        topology.apply(&map(&[(0, 0, 1), (1, 16_383, 2)]));
        let (one, two) = (topology.endpoint_of(0), topology.endpoint_of(1));
        let changes = topology.apply(&map(&[(0, 16_383, 2)]));
        assert_eq!(changes.moved, []);
        assert_eq!(changes.retired, [one]);
        assert!(changes.slots_changed);
        assert_eq!(topology.endpoint_of(0), two);
        // The next newcomer gets what is not in use.
        let changes = topology.apply(&map(&[(0, 9, 3), (10, 16_383, 2)]));
        assert_eq!(changes.moved, [(one, at(3))]);
        assert_eq!(topology.endpoint_of(9), one);
    }

    #[test]
    fn a_slot_without_a_master_stays_where_it_was() {
        let mut topology = Topology::new();
        topology.apply(&map(&[(0, 99, 1), (100, 16_383, 2)]));
        let before = topology.endpoint_of(0);
        let changes = topology.apply(&map(&[(100, 16_383, 2)]));
        assert_eq!(changes, Changes::default());
        assert_eq!(topology.endpoint_of(0), before);
    }

    proptest! {
        #[test]
        fn every_slot_is_served_by_the_endpoint_of_its_master(maps in prop::collection::vec(prop::collection::vec((0u16..=16_383, 1u16..8), 1..6), 1..8)) {
            let mut topology = Topology::new();
            for cuts in maps {
                let mut cuts = cuts;
                cuts.sort_unstable();
                cuts.dedup_by_key(|cut| cut.0);
                let ends = cuts.iter().skip(1).map(|cut| cut.0 - 1).chain([SLOTS - 1]);
                let rows: Vec<_> = cuts.iter().zip(ends).map(|(&(first, port), last)| (first, last, port)).collect();
                let map = map(&rows);
                let count = topology.addresses.len();
                let changes = topology.apply(&map);
                for (n, (index, _)) in changes.moved.iter().filter(|(index, _)| *index >= count).enumerate() {
                    prop_assert_eq!(*index, count + n);
                }
                for slot in 0..SLOTS {
                    let endpoint = topology.endpoint_of(slot);
                    prop_assert!(endpoint < topology.addresses.len());
                    if let Some(master) = map.master_of(slot) {
                        prop_assert_eq!(topology.addresses[endpoint].as_ref(), Some(master));
                    }
                }
                let mut known: Vec<_> = topology.addresses.iter().flatten().collect();
                let all = known.len();
                known.sort();
                known.dedup();
                prop_assert_eq!(known.len(), all);
            }
        }
    }
}

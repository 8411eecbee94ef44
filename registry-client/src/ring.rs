//! The consistent-hash ring: built once per change of members, read as one sorted array.
//!
//! Invariants:
//! * Equal members (ids and weights, in any order) give equal rings in every process: the hash has a
//!   fixed seed and depends on nothing else.
//! * A member without weight is not in the ring.
//! * Losing a member moves only its own keys; its return gives exactly those back.

use std::hash::{BuildHasher, Hash, Hasher};
use std::sync::Arc;

use consistent_hash_ring::RingBuilder;
use xxhash_rust::xxh3::{Xxh3Builder, xxh3_64_with_seed};

use super::limits;

/// Seed of the ring's points. Changing it moves every key of every cluster.
const POINT_SEED: u64 = 0x666c_7578_7269_6e67;
/// Seed of the keys, another one, so that a key that is a node's id does not fall on its point.
const KEY_SEED: u64 = 0x666c_7578_6b65_7973;

/// Place of a key on the ring.
pub fn key_hash(key: &[u8]) -> u64 {
    xxh3_64_with_seed(key, KEY_SEED)
}

/// One virtual node. It enters `consistent_hash_ring` as a node of its own with a single point, because
/// then the points can be inserted in order, which makes that crate's quadratic bulk build linear, and
/// because its `resident_ranges` then keeps every point apart.
#[derive(Clone, Copy, PartialEq, Eq)]
struct VirtualNode {
    id_hash: u64,
    replica: u32,
    member: u32,
}

impl Hash for VirtualNode {
    fn hash<H: Hasher>(&self, state: &mut H) {
        // Little endian by hand: processes of different machines must agree.
        state.write(&self.id_hash.to_le_bytes());
        state.write(&self.replica.to_le_bytes());
    }
}

/// Who owns which keys. Cheap to read, rebuilt off the data path and swapped.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ring {
    ids: Vec<Arc<str>>,
    weights: Vec<u32>,
    /// Last key of each point's range, ascending, with the index of its member.
    points: Vec<(u64, u32)>,
}

impl Ring {
    /// A ring of `members` (id, weight). A weight is limited to [`limits::WEIGHT_MAX`]; an id that comes
    /// twice counts once, with its first weight; members with weight 0 stay out.
    pub fn new<'a>(members: impl IntoIterator<Item = (&'a str, u32)>) -> Ring {
        let mut members: Vec<(&str, u32)> = members
            .into_iter()
            .filter(|(_, weight)| *weight > 0)
            .map(|(id, weight)| (id, weight.min(limits::WEIGHT_MAX)))
            .collect();
        members.sort_by_key(|(id, _)| *id);
        members.dedup_by_key(|(id, _)| *id);

        let hasher = Xxh3Builder::new().with_seed(POINT_SEED);
        let mut virtual_nodes: Vec<(u64, VirtualNode)> = Vec::with_capacity(
            members
                .iter()
                .map(|(_, weight)| (weight * limits::VNODES_PER_WEIGHT) as usize)
                .sum(),
        );
        for (member, (id, weight)) in members.iter().enumerate() {
            let id_hash = xxh3_64_with_seed(id.as_bytes(), POINT_SEED);
            for replica in 0..weight * limits::VNODES_PER_WEIGHT {
                let node = VirtualNode {
                    id_hash,
                    replica,
                    member: member as u32,
                };
                virtual_nodes.push((hasher.hash_one(node), node));
            }
        }
        virtual_nodes.sort_unstable_by_key(|(point, node)| (*point, node.member));
        virtual_nodes.dedup_by_key(|(point, _)| *point);

        let ring = RingBuilder::new(hasher)
            .vnodes(1)
            .nodes_iter(virtual_nodes.into_iter().map(|(_, node)| node))
            .build();
        let mut points: Vec<(u64, u32)> = ring
            .resident_ranges()
            .map(|range| (*range.keys().end(), range.node().member))
            .collect();
        // The last range runs from the last point to the end and belongs to the first point's member:
        // reading wraps around instead.
        if points.len() > ring.len() {
            points.pop();
        }
        Ring {
            ids: members.iter().map(|(id, _)| Arc::from(*id)).collect(),
            weights: members.iter().map(|(_, weight)| *weight).collect(),
            points,
        }
    }

    /// Members, ascending by id.
    pub fn ids(&self) -> &[Arc<str>] {
        &self.ids
    }

    /// Weight of the member at `index` of [`Ring::ids`].
    pub fn weight(&self, index: usize) -> u32 {
        self.weights.get(index).copied().unwrap_or(0)
    }

    /// Number of members.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Whether the ring has no members.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// Index of `id` in [`Ring::ids`].
    pub fn index_of(&self, id: &str) -> Option<usize> {
        self.ids.binary_search_by(|own| (**own).cmp(id)).ok()
    }

    /// The member that owns `key`.
    pub fn owner(&self, key: u64) -> Option<&Arc<str>> {
        let point = self.points.get(self.point_of(key));
        let (_, member) = point.or(self.points.first())?;
        self.ids.get(*member as usize)
    }

    /// The point whose range `key` lies in; behind the last one where it lies in the first one's.
    fn point_of(&self, key: u64) -> usize {
        self.points.partition_point(|(point, _)| *point < key)
    }

    /// Members in ring order from `key` on, each once, owner first.
    pub fn walk(&self, key: u64) -> Walk<'_> {
        Walk {
            indices: self.walk_indices(key),
        }
    }

    /// Like [`Ring::walk`], as indices of [`Ring::ids`].
    pub fn walk_indices(&self, key: u64) -> WalkIndices<'_> {
        WalkIndices {
            ring: self,
            next: self.point_of(key),
            seen: vec![0; self.ids.len().div_ceil(64)],
            left: self.ids.len(),
        }
    }

    /// Share of the key space of each member; they add up to 1.
    pub fn shares(&self) -> Vec<(Arc<str>, f64)> {
        let mut keys = vec![0u128; self.ids.len()];
        let Some((last, _)) = self.points.last() else {
            return Vec::new();
        };
        let mut previous = *last;
        for (point, member) in &self.points {
            // Wraps for the first point; a ring of one point owns everything.
            let range = match point.wrapping_sub(previous) {
                0 => 1u128 << 64,
                range => u128::from(range),
            };
            keys[*member as usize] += range;
            previous = *point;
        }
        let whole = (1u128 << 64) as f64;
        self.ids
            .iter()
            .cloned()
            .zip(keys.into_iter().map(|keys| keys as f64 / whole))
            .collect()
    }
}

/// See [`Ring::walk`].
#[derive(Clone, Debug)]
pub struct Walk<'a> {
    indices: WalkIndices<'a>,
}

impl<'a> Iterator for Walk<'a> {
    type Item = &'a Arc<str>;

    fn next(&mut self) -> Option<&'a Arc<str>> {
        let index = self.indices.next()?;
        self.indices.ring.ids.get(index)
    }
}

/// See [`Ring::walk_indices`].
#[derive(Clone, Debug)]
pub struct WalkIndices<'a> {
    ring: &'a Ring,
    next: usize,
    seen: Vec<u64>,
    left: usize,
}

impl Iterator for WalkIndices<'_> {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        if self.left == 0 {
            return None;
        }
        // Every member has a point, so that one turn around the ring finds all of them. (A point lost to
        // an equal one of another member does not change that: there are 512 to a member.)
        for _ in 0..self.ring.points.len() {
            if self.next >= self.ring.points.len() {
                self.next = 0;
            }
            let (_, member) = *self.ring.points.get(self.next)?;
            self.next += 1;
            let member = member as usize;
            let (word, bit) = (member / 64, 1u64 << (member % 64));
            if self.seen[word] & bit == 0 {
                self.seen[word] |= bit;
                self.left -= 1;
                return Some(member);
            }
        }
        self.left = 0;
        None
    }
}

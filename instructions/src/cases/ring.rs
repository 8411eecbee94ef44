//! Who owns a key: ours and the crate that ours is built with. Where a connection goes: ours alone.

use std::hint::black_box;
use std::time::Instant;

use crate::registry::limits::VNODES_PER_WEIGHT;
use crate::registry::placement::{Member, Placement, PlacementConfig, Standing};
use crate::registry::ring::{Ring, key_hash};
use consistent_hash_ring::RingBuilder;
use xxhash_rust::xxh3::Xxh3Builder;

use crate::harness::{OURS, case};

/// Different keys, taken in turn.
const KEYS: u32 = 500;

pub(crate) fn run() {
    let keys: Vec<String> = (0..KEYS).map(|number| format!("client-{number}")).collect();
    for nodes in [3, 100] {
        let ids: Vec<String> = (0..nodes)
            .map(|number| format!("gateway-{number}"))
            .collect();
        let name = format!("ring lookup, {nodes} nodes");
        let ring = Ring::new(ids.iter().map(|id| (id.as_str(), 1)));
        case(&name, OURS, 2, KEYS, || {
            for key in &keys {
                black_box(ring.owner(key_hash(black_box(key).as_bytes())));
            }
        });
        let theirs = RingBuilder::new(Xxh3Builder::new())
            .vnodes(VNODES_PER_WEIGHT as usize)
            .nodes_iter(ids.iter().map(String::as_str))
            .build();
        case(&name, "consistent_hash_ring", 2, KEYS, || {
            for key in &keys {
                black_box(theirs.get(black_box(key.as_bytes())));
            }
        });

        let members = ids.iter().map(|id| Member {
            id: id.as_str().into(),
            weight: 1,
            standing: Standing::Eligible,
            load: 100,
            capacity: 0,
            returned: None,
        });
        let now = Instant::now();
        let placement = Placement::new(members.collect(), PlacementConfig::default());
        case(&format!("placement, {nodes} nodes"), OURS, 2, KEYS, || {
            for key in &keys {
                black_box(placement.choose(key_hash(black_box(key).as_bytes()), now));
            }
        });
    }
}

//! Clients by their ids, for the control plane.
//!
//! A client's id carries the key of its entry in a slab that every shard fills on its own pages
//! and any thread may read, so finding a client among a million takes no map and no lock, and
//! shards do not meet when clients come and go.

use std::net::IpAddr;

use flux_runtime::ring::Key;
use sharded_slab::{Config, Slab};

use crate::protocol::ClientId;

/// Bits of an id that hold the key of the entry; the other 74 are random.
const KEY_BITS: u32 = 48;

struct SlabConfig;

impl Config for SlabConfig {
    const MAX_THREADS: usize = 1024;
    /// 32 entries on the first page, twice as many on each further one: 2^25 a shard.
    const INITIAL_PAGE_SIZE: usize = 32;
    const MAX_PAGES: usize = 20;
    /// Keys must fit into their part of an id.
    const RESERVED_BITS: usize = (usize::BITS - KEY_BITS) as usize;
}

/// Where a client is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Client {
    /// Its shard.
    pub shard: u16,
    /// Its connection there.
    pub connection: Key,
    /// Its address.
    pub peer: IpAddr,
}

/// The clients of a node.
pub struct Directory {
    slab: Slab<(ClientId, Client), SlabConfig>,
}

impl Default for Directory {
    fn default() -> Self {
        Self {
            slab: Slab::new_with_config(),
        }
    }
}

impl Directory {
    /// Enters a client under a new id. `None` when a shard's pages are full; the client then
    /// cannot be found, but is served all the same.
    pub(super) fn insert(&self, client: Client) -> Option<(ClientId, usize)> {
        let entry = self.slab.vacant_entry()?;
        let key = entry.key();
        let id = id_for(key, fastrand::u128(..));
        entry.insert((id, client));
        Some((id, key))
    }

    /// Takes out the entry that `insert` returned the key of.
    pub(super) fn remove(&self, key: usize) {
        self.slab.remove(key);
    }

    /// The client with this id, if it is here.
    pub fn find(&self, id: ClientId) -> Option<Client> {
        let entry = self.slab.get(key_in(id))?;
        // The place may have been given to somebody else.
        (entry.0 == id).then_some(entry.1)
    }
}

fn id_for(key: usize, random: u128) -> ClientId {
    let random_bits = u128::BITS - KEY_BITS;
    ClientId::from_random((key as u128) << random_bits | random >> KEY_BITS)
}

fn key_in(id: ClientId) -> usize {
    let bits = u128::from_be_bytes(*id.as_bytes());
    (bits >> (u128::BITS - KEY_BITS)) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(n: u64) -> Client {
        Client {
            shard: 0,
            connection: Key(n),
            peer: IpAddr::from([127, 0, 0, 1]),
        }
    }

    #[test]
    fn a_client_is_found_by_its_id_until_it_leaves_and_its_successor_is_not_taken_for_it() {
        let directory = Directory::default();
        let (first, key) = directory.insert(client(1)).expect("room");
        assert_eq!(directory.find(first), Some(client(1)));
        directory.remove(key);
        assert_eq!(directory.find(first), None);
        for n in 2..100 {
            let (id, key) = directory.insert(client(n)).expect("room");
            assert_eq!(directory.find(id), Some(client(n)));
            assert_eq!(directory.find(first), None);
            directory.remove(key);
        }
    }

    #[test]
    fn clients_of_all_shards_are_found_from_another_thread() {
        let directory = std::sync::Arc::new(Directory::default());
        let shards: Vec<_> = (0..4)
            .map(|shard| {
                let directory = std::sync::Arc::clone(&directory);
                std::thread::spawn(move || {
                    (0..5_000)
                        .map(|n| directory.insert(client(shard << 32 | n)).expect("room").0)
                        .collect::<Vec<_>>()
                })
            })
            .collect();
        for (shard, thread) in shards.into_iter().enumerate() {
            for (n, id) in thread.join().expect("no panic").into_iter().enumerate() {
                assert_eq!(
                    directory.find(id),
                    Some(client((shard as u64) << 32 | n as u64))
                );
            }
        }
    }
}

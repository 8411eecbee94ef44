//! Which of several servers a channel lives on.
//!
//! Jump consistent hash (Lamping and Veach, 2014): every node of a cluster that names the same servers
//! in the same order agrees, and one server more moves only its share of the channels.

use xxhash_rust::xxh3::xxh3_64;

/// The server of `channel`, of so many; 0 where there is one.
pub(super) fn server_of(channel: &str, servers: usize) -> usize {
    if servers <= 1 {
        return 0;
    }
    let mut key = xxh3_64(channel.as_bytes());
    let (mut bucket, mut next) = (0u64, 0u64);
    while next < servers as u64 {
        bucket = next;
        key = key.wrapping_mul(2_862_933_555_777_941_757).wrapping_add(1);
        let spread = (1u64 << 31) as f64 / ((key >> 33) + 1) as f64;
        next = ((bucket + 1) as f64 * spread) as u64;
    }
    bucket as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn channels_are_spread_and_one_server_more_takes_only_its_share() {
        let channels: Vec<String> = (0..10_000).map(|n| format!("channel:{n}")).collect();
        for servers in 1..=8 {
            let mut counts = vec![0usize; servers];
            let mut moved = 0;
            for channel in &channels {
                let at = server_of(channel, servers);
                counts[at] += 1;
                let after = server_of(channel, servers + 1);
                if after != at {
                    assert_eq!(after, servers, "it moves to the new one only");
                    moved += 1;
                }
            }
            let even = channels.len() / servers;
            for count in counts {
                assert!(count.abs_diff(even) < even / 4, "{count} of {even}");
            }
            let share = channels.len() / (servers + 1);
            assert!(moved < share + share / 4, "{moved} of {share}");
        }
    }
}

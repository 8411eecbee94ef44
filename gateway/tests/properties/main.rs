//! The properties that `gateway/fuzz` gives to libFuzzer hold for its seeds and for what small changes
//! make of them: whatever comes in through a door is read or refused, and nothing panics.
//!
//! `FLUX_FUZZ_SEED` repeats a run that failed.

#![allow(clippy::panic, clippy::print_stdout, reason = "tests")]

use std::panic::catch_unwind;
use std::path::Path;

use fastrand::Rng;

#[path = "../../fuzz/properties/mod.rs"]
mod properties;

/// How many changed inputs each property gets.
const CHANGED: usize = 1_000;
/// Changed inputs are not longer than this.
const BYTES_MAX: usize = 2_048;

fn seeds(name: &str) -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fuzz/seeds")
        .join(name);
    let listed = std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{folder:?}: {error}"));
    let mut seeds: Vec<_> = listed
        .map(|entry| {
            let path = entry.expect("an entry").path();
            let bytes = std::fs::read(&path).expect("a seed");
            (path.display().to_string(), bytes)
        })
        .collect();
    seeds.sort_unstable();
    assert!(!seeds.is_empty(), "{name} has no seeds");
    seeds
}

/// What a careless or hostile sender makes of an input.
fn change(bytes: &mut Vec<u8>, others: &[(String, Vec<u8>)], random: &mut Rng) {
    const TELLING: [&[u8]; 14] = [
        b"\0",
        b"\xff",
        b"\x80\x80\x80\x80\x80\x01",
        b"{",
        b"}",
        b"[",
        b"]",
        b"\"",
        b":",
        b"null",
        b"-1",
        b"18446744073709551616",
        b"1e400",
        b"\\ud800",
    ];
    for _ in 0..random.usize(1..=4) {
        let at = random.usize(0..=bytes.len());
        let end = random.usize(at..=bytes.len());
        match random.u8(0..7) {
            0 => bytes.truncate(at),
            1 => drop(bytes.drain(at..end)),
            2 => bytes
                .splice(
                    at..at,
                    TELLING[random.usize(0..TELLING.len())].iter().copied(),
                )
                .for_each(drop),
            3 if at < bytes.len() => bytes[at] ^= 1 << random.u8(0..8),
            4 if at < bytes.len() => bytes[at] = random.u8(..),
            5 => {
                let again = bytes[at..end].to_vec();
                bytes.splice(at..at, again).for_each(drop);
            }
            _ => {
                let other = &others[random.usize(0..others.len())].1;
                let from = random.usize(0..=other.len());
                bytes
                    .splice(at..end, other[from..].iter().copied())
                    .for_each(drop);
            }
        }
    }
    bytes.truncate(BYTES_MAX);
}

#[test]
fn every_property_holds_for_its_seeds_and_for_what_small_changes_make_of_them() {
    let seed = std::env::var("FLUX_FUZZ_SEED")
        .ok()
        .and_then(|text| text.parse().ok());
    let seed = seed.unwrap_or_else(|| fastrand::u64(..));
    println!("FLUX_FUZZ_SEED={seed}");
    for (name, check) in properties::ALL {
        let seeds = seeds(name);
        for (path, bytes) in &seeds {
            assert!(catch_unwind(|| check(bytes)).is_ok(), "{path}");
        }
        let mut random = Rng::with_seed(seed);
        for _ in 0..CHANGED {
            let mut bytes = seeds[random.usize(0..seeds.len())].1.clone();
            change(&mut bytes, &seeds, &mut random);
            let holds = catch_unwind(|| check(&bytes)).is_ok();
            assert!(
                holds,
                "{name}, FLUX_FUZZ_SEED={seed}: {}",
                bytes.escape_ascii()
            );
        }
    }
}

#[test]
fn every_folder_of_seeds_is_of_a_property() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds");
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let name = entry.expect("an entry").file_name();
        let known = |(known, _): &properties::Property| *known == name;
        assert!(properties::ALL.iter().any(known), "{name:?}");
    }
}

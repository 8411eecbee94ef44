use std::collections::{BTreeMap, HashMap};

use super::*;

impl<T: Copy> TimerWheel<T> {
    fn check_invariants(&self) {
        let mut seen = 0;
        for level in 0..LEVELS {
            for slot in 0..SLOTS {
                let occupied = self.occupied[level] & (1 << slot) != 0;
                let mut index = self.heads[level][slot];
                assert_eq!(occupied, index != END, "level {level} slot {slot}");
                let mut before = END;
                while index != END {
                    let link = self.links[index as usize];
                    assert_eq!(link.prev, before);
                    assert_eq!(self.place(link.tick), (level, slot));
                    before = index;
                    index = link.next;
                    seen += 1;
                }
            }
        }
        assert_eq!(seen, self.len);
        let mut free = 0;
        let mut index = self.free;
        while index != END {
            free += 1;
            index = self.links[index as usize].next;
        }
        assert_eq!(free + seen, self.links.len());
    }
}

/// Spreads over all levels: a uniform number of bits, then a uniform value of so many.
fn spread(random: &mut fastrand::Rng, bits: u32) -> u64 {
    let bits = random.u32(0..=bits);
    random.u64(0..=(1u64 << bits) - 1)
}

/// Against a map ordered by tick: fires exactly what is due, once, and nothing early.
fn run_against_model(seed: u64, start_ticks: u64) {
    println!("seed {seed}, from tick {start_ticks}");
    let mut random = fastrand::Rng::with_seed(seed);
    let start = Instant::now();
    let mut wheel = TimerWheel::new(start);
    let mut now = start + TICK * u32::try_from(start_ticks).unwrap_or(u32::MAX);
    wheel.advance(now, &mut |_: u64| unreachable!("it is empty"));
    // Deadline and number of each timer that is armed.
    let mut model: BTreeMap<(Instant, u64), TimerKey> = BTreeMap::new();
    let mut by_number: HashMap<u64, Instant> = HashMap::new();
    let mut dead: Vec<TimerKey> = Vec::new();
    for number in 0..8_000u64 {
        match random.u8(0..10) {
            0..5 => {
                let ahead = Duration::from_micros(spread(&mut random, 40));
                let key = wheel.insert(now + ahead, number);
                model.insert((now + ahead, number), key);
                by_number.insert(number, now + ahead);
            }
            5 if !model.is_empty() => {
                let nth = random.usize(..model.len());
                let (&(deadline, number), &key) = model.iter().nth(nth).expect("within");
                model.remove(&(deadline, number));
                by_number.remove(&number);
                assert_eq!(wheel.cancel(key), Some(number));
                dead.push(key);
            }
            6 if !model.is_empty() => {
                let nth = random.usize(..model.len());
                let (&(deadline, number), &key) = model.iter().nth(nth).expect("within");
                let moved = now + Duration::from_micros(spread(&mut random, 36));
                assert!(wheel.reset(key, moved));
                model.remove(&(deadline, number));
                model.insert((moved, number), key);
                by_number.insert(number, moved);
            }
            7 if !dead.is_empty() => {
                let key = dead[random.usize(..dead.len())];
                assert_eq!(wheel.cancel(key), None);
                assert!(!wheel.reset(key, now));
            }
            _ => {
                now += Duration::from_micros(spread(&mut random, 38));
                let mut fired = Vec::new();
                wheel.advance(now, &mut |number| fired.push(number));
                let mut latest = 0;
                for number in fired {
                    let deadline = by_number.remove(&number).expect("fires once");
                    assert!(deadline <= now, "early");
                    let tick = (deadline - start).as_nanos().div_ceil(TICK.as_nanos());
                    assert!(latest <= tick, "out of order");
                    latest = tick;
                    dead.push(model.remove(&(deadline, number)).expect("in the model"));
                }
                if let Some((&(deadline, _), _)) = model.first_key_value() {
                    assert!(deadline + TICK > now, "late");
                }
            }
        }
        assert_eq!(wheel.len(), model.len());
        match (wheel.next_deadline(), model.first_key_value()) {
            (None, None) => {}
            (Some(next), Some((&(deadline, _), _))) => {
                assert!(next < deadline.max(now) + TICK, "would be woken too late");
            }
            different => unreachable!("{different:?}"),
        }
        if number % 64 == 0 {
            wheel.check_invariants();
        }
    }
    // All of the rest fires in the end.
    let mut rest = 0;
    while let Some(next) = wheel.next_deadline() {
        wheel.advance(next, &mut |_| rest += 1);
    }
    assert_eq!(rest, model.len());
    wheel.check_invariants();
}

#[test]
fn random_timers_match_a_sorted_map() {
    run_against_model(fastrand::u64(..), 0);
}

#[test]
fn random_timers_match_a_sorted_map_where_the_ticks_wrap() {
    run_against_model(fastrand::u64(..), u64::from(u32::MAX) - 50_000);
}

#[test]
fn a_deadline_in_the_past_fires_at_once() {
    let start = Instant::now();
    let mut wheel = TimerWheel::new(start);
    let now = start + Duration::from_secs(10);
    wheel.advance(now, &mut |_: u8| unreachable!("it is empty"));
    wheel.insert(start, 1);
    assert!(wheel.next_deadline().is_some_and(|next| next <= now));
    let mut fired = 0;
    wheel.advance(now, &mut |_| fired += 1);
    assert_eq!((fired, wheel.len()), (1, 0));
}

#[test]
fn time_that_stands_still_or_steps_back_does_no_harm() {
    let start = Instant::now();
    let mut wheel = TimerWheel::new(start);
    wheel.advance(start + Duration::from_secs(5), &mut |_: u8| {});
    wheel.insert(start + Duration::from_secs(6), 7);
    wheel.advance(start + Duration::from_secs(1), &mut |_| {
        unreachable!("not due")
    });
    let mut fired = Vec::new();
    wheel.advance(start + Duration::from_secs(7), &mut |value| {
        fired.push(value);
    });
    assert_eq!(fired, [7]);
}

#[test]
fn a_timer_costs_sixteen_bytes_beside_its_value() {
    assert_eq!(size_of::<Link>(), 16);
    assert_eq!(size_of::<Option<TimerKey>>(), 8);
}

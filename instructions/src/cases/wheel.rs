//! 10,000 timers, as many as there are connections to be pinged: ours, a hierarchical wheel from a crate and the
//! standard library's ordered map.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::time::{Duration, Instant};

use crate::wheel::{TICK, TimerWheel};
use hierarchical_hash_wheel_timer::IdOnlyTimerEntry;
use hierarchical_hash_wheel_timer::wheels::Skip;
use hierarchical_hash_wheel_timer::wheels::cancellable::QuadWheelWithOverflow;

use crate::harness::{OURS, case};

const TIMERS: u32 = 10_000;
const PEER: &str = "hierarchical_hash_wheel_timer";

pub(crate) fn run() {
    arm_and_cancel();
    fire_and_arm();
}

/// A timer that is cancelled before it fires, as those of handshakes are.
fn arm_and_cancel() {
    let name = "timer armed and cancelled";
    let start = Instant::now();
    let mut wheel = filled(start);
    case(name, OURS, 1_000, 1, || {
        let key = wheel.insert(black_box(start + 1_250 * TICK), TIMERS);
        black_box(wheel.cancel(key));
    });
    let mut theirs = filled_theirs();
    case(name, PEER, 1_000, 1, || {
        let armed = theirs.insert(IdOnlyTimerEntry::new(
            TIMERS,
            black_box(Duration::from_millis(1_250)),
        ));
        black_box(armed.is_ok());
        black_box(theirs.cancel(&TIMERS).is_ok());
    });
    let mut map = filled_map();
    case(name, "BTreeMap", 1_000, 1, || {
        let key = (black_box(1_250), TIMERS);
        map.insert(key, ());
        black_box(map.remove(&key));
    });
}

/// The wheel turns by a tick, in which one timer fires and is armed again, as pings are: once around for all timers, so
/// that each has moved through the levels.
fn fire_and_arm() {
    let name = "timer fired and armed again";
    let start = Instant::now();
    let mut wheel = filled(start);
    let (mut now, mut fired) = (start, Vec::new());
    case(name, OURS, TIMERS, 1, || {
        now += TICK;
        wheel.advance(black_box(now), &mut |timer| fired.push(timer));
        for timer in fired.drain(..) {
            wheel.insert(now + TIMERS * TICK, timer);
        }
    });
    assert_eq!(wheel.len(), TIMERS as usize);

    let mut theirs = filled_theirs();
    case(name, PEER, TIMERS, 1, || {
        for timer in theirs.tick() {
            let again = theirs.insert_ref_with_delay(timer, Duration::from_millis(TIMERS.into()));
            black_box(again.is_ok());
        }
    });
    assert!(
        !matches!(theirs.can_skip(), Skip::Empty),
        "timers are armed"
    );

    let (mut map, mut tick) = (filled_map(), 0);
    case(name, "BTreeMap", TIMERS, 1, || {
        tick += 1;
        while let Some(first) = map.first_entry()
            && first.key().0 <= black_box(tick)
        {
            let ((_, timer), ()) = first.remove_entry();
            map.insert((tick + TIMERS, timer), ());
        }
    });
    assert_eq!(map.len(), TIMERS as usize);
}

/// One timer a tick, from the first on.
fn filled(start: Instant) -> TimerWheel<u32> {
    let mut wheel = TimerWheel::new(start);
    for timer in 0..TIMERS {
        wheel.insert(start + (timer + 1) * TICK, timer);
    }
    wheel
}

fn filled_theirs() -> QuadWheelWithOverflow<IdOnlyTimerEntry<u32>> {
    let mut wheel = QuadWheelWithOverflow::new();
    for timer in 0..TIMERS {
        let delay = Duration::from_millis(u64::from(timer) + 1);
        let armed = wheel.insert(IdOnlyTimerEntry::new(timer, delay));
        assert!(armed.is_ok(), "a timer ahead can be armed");
    }
    wheel
}

fn filled_map() -> BTreeMap<(u32, u32), ()> {
    (0..TIMERS).map(|timer| ((timer + 1, timer), ())).collect()
}

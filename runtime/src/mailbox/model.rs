//! The wake protocol under loom: every interleaving of senders with a shard that clears, looks,
//! and parks. Run with
//! `RUSTFLAGS="--cfg flux_loom" cargo test -p flux-runtime --lib mailbox::model`.

use loom::sync::Arc;
use loom::sync::atomic::{AtomicBool, Ordering};
use loom::sync::{Condvar, Mutex};
use loom::thread;

use super::signal::Signal;

/// Stands for the eventfd: a counter that a parked shard waits for.
struct Event {
    written: Mutex<bool>,
    changed: Condvar,
}

/// If a wake were lost the shard would wait for good, which loom reports as a deadlock.
#[test]
fn no_interleaving_loses_a_wake() {
    let mut model = loom::model::Builder::new();
    // Enough to show every known kind of lost wake, and the model ends within seconds.
    model.preemption_bound = Some(3);
    model.check(|| {
        const SENDERS: usize = 2;
        let signal = Arc::new(Signal::new());
        let event = Arc::new(Event {
            written: Mutex::new(false),
            changed: Condvar::new(),
        });
        let messages = Arc::new([AtomicBool::new(false), AtomicBool::new(false)]);
        let senders: Vec<_> = (0..SENDERS)
            .map(|sender| {
                let signal = Arc::clone(&signal);
                let event = Arc::clone(&event);
                let messages = Arc::clone(&messages);
                thread::spawn(move || {
                    // Relaxed on purpose: the signal alone must make the message visible.
                    messages[sender].store(true, Ordering::Relaxed);
                    if signal.notify() {
                        *event.written.lock().expect("no panic") = true;
                        event.changed.notify_one();
                    }
                })
            })
            .collect();
        let mut seen = 0;
        while seen < SENDERS {
            if signal.park() {
                let mut written = event.written.lock().expect("no panic");
                while !*written {
                    written = event.changed.wait(written).expect("no panic");
                }
                *written = false;
            }
            signal.clear();
            seen = messages
                .iter()
                .filter(|message| message.load(Ordering::Relaxed))
                .count();
        }
        for sender in senders {
            sender.join().expect("no panic");
        }
    });
}

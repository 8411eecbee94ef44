use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::*;
use crate::ring::{NetRing, RingConfig};

#[test]
fn a_full_mailbox_gives_the_message_back() {
    let (waker, _source) = wake_pair().expect("an eventfd");
    let (sender, receiver) = mailbox(2, waker);
    assert_eq!(sender.try_send(1), Ok(()));
    assert_eq!(sender.try_send(2), Ok(()));
    assert_eq!(sender.try_send(3), Err(Full(3)));
    assert_eq!((receiver.len(), receiver.capacity()), (2, 2));
    assert_eq!(receiver.pop(), Some(1));
    assert_eq!(sender.try_send(3), Ok(()));
    assert_eq!(
        (receiver.pop(), receiver.pop(), receiver.pop()),
        (Some(2), Some(3), None)
    );
}

#[test]
fn every_sender_keeps_its_order_and_nothing_is_lost() {
    const SENDERS: u64 = 4;
    const MESSAGES: u64 = 20_000;
    let (waker, source) = wake_pair().expect("an eventfd");
    let (sender, receiver) = mailbox(64, waker);
    let threads: Vec<_> = (0..SENDERS)
        .map(|name| {
            let sender = sender.clone();
            thread::spawn(move || {
                for number in 0..MESSAGES {
                    let mut message = (name, number);
                    while let Err(Full(back)) = sender.try_send(message) {
                        message = back;
                        thread::yield_now();
                    }
                }
            })
        })
        .collect();
    let mut ring = NetRing::new(&RingConfig::default(), source).expect("a ring");
    let mut next = [0; SENDERS as usize];
    let mut received = 0;
    let deadline = Instant::now() + Duration::from_secs(60);
    while received < SENDERS * MESSAGES {
        // No limit short of the test's: a lost wake shows as a hang until then.
        ring.wait(Some(deadline));
        while ring.next_completion().is_some() {}
        while let Some((name, number)) = receiver.pop() {
            assert_eq!(next[name as usize], number);
            next[name as usize] += 1;
            received += 1;
        }
        assert!(
            Instant::now() < deadline,
            "a wake was lost after {received} messages"
        );
    }
    for thread in threads {
        thread.join().expect("a sender ends");
    }
}

/// One message at a time, each sent when the one before was taken, so that nearly every send meets
/// the shard about to park.
#[test]
fn no_wake_is_lost_around_parking() {
    const MESSAGES: u64 = 30_000;
    let (waker, source) = wake_pair().expect("an eventfd");
    let (sender, receiver) = mailbox(1, waker);
    static TAKEN: AtomicU64 = AtomicU64::new(0);
    static GIVE_UP: AtomicBool = AtomicBool::new(false);
    let thread = thread::spawn(move || {
        for number in 0..MESSAGES {
            while TAKEN.load(Ordering::Acquire) < number {
                if GIVE_UP.load(Ordering::Relaxed) {
                    return;
                }
                std::hint::spin_loop();
            }
            assert_eq!(sender.try_send(number), Ok(()));
        }
    });
    let mut ring = NetRing::new(&RingConfig::default(), source).expect("a ring");
    let mut taken = 0;
    while taken < MESSAGES {
        let before = Instant::now();
        ring.wait(Some(before + Duration::from_secs(20)));
        while ring.next_completion().is_some() {}
        while let Some(number) = receiver.pop() {
            assert_eq!(number, taken);
            taken += 1;
            TAKEN.store(taken, Ordering::Release);
        }
        if before.elapsed() > Duration::from_secs(15) {
            GIVE_UP.store(true, Ordering::Relaxed);
            thread.join().expect("the sender ends");
            unreachable!("a wake was lost at message {taken}");
        }
    }
    thread.join().expect("the sender ends");
}

//! A message to another shard: ours with its wake, the standard library's bounded channel and tokio's.

use std::hint::black_box;

use crate::mailbox::{mailbox, wake_pair};

use crate::harness::{OURS, case};

/// What shards hand each other is about this large.
type Letter = [u64; 6];

const CAPACITY: usize = 1_024;
const BATCH: u32 = 16;

pub(crate) fn run() {
    let letter: Letter = [7; 6];
    let (waker, _source) = wake_pair().expect("an eventfd");

    let name = "mailbox, one message";
    let (sender, receiver) = mailbox::<Letter>(CAPACITY, waker);
    case(name, OURS, 1_000, 1, || {
        black_box(sender.try_send(black_box(letter)).is_ok());
        black_box(receiver.pop());
    });
    let (their_sender, their_receiver) = std::sync::mpsc::sync_channel::<Letter>(CAPACITY);
    case(name, "std", 1_000, 1, || {
        black_box(their_sender.try_send(black_box(letter)).is_ok());
        black_box(their_receiver.try_recv().is_ok());
    });
    let (tokio_sender, mut tokio_receiver) = tokio::sync::mpsc::channel::<Letter>(CAPACITY);
    case(name, "tokio", 1_000, 1, || {
        black_box(tokio_sender.try_send(black_box(letter)).is_ok());
        black_box(tokio_receiver.try_recv().is_ok());
    });

    let name = "mailbox, each of 16 messages";
    case(name, OURS, 100, BATCH, || {
        for _ in 0..BATCH {
            black_box(sender.push(black_box(letter)).is_ok());
        }
        sender.wake();
        while let Some(letter) = receiver.pop() {
            black_box(letter);
        }
    });
    case(name, "std", 100, BATCH, || {
        for _ in 0..BATCH {
            black_box(their_sender.try_send(black_box(letter)).is_ok());
        }
        while let Ok(letter) = their_receiver.try_recv() {
            black_box(letter);
        }
    });
    case(name, "tokio", 100, BATCH, || {
        for _ in 0..BATCH {
            black_box(tokio_sender.try_send(black_box(letter)).is_ok());
        }
        while let Ok(letter) = tokio_receiver.try_recv() {
            black_box(letter);
        }
    });
}

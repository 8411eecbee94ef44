//! The end of the shards' threads.

use std::time::{Duration, Instant};

use flux_runtime::mailbox::Sender;
use flux_runtime::shard::ShardThread;

use crate::shard::Order;

/// How often a shard is asked again, and looked at.
const AGAIN: Duration = Duration::from_millis(5);

/// Ends the shards; says whether all of them ended well. One that has not by `patience` is left to
/// the end of the process: it is stuck, and whoever waited for it would be too.
pub(super) async fn stop(
    shards: Vec<ShardThread>,
    orders: &[Sender<Order>],
    patience: Duration,
) -> bool {
    for sender in orders {
        // One whose mailbox is full is asked again below.
        let _ = sender.try_send(Order::Stop);
    }
    let until = Instant::now() + patience;
    let mut is_well = true;
    for (shard, sender) in shards.into_iter().zip(orders) {
        while !shard.is_finished() && Instant::now() < until {
            tokio::time::sleep(AGAIN).await;
            let _ = sender.try_send(Order::Stop);
        }
        if !shard.is_finished() {
            tracing::error!(shard = shard.index(), "a shard is stuck and does not end");
            is_well = false;
        } else if let Err(error) = shard.join() {
            tracing::error!(%error, "a shard did not end well");
            is_well = false;
        }
    }
    is_well
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use flux_runtime::mailbox::{mailbox, wake_pair};
    use flux_runtime::ring::{Completion, NetRing, RingConfig};
    use flux_runtime::shard::{Service, ShardSpec, Turn, spawn};

    use super::*;

    /// Never comes back from its first turn, until the test is over.
    struct Stuck(Arc<AtomicBool>);

    impl Service for Stuck {
        fn on_completion(&mut self, _: &mut NetRing, _: Completion, _: Instant) {}

        fn on_turn(&mut self, _: &mut NetRing, _: Instant) -> Turn {
            while !self.0.load(Ordering::Acquire) {
                std::thread::yield_now();
            }
            Turn::Stop
        }
    }

    #[test]
    fn a_stuck_shard_does_not_hold_up_the_exit_and_is_told_of() {
        let is_over = Arc::new(AtomicBool::new(false));
        let (waker, source) = wake_pair().expect("an eventfd");
        let (orders, _unread) = mailbox(1, waker);
        let spec = ShardSpec {
            index: 0,
            cpu: None,
            name: "stuck".to_owned(),
            ring: RingConfig::default(),
        };
        let service = Stuck(Arc::clone(&is_over));
        let shard = spawn(spec, source, move |_| Ok(service)).expect("a shard");
        let (ended, outcome) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let is_well = flux_runtime::control::run(stop(
                vec![shard],
                &[orders],
                Duration::from_millis(100),
            ));
            let _ = ended.send(is_well.expect("a runtime"));
        });
        let is_well = outcome.recv_timeout(Duration::from_secs(20));
        is_over.store(true, Ordering::Release);
        assert_eq!(is_well, Ok(false));
    }
}

//! glommio tasks beside the net ring.

use std::cell::Cell;
use std::future::Future;

thread_local! {
    static PENDING: Cell<usize> = const { Cell::new(0) };
}

/// Counts a task for as long as it lives, also when it panics or is dropped unfinished.
struct Counted;

impl Counted {
    fn new() -> Self {
        PENDING.set(PENDING.get() + 1);
        Self
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        PENDING.set(PENDING.get() - 1);
    }
}

/// Runs a future on this shard's executor, beside its service.
///
/// While any is pending, glommio's queues get a turn each millisecond or park, and parks are
/// short. For work that is not on the data path: files, and what else glommio does well.
///
/// # Panics
/// Outside a shard.
pub fn spawn_local(future: impl Future<Output = ()> + 'static) {
    let counted = Counted::new();
    glommio::spawn_local(async move {
        let _counted = counted;
        future.await;
    })
    .detach();
}

/// True while tasks of [`spawn_local`] are alive.
pub(super) fn pending() -> bool {
    PENDING.get() > 0
}

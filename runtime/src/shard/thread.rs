//! The shard's thread: executor, loop, and what others may see of it.

use std::any::Any;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use glommio::{LocalExecutorBuilder, Placement};

use super::{PARK_MAX, Service, ShardError, ShardSpec, Turn, tasks};
use crate::mailbox::{WakeSource, Waker};
use crate::ring::NetRing;

/// How often glommio's queues get a turn while they hold tasks.
const GLOMMIO_PERIOD: Duration = Duration::from_millis(1);
/// Longest park while they do.
const GLOMMIO_PARK_MAX: Duration = Duration::from_millis(5);
/// Completions after which what they queued goes to the kernel and the clock is read again. In a storm a
/// turn may have thousands, where the kernel does not hand them out in portions (before Linux 6.13): what the
/// first of them began should not wait for the last, and a time-out that they set should not count from before
/// they were looked at.
const BATCH: usize = 256;

/// Turns at most for which the time of a shard stands still because it is behind.
const BEHIND_TURNS_MAX: u32 = 256;

/// What the shard publishes about itself.
#[derive(Debug, Default)]
struct Vital {
    turns: AtomicU64,
    busy_per_mille: AtomicU32,
    panicked: AtomicBool,
}

/// A running shard.
#[derive(Debug)]
pub struct ShardThread {
    index: usize,
    cpu: Option<usize>,
    thread: JoinHandle<Result<(), ShardError>>,
    vital: Arc<Vital>,
    waker: Waker,
}

impl ShardThread {
    /// The shard's number.
    pub fn index(&self) -> usize {
        self.index
    }

    /// The cpu that it is pinned to.
    pub fn cpu(&self) -> Option<usize> {
        self.cpu
    }

    /// Turns taken. A living shard's counter moves within a second, and soon after a
    /// [`wake`](Self::wake).
    pub fn turns(&self) -> u64 {
        self.vital.turns.load(Ordering::Relaxed)
    }

    /// Makes it take a turn.
    pub fn wake(&self) {
        self.waker.wake();
    }

    /// Share of recent time that it worked, 0 to 1.
    pub fn busy_share(&self) -> f32 {
        self.vital.busy_per_mille.load(Ordering::Relaxed) as f32 / 1000.0
    }

    /// True once its service has panicked.
    pub fn panicked(&self) -> bool {
        self.vital.panicked.load(Ordering::Acquire)
    }

    /// True once its thread has ended.
    pub fn is_finished(&self) -> bool {
        self.thread.is_finished()
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// [`ShardError::Panicked`] with the panic's message.
    pub fn join(self) -> Result<(), ShardError> {
        let index = self.index;
        self.thread.join().unwrap_or_else(|panic| {
            Err(ShardError::Panicked {
                index,
                message: message_of(&*panic),
            })
        })
    }
}

/// Starts a shard. `build` runs on its thread, with its ring, and makes the service; this returns
/// when it has.
///
/// Look at [`doctor`](crate::doctor) before: where io_uring is missing glommio ends the process.
///
/// # Errors
/// When the thread, the ring, the executor or the service cannot be made.
pub fn spawn<S, B>(spec: ShardSpec, wake: WakeSource, build: B) -> Result<ShardThread, ShardError>
where
    S: Service + 'static,
    B: FnOnce(&mut NetRing) -> io::Result<S> + Send + 'static,
{
    let ShardSpec {
        index, cpu, name, ..
    } = spec.clone();
    let vital = Arc::new(Vital::default());
    let waker = wake.waker();
    let (started, on_start) = mpsc::sync_channel(1);
    let thread = thread::Builder::new()
        .name(name)
        .spawn({
            let vital = Arc::clone(&vital);
            move || {
                let outcome = catch_unwind(AssertUnwindSafe(|| {
                    run(&spec, wake, build, &vital, &started)
                }));
                let error = match outcome {
                    Ok(Ok(())) => return Ok(()),
                    Ok(Err(error)) => error,
                    Err(panic) => ShardError::Panicked {
                        index,
                        message: message_of(&*panic),
                    },
                };
                if matches!(error, ShardError::Panicked { .. }) {
                    vital.panicked.store(true, Ordering::Release);
                    tracing::error!(shard = index, %error, "a shard has ended");
                }
                match started.try_send(Err(error)) {
                    // Whoever starts the shard hears it.
                    Ok(()) => Ok(()),
                    // It had started: whoever joins it hears it.
                    Err(mpsc::TrySendError::Full(Err(error)))
                    | Err(mpsc::TrySendError::Disconnected(Err(error))) => Err(error),
                    Err(_) => Ok(()),
                }
            }
        })
        .map_err(|source| ShardError::Thread { index, source })?;
    let shard = ShardThread {
        index,
        cpu,
        thread,
        vital,
        waker,
    };
    match on_start.recv() {
        Ok(Ok(())) => Ok(shard),
        Ok(Err(error)) => {
            let _ = shard.join();
            Err(error)
        }
        Err(mpsc::RecvError) => match shard.join() {
            Err(error) => Err(error),
            Ok(()) => Err(ShardError::Thread {
                index,
                source: io::Error::other("the thread ended before it had started"),
            }),
        },
    }
}

type Started = mpsc::SyncSender<Result<(), ShardError>>;

fn run<S, B>(
    spec: &ShardSpec,
    wake: WakeSource,
    build: B,
    vital: &Vital,
    started: &Started,
) -> Result<(), ShardError>
where
    S: Service + 'static,
    B: FnOnce(&mut NetRing) -> io::Result<S>,
{
    let index = spec.index;
    // The ring first: it says with its remedy what would make glommio panic.
    let mut ring =
        NetRing::new(&spec.ring, wake).map_err(|source| ShardError::Ring { index, source })?;
    let placement = spec.cpu.map_or(Placement::Unbound, Placement::Fixed);
    let executor = LocalExecutorBuilder::new(placement)
        .io_memory(0)
        .make()
        .map_err(|error| ShardError::Executor {
            index,
            reason: error.to_string(),
        })?;
    executor.run(async {
        // A panic must not unwind through the executor, which would abort or hang on it.
        let panicked = |panic: Box<dyn Any + Send>| ShardError::Panicked {
            index,
            message: message_of(&*panic),
        };
        let mut service = catch_unwind(AssertUnwindSafe(|| build(&mut ring)))
            .map_err(panicked)?
            .map_err(|source| ShardError::Build { index, source })?;
        let _ = started.send(Ok(()));
        let outcome = loop {
            let segment = AssertUnwindSafe(|| turns(&mut service, &mut ring, vital));
            match catch_unwind(segment) {
                Ok(Segment::Yield) => glommio::executor().yield_task_queue_now().await,
                Ok(Segment::Stop) => break Ok(()),
                Err(panic) => break Err(panicked(panic)),
            }
        };
        let dropped = catch_unwind(AssertUnwindSafe(move || drop(service)));
        outcome.and(dropped.map_err(panicked))
    })
}

enum Segment {
    Yield,
    Stop,
}

/// Turns until glommio is due or the service stops.
fn turns<S: Service>(service: &mut S, ring: &mut NetRing, vital: &Vital) -> Segment {
    let mut now = Instant::now();
    let mut turns_behind = 0;
    let yield_at = now + GLOMMIO_PERIOD;
    loop {
        let until = match service.on_turn(ring, now) {
            Turn::Stop => return Segment::Stop,
            Turn::WaitUntil(until) => until,
        };
        let park_max = if tasks::pending() {
            if now >= yield_at {
                return Segment::Yield;
            }
            GLOMMIO_PARK_MAX
        } else {
            PARK_MAX
        };
        let latest = now + park_max;
        let taken = ring.wait(Some(until.map_or(latest, |until| until.min(latest))));
        // Only this thread writes: a plain addition is enough.
        let turns = vital.turns.load(Ordering::Relaxed) + 1;
        vital.turns.store(turns, Ordering::Relaxed);
        let busy = (ring.busy_share() * 1000.0) as u32;
        vital.busy_per_mille.store(busy, Ordering::Relaxed);
        take_completions(service, ring, taken);
        // No timer is to overtake what had happened before it, so time stands still while the shard is behind.
        if ring.is_behind() && turns_behind < BEHIND_TURNS_MAX {
            turns_behind += 1;
        } else {
            turns_behind = 0;
            now = taken;
        }
    }
}

/// All completions of a turn.
fn take_completions<S: Service>(service: &mut S, ring: &mut NetRing, mut now: Instant) {
    let mut left = BATCH;
    while let Some(completion) = ring.next_completion() {
        service.on_completion(ring, completion, now);
        left -= 1;
        if left == 0 {
            ring.submit_queued();
            now = Instant::now();
            left = BATCH;
        }
    }
}

fn message_of(panic: &(dyn Any + Send)) -> String {
    panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "no message".to_owned())
}

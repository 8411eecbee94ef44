//! Where Redis is while that can change: asks the sentinels or the cluster now and then, and at once when
//! something here speaks against what is known.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use flux_registry::{ClusterLocator, ClusterSlots, Endpoint as Address, SentinelLocator};
use tokio::time::{Instant, Sleep, sleep};

use super::failovers::{Failover, Failovers};
use crate::limits::{REDIS_GUIDE_INTERVAL, REDIS_GUIDE_PAUSE_MIN};

/// What was told.
pub(super) enum View {
    /// The sentinels: the master is there.
    Master(Address),
    /// The cluster: this is its map.
    Slots(ClusterSlots),
    /// The sentinels: the master is about to be another one.
    FailoverBegins,
    /// The sentinels: it stays after all.
    FailoverAborted,
}

enum Locator {
    Sentinel(SentinelLocator),
    Cluster(Box<ClusterLocator>),
}

type Asking = Pin<Box<dyn Future<Output = (Locator, Result<View, String>)> + Send>>;

enum State {
    /// Until then, unless hurried.
    Resting(Locator, Pin<Box<Sleep>>),
    Asking(Asking),
    /// Between the two; never seen from outside.
    Turning,
}

/// See the module.
pub(super) struct Guide {
    state: State,
    asked: Instant,
    is_hurried: bool,
    /// None where there are no sentinels.
    failovers: Option<Failovers>,
}

impl Guide {
    pub(super) fn sentinel(locator: SentinelLocator) -> Self {
        let (name, wait_max) = (locator.master_name().to_owned(), locator.wait_max());
        let failovers = Failovers::new(locator.clients(), &name, wait_max);
        Self {
            failovers: Some(failovers),
            ..Self::with(Locator::Sentinel(locator))
        }
    }

    pub(super) fn cluster(locator: ClusterLocator) -> Self {
        Self::with(Locator::Cluster(Box::new(locator)))
    }

    fn with(locator: Locator) -> Self {
        Self {
            state: State::Asking(ask(locator)),
            asked: Instant::now(),
            is_hurried: false,
            failovers: None,
        }
    }

    /// Something speaks against what is known: asks again soon.
    pub(super) fn hurry(&mut self) {
        self.is_hurried = true;
        if let State::Resting(_, sleep) = &mut self.state {
            let soon = self.asked + REDIS_GUIDE_PAUSE_MIN;
            if sleep.deadline() > soon {
                sleep.as_mut().reset(soon);
            }
        }
    }

    /// The next thing that is told, or why nothing is. Cancel-safe.
    pub(super) async fn next(&mut self) -> Result<View, String> {
        loop {
            let Self {
                failovers,
                state,
                asked,
                is_hurried,
            } = self;
            let Some(failovers) = failovers else {
                return told(state, asked, is_hurried).await;
            };
            let failover = tokio::select! {
                failover = failovers.next() => failover,
                view = told(state, asked, is_hurried) => return view,
            };
            match failover {
                Failover::Begins => return Ok(View::FailoverBegins),
                Failover::Aborted => return Ok(View::FailoverAborted),
                Failover::Promoted => self.hurry(),
            }
        }
    }
}

/// Cancel-safe.
async fn told(
    state: &mut State,
    asked: &mut Instant,
    is_hurried: &mut bool,
) -> Result<View, String> {
    loop {
        match state {
            State::Resting(_, pause) => {
                pause.as_mut().await;
                if let State::Resting(locator, _) = std::mem::replace(state, State::Turning) {
                    *asked = Instant::now();
                    *is_hurried = false;
                    *state = State::Asking(ask(locator));
                }
            }
            State::Asking(asking) => {
                let (locator, told) = asking.as_mut().await;
                let pause = if *is_hurried || told.is_err() {
                    REDIS_GUIDE_PAUSE_MIN
                } else {
                    // Not all nodes at the same moment.
                    REDIS_GUIDE_INTERVAL.mul_f64(0.75 + fastrand::f64() / 2.0)
                };
                *state = State::Resting(locator, Box::pin(sleep(pause)));
                return told;
            }
            State::Turning => std::future::pending::<()>().await,
        }
    }
}

fn ask(mut locator: Locator) -> Asking {
    Box::pin(async move {
        let told = match &mut locator {
            Locator::Sentinel(locator) => locator.master().await.map(View::Master),
            Locator::Cluster(locator) => locator.slots().await.map(View::Slots),
        };
        (locator, told)
    })
}

const _: () = assert!(REDIS_GUIDE_PAUSE_MIN.as_millis() < REDIS_GUIDE_INTERVAL.as_millis());
const _: () = assert!(REDIS_GUIDE_PAUSE_MIN.as_millis() > Duration::ZERO.as_millis());

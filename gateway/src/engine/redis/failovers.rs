//! What sentinels say of a failover while it happens.
//!
//! A replica that is made master on order (`SENTINEL FAILOVER`) serves while the old master still takes
//! writes, which are lost when that becomes its replica. The sentinel that leads the failover says that it
//! begins (`+try-failover`) two of its ticks (100 ms each) before it promotes the replica. Who keeps its
//! publications back from then on until the sentinels name the new master loses none of them.
//!
//! Sentinels that cannot be listened to are done without: then what the old master took meanwhile is lost, and
//! its subscribers are told.

use std::pin::Pin;
use std::time::Duration;

use futures_util::stream::{SelectAll, Stream, StreamExt, unfold};
use redis::Msg;
use tokio::time::{sleep, timeout};

/// What is happening to the master.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Failover {
    /// A replica is about to be promoted.
    Begins,
    /// It was given up: the master stays.
    Aborted,
    /// There is a new master, or is about to be.
    Promoted,
}

const EVENTS: [(&str, Failover); 6] = [
    ("+try-failover", Failover::Begins),
    ("-failover-abort-not-elected", Failover::Aborted),
    ("-failover-abort-no-good-slave", Failover::Aborted),
    ("-failover-abort-slave-timeout", Failover::Aborted),
    ("+promoted-slave", Failover::Promoted),
    ("+switch-master", Failover::Promoted),
];

/// Time between two attempts to listen to a sentinel.
const PAUSE: Duration = Duration::from_secs(1);

type Told = Pin<Box<dyn Stream<Item = Failover> + Send>>;

/// See the module.
pub(super) struct Failovers {
    told: SelectAll<Told>,
}

impl Failovers {
    /// Listens to these sentinels, as soon as it is polled.
    pub(super) fn new(
        sentinels: Vec<redis::Client>,
        master_name: &str,
        wait_max: Duration,
    ) -> Self {
        let told = sentinels.into_iter().map(|sentinel| {
            let name = master_name.to_owned();
            let messages = unfold((sentinel, None), move |(sentinel, open)| async move {
                let mut open = open;
                loop {
                    let mut messages: Pin<Box<dyn Stream<Item = Msg> + Send>> = match open.take() {
                        Some(messages) => messages,
                        None => match timeout(wait_max, listen(&sentinel)).await {
                            Ok(Ok(messages)) => messages,
                            _ => {
                                sleep(PAUSE).await;
                                continue;
                            }
                        },
                    };
                    match messages.next().await {
                        Some(message) => return Some((message, (sentinel, Some(messages)))),
                        None => sleep(PAUSE).await,
                    }
                }
            });
            let told = messages.filter_map(move |message| {
                let event = event(
                    message.get_channel_name(),
                    message.get_payload_bytes(),
                    &name,
                );
                std::future::ready(event)
            });
            Box::pin(told) as Told
        });
        Self {
            told: told.collect(),
        }
    }

    /// The next thing that is told; never, if there is nobody who tells. Cancel-safe.
    pub(super) async fn next(&mut self) -> Failover {
        match self.told.next().await {
            Some(failover) => failover,
            None => std::future::pending().await,
        }
    }
}

async fn listen(
    sentinel: &redis::Client,
) -> redis::RedisResult<Pin<Box<dyn Stream<Item = Msg> + Send>>> {
    let mut subscriber = sentinel.get_async_pubsub().await?;
    for (name, _) in EVENTS {
        subscriber.subscribe(name).await?;
    }
    Ok(Box::pin(subscriber.into_on_message()))
}

/// What a message means, if it is about this master: `master NAME ...`, `slave ... @ NAME ...`, and of a switch
/// `NAME ...`.
fn event(channel: &str, payload: &[u8], master_name: &str) -> Option<Failover> {
    let (_, event) = EVENTS.iter().find(|(name, _)| *name == channel)?;
    let text = std::str::from_utf8(payload).ok()?;
    let mut words = text.split(' ');
    let name = match words.next()? {
        "master" => words.next(),
        "slave" => words.skip_while(|word| *word != "@").nth(1),
        name => Some(name),
    };
    (name == Some(master_name)).then_some(*event)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_concerns_the_master_counts() {
        let of = |channel, payload: &str| event(channel, payload.as_bytes(), "main");
        let begins = Some(Failover::Begins);
        assert_eq!(of("+try-failover", "master main 127.0.0.1 6379"), begins);
        assert_eq!(of("+try-failover", "master other 127.0.0.1 6379"), None);
        let slave = "slave 127.0.0.1:2 127.0.0.1 2 @ main 127.0.0.1 1";
        assert_eq!(of("+promoted-slave", slave), Some(Failover::Promoted));
        let switch = "main 127.0.0.1 1 127.0.0.1 2";
        assert_eq!(of("+switch-master", switch), Some(Failover::Promoted));
        assert_eq!(of("+switch-master", "mainly 127.0.0.1 1 127.0.0.1 2"), None);
        let abort = "-failover-abort-no-good-slave";
        assert_eq!(of(abort, "master main h 1"), Some(Failover::Aborted));
        for (channel, payload) in [
            ("+sdown", "master main h 1"),
            ("+try-failover", "\u{0}"),
            ("+try-failover", ""),
        ] {
            assert_eq!(of(channel, payload), None);
        }
        assert_eq!(event("+try-failover", &[0xff, b' '], "main"), None);
    }
}

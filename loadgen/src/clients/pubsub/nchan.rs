//! nginx with nchan: a channel is a part of the path, a message is a frame and nothing else. The WebSocket
//! opens when the subscription stands. A publisher's connection is of one channel, and each of its messages
//! is answered with a text about the channel.

use anyhow::{Result, bail};

use super::{Heard, MASK, Role};
use crate::clients::subscriber::stamp_of;
use crate::clients::websocket::{self, TEXT};
use crate::target::Target;

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct Session {
    publisher: bool,
}

/// `/sub/CHANNEL,CHANNEL` or `/pub/CHANNEL` under the target's path.
pub(super) fn path(target: &Target, role: &Role) -> Result<String> {
    let base = target.path.trim_end_matches('/');
    match role {
        Role::Subscriber(channels) => Ok(format!("{base}/sub/{}", channels.join(","))),
        Role::Publisher(channels) => match channels.as_slice() {
            [channel] => Ok(format!("{base}/pub/{channel}")),
            _ => bail!(
                "a publisher of nchan has one channel: as many publishers as channels are needed"
            ),
        },
    }
}

pub(super) fn publish(out: &mut Vec<u8>, data: &str) {
    websocket::frame(out, TEXT, MASK, data.as_bytes());
}

impl Session {
    pub(super) fn new(role: &Role) -> Self {
        Self {
            publisher: matches!(role, Role::Publisher(_)),
        }
    }

    pub(super) fn receive(
        &mut self,
        payload: &[u8],
        on_heard: &mut impl FnMut(Heard),
    ) -> Result<()> {
        if self.publisher {
            if !payload.starts_with(b"queued messages") {
                on_heard(Heard::Refused);
            }
            return Ok(());
        }
        match stamp_of(payload) {
            Some(stamp) => on_heard(Heard::Delivery(stamp)),
            None => bail!("a message that nobody sent"),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clients::subscriber::{Stamp, data};

    #[test]
    fn channels_are_in_the_path_and_messages_are_bare() {
        let target = Target::parse("ws://127.0.0.1:1/").expect("target");
        let subscriber = Role::Subscriber(vec!["a".into(), "b".into()]);
        let publisher = |channels: &[&str]| {
            Role::Publisher(channels.iter().map(|name| (*name).to_owned()).collect())
        };
        assert_eq!(path(&target, &subscriber).expect("path"), "/sub/a,b");
        assert_eq!(path(&target, &publisher(&["a"])).expect("path"), "/pub/a");
        assert!(path(&target, &publisher(&["a", "b"])).is_err());

        let stamp = Stamp {
            publisher: 1,
            sequence: 2,
        };
        let mut heard = Vec::new();
        let mut session = Session::new(&subscriber);
        session
            .receive(data(stamp, 100).as_bytes(), &mut |what| heard.push(what))
            .expect("a message");
        assert!(session.receive(b"hello", &mut |_| {}).is_err());
        let mut session = Session::new(&publisher(&["a"]));
        for answer in ["queued messages: 1\r\n", "Bad Request"] {
            session
                .receive(answer.as_bytes(), &mut |what| heard.push(what))
                .expect("an answer");
        }
        assert_eq!(heard, [Heard::Delivery(stamp), Heard::Refused]);
    }
}

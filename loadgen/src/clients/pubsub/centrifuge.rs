//! Centrifuge, JSON: the conversation of a subscriber or publisher. Replies are parsed, deliveries are not.

use anyhow::{Context, Result, bail};

use super::{Heard, MASK, Role};
use crate::clients::centrifuge::{self, EMPTY};
use crate::clients::subscriber::Deliveries;
use crate::clients::websocket::{self, TEXT};

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct Session {
    publisher: bool,
    /// Replies that have not come: to the connect command and each subscribe command.
    awaited: usize,
}

/// Connect, and subscribe to each channel, as one frame.
pub(super) fn greet(out: &mut Vec<u8>, role: &Role) {
    let mut commands = centrifuge::connect(1);
    if let Role::Subscriber(channels) = role {
        for (id, channel) in (2..).zip(channels) {
            commands.push('\n');
            commands.push_str(&centrifuge::subscribe(id, channel, None));
        }
    }
    websocket::frame(out, TEXT, MASK, commands.as_bytes());
}

pub(super) fn publish(out: &mut Vec<u8>, id: u32, channel: &str, data: &str) {
    // Ids of what was sent when the connection was opened come before.
    let id = id.saturating_add(2);
    let command = centrifuge::publish(id, channel, data);
    websocket::frame(out, TEXT, MASK, command.as_bytes());
}

impl Session {
    pub(super) fn new(role: &Role) -> Self {
        match role {
            Role::Subscriber(channels) => Self {
                publisher: false,
                awaited: 1 + channels.len(),
            },
            Role::Publisher(_) => Self {
                publisher: true,
                awaited: 1,
            },
        }
    }

    pub(super) fn receive(
        &mut self,
        payload: &[u8],
        deliveries: &Deliveries,
        out: &mut Vec<u8>,
        on_heard: &mut impl FnMut(Heard),
    ) -> Result<()> {
        if payload == EMPTY.as_bytes() {
            websocket::frame(out, TEXT, MASK, payload);
            return Ok(());
        }
        if self.awaited > 0 || self.publisher {
            self.replies(payload, on_heard)?;
        }
        if !self.publisher {
            for stamp in deliveries.of(payload) {
                on_heard(Heard::Delivery(stamp));
            }
        }
        Ok(())
    }

    fn replies(&mut self, payload: &[u8], on_heard: &mut impl FnMut(Heard)) -> Result<()> {
        for line in centrifuge::lines(payload) {
            let line = line.context("not a reply")?;
            if let Some(error) = line.error {
                if self.awaited > 0 {
                    bail!("error {} {}", error.code, error.message);
                }
                on_heard(Heard::Refused);
            } else if line.connect.is_some() || line.subscribe.is_some() {
                self.awaited = self.awaited.saturating_sub(1);
                if self.awaited == 0 {
                    on_heard(Heard::Ready);
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clients::subscriber::{Stamp, data};

    fn heard(session: &mut Session, text: &str, out: &mut Vec<u8>) -> Result<Vec<Heard>> {
        let mut heard = Vec::new();
        session.receive(text.as_bytes(), &Deliveries::new(), out, &mut |what| {
            heard.push(what);
        })?;
        Ok(heard)
    }

    #[test]
    fn a_subscriber_is_ready_when_all_its_channels_are_and_hears_from_then_on() {
        let role = Role::Subscriber(vec!["a".into(), "b".into()]);
        let mut session = Session::new(&role);
        let mut out = Vec::new();
        let text = "{\"id\":1,\"connect\":{}}\n{\"id\":2,\"subscribe\":{}}";
        assert_eq!(heard(&mut session, text, &mut out).expect("granted"), []);
        let stamp = Stamp {
            publisher: 0,
            sequence: 7,
        };
        let push = format!(
            r#"{{"push":{{"channel":"a","pub":{{"data":{}}}}}}}"#,
            data(stamp, 50)
        );
        let text = format!("{{\"id\":3,\"subscribe\":{{}}}}\n{push}");
        assert_eq!(
            heard(&mut session, &text, &mut out).expect("granted"),
            [Heard::Ready, Heard::Delivery(stamp)]
        );
        assert_eq!(
            heard(&mut session, &push, &mut out).expect("a push"),
            [Heard::Delivery(stamp)]
        );
        assert!(out.is_empty());
        assert_eq!(heard(&mut session, "{}", &mut out).expect("a ping"), []);
        assert!(!out.is_empty(), "a pong");
    }

    #[test]
    fn a_refused_subscription_is_an_error_and_a_refused_publication_is_counted() {
        let refused = r#"{"id":2,"error":{"code":103,"message":"permission denied"}}"#;
        let mut out = Vec::new();
        let mut session = Session::new(&Role::Subscriber(vec!["a".into()]));
        assert!(heard(&mut session, refused, &mut out).is_err());
        let mut session = Session::new(&Role::Publisher(vec!["a".into()]));
        let connected = r#"{"id":1,"connect":{}}"#;
        assert_eq!(
            heard(&mut session, connected, &mut out).expect("connected"),
            [Heard::Ready]
        );
        assert_eq!(
            heard(&mut session, refused, &mut out).expect("counted"),
            [Heard::Refused]
        );
    }
}

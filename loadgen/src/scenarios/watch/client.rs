//! One client as a Centrifuge SDK behaves: connect and subscribe in one frame, answer
//! pings, notice silence, reconnect with full jitter, resubscribe, recover where the
//! server keeps history. No socket and no clock in here: bytes, times and random numbers
//! come in, effects go out. Frames are read by tungstenite, so the server is judged by
//! a WebSocket implementation that is not ours.
//!
//! Invariants: at most one connection at a time; `Effect::Lost` comes once for each
//! `Effect::Live`; after `Effect::Close` nothing of that connection is used.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::time::{Duration, Instant};

use tungstenite::protocol::{Role, WebSocketConfig, WebSocketContext};
use tungstenite::{Error, Message};

use super::backoff;
use super::verdict::Beginning;
use crate::clients::centrifuge::{self, Position};
use crate::clients::link::Failure;
use crate::clients::websocket::{self, Upgrade};
use crate::target::Target;

/// The SDKs' time limit for a handshake, and for a command.
const ANSWER_MAX: Duration = Duration::from_secs(5);
/// How much later than announced a server ping may come, as in the SDKs.
const PING_DELAY_MAX: Duration = Duration::from_secs(10);

const CONNECT_ID: u32 = 1;
const SUBSCRIBE_ID: u32 = 2;

/// What the client wants done, or has found out.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    /// Open a TCP connection.
    Connect,
    Send(Vec<u8>),
    /// Close the connection.
    Close,
    /// Connected and subscribed, on this node.
    Live {
        node: String,
        beginning: Beginning,
    },
    /// A publication's data.
    Received(String),
    /// Answer to publication `number`: accepted, or the error code.
    Answered {
        number: usize,
        error: Option<u32>,
    },
    /// The connection (code 0: without a close frame) or the subscription (unsubscribe code) is gone.
    Lost {
        code: u16,
        reason: String,
    },
    /// An attempt to connect and subscribe failed.
    AttemptFailed(String),
    /// The server said not to come back.
    Ended {
        code: u16,
        reason: String,
    },
}

#[derive(Debug)]
enum State {
    Waiting {
        until: Instant,
    },
    /// TCP and upgrade.
    Upgrading {
        key: String,
        head: Vec<u8>,
        until: Instant,
    },
    /// Connect and subscribe are on their way.
    Joining {
        until: Instant,
    },
    /// Connected; the subscribe failed for the moment and is tried again.
    Resubscribing {
        until: Instant,
    },
    Live {
        ping_until: Option<Instant>,
    },
    Ended,
}

/// A client.
#[derive(Debug)]
pub(crate) struct Client {
    path: String,
    channel: String,
    state: State,
    socket: Option<Socket>,
    attempt: u32,
    node: String,
    ping: Option<Duration>,
    pong: bool,
    position: Option<Position>,
    /// The server said that the position cannot be recovered (112).
    is_unrecoverable: bool,
    next_id: u32,
    unanswered: VecDeque<(u32, usize)>,
}

/// tungstenite over bytes in memory.
#[derive(Debug)]
struct Socket {
    context: WebSocketContext,
    pipe: Pipe,
}

#[derive(Debug, Default)]
struct Pipe {
    inbox: VecDeque<u8>,
    outbox: Vec<u8>,
}

impl Read for Pipe {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.inbox.is_empty() {
            Err(ErrorKind::WouldBlock.into())
        } else {
            self.inbox.read(buffer)
        }
    }
}

impl Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.outbox.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Client {
    /// A client that connects for the first time at `first`.
    pub(crate) fn new(target: &Target, sid: &str, channel: String, first: Instant) -> Self {
        Self {
            path: target.path_with("sid", sid),
            channel,
            state: State::Waiting { until: first },
            socket: None,
            attempt: 0,
            node: String::new(),
            ping: None,
            pong: false,
            position: None,
            is_unrecoverable: false,
            next_id: SUBSCRIBE_ID + 1,
            unanswered: VecDeque::new(),
        }
    }

    /// When `on_deadline` wants to be called.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        match &self.state {
            State::Waiting { until }
            | State::Upgrading { until, .. }
            | State::Joining { until }
            | State::Resubscribing { until } => Some(*until),
            State::Live { ping_until } => *ping_until,
            State::Ended => None,
        }
    }

    pub(crate) fn is_live(&self) -> bool {
        matches!(self.state, State::Live { .. })
    }

    pub(crate) fn has_ended(&self) -> bool {
        matches!(self.state, State::Ended)
    }

    /// The node of the last connection.
    pub(crate) fn node(&self) -> &str {
        &self.node
    }

    /// A deadline may have come.
    pub(crate) fn on_deadline(&mut self, now: Instant, random: f64, effects: &mut Vec<Effect>) {
        if self.deadline().is_none_or(|deadline| deadline > now) {
            return;
        }
        match &self.state {
            State::Waiting { .. } => {
                let key = tungstenite::handshake::client::generate_key();
                self.state = State::Upgrading {
                    key,
                    head: Vec::new(),
                    until: now + ANSWER_MAX,
                };
                effects.push(Effect::Connect);
            }
            State::Upgrading { .. } | State::Joining { .. } => {
                effects.push(Effect::Close);
                self.fail(Failure::Timeout.to_string(), now, random, effects);
            }
            State::Resubscribing { .. } => {
                self.subscribe(now);
                self.flush(effects);
            }
            State::Live { .. } => {
                effects.push(Effect::Close);
                self.lose(0, "no ping", now, random, effects);
            }
            State::Ended => {}
        }
    }

    /// TCP is connected.
    pub(crate) fn on_connected(&mut self, target: &Target, effects: &mut Vec<Effect>) {
        if let State::Upgrading { key, .. } = &self.state {
            let mut request = Vec::with_capacity(256);
            websocket::upgrade_request(&mut request, &target.authority, &self.path, key);
            effects.push(Effect::Send(request));
        }
    }

    /// The transport has ended, or could not be opened.
    pub(crate) fn on_closed(
        &mut self,
        error: Option<&io::Error>,
        now: Instant,
        random: f64,
        effects: &mut Vec<Effect>,
    ) {
        match self.state {
            State::Upgrading { .. } | State::Joining { .. } | State::Resubscribing { .. } => {
                self.fail(Failure::from_end(error).to_string(), now, random, effects);
            }
            State::Live { .. } => {
                let reason = error.map_or_else(
                    || "end of stream".to_owned(),
                    |error| error.kind().to_string(),
                );
                self.lose(0, &reason, now, random, effects);
            }
            State::Waiting { .. } | State::Ended => {}
        }
    }

    /// Bytes came.
    pub(crate) fn on_data(
        &mut self,
        bytes: &[u8],
        now: Instant,
        random: f64,
        effects: &mut Vec<Effect>,
    ) {
        let mut rest = bytes;
        let opened;
        if let State::Upgrading { key, head, .. } = &mut self.state {
            head.extend_from_slice(bytes);
            let consumed = match websocket::read_upgrade(head, key) {
                Upgrade::Incomplete => return,
                Upgrade::Open(consumed) => consumed,
                Upgrade::Refused(status) => {
                    return self.give_up(&Failure::Status(status), now, random, effects);
                }
                Upgrade::Invalid(what) => {
                    return self.give_up(&Failure::Protocol(what), now, random, effects);
                }
            };
            opened = std::mem::take(head);
            rest = &opened[consumed..];
            self.join(now, effects);
        }
        let Some(socket) = &mut self.socket else {
            return;
        };
        socket.pipe.inbox.extend(rest);
        while let Some(socket) = &mut self.socket {
            match socket.context.read(&mut socket.pipe) {
                Ok(Message::Text(text)) => self.on_text(text.as_bytes(), now, random, effects),
                Ok(Message::Close(frame)) => {
                    let (code, reason) = frame.map_or((1005, String::new()), |frame| {
                        (frame.code.into(), frame.reason.to_string())
                    });
                    self.flush(effects);
                    effects.push(Effect::Close);
                    self.end(code, &reason, now, random, effects);
                }
                Ok(_) => {}
                Err(Error::Io(error)) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => {
                    effects.push(Effect::Close);
                    self.end(0, &format!("protocol: {error}"), now, random, effects);
                }
            }
        }
        self.flush(effects);
    }

    /// Publishes `data` (JSON), which the caller knows as `number`; only while live.
    pub(crate) fn publish(&mut self, number: usize, data: &str, effects: &mut Vec<Effect>) {
        let id = self.next_id;
        self.next_id += 1;
        self.unanswered.push_back((id, number));
        self.write(&centrifuge::publish(id, &self.channel, data));
        self.flush(effects);
    }

    fn join(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        let config = WebSocketConfig::default()
            .read_buffer_size(4096)
            .write_buffer_size(0);
        self.socket = Some(Socket {
            context: WebSocketContext::new(Role::Client, Some(config)),
            pipe: Pipe::default(),
        });
        self.state = State::Joining {
            until: now + ANSWER_MAX,
        };
        let subscribe = centrifuge::subscribe(SUBSCRIBE_ID, &self.channel, self.position.as_ref());
        self.write(&format!("{}\n{subscribe}", centrifuge::connect(CONNECT_ID)));
        self.flush(effects);
    }

    fn on_text(&mut self, text: &[u8], now: Instant, random: f64, effects: &mut Vec<Effect>) {
        for line in centrifuge::lines(text) {
            if self.socket.is_none() {
                return;
            }
            match line {
                Ok(line) => self.on_line(&line, now, random, effects),
                Err(error) => {
                    return self.give_up_or_lose(
                        &format!("not JSON: {error}"),
                        now,
                        random,
                        effects,
                    );
                }
            }
        }
    }

    fn on_line(
        &mut self,
        line: &centrifuge::Line<'_>,
        now: Instant,
        random: f64,
        effects: &mut Vec<Effect>,
    ) {
        if let Some(push) = &line.push {
            if let Some(publication) = &push.publication {
                self.advance(publication.offset);
                effects.push(Effect::Received(publication.data.get().to_owned()));
            } else if let Some(ended) = &push.unsubscribe {
                self.unsubscribed(ended.code, &ended.reason, now, effects);
            } else if let Some(ended) = &push.disconnect {
                effects.push(Effect::Close);
                self.end(ended.code, &ended.reason, now, random, effects);
            }
        } else if let Some(error) = &line.error {
            self.on_error(line.id, error, now, random, effects);
        } else if let Some(reply) = &line.connect {
            self.node.clone_from(&reply.node);
            self.ping =
                (reply.ping > 0).then(|| Duration::from_secs(reply.ping.into()) + PING_DELAY_MAX);
            self.pong = reply.pong;
        } else if let Some(reply) = &line.subscribe {
            self.attempt = 0;
            let had_position =
                self.position.is_some() || std::mem::take(&mut self.is_unrecoverable);
            let beginning = match (had_position, reply.recovered) {
                (true, true) => Beginning::Recovered,
                (true, false) => Beginning::Told,
                (false, _) => Beginning::Anew,
            };
            self.position = reply.recoverable.then(|| Position {
                epoch: reply.epoch.clone(),
                offset: reply.offset,
            });
            self.state = State::Live {
                ping_until: self.ping.map(|ping| now + ping),
            };
            effects.push(Effect::Live {
                node: self.node.clone(),
                beginning,
            });
            for publication in &reply.publications {
                self.advance(publication.offset);
                effects.push(Effect::Received(publication.data.get().to_owned()));
            }
        } else if line.id == 0 {
            if self.pong {
                self.write(centrifuge::EMPTY);
            }
            if let State::Live { ping_until } = &mut self.state {
                *ping_until = self.ping.map(|ping| now + ping);
            }
        } else {
            self.answered(line.id, None, effects);
        }
    }

    fn on_error(
        &mut self,
        id: u32,
        error: &centrifuge::ErrorReply,
        now: Instant,
        random: f64,
        effects: &mut Vec<Effect>,
    ) {
        if id != CONNECT_ID && id != SUBSCRIBE_ID {
            return self.answered(id, Some(error.code), effects);
        }
        // 112: what was asked for cannot be recovered. The next attempt starts from now.
        if error.code == 112 {
            self.is_unrecoverable |= self.position.take().is_some();
        }
        if id == SUBSCRIBE_ID && error.temporary {
            effects.push(Effect::AttemptFailed(format!(
                "error {} {}",
                error.code, error.message
            )));
            self.state = State::Resubscribing {
                until: now + backoff::delay(self.attempt, random),
            };
            self.attempt += 1;
            return;
        }
        effects.push(Effect::Close);
        self.fail(
            format!("error {} {}", error.code, error.message),
            now,
            random,
            effects,
        );
    }

    fn answered(&mut self, id: u32, error: Option<u32>, effects: &mut Vec<Effect>) {
        if let Some(index) = self
            .unanswered
            .iter()
            .position(|(waiting, _)| *waiting == id)
            && let Some((_, number)) = self.unanswered.remove(index)
        {
            effects.push(Effect::Answered { number, error });
        }
    }

    /// The server took the subscription away but left the connection: subscribe again, as the SDKs do from 2500 on.
    fn unsubscribed(&mut self, code: u16, reason: &str, now: Instant, effects: &mut Vec<Effect>) {
        if self.is_live() {
            effects.push(Effect::Lost {
                code,
                reason: reason.to_owned(),
            });
        }
        self.subscribe(now);
    }

    fn subscribe(&mut self, now: Instant) {
        self.state = State::Joining {
            until: now + ANSWER_MAX,
        };
        self.write(&centrifuge::subscribe(
            SUBSCRIBE_ID,
            &self.channel,
            self.position.as_ref(),
        ));
    }

    fn advance(&mut self, offset: u64) {
        if let Some(position) = &mut self.position {
            position.offset = position.offset.max(offset);
        }
    }

    fn write(&mut self, text: &str) {
        if let Some(socket) = &mut self.socket {
            // Writing to memory fails only after a close, which the next read reports.
            let _ = socket.context.write(&mut socket.pipe, Message::text(text));
        }
    }

    fn flush(&mut self, effects: &mut Vec<Effect>) {
        if let Some(socket) = &mut self.socket {
            let _ = socket.context.flush(&mut socket.pipe);
            if !socket.pipe.outbox.is_empty() {
                effects.push(Effect::Send(std::mem::take(&mut socket.pipe.outbox)));
            }
        }
    }

    /// The end of the connection by a close code.
    fn end(
        &mut self,
        code: u16,
        reason: &str,
        now: Instant,
        random: f64,
        effects: &mut Vec<Effect>,
    ) {
        let joined = self.is_live();
        if joined {
            self.lose(code, reason, now, random, effects);
        } else {
            self.fail(format!("closed with {code} {reason}"), now, random, effects);
        }
        if !centrifuge::reconnects_after(code) {
            self.state = State::Ended;
            effects.push(Effect::Ended {
                code,
                reason: reason.to_owned(),
            });
        }
    }

    fn give_up(&mut self, failure: &Failure, now: Instant, random: f64, effects: &mut Vec<Effect>) {
        effects.push(Effect::Close);
        self.fail(failure.to_string(), now, random, effects);
    }

    fn give_up_or_lose(
        &mut self,
        reason: &str,
        now: Instant,
        random: f64,
        effects: &mut Vec<Effect>,
    ) {
        effects.push(Effect::Close);
        self.end(0, reason, now, random, effects);
    }

    fn fail(&mut self, kind: String, now: Instant, random: f64, effects: &mut Vec<Effect>) {
        effects.push(Effect::AttemptFailed(kind));
        self.wait(now, random);
    }

    fn lose(
        &mut self,
        code: u16,
        reason: &str,
        now: Instant,
        random: f64,
        effects: &mut Vec<Effect>,
    ) {
        effects.push(Effect::Lost {
            code,
            reason: reason.to_owned(),
        });
        self.wait(now, random);
    }

    fn wait(&mut self, now: Instant, random: f64) {
        self.socket = None;
        self.unanswered.clear();
        self.state = State::Waiting {
            until: now + backoff::delay(self.attempt, random),
        };
        self.attempt += 1;
    }
}

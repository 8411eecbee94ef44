//! A client that speaks JSON over tungstenite, one blocking step at a time. A step fails when it has
//! taken longer than [`PATIENCE`], whatever else came meanwhile.

use std::net::{SocketAddr, TcpStream};
use std::time::Instant;

use serde_json::{Value, json};
use tungstenite::{Message, WebSocket};

use super::gateway::{Gateway, PATIENCE};

/// A connected client.
pub(crate) struct Client {
    socket: WebSocket<TcpStream>,
    next: u32,
    /// Lines that came before somebody asked for them.
    waiting: std::collections::VecDeque<Value>,
}

/// How a connection ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// With a close frame.
    Closed(u16, String),
    /// Without one.
    Cut,
}

impl Client {
    /// Opens a WebSocket on `path` and says nothing.
    pub(crate) fn open(address: SocketAddr, path: &str) -> Self {
        let stream = TcpStream::connect(address).expect("a listener");
        Self::over(stream, address, path)
    }

    /// The same over a stream that is there already.
    pub(crate) fn over(stream: TcpStream, address: SocketAddr, path: &str) -> Self {
        stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
        stream.set_nodelay(true).expect("a socket");
        let (socket, _) =
            tungstenite::client(format!("ws://{address}{path}"), stream).expect("an upgrade");
        Self {
            socket,
            next: 1,
            waiting: std::collections::VecDeque::new(),
        }
    }

    /// Opens a WebSocket and connects.
    pub(crate) fn connect(gateway: &Gateway) -> Self {
        let mut client = Self::open(gateway.clients, "/connection/websocket");
        let reply = client.ask(&json!({ "connect": {} }));
        assert_eq!(reply["connect"]["node"], "node", "{reply}");
        client
    }

    /// The same, subscribed to a channel.
    pub(crate) fn subscribed(gateway: &Gateway, channel: &str) -> Self {
        let mut client = Self::connect(gateway);
        let reply = client.ask(&json!({ "subscribe": { "channel": channel } }));
        assert!(reply.get("subscribe").is_some(), "{reply}");
        client
    }

    pub(crate) fn stream(&self) -> &TcpStream {
        self.socket.get_ref()
    }

    pub(crate) fn send(&mut self, message: Message) {
        self.socket.send(message).expect("sent");
    }

    /// Sends a command without waiting for its reply.
    pub(crate) fn tell(&mut self, command: &Value) -> u32 {
        let id = self.next;
        self.next += 1;
        let mut command = command.clone();
        command["id"] = json!(id);
        self.send(Message::text(command.to_string()));
        id
    }

    /// Sends a command and waits for its reply; pushes that come before it are kept.
    pub(crate) fn ask(&mut self, command: &Value) -> Value {
        let deadline = Instant::now() + PATIENCE;
        let id = self.tell(command);
        let mut pushes = std::collections::VecDeque::new();
        loop {
            let line = self
                .line_by(deadline)
                .unwrap_or_else(|end| panic!("{end:?} instead of a reply to {command}"));
            if line["id"] == json!(id) {
                pushes.append(&mut self.waiting);
                self.waiting = pushes;
                return line;
            }
            pushes.push_back(line);
        }
    }

    pub(crate) fn publish(&mut self, channel: &str, data: impl Into<Value>) {
        let data = data.into();
        let reply = self.ask(&json!({ "publish": { "channel": channel, "data": data } }));
        assert!(reply.get("publish").is_some(), "{reply}");
    }

    /// The next reply or push; pings are answered.
    pub(crate) fn line(&mut self) -> Result<Value, End> {
        self.line_by(Instant::now() + PATIENCE)
    }

    fn line_by(&mut self, deadline: Instant) -> Result<Value, End> {
        loop {
            if let Some(line) = self.waiting.pop_front() {
                if line != json!({}) {
                    return Ok(line);
                }
                self.send(Message::text("{}"));
                continue;
            }
            match self.message_by(deadline)? {
                Message::Text(text) => {
                    self.waiting.extend(
                        text.lines()
                            .map(|line| serde_json::from_str(line).expect("JSON")),
                    );
                }
                other => panic!("{other:?}"),
            }
        }
    }

    /// The data of the next publication.
    pub(crate) fn publication(&mut self) -> Result<Value, End> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let mut line = self.line_by(deadline)?;
            if line["push"].get("pub").is_some() {
                return Ok(line["push"]["pub"]["data"].take());
            }
        }
    }

    /// The next message, or how the connection ended; a close frame is answered.
    pub(crate) fn message(&mut self) -> Result<Message, End> {
        self.message_by(Instant::now() + PATIENCE)
    }

    fn message_by(&mut self, deadline: Instant) -> Result<Message, End> {
        let left = deadline.saturating_duration_since(Instant::now());
        assert!(
            !left.is_zero(),
            "not what was waited for within {PATIENCE:?}"
        );
        let stream = self.socket.get_ref();
        stream.set_read_timeout(Some(left)).expect("a socket");
        match self.socket.read() {
            Ok(Message::Close(frame)) => {
                let _ = self.socket.flush();
                let (code, reason) = frame.map_or((1005, String::new()), |frame| {
                    (frame.code.into(), frame.reason.to_string())
                });
                Err(End::Closed(code, reason))
            }
            Ok(message) => Ok(message),
            Err(tungstenite::Error::Io(error))
                if matches!(
                    error.kind(),
                    std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut
                ) =>
            {
                panic!("nothing came within {PATIENCE:?}")
            }
            Err(_) => Err(End::Cut),
        }
    }

    /// Reads on to the end.
    pub(crate) fn end(&mut self) -> End {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Err(end) = self.message_by(deadline) {
                return end;
            }
        }
    }
}

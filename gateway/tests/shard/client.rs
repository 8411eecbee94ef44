//! A client that speaks the Centrifuge protocol in JSON, one call a step.

use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use flux_gateway::protocol::ClientId;
use socket2::{Domain, Socket, Type};
use tungstenite::{Message, WebSocket};

/// How long a test waits for something that must come.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) struct Client {
    socket: WebSocket<TcpStream>,
    commands: u32,
    /// The reply to the connect command.
    connected: String,
}

/// What a client gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Got {
    Text(String),
    /// A close frame with this code.
    Closed(u16),
}

impl Client {
    /// Connected, with the connect command answered.
    pub(crate) fn connect(address: SocketAddr) -> Self {
        Self::with_buffer(address, None)
    }

    /// As `connect`, with a receive buffer that soon makes a client that does not read a slow one.
    pub(crate) fn connect_narrow(address: SocketAddr) -> Self {
        Self::with_buffer(address, Some(4096))
    }

    fn with_buffer(address: SocketAddr, receive_buffer: Option<usize>) -> Self {
        let stream = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        if let Some(len) = receive_buffer {
            stream.set_recv_buffer_size(len).expect("a socket option");
        }
        stream.connect(&address.into()).expect("somebody listens");
        let stream = TcpStream::from(stream);
        stream
            .set_read_timeout(Some(PATIENCE))
            .expect("a socket option");
        stream.set_nodelay(true).expect("a socket option");
        let url = format!("ws://{address}/connection/websocket");
        let (socket, _) = tungstenite::client(url, stream).expect("an upgrade");
        let mut client = Self {
            socket,
            commands: 0,
            connected: String::new(),
        };
        client.connected = client.ask(r#""connect":{}"#);
        client
    }

    /// The id that the server has given it.
    pub(crate) fn id(&self) -> ClientId {
        let (_, rest) = self.connected.split_once(r#""client":""#).expect("an id");
        let (id, _) = rest.split_once('"').expect("an id");
        ClientId::parse(id).expect("an id")
    }

    /// Sends a command without waiting for its reply; returns its id.
    pub(crate) fn send(&mut self, command: &str) -> u32 {
        self.commands += 1;
        let text = format!(r#"{{"id":{},{command}}}"#, self.commands);
        self.socket
            .send(Message::text(text))
            .expect("the connection is open");
        self.commands
    }

    /// Sends commands with as few writes as it takes.
    pub(crate) fn send_at_once(&mut self, commands: impl Iterator<Item = String>) {
        for command in commands {
            self.commands += 1;
            let text = format!(r#"{{"id":{},{command}}}"#, self.commands);
            self.socket
                .write(Message::text(text))
                .expect("the connection is open");
        }
        self.socket.flush().expect("the connection is open");
    }

    /// Ends its direction of the connection, without a close frame.
    pub(crate) fn finish_sending(&mut self) {
        let stream = self.socket.get_ref();
        stream.shutdown(Shutdown::Write).expect("connected");
    }

    /// Sends a command and waits for its reply.
    pub(crate) fn ask(&mut self, command: &str) -> String {
        let id = self.send(command);
        let reply = format!(r#"{{"id":{id},"#);
        self.wait(|line| line.starts_with(&reply) || line.starts_with(&format!("{{\"id\":{id}}}")))
    }

    pub(crate) fn subscribe(&mut self, channel: &str) {
        let reply = self.ask(&format!(r#""subscribe":{{"channel":"{channel}"}}"#));
        assert!(reply.contains("subscribe"), "{reply}");
    }

    pub(crate) fn send_publish(&mut self, channel: &str, data: &str) -> u32 {
        self.send(&format!(
            r#""publish":{{"channel":"{channel}","data":{data}}}"#
        ))
    }

    /// The next frame.
    pub(crate) fn next(&mut self) -> Got {
        loop {
            match self.socket.read().expect("a frame in time") {
                Message::Text(text) => return Got::Text(text.to_string()),
                Message::Close(frame) => {
                    return Got::Closed(frame.map_or(1005, |frame| frame.code.into()));
                }
                _ => {}
            }
        }
    }

    /// Reads until a line is such.
    pub(crate) fn wait(&mut self, mut is_such: impl FnMut(&str) -> bool) -> String {
        let started = Instant::now();
        while started.elapsed() < PATIENCE {
            match self.next() {
                Got::Text(text) => {
                    if let Some(line) = text.lines().find(|line| is_such(line)) {
                        return line.to_owned();
                    }
                }
                Got::Closed(code) => panic!("closed with {code}"),
            }
        }
        panic!("nothing such came in time");
    }
}

/// Polls until it holds.
pub(crate) fn wait_for(what: &str, mut holds: impl FnMut() -> bool) {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < PATIENCE, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

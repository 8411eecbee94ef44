//! One HTTP exchange as bytes: a request that is sent as it stands, and an answer read as it comes.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};

use serde_json::Value;
use socket2::{Domain, Socket, Type};

use super::client::PATIENCE;

pub(crate) struct Exchange {
    stream: TcpStream,
    received: Vec<u8>,
    /// Documents of chunks that have been read.
    documents: std::collections::VecDeque<Value>,
    is_sse: bool,
}

pub(crate) struct Head {
    pub(crate) status: u16,
    text: String,
}

impl Head {
    /// A field's value; empty without.
    pub(crate) fn field(&self, name: &str) -> &str {
        let prefix = format!("{name}: ");
        self.text
            .lines()
            .find(|line| line.to_lowercase().starts_with(&prefix.to_lowercase()))
            .map_or("", |line| &line[prefix.len()..])
    }
}

impl Exchange {
    /// Sends the bytes of a request.
    pub(crate) fn send(address: SocketAddr, request: &[u8]) -> Self {
        Self::over(
            TcpStream::connect(address).expect("somebody listens"),
            request,
        )
    }

    /// As `send`, with a receive buffer that soon makes a client that does not read a slow one.
    pub(crate) fn send_narrow(address: SocketAddr, request: &[u8]) -> Self {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        socket.set_recv_buffer_size(4096).expect("a socket option");
        socket.connect(&address.into()).expect("somebody listens");
        Self::over(socket.into(), request)
    }

    fn over(mut stream: TcpStream, request: &[u8]) -> Self {
        stream
            .set_read_timeout(Some(PATIENCE))
            .expect("a socket option");
        stream.write_all(request).expect("the request is taken");
        Self {
            stream,
            received: Vec::new(),
            documents: std::collections::VecDeque::new(),
            is_sse: false,
        }
    }

    pub(crate) fn post(address: SocketAddr, path: &str, body: &str) -> Self {
        Self::post_with(address, path, "", body.as_bytes())
    }

    /// `fields`: further header lines, each with its CRLF.
    pub(crate) fn post_with(address: SocketAddr, path: &str, fields: &str, body: &[u8]) -> Self {
        let mut request = format!(
            "POST {path} HTTP/1.1\r\nHost: x\r\n{fields}Content-Length: {}\r\n\r\n",
            body.len()
        )
        .into_bytes();
        request.extend_from_slice(body);
        Self::send(address, &request)
    }

    pub(crate) fn get(address: SocketAddr, target: &str) -> Self {
        let request = format!("GET {target} HTTP/1.1\r\nHost: x\r\n\r\n");
        Self::send(address, request.as_bytes())
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("the bytes are taken");
    }

    pub(crate) fn finish_sending(&self) {
        self.stream
            .shutdown(Shutdown::Write)
            .expect("an open stream");
    }

    /// Reads the head of the answer.
    pub(crate) fn head(&mut self) -> Head {
        let end = loop {
            if let Some(at) = find(&self.received, b"\r\n\r\n") {
                break at + 4;
            }
            assert!(self.read_more(), "the stream ended within the head");
        };
        let text: Vec<u8> = self.received.drain(..end).collect();
        let text = String::from_utf8(text).expect("text");
        let status = text[9..12].parse().expect("a status");
        let head = Head { status, text };
        self.is_sse = head.field("content-type").starts_with("text/event-stream");
        head
    }

    /// Reads the rest of the stream.
    pub(crate) fn rest(mut self) -> Vec<u8> {
        while self.read_more() {}
        self.received
    }

    /// Head and status of an answer that ends the connection, and its body.
    pub(crate) fn answer(mut self) -> (Head, String) {
        let head = self.head();
        let body = String::from_utf8_lossy(&self.rest()).into_owned();
        (head, body)
    }

    /// The next chunk; none behind the last one.
    pub(crate) fn chunk(&mut self) -> Option<Vec<u8>> {
        let (start, len) = loop {
            if let Some(at) = find(&self.received, b"\r\n") {
                let size = std::str::from_utf8(&self.received[..at]).expect("a size");
                break (at + 2, usize::from_str_radix(size, 16).expect("a size"));
            }
            assert!(self.read_more(), "the stream ended without its last chunk");
        };
        while self.received.len() < start + len + 2 {
            assert!(self.read_more(), "the stream ended within a chunk");
        }
        assert_eq!(&self.received[start + len..start + len + 2], b"\r\n");
        let chunk = self.received[start..start + len].to_vec();
        self.received.drain(..start + len + 2);
        (len > 0).then_some(chunk)
    }

    /// The next document of a stream in JSON; none behind the last one.
    pub(crate) fn next(&mut self) -> Option<Value> {
        while self.documents.is_empty() {
            let chunk = String::from_utf8(self.chunk()?).expect("text");
            for line in chunk.lines().filter(|line| !line.is_empty()) {
                let text = match self.is_sse {
                    true => line.strip_prefix("data: ").expect("an event"),
                    false => line,
                };
                let document = serde_json::from_str(text).expect("JSON");
                self.documents.push_back(document);
            }
        }
        self.documents.pop_front()
    }

    /// Reads until a document is such.
    pub(crate) fn wait(&mut self, is_such: impl Fn(&Value) -> bool) -> Value {
        loop {
            let document = self.next().expect("the stream goes on");
            if is_such(&document) {
                return document;
            }
        }
    }

    fn read_more(&mut self) -> bool {
        let mut buffer = [0; 16 * 1024];
        match self.stream.read(&mut buffer) {
            Ok(count) => {
                self.received.extend_from_slice(&buffer[..count]);
                count > 0
            }
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => false,
            Err(error) => panic!("nothing came in time: {error}"),
        }
    }
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}

/// A session over a stream and `/emulation`.
pub(crate) struct Emulated {
    pub(crate) stream: Exchange,
    pub(crate) head: Head,
    pub(crate) connected: Value,
    address: SocketAddr,
}

/// Kinds of streams with a way back.
pub(crate) const STREAMS: [&str; 2] = ["/connection/sse", "/connection/http_stream"];

impl Emulated {
    /// Connected.
    pub(crate) fn connect(address: SocketAddr, path: &str) -> Self {
        Self::over(
            address,
            Exchange::post(address, path, r#"{"id":1,"connect":{}}"#),
        )
    }

    pub(crate) fn over(address: SocketAddr, mut stream: Exchange) -> Self {
        let head = stream.head();
        let connected = stream.wait(|document| document["id"] == 1);
        Self {
            stream,
            head,
            connected,
            address,
        }
    }

    pub(crate) fn session(&self) -> &str {
        self.connected["connect"]["session"]
            .as_str()
            .expect("a session")
    }

    pub(crate) fn emulate(&self, commands: &str) {
        let (head, _) = emulate(self.address, "node-1", self.session(), commands).answer();
        assert_eq!(head.status, 204);
    }

    /// Sends a command and waits for its reply.
    pub(crate) fn ask(&mut self, id: u32, command: &str) -> Value {
        self.emulate(&format!(r#"{{"id":{id},{command}}}"#));
        self.stream.wait(|document| document["id"] == id)
    }
}

/// A request to `/emulation`.
pub(crate) fn emulate(address: SocketAddr, node: &str, session: &str, commands: &str) -> Exchange {
    let body = serde_json::json!({"node": node, "session": session, "data": commands});
    Exchange::post(address, "/emulation", &body.to_string())
}

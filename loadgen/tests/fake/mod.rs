//! A small server that speaks just enough of the Centrifuge protocol, with faults on
//! demand. A thread per connection; frames are tungstenite's.

use std::collections::HashMap;
use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use tungstenite::protocol::frame::Frame;
use tungstenite::protocol::frame::coding::{Data, OpCode};
use tungstenite::protocol::{CloseFrame, WebSocket};
use tungstenite::{Message, accept};

/// What goes wrong: every n-th delivery, 0 for never.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Faults {
    pub(crate) drop_every: u64,
    pub(crate) double_every: u64,
}

struct Subscriber {
    stream: Mutex<TcpStream>,
    open: AtomicBool,
}

#[derive(Default)]
struct State {
    channels: HashMap<String, Vec<Arc<Subscriber>>>,
    /// For closing from outside.
    everyone: Vec<Arc<Subscriber>>,
}

/// A running fake; its threads end with their connections, the listener with the process.
#[derive(Clone)]
pub(crate) struct Fake {
    pub(crate) address: SocketAddr,
    state: Arc<Mutex<State>>,
    delivered: Arc<AtomicU64>,
    faults: Faults,
    node: String,
}

impl Fake {
    pub(crate) fn start(node: &str, faults: Faults) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
        let fake = Self {
            address: listener.local_addr().expect("address"),
            state: Arc::default(),
            delivered: Arc::default(),
            faults,
            node: node.to_owned(),
        };
        let server = fake.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let server = server.clone();
                std::thread::spawn(move || server.serve(stream));
            }
        });
        fake
    }

    pub(crate) fn url(&self) -> String {
        format!("ws://{}/connection/websocket", self.address)
    }

    /// Closes every connection with this code.
    pub(crate) fn close_all(&self, code: u16) {
        let everyone = std::mem::take(&mut self.state.lock().expect("state").everyone);
        for subscriber in everyone {
            subscriber.open.store(false, Ordering::SeqCst);
            let frame = Frame::close(Some(CloseFrame {
                code: code.into(),
                reason: "test".into(),
            }));
            subscriber.write(frame);
        }
    }

    fn serve(&self, stream: TcpStream) {
        let writer = stream.try_clone().expect("clone");
        let Ok(mut socket) = accept(stream) else {
            return;
        };
        let this = Arc::new(Subscriber {
            stream: Mutex::new(writer),
            open: AtomicBool::new(true),
        });
        self.state
            .lock()
            .expect("state")
            .everyone
            .push(Arc::clone(&this));
        while let Some(text) = next_text(&mut socket) {
            for line in text.lines() {
                let command: Value = serde_json::from_str(line).expect("the client sends JSON");
                self.command(&this, &command);
            }
        }
        this.open.store(false, Ordering::SeqCst);
    }

    fn command(&self, this: &Arc<Subscriber>, command: &Value) {
        let id = &command["id"];
        if command["connect"].is_object() {
            this.text(&json!({"id": id, "connect": {"client": "x", "version": "fake", "ping": 25, "pong": true, "node": self.node}}));
            this.text(&json!({}));
        } else if let Some(channel) = command["subscribe"]["channel"].as_str() {
            let mut state = self.state.lock().expect("state");
            state
                .channels
                .entry(channel.to_owned())
                .or_default()
                .push(Arc::clone(this));
            this.text(&json!({"id": id, "subscribe": {}}));
        } else if let Some(channel) = command["publish"]["channel"].as_str() {
            let push =
                json!({"push": {"channel": channel, "pub": {"data": command["publish"]["data"]}}});
            let mut state = self.state.lock().expect("state");
            let subscribers = state.channels.entry(channel.to_owned()).or_default();
            subscribers.retain(|subscriber| subscriber.open.load(Ordering::SeqCst));
            for subscriber in subscribers.iter() {
                let n = self.delivered.fetch_add(1, Ordering::SeqCst) + 1;
                let every = |faulty: u64| faulty > 0 && n.is_multiple_of(faulty);
                if !every(self.faults.drop_every) {
                    subscriber.text(&push);
                }
                if every(self.faults.double_every) {
                    subscriber.text(&push);
                }
            }
            this.text(&json!({"id": id, "publish": {}}));
        } else {
            assert_eq!(command, &json!({}), "only a pong has no id");
        }
    }
}

impl Subscriber {
    fn text(&self, value: &Value) {
        self.write(Frame::message(
            value.to_string(),
            OpCode::Data(Data::Text),
            true,
        ));
    }

    fn write(&self, frame: Frame) {
        let mut bytes = Vec::new();
        frame.format(&mut bytes).expect("format");
        // A client that left is noticed by its reader.
        let _ = self.stream.lock().expect("stream").write_all(&bytes);
    }
}

fn next_text(socket: &mut WebSocket<TcpStream>) -> Option<String> {
    loop {
        match socket.read() {
            Ok(Message::Text(text)) => return Some(text.to_string()),
            Ok(Message::Close(_)) | Err(_) => return None,
            Ok(_) => {}
        }
    }
}

//! The gateway under attack.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(30);

/// A gateway on the first core; killed when dropped.
pub(crate) struct Target {
    child: Child,
    pub(crate) clients: SocketAddr,
    admin: SocketAddr,
    _folder: TempDir,
}

impl Target {
    /// Starts the program that was built beside this one.
    pub(crate) fn start() -> Self {
        let program = std::env::current_exe().expect("this program");
        let program = program
            .ancestors()
            .nth(2)
            .expect("target/release")
            .join("flux-gateway");
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("config.json");
        let open = json!({
            "allow_subscribe_for_client": true, "allow_subscribe_for_anonymous": true,
            "allow_publish_for_client": true, "allow_publish_for_anonymous": true,
        });
        let config = json!({
            "id": "target", "listen": "127.0.0.1:0", "admin": "127.0.0.1:0", "shards": 1, "echo": true,
            "channel": { "without_namespace": open },
        });
        std::fs::write(&file, config.to_string()).expect("a configuration file");
        let mut child = Command::new("taskset")
            .args(["-c", "0"])
            .arg(program)
            .arg("--config")
            .arg(file)
            .stderr(Stdio::piped())
            .spawn()
            .expect("the command taskset (package util-linux)");
        let mut lines = BufReader::new(child.stderr.take().expect("piped")).lines();
        let record = loop {
            let line = lines.next().expect("it listens").expect("text");
            let record: Value = serde_json::from_str(&line).unwrap_or_else(|_| panic!("{line}"));
            if record["message"] == "listening" {
                break record;
            }
        };
        std::thread::spawn(move || lines.for_each(drop));
        let address = |key: &str| {
            record[key]
                .as_str()
                .expect("an address")
                .parse()
                .expect("ip:port")
        };
        Self {
            child,
            clients: address("clients"),
            admin: address("admin"),
            _folder: folder,
        }
    }

    fn connections(&self) -> u64 {
        let mut stream = TcpStream::connect(self.admin).expect("the admin port");
        let request = b"GET /api/status HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
        stream.write_all(request).expect("written");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        let (_, body) = answer.split_once("\r\n\r\n").expect("a head");
        let status: Value = serde_json::from_str(body).expect("a document");
        status["connections"].as_u64().expect("a number")
    }

    fn until(&self, what: &str, mut holds: impl FnMut(u64) -> bool) {
        let began = Instant::now();
        while !holds(self.connections()) {
            assert!(
                began.elapsed() < PATIENCE,
                "never {what} connections; {} now",
                self.connections()
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Waits until at least so many connections are open.
    pub(crate) fn holds(&self, count: u64) {
        self.until(&format!("{count}"), |now| now >= count);
    }

    /// Waits until at most so many connections are open.
    pub(crate) fn holds_at_most(&self, count: u64) {
        self.until(&format!("only {count}"), |now| now <= count);
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

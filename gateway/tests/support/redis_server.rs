//! A real redis-server for one test: own port, own directory, gone at the end.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// Where Debian and most others put it.
const BINARY: &str = "/usr/bin/redis-server";

/// A running server; killed and reaped when dropped.
pub(crate) struct RedisServer {
    child: Child,
    port: u16,
    directory: TempDir,
    arguments: Vec<String>,
}

impl RedisServer {
    /// Starts one, or says why the test is skipped.
    pub(crate) fn start() -> Option<Self> {
        Self::start_with(&[])
    }

    /// As `start`, with further arguments.
    pub(crate) fn start_with(arguments: &[&str]) -> Option<Self> {
        if !Path::new(BINARY).exists() {
            println!("SKIPPED: {BINARY} is not installed");
            return None;
        }
        let arguments: Vec<String> = arguments.iter().map(|&a| a.to_owned()).collect();
        // Between asking the kernel for a port and the server's bind somebody else may take it.
        for _ in 0..20 {
            let port = free_port();
            let directory = tempfile::tempdir().expect("a directory");
            let child = spawn(port, &directory, &arguments);
            let mut server = Self {
                child,
                port,
                directory,
                arguments: arguments.clone(),
            };
            if server.wait_until_it_answers() {
                return Some(server);
            }
        }
        panic!("redis-server does not start");
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// SIGKILL: it is gone at once, and its connections with it.
    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("it is our child");
        self.child.wait().expect("it is our child");
    }

    /// Starts it again on its port.
    pub(crate) fn restart(&mut self) {
        self.child = spawn(self.port, &self.directory, &self.arguments);
        assert!(self.wait_until_it_answers(), "redis-server starts again");
    }

    /// SIGSTOP: it keeps its connections and answers nothing.
    pub(crate) fn pause(&self) {
        self.signal("-STOP");
    }

    pub(crate) fn resume(&self) {
        self.signal("-CONT");
    }

    /// Sends one inline command and returns everything that is answered.
    pub(crate) fn command(&self, command: &str) -> String {
        let mut stream = self.connect().expect("the server is up");
        stream
            .write_all(format!("{command}\r\nQUIT\r\n").as_bytes())
            .expect("the server is up");
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).expect("the server is up");
        String::from_utf8_lossy(&answer).into_owned()
    }

    /// How many clients are subscribed to `channel`.
    pub(crate) fn subscribers(&self, channel: &str) -> u64 {
        let answer = self.command(&format!("PUBSUB NUMSUB {channel}"));
        answer
            .lines()
            .find_map(|line| line.strip_prefix(':'))
            .and_then(|count| count.parse().ok())
            .expect("a count")
    }

    fn signal(&self, signal: &str) {
        let status = Command::new("kill")
            .args([signal, &self.child.id().to_string()])
            .status();
        assert!(status.expect("kill runs").success());
    }

    fn connect(&self) -> std::io::Result<TcpStream> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, self.port));
        let stream = TcpStream::connect_timeout(&address, Duration::from_secs(1))?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        Ok(stream)
    }

    fn wait_until_it_answers(&mut self) -> bool {
        let deadline = Instant::now() + Duration::from_secs(20);
        while Instant::now() < deadline {
            if self.child.try_wait().expect("it is our child").is_some() {
                return false;
            }
            let mut answer = [0u8; 5];
            let is_up = self.connect().and_then(|mut stream| {
                stream.write_all(b"PING\r\n")?;
                stream.read_exact(&mut answer)
            });
            if is_up.is_ok() && &answer == b"+PONG" {
                return true;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        false
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        // SIGKILL also ends a stopped process.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(port: u16, directory: &TempDir, arguments: &[String]) -> Child {
    Command::new(BINARY)
        .args(["--port", &port.to_string(), "--bind", "127.0.0.1"])
        .args(["--save", "", "--appendonly", "no", "--dir"])
        .arg(directory.path())
        .args(arguments)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("redis-server runs")
}

/// A port that was free a moment ago.
fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .and_then(|listener| listener.local_addr())
        .expect("a free port")
        .port()
}

//! The program as a child process: started, asked, signalled, ended.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

/// No test waits longer for anything.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Polls until `condition` gives something.
pub(crate) fn until<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = condition() {
            return found;
        }
        assert!(began.elapsed() < PATIENCE, "never: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Everything allowed to everybody in channels without a namespace.
fn open_channels() -> Value {
    json!({
        "allow_subscribe_for_client": true, "allow_subscribe_for_anonymous": true,
        "allow_publish_for_client": true, "allow_publish_for_anonymous": true,
    })
}

/// How a gateway is to be started.
pub(crate) struct Plan {
    settings: Value,
    arguments: Vec<String>,
    descriptors: Option<u32>,
    folder: TempDir,
}

impl Plan {
    /// Two shards, ports from the kernel, a drain of 3 seconds, `settings` over that.
    pub(crate) fn new(settings: Value) -> Self {
        Self {
            settings,
            arguments: Vec::new(),
            descriptors: None,
            folder: tempfile::tempdir().expect("a folder for the configuration"),
        }
    }

    /// Adds a flag.
    pub(crate) fn flag(mut self, flag: &str, value: &str) -> Self {
        self.arguments.extend([flag.to_owned(), value.to_owned()]);
        self
    }

    /// Lets the process open only so many descriptors.
    pub(crate) fn descriptors(mut self, count: u32) -> Self {
        self.descriptors = Some(count);
        self
    }

    fn command(&self) -> Command {
        let mut config = json!({
            "id": "node", "listen": "127.0.0.1:0", "admin": "127.0.0.1:0", "shards": 2,
            "drain_seconds": 3, "echo": true, "channel": { "without_namespace": open_channels() },
        });
        if let (Some(all), Some(more)) = (config.as_object_mut(), self.settings.as_object()) {
            all.extend(more.clone());
        }
        let file = self.folder.path().join("config.json");
        std::fs::write(&file, config.to_string()).expect("a configuration file");
        let program = env!("CARGO_BIN_EXE_flux-gateway");
        let mut command = match self.descriptors {
            None => Command::new(program),
            Some(count) => {
                let mut shell = Command::new("sh");
                shell.args([
                    "-c",
                    &format!("ulimit -n {count} && exec \"$0\" \"$@\""),
                    program,
                ]);
                shell
            }
        };
        command.arg("--config").arg(file).args(&self.arguments);
        for (key, _) in std::env::vars().filter(|(key, _)| key.starts_with("FLUX_")) {
            command.env_remove(key);
        }
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// Starts it without waiting for anything.
    pub(crate) fn spawn(self) -> Gateway {
        let mut child = self.command().spawn().expect("the program starts");
        let log = Arc::new(Mutex::new(Vec::new()));
        let lines = BufReader::new(child.stderr.take().expect("piped"));
        let sink = Arc::clone(&log);
        std::thread::spawn(move || {
            for line in lines.lines().map_while(Result::ok) {
                sink.lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .push(line);
            }
        });
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
        Gateway {
            child,
            log,
            clients: nowhere,
            admin: nowhere,
            _plan: self,
        }
    }

    /// Starts it and waits until it listens and is ready.
    pub(crate) fn start(self) -> Gateway {
        let mut gateway = self.spawn();
        let record = until("the gateway listens", || {
            assert!(
                gateway.exited().is_none(),
                "it ended: {:?}",
                gateway.lines()
            );
            gateway.record("listening")
        });
        let address = |key: &str| {
            record[key]
                .as_str()
                .expect("an address")
                .parse()
                .expect("ip:port")
        };
        gateway.clients = address("clients");
        gateway.admin = address("admin");
        until("the gateway is ready", || {
            (gateway.ask("/ready").0 == 200).then_some(())
        });
        gateway
    }

    /// Runs it to its end, which must come by itself. Returns its code and what it wrote to standard error.
    pub(crate) fn refused(self) -> (Option<i32>, String) {
        let mut gateway = self.spawn();
        let status = gateway.wait();
        (status.code(), gateway.lines().join("\n"))
    }
}

/// A gateway process; it is killed when dropped.
pub(crate) struct Gateway {
    child: Child,
    log: Arc<Mutex<Vec<String>>>,
    /// Where clients connect.
    pub(crate) clients: SocketAddr,
    /// Where the admin pages are.
    pub(crate) admin: SocketAddr,
    _plan: Plan,
}

impl Gateway {
    /// What it has written to standard error.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.log
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// The first log record with this message.
    pub(crate) fn record(&self, message: &str) -> Option<Value> {
        self.lines()
            .iter()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok())
            .find(|record| record["message"] == message)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal, as `kill` names it.
    pub(crate) fn signal(&self, name: &str) {
        let sent = Command::new("kill")
            .args([&format!("-{name}"), &self.pid().to_string()])
            .status();
        assert!(sent.expect("the command kill").success(), "kill -{name}");
    }

    /// How it ended, if it has.
    pub(crate) fn exited(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("our child")
    }

    /// Waits for its end.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        let status = until("the process ends", || {
            self.child.try_wait().expect("our child")
        });
        // What it wrote last is still on its way through the reading thread.
        let count = || {
            self.log
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .len()
        };
        let mut seen = count();
        loop {
            std::thread::sleep(Duration::from_millis(20));
            if count() == seen {
                return status;
            }
            seen = count();
        }
    }

    /// A page of the admin port: status and body.
    pub(crate) fn ask(&self, path: &str) -> (u16, String) {
        let (status, _, body) = request(
            self.admin,
            &format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"),
        );
        (status, body)
    }

    pub(crate) fn status(&self) -> Value {
        serde_json::from_str(&self.ask("/api/status").1).expect("a document")
    }

    /// The sum of a metric's series, those with `label` in them where one is given.
    pub(crate) fn metric(&self, name: &str, label: &str) -> u64 {
        let (status, text) = self.ask("/metrics");
        assert_eq!(status, 200);
        let series = |line: &&str| {
            let end = line.find(['{', ' ']).unwrap_or(line.len());
            line[..end].trim_end_matches("_total") == name && line.contains(label)
        };
        text.lines()
            .filter(series)
            .map(|line| {
                line.rsplit(' ')
                    .next()
                    .and_then(|value| value.parse::<f64>().ok())
                    .expect("a number") as u64
            })
            .sum()
    }

    /// Open descriptors of the process.
    pub(crate) fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.pid()))
            .expect("our child")
            .count()
    }

    /// Resident memory of the process in KiB.
    pub(crate) fn resident_kib(&self) -> u64 {
        let text =
            std::fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("our child");
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .expect("a process has memory");
        line.trim()
            .trim_end_matches(" kB")
            .parse()
            .expect("a number")
    }

    /// Waits until exactly `count` connections are open.
    pub(crate) fn settles_at(&self, count: u64) {
        until(&format!("{count} connections"), || {
            (self.metric("flux_connections", "") == count).then_some(())
        });
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let lines = self.lines();
            eprintln!(
                "the gateway said last:\n{}",
                lines[lines.len().saturating_sub(20)..].join("\n")
            );
        }
    }
}

/// Sends a request and reads to the end of the stream: status, head, body.
pub(crate) fn request(address: SocketAddr, text: &str) -> (u16, String, String) {
    let mut stream = TcpStream::connect(address).expect("a listener");
    stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
    stream.write_all(text.as_bytes()).expect("written");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("an answer");
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok())
        .expect("a status");
    (status, head.to_owned(), body.to_owned())
}

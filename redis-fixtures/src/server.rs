//! One server: a process of its own, killed and reaped when dropped.

use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use crate::reply::{Reply, ask, ask_line};
use crate::{PATIENCE, wait_until};

/// What is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// `redis-server`.
    Redis,
    /// `valkey-server`.
    Valkey,
}

impl Program {
    fn name(self) -> &'static str {
        match self {
            Program::Redis => "redis-server",
            Program::Valkey => "valkey-server",
        }
    }

    /// Whether it is here; prints why the test is skipped when it is not.
    pub fn is_here(self) -> bool {
        let asked = Command::new(self.name()).arg("--version").output();
        let is_here = asked.is_ok_and(|answer| answer.status.success());
        if !is_here {
            println!("SKIPPED: {} is not installed", self.name());
        }
        is_here
    }
}

/// A running server.
#[derive(Debug)]
pub struct Server {
    program: Program,
    child: Child,
    port: u16,
    directory: TempDir,
    arguments: Vec<String>,
    password: Option<String>,
}

impl Server {
    /// A plain one.
    pub fn start() -> Option<Server> {
        Server::start_with(Program::Redis, &[])
    }

    /// One with further arguments, in which `$PORT` stands for its port and `$OTHER` for a second one.
    pub fn start_with(program: Program, arguments: &[&str]) -> Option<Server> {
        Server::start_in(program, |_, _| {
            arguments
                .iter()
                .map(|&argument| argument.to_owned())
                .collect()
        })
    }

    /// One whose arguments depend on its directory and its port; it may write files there first.
    pub(crate) fn start_in(
        program: Program,
        arguments: impl Fn(&Path, u16) -> Vec<String>,
    ) -> Option<Server> {
        if !program.is_here() {
            return None;
        }
        // Between asking the kernel for a port and the server's bind somebody else may take it.
        for _ in 0..20 {
            let directory = tempfile::tempdir().expect("a directory");
            let ports = [free_port(), free_port()];
            let arguments: Vec<String> = arguments(directory.path(), ports[0])
                .iter()
                .map(|argument| argument.replace("$PORT", &ports[0].to_string()))
                .map(|argument| argument.replace("$OTHER", &ports[1].to_string()))
                .collect();
            let password = arguments
                .windows(2)
                .find_map(|pair| (pair[0] == "--requirepass").then(|| pair[1].clone()));
            let child = spawn(program, ports[0], &directory, &arguments);
            let mut server = Server {
                program,
                child,
                port: ports[0],
                directory,
                arguments,
                password,
            };
            if server.answers() {
                return Some(server);
            }
        }
        panic!("{} does not start", program.name());
    }

    /// Its port on loopback.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its directory, in which relative paths of its configuration begin.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Its URL, without credentials.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// The value behind an argument it was started with.
    pub fn argument(&self, name: &str) -> Option<&str> {
        let at = self
            .arguments
            .iter()
            .position(|argument| argument == name)?;
        self.arguments.get(at + 1).map(String::as_str)
    }

    /// Asks it one thing, as the default user.
    ///
    /// # Errors
    /// When it is away.
    pub fn try_ask(&self, command: &[&str]) -> std::io::Result<Reply> {
        match &self.password {
            Some(password) => ask(self.port, &[&["AUTH", password], command]),
            None => ask(self.port, &[command]),
        }
    }

    /// Asks it one thing; it is up.
    pub fn ask(&self, command: &[&str]) -> Reply {
        match self.try_ask(command) {
            Ok(reply) => reply,
            Err(error) => panic!("port {}: {command:?}: {error}", self.port),
        }
    }

    /// Tells it something that it must accept.
    pub fn tell(&self, command: &[&str]) {
        if let Reply::Error(error) = self.ask(command) {
            panic!("port {}: {command:?}: {error}", self.port);
        }
    }

    /// What it answers to one line as a person types it, quotes and escapes included; it is up.
    pub fn command(&self, line: &str) -> Reply {
        match ask_line(self.port, line) {
            Ok(reply) => reply,
            Err(error) => panic!("port {}: {line:?}: {error}", self.port),
        }
    }

    /// How many connections are subscribed to a channel.
    pub fn subscribers(&self, channel: &str) -> u64 {
        let counted = self.ask(&["PUBSUB", "NUMSUB", channel]);
        let count = counted.list().get(1).and_then(Reply::int);
        count
            .and_then(|count| u64::try_from(count).ok())
            .expect("a count")
    }

    /// A field of INFO; empty where there is none, also while it is away.
    pub fn info(&self, field: &str) -> String {
        let info = self.try_ask(&["INFO"]).unwrap_or(Reply::Nil);
        let mut lines = info.text().lines();
        let value = lines.find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
        value.unwrap_or_default().trim().to_owned()
    }

    /// SIGKILL: it is gone at once, and its connections with it.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Starts it again on its port.
    pub fn restart(&mut self) {
        self.kill();
        self.child = spawn(self.program, self.port, &self.directory, &self.arguments);
        assert!(self.answers(), "{} starts again", self.program.name());
    }

    /// SIGSTOP: it keeps its connections and answers nothing.
    pub fn pause(&self) {
        self.signal("-STOP");
    }

    /// SIGCONT.
    pub fn resume(&self) {
        self.signal("-CONT");
    }

    fn signal(&self, signal: &str) {
        let pid = self.child.id().to_string();
        let status = Command::new("kill").args([signal, &pid]).status();
        assert!(status.expect("kill runs").success());
    }

    fn answers(&mut self) -> bool {
        let since = std::time::Instant::now();
        while since.elapsed() < PATIENCE {
            if self.child.try_wait().expect("it is our child").is_some() {
                return false;
            }
            if self
                .try_ask(&["PING"])
                .is_ok_and(|reply| reply.text() == "PONG")
            {
                return true;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        false
    }

    /// Waits until it replicates its master.
    pub(crate) fn wait_until_it_replicates(&self) {
        wait_until("a replica to be whole", || {
            self.info("role") == "slave" && self.info("master_link_status") == "up"
        });
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // SIGKILL also ends a stopped process.
        self.kill();
    }
}

fn spawn(program: Program, port: u16, directory: &TempDir, arguments: &[String]) -> Child {
    let mut command = Command::new(program.name());
    // A configuration file comes first.
    let (file, arguments) = match arguments {
        [file, rest @ ..] if !file.starts_with("--") => (Some(file), rest),
        all => (None, all),
    };
    command.args(file);
    if file.is_none() {
        command
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1"])
            .args([
                "--save",
                "",
                "--appendonly",
                "no",
                "--repl-diskless-sync-delay",
                "0",
            ])
            .args(["--repl-ping-replica-period", "1"])
            .arg("--dir")
            .arg(directory.path());
    }
    command
        .args(arguments)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap_or_else(|error| panic!("{} does not run: {error}", program.name()))
}

/// A port that was free a moment ago.
fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .and_then(|listener| listener.local_addr())
        .expect("a free port")
        .port()
}

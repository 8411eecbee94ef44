//! A real redis-server per test: own port (from the kernel), own directory, ended by pid.
#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test file uses its part of it"
)]
#![allow(
    clippy::panic,
    clippy::print_stdout,
    reason = "a test fails by a panic and says why it was skipped"
)]

use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use flux_registry::{
    Beat, LeaseEvent, LeaseHandle, NodeRecord, NodeState, Registry, RegistryConfig, Snapshot,
    run_lease,
};
use tempfile::TempDir;
use tokio::sync::watch;

/// Longest wait for anything that should happen; a machine under load is slow, not wrong.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// Short lease for tests: the proportions are those of the default.
pub const HEARTBEAT: Duration = Duration::from_millis(300);
pub const TTL: Duration = Duration::from_millis(1500);

pub struct RedisServer {
    child: Option<Child>,
    pub port: u16,
    pub dir: TempDir,
    args: Vec<String>,
}

impl RedisServer {
    /// `None` (with a printed reason) where there is no redis-server.
    pub fn start(args: &[&str]) -> Option<RedisServer> {
        let found = Command::new("redis-server").arg("--version").output();
        if !found.is_ok_and(|output| output.status.success()) {
            println!("SKIPPED: there is no redis-server on this machine");
            return None;
        }
        let dir = tempfile::tempdir().expect("temporary directory");
        let args = args.iter().map(|arg| (*arg).to_owned()).collect();
        let mut server = RedisServer {
            child: None,
            port: 0,
            dir,
            args,
        };
        // Another process may take the port between here and redis-server: then the next one.
        for _ in 0..10 {
            let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
            server.port = listener.local_addr().expect("address").port();
            drop(listener);
            if server.run() {
                return Some(server);
            }
        }
        panic!("redis-server did not start");
    }

    /// Starts it again on its port. False if it ended at once.
    pub fn run(&mut self) -> bool {
        let tls = self.args.iter().any(|arg| arg == "--tls-port");
        let port = if tls { 0 } else { self.port };
        let mut command = Command::new("redis-server");
        command
            .args(["--port", &port.to_string()])
            .args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
            .args(["--dir".as_ref(), self.dir.path().as_os_str()])
            .args(
                self.args
                    .iter()
                    .map(|arg| arg.replace("$PORT", &self.port.to_string())),
            )
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let mut child = command.spawn().expect("redis-server");
        let until = Instant::now() + PATIENCE;
        while Instant::now() < until {
            if child.try_wait().expect("wait").is_some() {
                return false;
            }
            if std::net::TcpStream::connect(("127.0.0.1", self.port)).is_ok() {
                self.child = Some(child);
                return true;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        let _ = child.kill();
        let _ = child.wait();
        false
    }

    pub fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    pub fn signal(&self, signal: &str) {
        let pid = self.child.as_ref().expect("running").id();
        let status = Command::new("sh")
            .args(["-c", &format!("kill -{signal} {pid}")])
            .status();
        assert!(status.expect("sh").success());
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    pub fn config(&self) -> RegistryConfig {
        config(&self.url())
    }

    pub async fn raw(&self) -> redis::aio::MultiplexedConnection {
        raw(&self.url()).await
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.stop();
    }
}

pub async fn raw(url: &str) -> redis::aio::MultiplexedConnection {
    let client = redis::Client::open(url).expect("url");
    let until = Instant::now() + PATIENCE;
    loop {
        match client.get_multiplexed_async_connection().await {
            Ok(connection) => return connection,
            Err(error) => assert!(Instant::now() < until, "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

pub fn config(url: &str) -> RegistryConfig {
    RegistryConfig {
        heartbeat: HEARTBEAT,
        ttl: TTL,
        timeout: Duration::from_millis(500),
        poll: Duration::from_millis(100),
        ..RegistryConfig::from_url(url)
    }
}

pub fn address(node: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, node], 8000))
}

/// A ready node with the id `gateway-NODE`.
pub fn record(node: u8) -> NodeRecord {
    let mut record = NodeRecord::new(format!("gateway-{node}"), address(node));
    record.state = NodeState::Ready;
    record
}

pub fn lease(registry: &Registry, node: u8) -> LeaseHandle {
    run_lease(registry, move |_: &Beat| Ok(record(node)))
}

/// Waits for an event that `wanted` likes; others are passed over.
pub async fn event(lease: &mut LeaseHandle, wanted: impl Fn(&LeaseEvent) -> bool) -> LeaseEvent {
    tokio::time::timeout(PATIENCE, async {
        loop {
            let event = lease.next_event().await.expect("the lease goes on");
            if wanted(&event) {
                return event;
            }
        }
    })
    .await
    .expect("the event in time")
}

pub async fn registered(lease: &mut LeaseHandle) -> u64 {
    match event(lease, |e| matches!(e, LeaseEvent::Registered { .. })).await {
        LeaseEvent::Registered { generation } => generation,
        other => panic!("{other:?}"),
    }
}

/// Waits for a snapshot that `wanted` likes.
pub async fn snapshot(
    watch: &mut watch::Receiver<Arc<Snapshot>>,
    wanted: impl Fn(&Snapshot) -> bool,
) -> Arc<Snapshot> {
    let found = tokio::time::timeout(PATIENCE, watch.wait_for(|s| wanted(s)))
        .await
        .ok()
        .and_then(Result::ok)
        .map(|snapshot| snapshot.clone());
    found.unwrap_or_else(|| panic!("no such snapshot in time, last: {:#?}", watch.borrow()))
}

pub fn fresh(snapshot: &Snapshot) -> Vec<&str> {
    snapshot
        .nodes
        .iter()
        .filter(|(_, view)| view.fresh)
        .map(|(id, _)| id.as_str())
        .collect()
}

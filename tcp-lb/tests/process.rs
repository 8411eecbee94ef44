//! `flux-lb` as a process: configuration, a real registry, signals, exit codes.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(20);

fn flux_lb(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_flux-lb"));
    command.args(args).stdin(Stdio::null());
    command
}

fn output(args: &[&str]) -> Output {
    flux_lb(args).output().expect("it runs")
}

/// A port that was free a moment ago.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0")
        .and_then(|socket| socket.local_addr())
        .expect("a port")
        .port()
}

fn get(admin: SocketAddr, path: &str) -> Option<String> {
    let mut socket = TcpStream::connect(admin).ok()?;
    socket.set_read_timeout(Some(PATIENCE)).ok()?;
    write!(socket, "GET {path} HTTP/1.0\r\n\r\n").ok()?;
    let mut answer = String::new();
    socket.read_to_string(&mut answer).ok()?;
    Some(answer)
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < PATIENCE, "never: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Ended when the test ends, however it ends.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Process {
    fn signal(&self, name: &str) {
        let status = Command::new("kill")
            .args([name, &self.0.id().to_string()])
            .status()
            .expect("kill runs");
        assert!(status.success());
    }

    fn exit_code(&mut self) -> Option<i32> {
        let mut code = None;
        until("it ends", || match self.0.try_wait().expect("waited") {
            Some(status) => {
                code = Some(status.code());
                true
            }
            None => false,
        });
        code.flatten()
    }
}

struct Running {
    balancer: Process,
    listen: SocketAddr,
    admin: SocketAddr,
}

fn start(redis: u16, more: &[&str]) -> Running {
    let (listen, admin) = (free_port(), free_port());
    let listen = SocketAddr::from(([127, 0, 0, 1], listen));
    let admin = SocketAddr::from(([127, 0, 0, 1], admin));
    let redis = format!("redis://127.0.0.1:{redis}");
    let mut command = flux_lb(&[
        "--listen",
        &listen.to_string(),
        "--admin",
        &admin.to_string(),
        "--redis",
        &redis,
        "--shards",
        "1",
    ]);
    let balancer = Process(
        command
            .args(more)
            .stderr(Stdio::null())
            .spawn()
            .expect("it starts"),
    );
    until("its pages answer", || {
        get(admin, "/live").is_some_and(|answer| answer.contains("200 OK"))
    });
    Running {
        balancer,
        listen,
        admin,
    }
}

#[test]
fn check_config_prints_values_with_their_origin() {
    let out = output(&["--check-config", "--affinity", "source"]);
    let text = String::from_utf8_lossy(&out.stdout);
    assert!(out.status.success());
    let line = |key: &str| {
        text.lines()
            .find(|line| line.starts_with(key))
            .unwrap_or_default()
            .to_owned()
    };
    assert!(
        line("affinity ").contains("\"source\"") && line("affinity ").contains("flag"),
        "{text}"
    );
    assert!(
        line("listen ").contains("127.0.0.1:8080") && line("listen ").contains("default"),
        "{text}"
    );
}

#[test]
fn what_cannot_work_is_one_line_and_exit_code_2() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("lb.toml");
    std::fs::write(&file, "listn = \"127.0.0.1:1\"\n").expect("written");
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let taken = taken.local_addr().expect("bound").to_string();
    let file = file.to_str().expect("a path");
    for (args, named) in [
        (vec!["--config", file], "listn"),
        (vec!["--listen", &taken, "--admin", "127.0.0.1:0"], "listen"),
        (
            vec![
                "--redis",
                "http://x",
                "--listen",
                "127.0.0.1:0",
                "--admin",
                "127.0.0.1:0",
            ],
            "redis",
        ),
    ] {
        let out = output(&args);
        let text = String::from_utf8_lossy(&out.stderr);
        assert_eq!(out.status.code(), Some(2), "{args:?}: {text}");
        assert_eq!(text.lines().count(), 1, "{args:?}: {text}");
        assert!(text.contains(named), "{args:?}: {text}");
    }
}

#[test]
fn nodes_of_a_real_registry_are_routed_to() {
    let port = free_port();
    let folder = tempfile::tempdir().expect("a folder");
    let redis = Command::new("redis-server")
        .args([
            "--port",
            &port.to_string(),
            "--save",
            "",
            "--appendonly",
            "no",
            "--dir",
        ])
        .arg(folder.path())
        .stdout(Stdio::null())
        .spawn();
    let _redis = Process(redis.expect("redis-server is installed"));
    let running = start(port, &[]);
    assert!(
        get(running.admin, "/ready")
            .expect("a page")
            .contains("503"),
        "no node was ever known"
    );

    let node = TcpListener::bind("127.0.0.1:0").expect("a port");
    let addr = node.local_addr().expect("bound");
    let (end, ended) = tokio::sync::oneshot::channel::<()>();
    let heartbeats = std::thread::spawn(move || {
        flux_runtime::control::run(async {
            let config =
                flux_registry::RegistryConfig::from_url(format!("redis://127.0.0.1:{port}"));
            let registry = flux_registry::Registry::connect(config).expect("a registry");
            let _lease = flux_registry::run_lease(&registry, move |_| {
                let mut record = flux_registry::NodeRecord::new("gateway-1", addr);
                record.state = flux_registry::NodeState::Ready;
                Ok(record)
            });
            let _ = ended.await;
        })
    });
    until("the node is eligible", || {
        get(running.admin, "/api/nodes").is_some_and(|answer| answer.contains("\"eligible\":true"))
    });
    let mut client = TcpStream::connect(running.listen).expect("connected");
    client
        .write_all(b"GET /?sid=a HTTP/1.1\r\n\r\n")
        .expect("written");
    let (mut served, _) = node.accept().expect("accepted");
    let mut bytes = [0; 28 + 24];
    served
        .read_exact(&mut bytes)
        .expect("PROXY header and head");
    assert!(bytes.ends_with(b"GET /?sid=a HTTP/1.1\r\n\r\n"));
    assert!(
        get(running.admin, "/ready")
            .expect("a page")
            .contains("200 OK")
    );
    drop(end);
    heartbeats.join().expect("ended").expect("a runtime");
}

#[test]
fn sigterm_ends_it_with_0_and_a_second_one_at_once() {
    let mut idle = start(free_port(), &[]);
    idle.balancer.signal("-TERM");
    assert_eq!(idle.balancer.exit_code(), Some(0));

    let mut busy = start(free_port(), &["--drain-seconds", "600"]);
    let _kept = TcpStream::connect(busy.listen).expect("connected");
    until("the connection is there", || {
        get(busy.admin, "/api/status").is_some_and(|page| page.contains("\"flows\":1"))
    });
    busy.balancer.signal("-TERM");
    until("it drains", || {
        get(busy.admin, "/ready").is_some_and(|page| page.contains("draining"))
    });
    busy.balancer.signal("-TERM");
    assert_eq!(busy.balancer.exit_code(), Some(0));
}

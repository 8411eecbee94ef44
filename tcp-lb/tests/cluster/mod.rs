//! A cluster for tests: fake nodes on kernel-given ports, a registry in memory, a real balancer.
//! Everything lives on the test's own tokio runtime but the balancer's shards, which are threads.
#![allow(
    dead_code,
    unreachable_pub,
    reason = "shared by test files, each of which uses its part"
)]
#![allow(clippy::panic, reason = "a test ends by panicking")]

use std::future::Future;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use flux_lb::balancer::Balancer;
use flux_lb::config::Config;
use flux_registry::{
    LeaseHandle, MemoryStore, NodeRecord, NodeState, Registry, RegistryConfig, run_lease,
};
use flux_runtime::proxy_protocol::{self, Parse};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// No test waits longer for anything.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Runs a test on a runtime of its own.
pub fn run(test: impl Future<Output = ()>) {
    flux_runtime::control::run(async {
        tokio::time::timeout(PATIENCE * 3, test)
            .await
            .expect("the test ends");
    })
    .expect("a runtime");
}

/// Polls until `holds`.
pub async fn until<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) -> Duration {
    let began = Instant::now();
    while !holds().await {
        assert!(began.elapsed() < PATIENCE, "never: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    began.elapsed()
}

/// What a node does with a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    /// Answers a request head with its name, then returns every byte.
    Echo,
    /// Reads, never answers.
    Silent,
    /// Closes when the first bytes have come.
    Reset,
    /// Answers, then reads nothing more.
    Deaf,
}

/// What `/ready` does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ready {
    Yes,
    No,
    Frozen,
}

pub struct Seen {
    pub manner: Mutex<Manner>,
    pub ready: Mutex<Ready>,
    pub state: Mutex<NodeState>,
    pub accepted: AtomicUsize,
    pub open: AtomicUsize,
    /// The first bytes of each connection, PROXY header included.
    pub first_bytes: Mutex<Vec<Vec<u8>>>,
    /// All bytes received after the head.
    pub received: AtomicUsize,
}

pub struct Node {
    pub id: String,
    pub addr: SocketAddr,
    pub admin: SocketAddr,
    pub seen: Arc<Seen>,
    registry: Registry,
    lease: Option<LeaseHandle>,
    /// Listeners and connections; dropped, they close.
    tasks: Option<JoinSet<()>>,
}

impl Node {
    pub async fn start(registry: &Registry, id: &str) -> Node {
        let seen = Arc::new(Seen {
            manner: Mutex::new(Manner::Echo),
            ready: Mutex::new(Ready::Yes),
            state: Mutex::new(NodeState::Ready),
            accepted: AtomicUsize::new(0),
            open: AtomicUsize::new(0),
            first_bytes: Mutex::default(),
            received: AtomicUsize::new(0),
        });
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut node = Node {
            id: id.to_owned(),
            addr: any,
            admin: any,
            seen,
            registry: registry.clone(),
            lease: None,
            tasks: None,
        };
        node.revive().await;
        node.register();
        node
    }

    /// Listens (again, on the ports it had).
    pub async fn revive(&mut self) {
        let clients = TcpListener::bind(self.addr).await.expect("a port");
        let admin = TcpListener::bind(self.admin).await.expect("a port");
        self.addr = clients.local_addr().expect("bound");
        self.admin = admin.local_addr().expect("bound");
        let mut tasks = JoinSet::new();
        let (seen, id) = (self.seen.clone(), self.id.clone());
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (socket, _) = clients.accept().await.expect("accept");
                seen.accepted.fetch_add(1, SeqCst);
                let (seen, id) = (seen.clone(), id.clone());
                connections.spawn(async move {
                    seen.open.fetch_add(1, SeqCst);
                    let _open = Open(seen.clone());
                    let _ = serve(socket, &seen, &id).await;
                });
                while connections.try_join_next().is_some() {}
            }
        });
        let seen = self.seen.clone();
        tasks.spawn(async move {
            let mut frozen = Vec::new();
            loop {
                let (mut socket, _) = admin.accept().await.expect("accept");
                let ready = *seen.ready.lock().expect("lock");
                let answer: &[u8] = match ready {
                    Ready::Yes => b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}",
                    Ready::No => b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 43\r\nConnection: close\r\n\r\n{\"ready\":false,\"reasons\":[\"shard 1 hangs\"]}",
                    Ready::Frozen => {
                        frozen.push(socket);
                        continue;
                    }
                };
                let mut request = [0; 1024];
                let _ = socket.read(&mut request).await;
                let _ = socket.write_all(answer).await;
            }
        });
        self.tasks = Some(tasks);
    }

    pub fn register(&mut self) {
        let (id, addr, admin, seen) = (self.id.clone(), self.addr, self.admin, self.seen.clone());
        self.lease = Some(run_lease(&self.registry, move |_| {
            let mut record = NodeRecord::new(id.clone(), addr);
            record.admin = Some(admin);
            record.state = *seen.state.lock().expect("lock");
            record.connections = seen.open.load(SeqCst) as u64;
            Ok(record)
        }));
    }

    /// Stops heartbeats; the lease ends with its TTL.
    pub fn forsake(&mut self) {
        self.lease = None;
    }

    /// As SIGKILL does: sockets closed by the kernel, heartbeats over, record left behind.
    pub fn kill(&mut self) {
        self.tasks = None;
        self.lease = None;
    }

    /// Closes its sockets while its heartbeats go on.
    pub fn tasks_end(&mut self) {
        self.tasks = None;
    }

    pub fn set_state(&self, state: NodeState) {
        *self.seen.state.lock().expect("lock") = state;
        self.lease
            .as_ref()
            .expect("registered")
            .control()
            .beat_now();
    }

    pub fn behave(&self, manner: Manner) {
        *self.seen.manner.lock().expect("lock") = manner;
    }

    pub fn say_ready(&self, ready: Ready) {
        *self.seen.ready.lock().expect("lock") = ready;
    }

    pub fn accepted(&self) -> usize {
        self.seen.accepted.load(SeqCst)
    }

    pub fn open(&self) -> usize {
        self.seen.open.load(SeqCst)
    }
}

struct Open(Arc<Seen>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, SeqCst);
    }
}

async fn serve(mut socket: TcpStream, seen: &Seen, id: &str) -> std::io::Result<()> {
    let manner = *seen.manner.lock().expect("lock");
    let mut bytes = Vec::new();
    let body_at = loop {
        if socket.read_buf(&mut bytes).await? == 0 {
            seen.first_bytes.lock().expect("lock").push(bytes);
            return Ok(());
        }
        if manner == Manner::Reset {
            return Ok(());
        }
        let head_at = match proxy_protocol::parse_v2(&bytes) {
            Parse::Proxy { len, .. } => len,
            Parse::NotProxy => 0,
            _ => continue,
        };
        let head = &bytes[head_at..];
        match head.first() {
            None => continue,
            Some(first) if !first.is_ascii_uppercase() => break head_at,
            Some(_) => {}
        }
        if let Some(end) = head.windows(4).position(|window| window == b"\r\n\r\n") {
            if manner != Manner::Silent {
                let answer = format!("HTTP/1.1 101 Switching Protocols\r\nx-node: {id}\r\n\r\n");
                socket.write_all(answer.as_bytes()).await?;
            }
            break head_at + end + 4;
        }
    };
    seen.first_bytes.lock().expect("lock").push(bytes.clone());
    if manner == Manner::Silent || manner == Manner::Deaf {
        std::future::pending::<()>().await;
    }
    socket.write_all(&bytes[body_at..]).await?;
    seen.received.fetch_add(bytes.len() - body_at, SeqCst);
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let count = socket.read(&mut buffer).await?;
        if count == 0 {
            return socket.shutdown().await;
        }
        seen.received.fetch_add(count, SeqCst);
        socket.write_all(&buffer[..count]).await?;
    }
}

pub struct Cluster {
    pub store: MemoryStore,
    pub registry: Registry,
    pub nodes: Vec<Node>,
    pub balancer: Balancer,
}

/// Times that make tests short; the promises under test keep their own.
pub fn registry_times() -> RegistryConfig {
    RegistryConfig {
        heartbeat: Duration::from_millis(200),
        ttl: Duration::from_millis(1000),
        poll: Duration::from_millis(50),
        ..RegistryConfig::default()
    }
}

pub fn config() -> Config {
    Config {
        listen: ([127, 0, 0, 1], 0).into(),
        admin: ([127, 0, 0, 1], 0).into(),
        shards: 1,
        // With a handful of connections the bound moves every second one; it has tests of its own.
        load_bound: 100.0,
        ..Config::default()
    }
}

impl Cluster {
    pub async fn of(nodes: usize) -> Cluster {
        Cluster::with(nodes, config()).await
    }

    /// A cluster of ready nodes `node-1` ... behind a balancer that has probed them.
    pub async fn with(nodes: usize, config: Config) -> Cluster {
        let store = MemoryStore::new();
        let registry = Registry::memory(store.clone(), registry_times()).expect("a registry");
        let mut all = Vec::new();
        for number in 1..=nodes {
            all.push(Node::start(&registry, &format!("node-{number}")).await);
        }
        let balancer = Balancer::start(config, &registry)
            .await
            .expect("a balancer");
        let cluster = Cluster {
            store,
            registry,
            nodes: all,
            balancer,
        };
        until("all nodes are eligible", || async {
            let eligible = cluster.nodes_page().await;
            eligible
                .iter()
                .filter(|node| node["eligible"] == true)
                .count()
                == nodes
        })
        .await;
        cluster
    }

    pub async fn page(&self, path: &str) -> serde_json::Value {
        serde_json::from_str(&self.text(path).await).expect("JSON")
    }

    /// A page of the balancer's admin address.
    async fn text(&self, path: &str) -> String {
        let client = flux_lb::probe::client().expect("an HTTP client");
        let answer = client
            .get(format!("http://{}{path}", self.balancer.admin))
            .send()
            .await
            .expect("the admin page");
        answer.text().await.expect("a body")
    }

    pub async fn nodes_page(&self) -> Vec<serde_json::Value> {
        self.page("/api/nodes")
            .await
            .as_array()
            .expect("a list")
            .clone()
    }

    pub async fn node_status(&self, id: &str) -> Option<serde_json::Value> {
        self.nodes_page()
            .await
            .into_iter()
            .find(|node| node["id"] == id)
    }

    pub async fn eligible(&self, id: &str) -> bool {
        self.node_status(id)
            .await
            .is_some_and(|node| node["eligible"] == true)
    }

    /// Where a key goes now, by the balancer's own word.
    pub async fn place(&self, key: &str) -> String {
        self.page(&format!("/api/ring?key={key}")).await["node"]
            .as_str()
            .expect("a node")
            .to_owned()
    }

    pub async fn metric(&self, name: &str) -> f64 {
        let text = self.text("/metrics").await;
        let line = text.lines().find(|line| {
            line.strip_prefix(name)
                .is_some_and(|rest| rest.starts_with(' '))
        });
        let line = line.unwrap_or_else(|| panic!("no metric {name} in\n{text}"));
        line.rsplit(' ')
            .next()
            .and_then(|value| value.parse().ok())
            .expect("a number")
    }

    pub fn node(&self, id: &str) -> &Node {
        self.nodes
            .iter()
            .find(|node| node.id == id)
            .expect("a node")
    }

    pub fn node_mut(&mut self, id: &str) -> &mut Node {
        self.nodes
            .iter_mut()
            .find(|node| node.id == id)
            .expect("a node")
    }

    pub async fn client(&self, sid: &str) -> Client {
        self.try_client(sid)
            .await
            .expect("a connection that is answered")
    }

    pub async fn try_client(&self, sid: &str) -> std::io::Result<Client> {
        let head =
            format!("GET /ws?sid={sid} HTTP/1.1\r\nHost: test\r\nUpgrade: websocket\r\n\r\n");
        let socket = self.raw().await?;
        Client::greet(socket, head.as_bytes()).await
    }

    /// A connection that has said nothing.
    pub async fn raw(&self) -> std::io::Result<TcpStream> {
        let socket = TcpStream::connect(self.balancer.listen).await?;
        socket.set_nodelay(true)?;
        Ok(socket)
    }

    /// A key whose owner is `id`.
    pub async fn key_of(&self, id: &str) -> String {
        for number in 0..1000 {
            let key = format!("key-{number}");
            if self.place(&key).await == id {
                return key;
            }
        }
        panic!("no key for {id}");
    }
}

/// A connection through the balancer that a node has answered.
pub struct Client {
    pub socket: TcpStream,
    pub node: String,
    pub status: String,
}

impl Client {
    pub async fn greet(mut socket: TcpStream, head: &[u8]) -> std::io::Result<Client> {
        socket.write_all(head).await?;
        Client::answered(socket).await
    }

    /// Reads the answer's head.
    pub async fn answered(mut socket: TcpStream) -> std::io::Result<Client> {
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            let byte = tokio::time::timeout(PATIENCE, socket.read_u8()).await??;
            answer.push(byte);
        }
        let answer = String::from_utf8_lossy(&answer).into_owned();
        let node = answer
            .lines()
            .find_map(|line| line.strip_prefix("x-node: "))
            .unwrap_or_default();
        let status = answer.split(' ').nth(1).unwrap_or_default();
        Ok(Client {
            socket,
            node: node.to_owned(),
            status: status.to_owned(),
        })
    }

    /// Sends a message and waits until it is back.
    pub async fn round_trip(&mut self, message: &[u8]) {
        self.socket.write_all(message).await.expect("written");
        let mut back = vec![0; message.len()];
        tokio::time::timeout(PATIENCE, self.socket.read_exact(&mut back))
            .await
            .expect("in time")
            .expect("read");
        assert_eq!(back, message);
    }

    /// Whether the connection has ended (and nothing was left to read).
    pub async fn has_ended(&mut self) -> bool {
        let mut byte = [0];
        let read =
            tokio::time::timeout(Duration::from_millis(1), self.socket.read(&mut byte)).await;
        matches!(read, Ok(Ok(0) | Err(_)))
    }
}

//! A master, a replica, and three sentinels of which two decide.

use crate::server::{Program, Server};
use crate::wait_until;

/// What the sentinels call the master.
const NAME: &str = "main";

/// A running deployment.
#[derive(Debug)]
pub struct Sentinels {
    /// The two servers; which of them is the master changes.
    pub servers: [Server; 2],
    /// The sentinels.
    pub sentinels: Vec<Server>,
}

impl Sentinels {
    /// Starts one; `None` where redis-server is missing.
    pub fn start() -> Option<Sentinels> {
        let master = Server::start()?;
        let port = master.port().to_string();
        let replica = Server::start_with(Program::Redis, &["--replicaof", "127.0.0.1", &port])?;
        replica.wait_until_it_replicates();
        let sentinels: Vec<Server> = (0..3)
            .map(|_| {
                Server::start_in(Program::Redis, |directory, own| {
                    let file = directory.join("sentinel.conf");
                    let directory = directory.display();
                    let text = format!(
                        "port {own}\nbind 127.0.0.1\ndir {directory}\n\
                         sentinel monitor {NAME} 127.0.0.1 {port} 2\n\
                         sentinel down-after-milliseconds {NAME} 1000\n\
                         sentinel failover-timeout {NAME} 6000\n\
                         sentinel parallel-syncs {NAME} 1\n"
                    );
                    std::fs::write(&file, text).expect("a configuration file");
                    vec![file.display().to_string(), "--sentinel".to_owned()]
                })
            })
            .collect::<Option<_>>()?;
        let deployment = Sentinels {
            servers: [master, replica],
            sentinels,
        };
        deployment.wait_until_whole();
        Some(deployment)
    }

    /// What the sentinels call the master.
    pub fn master_name(&self) -> &'static str {
        NAME
    }

    /// The sentinels' addresses, host:port.
    pub fn addresses(&self) -> Vec<String> {
        self.sentinels
            .iter()
            .map(|sentinel| format!("127.0.0.1:{}", sentinel.port()))
            .collect()
    }

    /// Index of the server that every sentinel names as the master, if they agree.
    pub fn master(&self) -> Option<usize> {
        let named = |sentinel: &Server| {
            let address = sentinel
                .try_ask(&["SENTINEL", "GET-MASTER-ADDR-BY-NAME", NAME])
                .ok()?;
            let port = address.list().get(1)?.int()?;
            self.servers
                .iter()
                .position(|server| i64::from(server.port()) == port)
        };
        let first = named(self.sentinels.first()?)?;
        let all = self
            .sentinels
            .iter()
            .all(|sentinel| named(sentinel) == Some(first));
        all.then_some(first)
    }

    /// Whether both servers are up, and every sentinel knows them and the others.
    pub fn is_whole(&self) -> bool {
        let knows_all = |sentinel: &Server| {
            let Ok(told) = sentinel.try_ask(&["SENTINEL", "MASTER", NAME]) else {
                return false;
            };
            let field = |name: &str| {
                let pair = told.list().chunks(2).find(|pair| pair[0].text() == name);
                pair.map(|pair| pair[1].text().to_owned())
                    .unwrap_or_default()
            };
            field("flags") == "master"
                && field("num-other-sentinels") == "2"
                && field("num-slaves") == "1"
        };
        self.sentinels.iter().all(knows_all)
            && self.master().is_some_and(|master| {
                self.servers[master].info("role") == "master"
                    && self.servers[1 - master].info("master_link_status") == "up"
            })
    }

    /// Waits until that is so.
    pub fn wait_until_whole(&self) {
        wait_until("whole sentinels", || self.is_whole());
    }

    /// Makes the replica the master (SENTINEL FAILOVER); returns when the sentinels have decided to.
    pub fn fail_over(&self) {
        // Right after another failover it is refused for a while.
        wait_until("a failover to be accepted", || {
            self.sentinels[0]
                .ask(&["SENTINEL", "FAILOVER", NAME])
                .text()
                == "OK"
        });
    }

    /// Waits until all sentinels name `server`.
    pub fn wait_until_master_is(&self, server: usize) {
        wait_until("the new master", || self.master() == Some(server));
    }
}

//! Promise: the registry follows its Redis. Whichever way the master changes, no node loses its lease, and
//! readers see every node again within seconds.

#![allow(
    clippy::print_stdout,
    reason = "a test says how long it took and why it was skipped"
)]

mod common;

use std::sync::Arc;
use std::time::{Duration, Instant};

use common::{HEARTBEAT, PATIENCE, fresh, lease, registered, snapshot};
use flux_redis_fixtures::{Certificates, Cluster, Program, Sentinels, Server};
use flux_registry::{
    ClientCertificate, LeaseEvent, LeaseHandle, RedisDeployment, RedisSettings, RedisTls, Registry,
    RegistryConfig, Snapshot,
};
use tokio::sync::watch;

/// Longer than any failover here, as the default is longer than usual ones.
const TTL: Duration = Duration::from_secs(12);

fn config(deployment: RedisDeployment) -> RegistryConfig {
    RegistryConfig {
        deployment,
        prefix: "{gateway}".into(),
        heartbeat: HEARTBEAT,
        ttl: TTL,
        timeout: Duration::from_millis(500),
        poll: Duration::from_millis(100),
    }
}

fn deployment(settings: &RedisSettings) -> RedisDeployment {
    let found = settings.deployment().expect("valid settings");
    found.expect("a deployment")
}

fn sentinel(sentinels: &Sentinels) -> RegistryConfig {
    config(deployment(&RedisSettings {
        sentinel_address: sentinels.addresses(),
        sentinel_master_name: sentinels.master_name().into(),
        ..RedisSettings::default()
    }))
}

fn cluster(cluster: &Cluster) -> RegistryConfig {
    let mut config = config(deployment(&RedisSettings {
        cluster_address: cluster.addresses()[..2].to_vec(),
        ..RedisSettings::default()
    }));
    config.prefix = "gateway".into();
    config
}

/// Polls `is_so` while the nodes go on.
async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let since = Instant::now();
    while !is_so() {
        assert!(since.elapsed() < PATIENCE, "waited for {what} in vain");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Two nodes that hold leases, and a reader.
struct Nodes {
    leases: [LeaseHandle; 2],
    watch: watch::Receiver<Arc<Snapshot>>,
    generations: Vec<u64>,
}

impl Nodes {
    async fn start(config: RegistryConfig) -> Nodes {
        let registry = Registry::connect(config).expect("configuration");
        let mut nodes = Nodes {
            leases: [lease(&registry, 1), lease(&registry, 2)],
            watch: registry.watch(),
            generations: Vec::new(),
        };
        for lease in &mut nodes.leases {
            nodes.generations.push(registered(lease).await);
        }
        nodes.both_are_fresh().await;
        nodes
    }

    async fn both_are_fresh(&mut self) {
        snapshot(&mut self.watch, |s| {
            fresh(s) == ["gateway-1", "gateway-2"] && s.error.is_none()
        })
        .await;
    }

    /// Heartbeats arrive again: both sequence numbers rise above what they are now.
    async fn both_beat_again(&mut self, what: &str, since: Instant) {
        let numbers = |s: &Snapshot| -> Vec<u64> {
            let views = s.nodes.values();
            views.map(|view| view.record.seq).collect()
        };
        let before = numbers(&self.watch.borrow());
        snapshot(&mut self.watch, |s| {
            let now = numbers(s);
            let risen = |(now, before): (&u64, &u64)| *now > *before + 1;
            s.error.is_none() && now.len() == 2 && now.iter().zip(&before).all(risen)
        })
        .await;
        println!(
            "{what}: heartbeats are read again after {:?}",
            since.elapsed()
        );
        self.nobody_lost_its_lease();
    }

    fn nobody_lost_its_lease(&mut self) {
        for lease in &mut self.leases {
            while let Some(event) =
                futures_util::FutureExt::now_or_never(lease.next_event()).flatten()
            {
                let is_harmless = matches!(
                    event,
                    LeaseEvent::Unreachable { .. } | LeaseEvent::Restored { .. }
                );
                assert!(is_harmless, "{event:?}");
            }
        }
    }

    async fn leave(mut self) {
        self.leases[0].control().leave("end");
        snapshot(&mut self.watch, |s| s.departed.contains_key("gateway-1")).await;
    }
}

#[tokio::test]
async fn a_master_that_dies_or_is_demoted_is_followed_by_its_sentinels_word() {
    let Some(mut sentinels) = Sentinels::start() else {
        return;
    };
    let mut nodes = Nodes::start(sentinel(&sentinels)).await;
    // Demoted: it lives on, answers READONLY.
    let demoted = Instant::now();
    sentinels.fail_over();
    until("the new master", || sentinels.master() == Some(1)).await;
    nodes.both_beat_again("a master demoted", demoted).await;
    until("whole sentinels", || sentinels.is_whole()).await;
    let killed = Instant::now();
    sentinels.servers[1].kill();
    until("the new master", || sentinels.master() == Some(0)).await;
    nodes.both_beat_again("a master killed", killed).await;
    nodes.leave().await;
}

#[tokio::test]
async fn a_master_that_stands_still_is_left_and_not_believed_when_it_goes_on() {
    let Some(sentinels) = Sentinels::start() else {
        return;
    };
    let mut nodes = Nodes::start(sentinel(&sentinels)).await;
    let paused = Instant::now();
    sentinels.servers[0].pause();
    until("the new master", || sentinels.master() == Some(1)).await;
    nodes.both_beat_again("a master stopped", paused).await;
    sentinels.servers[0].resume();
    until("whole sentinels", || sentinels.is_whole()).await;
    nodes
        .both_beat_again("the old one back", Instant::now())
        .await;
    nodes.leave().await;
}

#[tokio::test]
async fn a_cluster_whose_slot_moves_and_whose_master_dies_is_followed() {
    let Some(mut servers) = Cluster::start() else {
        return;
    };
    let mut nodes = Nodes::start(cluster(&servers)).await;
    let slot = servers.slot("{gateway}:nodes");
    let before = servers.master_of(slot).expect("an owner");
    let to = (before + 1) % 3;
    let moved = Instant::now();
    servers.migrate(slot, to, |_| {});
    nodes.both_beat_again("a slot moved", moved).await;
    let demoted = Instant::now();
    let master = servers.fail_over(to);
    nodes.both_beat_again("a master demoted", demoted).await;
    until("a whole cluster", || servers.is_whole()).await;
    let killed = Instant::now();
    servers.nodes[master].kill();
    nodes.both_beat_again("a master killed", killed).await;
    nodes.leave().await;
}

#[tokio::test]
async fn of_several_servers_the_first_has_the_registry() {
    let (Some(first), Some(second)) = (Server::start(), Server::start()) else {
        return;
    };
    let nodes = Nodes::start(config(deployment(&RedisSettings {
        address: vec![first.url(), second.url()],
        ..RedisSettings::default()
    })))
    .await;
    assert_eq!(first.ask(&["EXISTS", "{gateway}:nodes"]).int(), Some(1));
    assert_eq!(second.ask(&["DBSIZE"]).int(), Some(0));
    nodes.leave().await;
}

#[tokio::test]
async fn tls_with_a_certificate_of_ones_own_a_user_and_a_password() {
    let Some(certificates) = Certificates::make() else {
        return;
    };
    let rule = "on >s3cret ~{gateway}:* &{gateway}:* +@all";
    let Some(server) = Server::secured(&certificates, rule) else {
        return;
    };
    let settings = RedisSettings {
        address: vec![server.tls_url()],
        user: "gateway".into(),
        password: "s3cret".into(),
        tls: RedisTls {
            enabled: true,
            ca_pem: Some(certificates.pem("ca.pem")),
            client_certificate: Some(ClientCertificate {
                certificate_pem: certificates.pem("client.pem"),
                key_pem: certificates.pem("client.key"),
            }),
        },
        ..RedisSettings::default()
    };
    let nodes = Nodes::start(config(deployment(&settings))).await;
    nodes.leave().await;
    let mut nobody = settings;
    nobody.tls.client_certificate = None;
    let registry = Registry::connect(config(deployment(&nobody))).expect("configuration");
    snapshot(&mut registry.watch(), |s| s.error.is_some()).await;
}

#[tokio::test]
async fn valkey_serves_as_well() {
    let Some(server) = Server::start_with(Program::Valkey, &[]) else {
        return;
    };
    let nodes = Nodes::start(config(RedisDeployment::single(server.url()))).await;
    nodes.leave().await;
}

#[test]
fn a_prefix_that_would_spread_the_keys_over_a_cluster_is_refused() {
    let mut spread = config(deployment(&RedisSettings {
        cluster_address: vec!["127.0.0.1:1".into()],
        ..RedisSettings::default()
    }));
    spread.prefix = "gateway".into();
    Registry::connect(spread.clone()).expect("it stands in braces");
    spread.prefix = "{}gateway".into();
    let error = Registry::connect(spread).expect_err("refused");
    assert_eq!(error.key, "registry.prefix");
    assert!(error.message.contains("{gateway}"), "{error}");
}

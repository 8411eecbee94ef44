//! Several servers that know nothing of each other; one with TLS, a user and a password; Valkey.

use flux_redis_fixtures::{Certificates, Program, Server};
use flux_registry::{ClientCertificate, RedisDeployment, RedisSettings, RedisTls};

use crate::node::{HISTORY, Node, deployment, wait_for};
use crate::traffic::{CHANNELS, survives};

fn sharded(servers: &[Server]) -> RedisDeployment {
    deployment(&RedisSettings {
        address: servers.iter().map(Server::url).collect(),
        ..RedisSettings::default()
    })
}

#[test]
fn one_of_several_that_is_away_concerns_only_its_channels() {
    let servers: Option<Vec<Server>> = (0..3).map(|_| Server::start()).collect();
    let Some(mut servers) = servers else { return };
    let deployment = sharded(&servers);
    let nodes = [Node::joined(&deployment), Node::joined(&deployment)];
    let name = format!("127.0.0.1:{}", servers[1].port());
    let verdict = survives(
        "several servers, one stopped",
        &nodes,
        Some(HISTORY),
        || {
            servers[1].pause();
            wait_for("the word about it", || {
                let degraded = nodes[0].readiness.document().degraded;
                degraded
                    .iter()
                    .any(|why| why.contains("1 of 3 servers") && why.contains(&name))
            });
            servers[1].resume();
        },
    );
    assert_eq!(verdict.told, 0, "it has kept its memory");
    let used = servers
        .iter()
        .filter(|server| server.ask(&["DBSIZE"]).int() > Some(0));
    assert!(used.count() > 1, "channels are spread");
    // Dead and empty: its subscribers are told, the others' notice nothing.
    let verdict = survives("several servers, one killed", &nodes, Some(HISTORY), || {
        servers[1].kill();
        wait_for("the loss", || {
            nodes.iter().all(|node| node.metrics.redis_up.get() == 0)
        });
        servers[1].restart();
    });
    assert!(verdict.told < 2 * CHANNELS.len(), "{verdict:?}");
}

#[test]
fn tls_a_client_certificate_a_user_and_a_password() {
    let Some(certificates) = Certificates::make() else {
        return;
    };
    let rule = "on >s3cret ~centrifugo.* &centrifugo.* +@all -@dangerous";
    let Some(server) = Server::secured(&certificates, rule) else {
        return;
    };
    let deployment = deployment(&RedisSettings {
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
    });
    let nodes = [Node::joined(&deployment), Node::joined(&deployment)];
    let verdict = survives("TLS, connections cut", &nodes, Some(HISTORY), || {
        server.tell(&["CLIENT", "KILL", "TYPE", "pubsub"]);
    });
    assert_eq!(verdict.told, 0);
}

#[test]
fn valkey_serves_as_well() {
    let Some(server) = Server::start_with(Program::Valkey, &[]) else {
        return;
    };
    let deployment = RedisDeployment::single(server.url());
    let nodes = [Node::joined(&deployment), Node::joined(&deployment)];
    let verdict = survives("Valkey, connections cut", &nodes, Some(HISTORY), || {
        server.tell(&["CLIENT", "KILL", "TYPE", "pubsub"]);
    });
    assert_eq!(verdict.told, 0);
}

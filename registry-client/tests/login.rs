//! Promise: Redis is reached as it wants to be: password, user, database, TLS, socket.

#![allow(
    clippy::panic,
    clippy::print_stdout,
    reason = "a test fails by a panic and says why it was skipped"
)]

mod common;

use std::process::Command;

use common::{config, fresh, lease, raw, registered, snapshot};
use flux_redis_fixtures::{Certificates, Program, Server};
use flux_registry::{RedisDeployment, RedisLogin, Registry, RegistryConfig, RegistryState};

async fn works(config: RegistryConfig) {
    let registry = Registry::connect(config).expect("configuration");
    let mut watch = registry.watch();
    let mut own = lease(&registry, 1);
    registered(&mut own).await;
    snapshot(&mut watch, |s| fresh(s) == ["gateway-1"]).await;
    // Events come on a connection of their own, with the same login.
    own.control().leave("end");
    snapshot(&mut watch, |s| s.departed.contains_key("gateway-1")).await;
}

async fn is_refused(config: RegistryConfig) {
    let registry = Registry::connect(config).expect("configuration");
    let seen = snapshot(&mut registry.watch(), |s| s.error.is_some()).await;
    assert_eq!(seen.state, RegistryState::Unreachable);
    let error = seen.error.clone().expect("an error");
    assert!(!error.contains("s3cret"), "{error}");
}

fn login(config: &mut RegistryConfig) -> &mut RedisLogin {
    match &mut config.deployment {
        RedisDeployment::Single(login) => login,
        other => panic!("one server, not {other:?}"),
    }
}

#[tokio::test]
async fn a_password_in_the_url_or_beside_it() {
    let Some(server) = Server::start_with(Program::Redis, &["--requirepass", "s3cret"]) else {
        return;
    };
    works(config(&format!(
        "redis://:s3cret@127.0.0.1:{}",
        server.port()
    )))
    .await;
    let mut beside = config(&server.url());
    login(&mut beside).password = Some("s3cret".into());
    works(beside).await;
    is_refused(config(&server.url())).await;
    is_refused(config(&format!(
        "redis://:s3cret-not@127.0.0.1:{}",
        server.port()
    )))
    .await;
}

#[tokio::test]
async fn a_password_that_is_set_later_degrades_and_heals() {
    let Some(server) = Server::start() else {
        return;
    };
    let mut config = config(&server.url());
    login(&mut config).password = Some("s3cret".into());
    let registry = Registry::connect(config).expect("configuration");
    let mut watch = registry.watch();
    let set = |value: &str| {
        let mut command = redis::cmd("CONFIG");
        command.arg("SET").arg("requirepass").arg(value);
        command
    };
    let mut admin = raw(&server.url()).await;
    let _: () = set("another")
        .query_async(&mut admin)
        .await
        .expect("CONFIG SET");
    let mut own = lease(&registry, 1);
    snapshot(&mut watch, |s| s.error.is_some()).await;
    let _: () = set("s3cret")
        .query_async(&mut admin)
        .await
        .expect("CONFIG SET");
    registered(&mut own).await;
    snapshot(&mut watch, |s| fresh(s).len() == 1).await;
}

#[tokio::test]
async fn a_user_that_may_only_what_the_registry_needs() {
    // This is the rule for the README.
    let rule = "on >s3cret resetkeys ~gateway:* resetchannels &gateway:* -@all +@connection +eval +time \
        +ping +subscribe +publish +hget +hset +hdel +hlen +hkeys +hgetall +hstrlen +hexists +zadd +zrem \
        +zscore +zrangebyscore +zrevrangebyscore +incr +get +set";
    let user: Vec<&str> = ["--user", "flux"]
        .into_iter()
        .chain(rule.split_whitespace())
        .collect();
    let Some(server) = Server::start_with(Program::Redis, &user) else {
        return;
    };
    works(config(&format!(
        "redis://flux:s3cret@127.0.0.1:{}",
        server.port()
    )))
    .await;
    let mut beside = config(&server.url());
    login(&mut beside).username = Some("flux".into());
    login(&mut beside).password = Some("s3cret".into());
    works(beside).await;
    let mut foreign = config(&format!("redis://flux:s3cret@127.0.0.1:{}", server.port()));
    foreign.prefix = "other".into();
    is_refused(foreign).await;
}

#[tokio::test]
async fn a_database() {
    let Some(server) = Server::start() else {
        return;
    };
    works(config(&format!("{}/5", server.url()))).await;
    let mut beside = config(&server.url());
    login(&mut beside).database = Some(6);
    works(beside).await;
    for (database, wanted) in [(0, 0), (5, 1), (6, 1)] {
        let mut raw = raw(&format!("{}/{database}", server.url())).await;
        let kept: u64 = redis::cmd("EXISTS")
            .arg("gateway:departed")
            .query_async(&mut raw)
            .await
            .expect("EXISTS");
        assert_eq!(kept, wanted, "database {database}");
    }
}

#[tokio::test]
async fn a_name_instead_of_an_address() {
    let Some(server) = Server::start() else {
        return;
    };
    works(config(&format!("redis://localhost:{}", server.port()))).await;
    is_refused(config(&format!(
        "redis://no-such-host.invalid:{}",
        server.port()
    )))
    .await;
}

#[tokio::test]
async fn a_unix_socket() {
    let Some(server) = Server::start_with(Program::Redis, &["--unixsocket", "redis.sock"]) else {
        return;
    };
    let path = server.directory().join("redis.sock");
    works(config(&format!("redis+unix://{}", path.display()))).await;
}

#[tokio::test]
async fn tls_with_an_authority_of_ones_own() {
    let Some(certificates) = Certificates::make() else {
        return;
    };
    let path = |name: &str| certificates.path(name).display().to_string();
    let (ca, certificate, key) = (path("ca.pem"), path("server.pem"), path("server.key"));
    let args = [
        "--tls-port",
        "$OTHER",
        "--tls-cert-file",
        &certificate,
        "--tls-key-file",
        &key,
        "--tls-ca-cert-file",
        &ca,
        "--tls-auth-clients",
        "no",
    ];
    let probe = Command::new("redis-server")
        .args(["--tls-port", "0", "--check-system"])
        .output();
    if probe.is_ok_and(|output| String::from_utf8_lossy(&output.stdout).contains("Bad directive")) {
        println!("SKIPPED: this redis-server was built without TLS");
        return;
    }
    let Some(server) = Server::start_with(Program::Redis, &args) else {
        return;
    };
    let port = server.argument("--tls-port").expect("it speaks TLS");
    for host in ["127.0.0.1", "localhost"] {
        let mut trusted = config(&format!("rediss://{host}:{}", port));
        login(&mut trusted).ca_pem = Some(certificates.pem("ca.pem"));
        works(trusted).await;
        // The public authorities have not signed it.
        is_refused(config(&format!("rediss://{host}:{}", port))).await;
    }
    is_refused(config(&format!("redis://127.0.0.1:{}", port))).await;
    let insecure = RegistryConfig {
        deployment: RedisDeployment::single(format!("rediss://127.0.0.1:{}/#insecure", port)),
        ..RegistryConfig::default()
    };
    assert!(
        Registry::connect(insecure).is_err(),
        "there is no way around checking"
    );
}

#[test]
fn a_configuration_that_cannot_work_is_refused_by_key() {
    use std::time::Duration;
    let refused = |change: fn(&mut RegistryConfig)| {
        let mut config = RegistryConfig::default();
        change(&mut config);
        Registry::connect(config).expect_err("refused").key
    };
    assert_eq!(
        refused(|c| c.deployment = RedisDeployment::single("http://x")),
        "redis"
    );
    assert_eq!(refused(|c| c.prefix.clear()), "prefix");
    assert_eq!(refused(|c| c.ttl = Duration::from_millis(1)), "ttl");
    assert_eq!(
        refused(|c| c.heartbeat = Duration::from_secs(8)),
        "heartbeat"
    );
    assert_eq!(refused(|c| c.timeout = Duration::ZERO), "timeout");
}

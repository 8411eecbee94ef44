use proptest::prelude::*;

use super::*;

fn list(addresses: &[&str]) -> Vec<String> {
    addresses
        .iter()
        .map(|&address| address.to_owned())
        .collect()
}

fn servers(addresses: &[&str]) -> RedisSettings {
    RedisSettings {
        address: list(addresses),
        ..RedisSettings::default()
    }
}

fn deployment(settings: &RedisSettings) -> RedisDeployment {
    settings.deployment().expect("valid").expect("a deployment")
}

fn key(settings: &RedisSettings) -> &'static str {
    settings.deployment().expect_err("refused").key
}

#[test]
fn nothing_set_is_no_redis() {
    assert_eq!(RedisSettings::default().deployment(), Ok(None));
}

#[test]
fn one_address_is_a_server_and_several_are_shards() {
    for (address, url) in [
        ("h:6380", "redis://h:6380"),
        ("redis://h", "redis://h:6379"),
        ("tcp://h:1", "redis://h:1"),
        ("redis://[::1]:7", "redis://[::1]:7"),
        ("rediss://h:6380/", "rediss://h:6380"),
        (
            "redis+unix:///run/redis.sock",
            "redis+unix:///run/redis.sock",
        ),
    ] {
        let RedisDeployment::Single(login) = deployment(&servers(&[address])) else {
            panic!("{address}");
        };
        assert_eq!(login, RedisLogin::from_url(url));
    }
    let RedisDeployment::Sharded(logins) = deployment(&servers(&["a:1", "redis://b:2"])) else {
        panic!("two of them");
    };
    let urls: Vec<&str> = logins.iter().map(|login| login.url.as_str()).collect();
    assert_eq!(urls, ["redis://a:1", "redis://b:2"]);
}

#[test]
fn credentials_leave_the_url_and_settings_override_them() {
    let mut settings = servers(&["redis://u:p%40@h:1/3"]);
    let RedisDeployment::Single(login) = deployment(&settings) else {
        panic!("one server");
    };
    assert_eq!(login.url, "redis://h:1");
    assert_eq!(login.username.as_deref(), Some("u"));
    assert_eq!(login.password.as_deref(), Some("p@"));
    assert_eq!(login.database, Some(3));
    settings.user = "v".into();
    settings.password = "q".into();
    settings.db = 4;
    settings.tls = RedisTls {
        enabled: true,
        ca_pem: Some(b"pem".to_vec()),
        client_certificate: None,
    };
    let RedisDeployment::Single(login) = deployment(&settings) else {
        panic!("one server");
    };
    assert_eq!(login.url, "rediss://h:1");
    assert_eq!(login.username.as_deref(), Some("v"));
    assert_eq!(login.password.as_deref(), Some("q"));
    assert_eq!(login.database, Some(4));
    assert_eq!(login.ca_pem.as_deref(), Some(&b"pem"[..]));
}

#[test]
fn sentinels_have_credentials_of_their_own() {
    let mut settings = RedisSettings {
        sentinel_address: list(&["s1:26379", "redis://s2:26379"]),
        sentinel_master_name: "main".into(),
        sentinel_password: "sp".into(),
        user: "u".into(),
        password: "p".into(),
        db: 2,
        ..RedisSettings::default()
    };
    settings.tls.enabled = true;
    let RedisDeployment::Sentinel(found) = deployment(&settings) else {
        panic!("sentinels");
    };
    assert_eq!(found.master_name, "main");
    assert_eq!(found.sentinels.len(), 2);
    assert_eq!(found.sentinels[0].url, "redis://s1:26379");
    assert_eq!(found.sentinels[0].username, None);
    assert_eq!(found.sentinels[0].password.as_deref(), Some("sp"));
    assert_eq!(found.master.username.as_deref(), Some("u"));
    assert_eq!(found.master.database, Some(2));
    assert!(found.master.url.starts_with("rediss://"));
    settings.sentinel_master_name.clear();
    assert_eq!(key(&settings), "engine.redis.sentinel_master_name");
}

#[test]
fn the_short_way_says_all_of_it() {
    let short = |text: &str| RedisDeployment::from_short(text, "");
    assert_eq!(
        short("redis://h"),
        Ok(RedisDeployment::single("redis://h:6379"))
    );
    let Ok(RedisDeployment::Sharded(logins)) = short("h:1, rediss://u:p@g:2") else {
        panic!("two servers");
    };
    assert_eq!(logins[1].url, "rediss://g:2");
    let Ok(RedisDeployment::Single(login)) = short("redis://:a,b@h:1") else {
        panic!("a comma in a password");
    };
    assert_eq!(login.password.as_deref(), Some("a,b"));
    let text = "redis+sentinel://u:p@s1:1/2?sentinel_master_name=m&addr=s2:2&sentinel_password=sp";
    let Ok(RedisDeployment::Sentinel(found)) = short(text) else {
        panic!("sentinels");
    };
    let urls: Vec<&str> = found
        .sentinels
        .iter()
        .map(|login| login.url.as_str())
        .collect();
    assert_eq!(urls, ["redis://s1:1", "redis://s2:2"]);
    assert_eq!(found.master_name, "m");
    assert_eq!(found.sentinels[1].password.as_deref(), Some("sp"));
    assert_eq!(found.sentinels[0].username, None);
    assert_eq!(found.master.password.as_deref(), Some("p"));
    assert_eq!(found.master.database, Some(2));
    let Ok(RedisDeployment::Cluster(seeds)) = short("rediss+cluster://:p@a:1?addr=b:2") else {
        panic!("a cluster");
    };
    assert_eq!(seeds.len(), 2);
    assert_eq!(seeds[1].url, "rediss://b:2");
    assert_eq!(seeds[1].password.as_deref(), Some("p"));
    for wrong in [
        "",
        "redis+cluster://a:1/1",
        "redis+cluster://a:1?x=1",
        "redis+sentinel://a:1",
        "redis+sentinel://a:1?sentinel_master_name=%61",
        "redis+other://a:1",
        "http+cluster://a:1",
    ] {
        assert_eq!(short(wrong).expect_err(wrong).key, "redis");
    }
    let unread = RedisDeployment::from_short("redis://h", "/no/such/file");
    assert_eq!(unread.expect_err("no file").key, "redis_ca_file");
}

#[test]
fn what_cannot_work_is_refused_by_its_key_and_without_passwords() {
    let cluster = RedisSettings {
        cluster_address: list(&["a:1", "b:1"]),
        ..RedisSettings::default()
    };
    assert!(deployment(&cluster).is_cluster());
    let mut both = cluster.clone();
    both.address = list(&["c:1"]);
    assert_eq!(key(&both), CLUSTER);
    let mut database = cluster.clone();
    database.db = 1;
    assert_eq!(key(&database), "engine.redis.db");
    database.db = 0;
    database.cluster_address = list(&["redis://a:1/1"]);
    assert_eq!(key(&database), CLUSTER);
    let mut socket = cluster.clone();
    socket.cluster_address = list(&["redis+unix:///x"]);
    assert_eq!(key(&socket), CLUSTER);
    let mut named = cluster;
    named.sentinel_master_name = "main".into();
    assert_eq!(key(&named), "engine.redis.sentinel_master_name");
    let many: Vec<String> = (0..=REDIS_ENDPOINTS_MAX)
        .map(|n| format!("h{n}:1"))
        .collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    for addresses in [
        &many[..],
        &[""],
        &["h"],
        &[":1"],
        &["h:port"],
        &["http://:s3cret@h"],
        &["redis://:s3cret@h:port"],
        &["rediss://:s3cret@h/#insecure"],
        &["a:1", "a:1"],
        &["a:1", "redis://a:1"],
    ] {
        let error = servers(addresses).deployment().expect_err("refused");
        assert_eq!(error.key, ADDRESS);
        assert!(!error.to_string().contains("s3cret"), "{error}");
    }
}

proptest! {
    #[test]
    fn no_address_makes_it_panic(address in "\\PC{0,40}", scheme in "(redis|rediss|unix|tcp|redis\\+sentinel|redis\\+cluster|)(://|)") {
        let _ = servers(&[&address]).deployment();
        let _ = servers(&[&format!("{scheme}{address}")]).deployment();
    }
}

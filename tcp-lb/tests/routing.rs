//! Where connections go: affinity, source fallback, heads of all kinds, the admin pages.

mod cluster;

use cluster::{Client, Cluster, config, run, until};
use flux_lb::config::{Affinity, Config};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

#[test]
fn one_sid_goes_to_one_node_as_api_ring_says() {
    run(async {
        let cluster = Cluster::of(3).await;
        let mut used = std::collections::BTreeSet::new();
        for number in 0..30 {
            let sid = format!("user-{number}");
            let placed = cluster.place(&sid).await;
            let mut client = cluster.client(&sid).await;
            assert_eq!(client.node, placed);
            client.round_trip(b"hello").await;
            used.insert(client.node);
        }
        assert_eq!(used.len(), 3, "all nodes get some");
    });
}

#[test]
fn api_ring_lists_all_candidates_owner_first_and_stable() {
    run(async {
        let mut cluster = Cluster::of(3).await;
        let before = cluster.page("/api/ring?key=alice").await;
        assert_eq!(before["key"], "alice");
        assert_eq!(before["candidates"].as_array().map(Vec::len), Some(3));
        assert_eq!(before["candidates"][0], before["node"]);
        let owner = before["node"].as_str().expect("a node").to_owned();
        cluster.node_mut(&owner).kill();
        until("the killed owner is routed around", || async {
            cluster.place("alice").await != owner
        })
        .await;
        let after = cluster.page("/api/ring?key=alice").await;
        assert_eq!(after["candidates"], before["candidates"]);
        assert_eq!(after["node"], before["candidates"][1]);
    });
}

#[test]
fn the_cookie_is_a_key_too_and_means_the_same() {
    run(async {
        let cluster = Cluster::of(3).await;
        for number in 0..10 {
            let sid = format!("user-{number}");
            let head =
                format!("GET /ws HTTP/1.1\r\nHost: a\r\nCookie: a=b; flux_sid={sid}\r\n\r\n");
            let client =
                Client::greet(cluster.raw().await.expect("connected"), head.as_bytes()).await;
            assert_eq!(client.expect("answered").node, cluster.place(&sid).await);
        }
    });
}

#[test]
fn without_a_sid_the_source_address_is_the_key() {
    run(async {
        let cluster = Cluster::of(3).await;
        let placed = cluster.place("127.0.0.1").await;
        for _ in 0..2 {
            let head = b"GET /ws HTTP/1.1\r\nHost: a\r\n\r\n";
            let client = Client::greet(cluster.raw().await.expect("connected"), head).await;
            assert_eq!(client.expect("answered").node, placed);
        }
    });
}

#[test]
fn affinity_by_source_reads_nothing_before_connecting() {
    run(async {
        let cluster = Cluster::with(
            3,
            Config {
                affinity: Affinity::Source,
                ..config()
            },
        )
        .await;
        let placed = cluster.place("127.0.0.1").await;
        let silent = cluster.raw().await.expect("connected");
        until("the node has the connection", || async {
            cluster.node(&placed).accepted() == 1
        })
        .await;
        let mut client = Client::greet(silent, b"GET /?sid=x HTTP/1.1\r\n\r\n")
            .await
            .expect("answered");
        assert_eq!(client.node, placed);
        client.round_trip(b"later").await;
    });
}

#[test]
fn what_is_not_http_is_passed_on_at_once() {
    run(async {
        let cluster = Cluster::of(3).await;
        let mut socket = cluster.raw().await.expect("connected");
        socket
            .write_all(b"\x16\x03\x01hello")
            .await
            .expect("written");
        let mut back = [0; 8];
        socket.read_exact(&mut back).await.expect("echoed");
        assert_eq!(&back, b"\x16\x03\x01hello");
        assert!(cluster.metric("flux_lb_opaque_heads_total").await >= 1.0);
    });
}

#[test]
fn a_head_torn_into_single_bytes_is_placed_by_its_sid() {
    run(async {
        let cluster = Cluster::of(3).await;
        let placed = cluster.place("torn").await;
        let mut socket = cluster.raw().await.expect("connected");
        for byte in b"GET /ws?sid=torn HTTP/1.1\r\nHost: a\r\n\r\n" {
            socket.write_all(&[*byte]).await.expect("written");
            tokio::task::yield_now().await;
        }
        assert_eq!(
            Client::answered(socket).await.expect("answered").node,
            placed
        );
    });
}

#[test]
fn a_huge_head_reaches_the_node_whole() {
    run(async {
        let cluster = Cluster::of(2).await;
        let mut head = b"GET /ws?sid=huge HTTP/1.1\r\nX: ".to_vec();
        head.resize(60_000, b'a');
        head.extend_from_slice(b"\r\n\r\n");
        let client = Client::greet(cluster.raw().await.expect("connected"), &head)
            .await
            .expect("answered");
        let seen = cluster
            .node(&client.node)
            .seen
            .first_bytes
            .lock()
            .expect("lock")
            .pop()
            .expect("a head");
        assert_eq!(seen[28..], head, "the gateway judges it, not the balancer");
        assert_eq!(client.node, cluster.place("127.0.0.1").await);
    });
}

#[test]
fn a_client_that_says_nothing_is_passed_on_by_source() {
    run(async {
        let cluster = Cluster::with(
            3,
            Config {
                head_timeout_ms: 200,
                ..config()
            },
        )
        .await;
        let placed = cluster.place("127.0.0.1").await;
        let silent = cluster.raw().await.expect("connected");
        let mut half = cluster.raw().await.expect("connected");
        half.write_all(b"GET /?sid=half HTTP/1.1\r\n")
            .await
            .expect("written");
        until("both are passed on", || async {
            cluster.node(&placed).accepted() == 2
        })
        .await;
        half.write_all(b"\r\n").await.expect("written");
        assert_eq!(Client::answered(half).await.expect("answered").node, placed);
        drop(silent);
    });
}

#[test]
fn the_node_is_told_who_the_client_is() {
    run(async {
        let cluster = Cluster::of(1).await;
        let client = cluster.client("a").await;
        let seen = cluster.nodes[0]
            .seen
            .first_bytes
            .lock()
            .expect("lock")
            .pop()
            .expect("bytes");
        let mut expected =
            b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c\x7f\x00\x00\x01\x7f\x00\x00\x01".to_vec();
        expected.extend_from_slice(
            &client
                .socket
                .local_addr()
                .expect("bound")
                .port()
                .to_be_bytes(),
        );
        expected.extend_from_slice(&cluster.balancer.listen.port().to_be_bytes());
        assert_eq!(seen[..28], expected);
        assert!(seen[28..].starts_with(b"GET /ws?sid=a HTTP/1.1\r\n"));
    });
}

#[test]
fn the_proxy_header_can_be_left_out() {
    run(async {
        let cluster = Cluster::with(
            1,
            Config {
                proxy_protocol: false,
                ..config()
            },
        )
        .await;
        cluster.client("a").await;
        let seen = cluster.nodes[0]
            .seen
            .first_bytes
            .lock()
            .expect("lock")
            .pop()
            .expect("bytes");
        assert!(seen.starts_with(b"GET /ws?sid=a"));
    });
}

#[test]
fn the_pages_show_what_interfaces_promise() {
    run(async {
        let cluster = Cluster::of(2).await;
        let _client = cluster.client("a").await;
        let nodes = cluster.nodes_page().await;
        for node in &nodes {
            let keys: Vec<&str> = node
                .as_object()
                .expect("an object")
                .keys()
                .map(String::as_str)
                .collect();
            let mut promised = vec![
                "id",
                "addr",
                "state",
                "eligible",
                "reason",
                "probe",
                "weight",
                "flows",
                "ring_share",
            ];
            promised.sort_unstable();
            let mut keys = keys;
            keys.sort_unstable();
            assert_eq!(keys, promised);
            assert_eq!(
                (&node["state"], &node["probe"]),
                (&"READY".into(), &"ok".into())
            );
        }
        let flows: u64 = nodes.iter().filter_map(|node| node["flows"].as_u64()).sum();
        let share: f64 = nodes
            .iter()
            .filter_map(|node| node["ring_share"].as_f64())
            .sum();
        assert_eq!(flows, 1);
        assert!((share - 1.0).abs() < 1e-9);
        let ready = cluster.page("/ready").await;
        assert_eq!(ready["ready"], true);
        let status = cluster.page("/api/status").await;
        assert_eq!(
            (&status["state"], &status["flows"]),
            (&"ready".into(), &1.into())
        );
        assert!(cluster.metric("flux_lb_registry_age_seconds").await < 5.0);
    });
}

#[test]
fn a_balancer_that_never_knew_a_node_is_not_ready_and_tells_clients() {
    run(async {
        let cluster = Cluster::of(0).await;
        let ready = cluster.page("/ready").await;
        assert_eq!(
            (&ready["ready"], &ready["reasons"][0]),
            (&false.into(), &"no node was ever known".into())
        );
        let client = cluster.client("a").await;
        assert_eq!(client.status, "503");
    });
}

#[test]
fn two_shards_place_alike() {
    run(async {
        let cluster = Cluster::with(
            3,
            Config {
                shards: 2,
                ..config()
            },
        )
        .await;
        let placed = cluster.place("alice").await;
        for _ in 0..3 {
            assert_eq!(cluster.client("alice").await.node, placed);
        }
    });
}

//! Nodes that die, freeze, drain and come back; no new connection fails while a node is eligible.

mod cluster;

use std::time::{Duration, Instant};

use cluster::{Client, Cluster, Manner, Ready, config, run, until};
use flux_lb::config::Config;
use flux_registry::NodeState;
use tokio::io::AsyncWriteExt;

#[test]
fn none_of_1000_connections_fails_while_a_node_is_killed() {
    run(async {
        let mut cluster = Cluster::of(3).await;
        let mut untouched = Vec::new();
        for number in 0..12 {
            let client = cluster.client(&format!("resident-{number}")).await;
            if client.node != "node-2" {
                untouched.push(client);
            }
        }
        for number in 0..1000 {
            if number == 300 {
                cluster.node_mut("node-2").kill();
            }
            let mut client = cluster.client(&format!("guest-{number}")).await;
            assert_eq!(client.status, "101", "connection {number}");
            assert!(number < 300 || client.node != "node-2");
            if number % 50 == 0 {
                client.round_trip(b"x").await;
            }
        }
        until("it is out of routing", || async {
            !cluster.eligible("node-2").await
        })
        .await;
        for client in &mut untouched {
            client.round_trip(b"still here").await;
        }
        assert_eq!(cluster.metric("flux_lb_no_node_total").await, 0.0);
        assert!(cluster.metric("flux_lb_retries_total").await >= 1.0);
    });
}

#[test]
fn a_killed_node_is_out_of_routing_within_3_s_without_any_client() {
    run(async {
        let mut cluster = Cluster::of(3).await;
        let killed = Instant::now();
        cluster.node_mut("node-2").kill();
        until("it is out", || async { !cluster.eligible("node-2").await }).await;
        assert!(
            killed.elapsed() < Duration::from_secs(3),
            "{:?}",
            killed.elapsed()
        );
    });
}

#[test]
fn a_frozen_node_is_out_of_routing_within_4_s_and_back_later() {
    run(async {
        let cluster = Cluster::of(3).await;
        let frozen = Instant::now();
        cluster.node("node-2").say_ready(Ready::Frozen);
        until("it is out", || async { !cluster.eligible("node-2").await }).await;
        assert!(
            frozen.elapsed() < Duration::from_secs(4),
            "{:?}",
            frozen.elapsed()
        );
        cluster.node("node-2").say_ready(Ready::Yes);
        until("it is back", || async { cluster.eligible("node-2").await }).await;
        assert_eq!(
            cluster.node_status("node-2").await.expect("listed")["reason"],
            "slow start"
        );
    });
}

#[test]
fn a_node_that_says_503_gets_no_new_connections_and_keeps_its_flows() {
    run(async {
        let cluster = Cluster::of(3).await;
        let key = cluster.key_of("node-2").await;
        let mut client = cluster.client(&key).await;
        cluster.node("node-2").say_ready(Ready::No);
        until("it is out", || async { !cluster.eligible("node-2").await }).await;
        assert_eq!(
            cluster.node_status("node-2").await.expect("listed")["reason"],
            "says 503: shard 1 hangs"
        );
        assert_ne!(cluster.client(&key).await.node, "node-2");
        client.round_trip(b"kept").await;
    });
}

#[test]
fn a_silent_node_is_passed_over_after_2_s_with_the_head_replayed() {
    run(async {
        let cluster = Cluster::of(3).await;
        let key = cluster.key_of("node-1").await;
        cluster.node("node-1").behave(Manner::Silent);
        let began = Instant::now();
        let mut client = cluster.client(&key).await;
        let took = began.elapsed();
        assert!(
            (Duration::from_millis(1900)..Duration::from_millis(3500)).contains(&took),
            "{took:?}"
        );
        assert_ne!(client.node, "node-1");
        client.round_trip(b"on the other").await;
        let first = cluster
            .node("node-1")
            .seen
            .first_bytes
            .lock()
            .expect("lock")
            .clone();
        let second = cluster
            .node(&client.node)
            .seen
            .first_bytes
            .lock()
            .expect("lock")
            .clone();
        assert_eq!(first, second, "byte for byte, PROXY header included");
    });
}

#[test]
fn a_node_that_resets_is_passed_over_at_once() {
    run(async {
        let cluster = Cluster::of(3).await;
        let key = cluster.key_of("node-1").await;
        cluster.node("node-1").behave(Manner::Reset);
        let began = Instant::now();
        let client = cluster.client(&key).await;
        assert!(began.elapsed() < Duration::from_secs(1));
        assert_ne!(client.node, "node-1");
        assert_eq!(cluster.node("node-1").accepted(), 1);
    });
}

#[test]
fn a_request_that_may_do_harm_twice_is_never_sent_twice() {
    run(async {
        let cluster = Cluster::of(3).await;
        let key = cluster.key_of("node-1").await;
        for node in &cluster.nodes {
            node.behave(Manner::Silent);
        }
        let head = format!("POST /emulation?sid={key} HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello");
        let mut socket = cluster.raw().await.expect("connected");
        socket.write_all(head.as_bytes()).await.expect("written");
        until("the owner has it", || async {
            cluster
                .node("node-1")
                .seen
                .first_bytes
                .lock()
                .expect("lock")
                .len()
                == 1
        })
        .await;
        let began = Instant::now();
        until("the answer timeout is long over", || async {
            began.elapsed() > Duration::from_millis(2500)
        })
        .await;
        assert_eq!(
            cluster.node("node-2").accepted() + cluster.node("node-3").accepted(),
            0
        );
    });
}

#[test]
fn when_every_node_is_silent_the_last_one_may_take_its_time() {
    run(async {
        let cluster = Cluster::with(
            2,
            Config {
                answer_timeout_ms: 100,
                ..config()
            },
        )
        .await;
        for node in &cluster.nodes {
            node.behave(Manner::Silent);
        }
        let mut socket = cluster.raw().await.expect("connected");
        socket
            .write_all(b"GET /?sid=a HTTP/1.1\r\n\r\n")
            .await
            .expect("written");
        until("both were tried", || async {
            cluster.nodes.iter().all(|node| node.accepted() == 1)
        })
        .await;
        let began = Instant::now();
        until("time passes", || async {
            began.elapsed() > Duration::from_millis(500)
        })
        .await;
        let status = cluster.page("/api/status").await;
        assert_eq!(status["flows"], 1, "the connection stands");
    });
}

#[test]
fn when_no_node_listens_the_client_is_told() {
    run(async {
        let mut cluster = Cluster::of(2).await;
        for node in &mut cluster.nodes {
            node.kill();
        }
        let client = cluster.client("a").await;
        assert_eq!(client.status, "503");
    });
}

#[test]
fn a_draining_node_gets_no_new_connections_and_keeps_its_flows() {
    run(async {
        let cluster = Cluster::of(3).await;
        let key = cluster.key_of("node-3").await;
        let mut client = cluster.client(&key).await;
        cluster.node("node-3").set_state(NodeState::Draining);
        until("the balancer knows", || async {
            !cluster.eligible("node-3").await
        })
        .await;
        let status = cluster.node_status("node-3").await.expect("listed");
        assert_eq!(
            (&status["state"], &status["reason"]),
            (&"DRAINING".into(), &"draining".into())
        );
        let before = cluster.node("node-3").accepted();
        for number in 0..50 {
            cluster.client(&format!("guest-{number}")).await;
        }
        assert_eq!(cluster.node("node-3").accepted(), before);
        client.round_trip(b"kept").await;
    });
}

#[test]
fn a_node_that_is_absent_but_answers_keeps_its_flows_and_gets_none() {
    run(async {
        let mut cluster = Cluster::of(3).await;
        let key = cluster.key_of("node-2").await;
        let mut client = cluster.client(&key).await;
        cluster.node_mut("node-2").forsake();
        until("its lease is over", || async {
            !cluster.eligible("node-2").await
        })
        .await;
        assert_eq!(
            cluster.node_status("node-2").await.expect("listed")["state"],
            "ABSENT"
        );
        assert_ne!(cluster.client(&key).await.node, "node-2");
        client.round_trip(b"kept").await;
    });
}

#[test]
fn a_node_that_is_absent_and_fails_has_its_flows_cut_at_once() {
    run(async {
        let mut cluster = Cluster::of(3).await;
        let key = cluster.key_of("node-2").await;
        let mut client = cluster.client(&key).await;
        let mut other = cluster.client(&cluster.key_of("node-1").await).await;
        // The node's connections stand (no FIN, no RST: its network is gone), its probes do not answer.
        cluster.node("node-2").say_ready(Ready::Frozen);
        cluster.node_mut("node-2").forsake();
        let cut_at = Instant::now();
        while !client.has_ended().await {
            assert!(cut_at.elapsed() < cluster::PATIENCE, "never cut");
        }
        assert!(cluster.node_status("node-2").await.is_none());
        assert_eq!(cluster.metric("flux_lb_flows_cut_total").await, 1.0);
        other.round_trip(b"untouched").await;
    });
}

#[test]
fn a_registry_that_is_away_empty_or_back_changes_nothing_for_living_nodes() {
    run(async {
        let cluster = Cluster::of(3).await;
        let key = cluster.key_of("node-2").await;
        let mut client = cluster.client(&key).await;
        cluster.store.set_away(true);
        until("the balancer says so", || async {
            let ready = cluster.page("/ready").await;
            ready["ready"] == true
                && ready["degraded"][0]
                    .as_str()
                    .is_some_and(|text| text.contains("unreachable"))
        })
        .await;
        let began = Instant::now();
        until("three TTLs are over", || async {
            began.elapsed() > Duration::from_secs(3)
        })
        .await;
        assert_eq!(cluster.client(&key).await.node, "node-2");
        cluster.store.clear();
        cluster.store.set_away(false);
        let began = Instant::now();
        until("all are back", || async {
            for id in ["node-1", "node-2", "node-3"] {
                assert!(cluster.eligible(id).await, "{id} was never out");
            }
            let degraded = &cluster.page("/ready").await["degraded"];
            degraded.as_array().is_some_and(Vec::is_empty)
                && began.elapsed() > Duration::from_secs(2)
        })
        .await;
        assert_eq!(cluster.client(&key).await.node, "node-2");
        client.round_trip(b"never dropped").await;
    });
}

#[test]
fn a_node_that_comes_back_gets_its_own_keys_back_slowly() {
    run(async {
        let mut cluster = Cluster::with(
            3,
            Config {
                slow_start_seconds: 3,
                ..config()
            },
        )
        .await;
        let key = cluster.key_of("node-2").await;
        // The window in which nodes count as part of the start.
        let began = Instant::now();
        until("the start is over", || async {
            began.elapsed() > Duration::from_secs(3)
        })
        .await;
        cluster.node_mut("node-2").kill();
        until("it is out", || async { !cluster.eligible("node-2").await }).await;
        cluster.node_mut("node-2").revive().await;
        cluster.node_mut("node-2").register();
        until("it is back", || async { cluster.eligible("node-2").await }).await;
        let back = Instant::now();
        let mut early = 0;
        for number in 0..200 {
            early += usize::from(cluster.place(&format!("key-{number}")).await == "node-2");
        }
        let share_at = back.elapsed().as_secs_f64() / 3.0;
        assert!(
            early as f64 <= 200.0 / 3.0 * (share_at + 0.25),
            "{early} of 200 after {:?}",
            back.elapsed()
        );
        until("its share is whole", || async {
            cluster.place(&key).await == "node-2" && back.elapsed().as_secs() > 3
        })
        .await;
        assert_eq!(
            cluster.node_status("node-2").await.expect("listed")["reason"],
            ""
        );
    });
}

#[test]
fn the_last_known_nodes_outlive_a_restart_without_the_registry() {
    run(async {
        let folder = tempfile::tempdir().expect("a folder");
        let state_file = Some(folder.path().join("nodes.json"));
        let cluster = Cluster::with(
            2,
            Config {
                state_file: state_file.clone(),
                ..config()
            },
        )
        .await;
        let Cluster {
            store,
            registry,
            nodes,
            balancer,
        } = cluster;
        balancer.drain(Duration::ZERO).await;
        store.set_away(true);
        let away = flux_registry::Registry::memory(store.clone(), cluster::registry_times())
            .expect("a registry");
        drop(registry);
        let balancer = flux_lb::balancer::Balancer::start(
            Config {
                state_file,
                ..config()
            },
            &away,
        )
        .await
        .expect("started");
        let cluster = Cluster {
            store,
            registry: away,
            nodes,
            balancer,
        };
        until("both are eligible", || async {
            cluster.eligible("node-1").await && cluster.eligible("node-2").await
        })
        .await;
        assert_eq!(cluster.client("a").await.status, "101");
        assert_eq!(cluster.page("/ready").await["ready"], true);
    });
}

#[test]
fn many_clients_of_one_key_are_spread_by_the_load_bound() {
    run(async {
        let cluster = Cluster::with(
            3,
            Config {
                load_bound: 1.25,
                ..config()
            },
        )
        .await;
        let mut clients: Vec<Client> = Vec::new();
        for _ in 0..120 {
            clients.push(cluster.client("one").await);
        }
        for node in &cluster.nodes {
            let count = clients
                .iter()
                .filter(|client| client.node == node.id)
                .count();
            assert!(count <= 60, "{count} of 120 on {}", node.id);
        }
    });
}

#[test]
fn a_connection_waits_for_the_only_node_to_come_back() {
    run(async {
        let mut cluster = Cluster::of(1).await;
        cluster.nodes[0].tasks_end();
        let socket = cluster.raw().await.expect("connected");
        let waiting = tokio::spawn(Client::greet(socket, b"GET /?sid=a HTTP/1.1\r\n\r\n"));
        until("it was tried in vain", || async {
            cluster.metric("flux_lb_retries_total").await >= 2.0
        })
        .await;
        cluster.nodes[0].revive().await;
        assert_eq!(waiting.await.expect("ran").expect("answered").status, "101");
    });
}

#[test]
fn a_node_that_drops_connections_in_a_storm_gets_them_later() {
    run(async {
        // A backlog of one that nobody empties: the kernel drops further handshakes, and takes them later.
        let cluster = Cluster::of(0).await;
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)
            .expect("a socket");
        socket
            .bind(&std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into())
            .expect("bound");
        socket.listen(1).expect("listening");
        let addr = socket
            .local_addr()
            .expect("bound")
            .as_socket()
            .expect("an address");
        let _lease = flux_registry::run_lease(&cluster.registry, move |_| {
            let mut record = flux_registry::NodeRecord::new("busy", addr);
            record.state = NodeState::Ready;
            Ok(record)
        });
        until("it is known", || async { cluster.eligible("busy").await }).await;
        let mut clients = Vec::new();
        for _ in 0..6 {
            let mut client = cluster.raw().await.expect("connected");
            client.write_all(b"\x00hello").await.expect("written");
            clients.push(client);
        }
        let began = Instant::now();
        until("the connect timeout is over", || async {
            began.elapsed() > Duration::from_millis(700)
        })
        .await;
        assert_eq!(cluster.page("/api/status").await["flows"], 6);
        socket.set_nonblocking(true).expect("set");
        let mut accepted = Vec::new();
        until("all arrive", || {
            accepted.extend(socket.accept());
            let all = accepted.len() == 6;
            async move { all }
        })
        .await;
        assert_eq!(cluster.metric("flux_lb_no_node_total").await, 0.0);
    });
}

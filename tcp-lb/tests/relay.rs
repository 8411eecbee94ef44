//! Bytes both ways: order, half-close, backpressure, bounds, the drain.

mod cluster;

use std::time::{Duration, Instant};

use cluster::{Cluster, Manner, config, run, until};
use flux_lb::config::Config;
use flux_runtime::ring::RingConfig;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Bytes that show their place.
fn pattern(len: usize, seed: u64) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(seed);
    (0..len).map(|_| random.u8(..)).collect()
}

#[test]
fn megabytes_arrive_in_order_both_ways_at_once() {
    run(async {
        let seed = fastrand::u64(..);
        println!("seed {seed}");
        let cluster = Cluster::of(1).await;
        let client = cluster.client("a").await;
        let (mut read, mut write) = client.socket.into_split();
        let sent = pattern(20 << 20, seed);
        let expected = sent.clone();
        let writing = tokio::spawn(async move {
            let mut random = fastrand::Rng::with_seed(seed);
            let mut rest = &sent[..];
            while !rest.is_empty() {
                let count = random.usize(1..=rest.len().min(100_000));
                write.write_all(&rest[..count]).await.expect("written");
                rest = &rest[count..];
            }
            write.shutdown().await.expect("half closed");
        });
        let mut received = Vec::new();
        read.read_to_end(&mut received)
            .await
            .expect("echoed to the end");
        writing.await.expect("written");
        assert!(
            received == expected,
            "{} of {} bytes",
            received.len(),
            expected.len()
        );
        until("the flow is over", || async {
            cluster.page("/api/status").await["flows"] == 0
        })
        .await;
    });
}

#[test]
fn a_client_that_half_closes_still_gets_the_rest() {
    run(async {
        let cluster = Cluster::of(1).await;
        let mut client = cluster.client("a").await;
        client
            .socket
            .write_all(b"last words")
            .await
            .expect("written");
        client.socket.shutdown().await.expect("half closed");
        let mut rest = Vec::new();
        client.socket.read_to_end(&mut rest).await.expect("read");
        assert_eq!(rest, b"last words");
        until("the node has seen the end", || async {
            cluster.nodes[0].open() == 0
        })
        .await;
    });
}

#[test]
fn a_head_followed_by_a_half_close_is_answered() {
    run(async {
        let cluster = Cluster::of(1).await;
        let mut socket = cluster.raw().await.expect("connected");
        socket
            .write_all(b"GET /?sid=a HTTP/1.1\r\n\r\n")
            .await
            .expect("written");
        socket.shutdown().await.expect("half closed");
        let mut all = String::new();
        socket
            .read_to_string(&mut all)
            .await
            .expect("read to the end");
        assert!(all.starts_with("HTTP/1.1 101"), "{all}");
        assert_eq!(cluster.metric("flux_lb_retries_total").await, 0.0);
    });
}

#[test]
fn a_node_that_half_closes_can_still_be_spoken_to() {
    run(async {
        // A server of our own that ends its side at once and reads on.
        let cluster = Cluster::of(0).await;
        let server = tokio::net::TcpListener::bind("127.0.0.1:0")
            .await
            .expect("a port");
        let addr = server.local_addr().expect("bound");
        let _lease = flux_registry::run_lease(&cluster.registry, move |_| {
            let mut record = flux_registry::NodeRecord::new("own", addr);
            record.state = flux_registry::NodeState::Ready;
            Ok(record)
        });
        until("it is known", || async { cluster.eligible("own").await }).await;
        let serving = tokio::spawn(async move {
            let (mut socket, _) = server.accept().await.expect("accepted");
            let mut head = vec![0; 28 + 24];
            socket.read_exact(&mut head).await.expect("the head");
            socket.write_all(b"bye").await.expect("written");
            socket.shutdown().await.expect("half closed");
            let mut rest = Vec::new();
            socket.read_to_end(&mut rest).await.expect("read");
            rest
        });
        let mut socket = cluster.raw().await.expect("connected");
        socket
            .write_all(b"GET /?sid=a HTTP/1.1\r\n\r\n")
            .await
            .expect("written");
        let mut said = String::new();
        socket.read_to_string(&mut said).await.expect("read");
        assert_eq!(said, "bye");
        socket.write_all(b"and you").await.expect("written");
        socket.shutdown().await.expect("closed");
        assert_eq!(serving.await.expect("served"), b"and you");
    });
}

#[test]
fn a_side_that_does_not_read_stops_the_other_within_bounds() {
    run(async {
        let cluster = Cluster::of(1).await;
        cluster.nodes[0].behave(Manner::Deaf);
        let client = cluster.client("a").await;
        let mut other = {
            cluster.nodes[0].behave(Manner::Echo);
            cluster.client("b").await
        };
        let (_read, mut write) = client.socket.into_split();
        let chunk = vec![7; 1 << 20];
        let mut written = 0;
        // Kernel buffers of two connections, and our bound: it must end well below this.
        while written < 200 << 20 {
            match tokio::time::timeout(Duration::from_millis(500), write.write(&chunk)).await {
                Ok(count) => written += count.expect("written"),
                Err(_) => break,
            }
        }
        assert!(written < 100 << 20, "{written} bytes went nowhere");
        assert!(cluster.metric("flux_lb_backpressure_total").await >= 1.0);
        other.round_trip(b"unharmed").await;
    });
}

#[test]
fn a_side_that_takes_nothing_for_too_long_ends_the_flow() {
    run(async {
        let cluster = Cluster::with(
            1,
            Config {
                stalled_timeout_ms: 1000,
                ..config()
            },
        )
        .await;
        cluster.nodes[0].behave(Manner::Deaf);
        let client = cluster.client("a").await;
        let (_read, mut write) = client.socket.into_split();
        let chunk = vec![7; 1 << 20];
        let failed = tokio::time::timeout(cluster::PATIENCE, async {
            loop {
                if write.write_all(&chunk).await.is_err() {
                    return;
                }
            }
        });
        failed.await.expect("the flow ends");
        assert_eq!(cluster.metric("flux_lb_flows_stalled_total").await, 1.0);
    });
}

#[test]
fn a_flow_half_closed_for_too_long_ends() {
    run(async {
        let cluster = Cluster::with(
            1,
            Config {
                half_closed_timeout_ms: 1000,
                ..config()
            },
        )
        .await;
        cluster.nodes[0].behave(Manner::Deaf);
        let mut client = cluster.client("a").await;
        client.socket.shutdown().await.expect("half closed");
        let mut rest = Vec::new();
        let ended = tokio::time::timeout(cluster::PATIENCE, client.socket.read_to_end(&mut rest));
        let _ = ended.await.expect("the flow ends");
        assert_eq!(
            cluster
                .metric("flux_lb_flows_half_closed_expired_total")
                .await,
            1.0
        );
    });
}

/// Open files are the process's: the test runs in one of its own.
#[test]
fn a_flow_that_lasts_takes_no_open_file_and_loses_nothing() {
    const CHILD: &str = "FLUX_TEST_OPEN_FILES";
    if std::env::var_os(CHILD).is_none() {
        let test = "a_flow_that_lasts_takes_no_open_file_and_loses_nothing";
        let output = std::process::Command::new(std::env::current_exe().expect("this program"))
            .args(["--exact", test, "--nocapture"])
            .env(CHILD, "1")
            .output()
            .expect("run");
        let said = String::from_utf8_lossy(&output.stdout);
        let failed = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}{failed}");
        return;
    }
    if flux_runtime::ring::direct_slots(&RingConfig::default()).expect("a ring") == 0 {
        println!("this kernel has no direct descriptors");
        return;
    }
    let open_files = || std::fs::read_dir("/proc/self/fd").expect("listed").count();
    run(async {
        let cluster = Cluster::of(1).await;
        let flows = 50;
        let before = open_files();
        let mut clients = Vec::new();
        for number in 0..flows {
            clients.push(cluster.client(&format!("client-{number}")).await);
        }
        // The clients' own sockets and the node's stay open.
        let left = || open_files().saturating_sub(before + 2 * flows);
        let mut round_trips = 0;
        let began = Instant::now();
        while left() > flows / 5 {
            assert!(began.elapsed() < cluster::PATIENCE, "{} are open", left());
            for client in &mut clients {
                client
                    .round_trip(format!("message {round_trips}").as_bytes())
                    .await;
                round_trips += 1;
            }
        }
        for client in &mut clients {
            client.round_trip(b"still here").await;
            client.socket.shutdown().await.expect("half closed");
            let mut rest = Vec::new();
            client.socket.read_to_end(&mut rest).await.expect("ended");
            assert!(rest.is_empty());
        }
        until("the flows are over", || async {
            cluster.page("/api/status").await["flows"] == 0
        })
        .await;
    });
}

#[test]
fn a_client_that_resets_takes_its_flow_with_it() {
    run(async {
        let cluster = Cluster::of(1).await;
        let client = cluster.client("a").await;
        let socket = client.socket.into_std().expect("a socket");
        socket2::SockRef::from(&socket)
            .set_linger(Some(Duration::ZERO))
            .expect("set");
        drop(socket);
        until("the node is told", || async {
            cluster.nodes[0].open() == 0
        })
        .await;
        until("the flow is over", || async {
            cluster.page("/api/status").await["flows"] == 0
        })
        .await;
    });
}

#[test]
fn one_source_is_bounded_and_the_whole_too() {
    run(async {
        let cluster = Cluster::with(
            1,
            Config {
                flows_per_source_max: 3,
                flows_max: 100,
                ..config()
            },
        )
        .await;
        let mut kept = Vec::new();
        for number in 0..3 {
            kept.push(cluster.client(&number.to_string()).await);
        }
        assert!(cluster.try_client("too many").await.is_err());
        assert_eq!(
            cluster.metric("flux_lb_refused_source_full_total").await,
            1.0
        );
        kept.pop();
        until("a place is free again", || async {
            cluster.try_client("now").await.is_ok()
        })
        .await;
    });
}

#[test]
fn at_the_bound_on_flows_new_ones_wait_for_room() {
    run(async {
        let cluster = Cluster::with(
            1,
            Config {
                flows_max: 2,
                ..config()
            },
        )
        .await;
        let mut kept = vec![cluster.client("1").await, cluster.client("2").await];
        assert!(
            cluster.try_client("3").await.is_err(),
            "the one that shows that there is no room"
        );
        kept.pop();
        until("there is room", || async {
            cluster.try_client("4").await.is_ok()
        })
        .await;
    });
}

#[test]
fn connections_above_the_rate_are_late_not_lost() {
    run(async {
        let cluster = Cluster::with(
            1,
            Config {
                accepts_per_s: 50,
                ..config()
            },
        )
        .await;
        let began = Instant::now();
        for number in 0..80 {
            assert_eq!(cluster.client(&number.to_string()).await.status, "101");
        }
        assert!(
            began.elapsed() > Duration::from_millis(400),
            "{:?}",
            began.elapsed()
        );
        assert!(cluster.metric("flux_lb_accept_pauses_total").await >= 1.0);
    });
}

#[test]
fn several_source_addresses_are_used_in_turn() {
    run(async {
        let source_addresses = vec![
            "127.0.0.5".parse().expect("one"),
            "127.0.0.6".parse().expect("another"),
        ];
        let cluster = Cluster::with(
            1,
            Config {
                source_addresses,
                ..config()
            },
        )
        .await;
        for number in 0..4 {
            cluster
                .client(&number.to_string())
                .await
                .round_trip(b"x")
                .await;
        }
    });
}

#[test]
fn a_drain_takes_nothing_new_cuts_evenly_and_ends() {
    run(async {
        let cluster = Cluster::of(1).await;
        let mut clients = Vec::new();
        for number in 0..20 {
            clients.push(cluster.client(&number.to_string()).await);
        }
        let listen = cluster.balancer.listen;
        let began = Instant::now();
        let draining = tokio::spawn(cluster.balancer.drain(Duration::from_secs(2)));
        until("no more connections are taken", || async {
            tokio::net::TcpStream::connect(listen).await.is_err()
        })
        .await;
        let mut at_half = 0;
        let mut left = clients.len();
        while left > 0 {
            let mut still = Vec::new();
            for mut client in clients {
                if !client.has_ended().await {
                    still.push(client);
                }
            }
            clients = still;
            left = clients.len();
            if began.elapsed() < Duration::from_millis(1000) {
                at_half = left;
            }
        }
        assert!(
            (5..=15).contains(&at_half),
            "{at_half} of 20 left at half time"
        );
        draining.await.expect("drained");
        assert!(
            began.elapsed() < Duration::from_secs(4),
            "{:?}",
            began.elapsed()
        );
    });
}

#[test]
fn a_drain_without_flows_ends_at_once() {
    run(async {
        let cluster = Cluster::of(1).await;
        let began = Instant::now();
        cluster.balancer.drain(Duration::from_secs(30)).await;
        assert!(
            began.elapsed() < Duration::from_secs(3),
            "{:?}",
            began.elapsed()
        );
    });
}

//! The dashboard over real sockets: hand-made registry snapshots, admin pages
//! that behave and admin pages that do not.

mod dashboard;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use axum::Json;
use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;
use flux_dashboard::document::State;
use flux_dashboard::limits;
use flux_registry::NodeState;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use dashboard::{Dashboard, admin, good_node, record, test};

#[test]
fn the_document_has_every_promised_field() {
    test(async {
        let dashboard = Dashboard::start(&["http://127.0.0.1:1".to_owned()]).await;
        let mut draining = record("gateway-2", None);
        draining.state = NodeState::Draining;
        draining.drain_started_ms = Some(1_700_000_000_000);
        draining.drain_deadline_ms = Some(1_700_000_030_000);
        draining.drain_remaining = 12;
        dashboard.tell([record("gateway-1", None), draining]);
        dashboard.until("two nodes", |d| d.nodes.len() == 2).await;
        let answer = dashboard.get("/api/topology").await;
        assert_eq!(answer.headers()["content-type"], "application/json");
        let document: Value = answer.json().await.expect("JSON");
        assert_eq!(document["cluster"], "flux");
        assert!(document["at_ms"].is_u64());
        assert_eq!(document["registry"]["state"], "ok");
        assert!(document["registry"]["age_ms"].is_u64());
        let balancer = &document["balancers"][0];
        assert!(balancer["id"].is_string() && balancer["state"].is_string());
        assert!(balancer["flows"].is_u64() && balancer["accepts_per_s"].is_number());
        let (ready, draining) = (&document["nodes"][0], &document["nodes"][1]);
        assert_eq!(
            (&ready["id"], &ready["state"]),
            (&json!("gateway-1"), &json!("READY"))
        );
        assert_eq!(
            (&ready["reason"], &ready["routable"]),
            (&json!(""), &json!(true))
        );
        assert_eq!(
            (&ready["generation"], &ready["addr"]),
            (&json!(7), &json!("127.0.0.1:8001"))
        );
        assert_eq!(
            (&ready["ttl_ms"], &ready["probe"]),
            (&json!(15_000), &json!("ok"))
        );
        assert!(
            ready["heartbeat_age_ms"]
                .as_u64()
                .is_some_and(|age| age < 15_000)
        );
        assert_eq!(
            (&ready["connections"], &ready["channels"]),
            (&json!(40), &json!(0))
        );
        assert!(ready["messages_per_s"].is_number());
        assert_eq!(ready["shards"][1], json!({"shard": 1, "connections": 10}));
        assert_eq!(ready["drain"], Value::Null);
        let share = ready["ring_share"].as_f64().expect("a share");
        assert!((0.3..0.7).contains(&share), "{share} of two");
        assert_eq!(draining["state"], "DRAINING");
        assert_eq!(draining["routable"], false);
        assert_eq!(draining["drain"]["remaining"], 12);
        assert_eq!(draining["drain"]["started_ms"], 1_700_000_000_000_u64);
        assert_eq!(draining["drain"]["deadline_ms"], 1_700_000_030_000_u64);
    });
}

#[test]
fn a_stream_sends_at_once_and_then_at_most_four_a_second() {
    test(async {
        let dashboard = Dashboard::start(&[]).await;
        dashboard.tell([record("gateway-1", None)]);
        dashboard.until("a node", |d| d.nodes.len() == 1).await;
        let changing = async {
            for connections in 0.. {
                let mut busy = record("gateway-1", None);
                busy.connections = connections;
                dashboard.tell([busy]);
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let documents = tokio::select! {
            documents = dashboard.stream(Duration::from_millis(2_900)) => documents,
            () = changing => unreachable!("it changes for ever"),
        };
        // Two ends of an interval of 2.9 s hold at most 12 documents a quarter of a second apart.
        assert!(
            (6..=12).contains(&documents.len()),
            "{} documents",
            documents.len()
        );
        let mut times = documents
            .iter()
            .map(|d| d["at_ms"].as_u64().expect("a time"));
        assert!(
            times
                .clone()
                .zip(times.by_ref().skip(1))
                .all(|(a, b)| a < b)
        );
        let last = documents.last().expect("documents");
        assert!(last["nodes"][0]["connections"].as_u64().expect("a count") > 100);
    });
}

#[test]
fn a_quiet_cluster_still_sends_every_second() {
    test(async {
        let dashboard = Dashboard::start(&[]).await;
        dashboard.tell([record("gateway-1", None)]);
        dashboard.until("a node", |d| d.nodes.len() == 1).await;
        let documents = dashboard.stream(Duration::from_millis(3_300)).await;
        assert!(
            (3..=6).contains(&documents.len()),
            "{} documents",
            documents.len()
        );
    });
}

#[test]
fn readers_that_do_not_read_hold_nobody_up_and_are_bounded() {
    test(async {
        let dashboard = Dashboard::start(&[]).await;
        // Large documents, so that what is not read soon fills the sockets.
        let many = (0..500).map(|n| record(&format!("gateway-{n:03}"), None));
        dashboard.tell(many.collect::<Vec<_>>());
        dashboard.until("nodes", |d| d.nodes.len() == 500).await;
        let mut idle = Vec::new();
        for _ in 0..limits::STREAMS_MAX - 1 {
            let answer = dashboard.get("/api/events").await;
            assert_eq!(answer.status(), 200);
            idle.push(answer);
        }
        let documents = dashboard.stream(Duration::from_millis(3_000)).await;
        assert!(!documents.is_empty());
        idle.push(dashboard.get("/api/events").await);
        let refused = dashboard.get("/api/events").await;
        assert_eq!(refused.status(), 503);
        assert_eq!(refused.headers()["retry-after"], "5");
        drop(idle);
        let end = Instant::now() + Duration::from_secs(10);
        while dashboard.get("/api/events").await.status() != 200 {
            assert!(
                Instant::now() < end,
                "places of closed streams are free again"
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
}

#[test]
fn nodes_are_probed_and_figures_of_a_probe_are_newer_than_the_records() {
    test(async {
        let dashboard = Dashboard::start(&[]).await;
        let address = admin(good_node("gateway-1")).await;
        dashboard.tell([record("gateway-1", Some(address))]);
        let probed = dashboard
            .until("figures", |d| d.nodes.iter().any(|n| n.connections == 55))
            .await;
        assert_eq!(probed.nodes[0].messages_per_s, 2.5);
        assert_eq!(
            probed.nodes[0].shards.len(),
            2,
            "the record's, as the status names none"
        );
        assert_eq!(probed.nodes[0].detail.probe, "200 ready");
    });
}

#[test]
fn admin_pages_that_misbehave_cost_only_their_node() {
    test(async {
        let dashboard = Dashboard::start(&[]).await;
        let silent = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let huge = "x".repeat(limits::ANSWER_BYTES_MAX + 1);
        let wrong = Router::new().route("/ready", get(|| async { StatusCode::NOT_FOUND }));
        let closed = {
            let gone = TcpListener::bind("127.0.0.1:0").await.expect("a port");
            gone.local_addr().expect("bound")
        };
        let addresses = BTreeMap::from([
            ("closed", closed),
            ("good", admin(good_node("good")).await),
            (
                "huge",
                admin(Router::new().route("/ready", get(move || async { huge }))).await,
            ),
            ("other", admin(good_node("somebody")).await),
            ("silent", silent.local_addr().expect("bound")),
            ("wrong", admin(wrong).await),
        ]);
        let records = || {
            addresses
                .iter()
                .map(|(id, address)| record(id, Some(*address)))
        };
        dashboard.tell(records());
        let judged = dashboard
            .until("five dead", |d| {
                d.nodes.iter().filter(|n| n.state == State::Dead).count() == 5
            })
            .await;
        let reason = |id: &str| {
            let node = judged.nodes.iter().find(|n| n.id == id).expect("listed");
            node.reason.clone()
        };
        assert_eq!(reason("good"), "");
        for (id, why) in [
            ("closed", "probe failing: connection refused"),
            ("huge", "probe failing: answer of more than 1048576 bytes"),
            ("other", "probe failing: its address answers as somebody"),
            ("silent", "probe failing: timed out"),
            ("wrong", "probe failing: HTTP 404 without JSON"),
        ] {
            assert!(reason(id).starts_with(why), "{id}: {}", reason(id));
        }
    });
}

#[test]
fn each_target_is_asked_once_a_second_and_never_twice_at_a_time() {
    test(async {
        let dashboard = Dashboard::start(&[]).await;
        let (asked, now) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let most = Arc::new(AtomicU64::new(0));
        let (counted, under_way, peak) = (asked.clone(), now.clone(), most.clone());
        let slow = Router::new().route(
            "/ready",
            get(move || async move {
                counted.fetch_add(1, Ordering::SeqCst);
                peak.fetch_max(
                    under_way.fetch_add(1, Ordering::SeqCst) + 1,
                    Ordering::SeqCst,
                );
                tokio::time::sleep(Duration::from_millis(700)).await;
                under_way.fetch_sub(1, Ordering::SeqCst);
                Json(json!({"ready": true, "reasons": [], "degraded": []}))
            }),
        );
        let address = admin(slow).await;
        let end = Instant::now() + Duration::from_millis(3_500);
        // Snapshots come all the time and must not make it ask more often.
        while Instant::now() < end {
            dashboard.tell([record("gateway-1", Some(address))]);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert_eq!(most.load(Ordering::SeqCst), 1);
        let asked = asked.load(Ordering::SeqCst);
        assert!((2..=5).contains(&asked), "asked {asked} times");
    });
}

#[test]
fn pages_carry_their_security_headers_and_are_sent_again_only_when_they_changed() {
    test(async {
        let dashboard = Dashboard::start(&[]).await;
        let root = dashboard.get("/").await;
        assert_eq!(
            (root.status().as_u16(), &root.headers()["location"]),
            (307, &"/dashboard".parse().expect("a value"))
        );
        for (path, kind) in [
            ("/dashboard", "text/html; charset=utf-8"),
            ("/dashboard/app.js", "text/javascript; charset=utf-8"),
            ("/dashboard/style.css", "text/css; charset=utf-8"),
            ("/dashboard/icon.svg", "image/svg+xml"),
        ] {
            let page = dashboard.get(path).await;
            assert_eq!(page.status(), 200, "{path}");
            assert_eq!(page.headers()["content-type"], kind);
            let policy = page.headers()["content-security-policy"]
                .to_str()
                .expect("text");
            assert!(policy.starts_with("default-src 'self'") && !policy.contains("unsafe"));
            assert_eq!(page.headers()["x-content-type-options"], "nosniff");
            let tag = page.headers()["etag"].clone();
            let again = dashboard.client.get(format!("{}{path}", dashboard.url));
            let again = again
                .header("if-none-match", tag)
                .send()
                .await
                .expect("an answer");
            assert_eq!(again.status(), 304);
        }
        assert_eq!(
            dashboard.get("/dashboard/../Cargo.toml").await.status(),
            404
        );
        assert_eq!(
            dashboard
                .get("/dashboard/%2e%2e%2fCargo.toml")
                .await
                .status(),
            404
        );
        assert_eq!(dashboard.get("/live").await.status(), 200);
        assert_eq!(dashboard.get("/ready").await.status(), 200);
        let status: Value = dashboard
            .get("/api/status")
            .await
            .json()
            .await
            .expect("JSON");
        assert_eq!(status["id"], "dashboard");
        let metrics = dashboard.get("/metrics").await.text().await.expect("text");
        assert!(metrics.contains("flux_dashboard_streams 0"), "{metrics}");
    });
}

#[test]
fn the_timeline_is_asked_for_what_is_new() {
    test(async {
        let dashboard = Dashboard::start(&[]).await;
        dashboard.tell([record("gateway-1", None)]);
        dashboard.until("a node", |d| d.nodes.len() == 1).await;
        dashboard.tell([record("gateway-1", None), record("gateway-2", None)]);
        let two = dashboard.until("two", |d| d.nodes.len() == 2).await;
        let path = format!("/api/timeline?after={}", two.timeline_last - 1);
        let news: Value = dashboard.get(&path).await.json().await.expect("JSON");
        assert_eq!(news["events"].as_array().map(Vec::len), Some(1));
        assert_eq!(news["events"][0]["subject"], "gateway-2");
        assert_eq!(news["events"][0]["kind"], "joined");
        let history: Value = dashboard
            .get("/api/history")
            .await
            .json()
            .await
            .expect("JSON");
        assert_eq!(history["step_ms"], 2_000);
        assert!(history["nodes"]["gateway-1"]["connections"].is_array());
        assert_eq!(dashboard.get("/api/timeline?after=x").await.status(), 400);
    });
}

#[test]
fn stops_while_streams_are_open() {
    test(async {
        let mut dashboard = Dashboard::start(&[]).await;
        dashboard.tell([record("gateway-1", None)]);
        dashboard.until("a node", |d| d.nodes.len() == 1).await;
        let open = dashboard.get("/api/events").await;
        let stop = dashboard.stop.take().expect("not stopped yet");
        stop.send(()).expect("the server runs");
        let served = tokio::time::timeout(Duration::from_secs(5), dashboard.served);
        served
            .await
            .expect("within 5 s")
            .expect("no panic")
            .expect("served");
        drop(open);
    });
}

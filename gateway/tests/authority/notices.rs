//! What the backend is told without being asked: at most once, in order, never in anybody's way.

use std::time::Instant;

use flux_gateway::authority::{AuthorityConfig, NoticeKind};
use flux_gateway::backend::BackendConfig;
use flux_gateway::limits::{NOTICES_A_LANE_MAX, NOTICES_END_MAX};
use flux_gateway::protocol::ClientId;
use serde_json::json;

use crate::server::{Does, Server};
use crate::shard::{Shard, run, until, who};

fn told_at(server: &Server) -> AuthorityConfig {
    let proxy = json!({"enabled": true, "endpoint": server.url("/told"), "timeout": "10s"});
    let client = json!({"connected": proxy, "disconnected": proxy, "subscribed": proxy, "unsubscribed": proxy});
    AuthorityConfig {
        backend: BackendConfig {
            client: serde_json::from_value(client).expect("known keys"),
            ..BackendConfig::default()
        },
        ..AuthorityConfig::default()
    }
}

fn life() -> Vec<NoticeKind> {
    let channel = "news".to_owned();
    vec![
        NoticeKind::Connected,
        NoticeKind::Subscribed {
            channel: channel.clone(),
        },
        NoticeKind::Unsubscribed { channel, code: 0 },
        NoticeKind::Disconnected {
            code: 3000,
            reason: "connection closed".to_owned(),
        },
    ]
}

#[test]
fn each_client_life_is_told_in_order_and_once() {
    run(async {
        let server = Server::start().await;
        server.answers("/told", &"");
        let shard = Shard::start(&told_at(&server));
        for client in 0..50 {
            let mut who = who();
            who.client = Some(ClientId::from_random(client));
            for kind in life() {
                shard.tell(&who, kind);
            }
        }
        let metrics = std::sync::Arc::clone(&shard.metrics);
        until("all are told", || metrics.notices_sent.get() == 200).await;
        let told = server.asked("/told");
        assert_eq!(told.len(), 200);
        for client in 0..50 {
            let client = ClientId::from_random(client).to_string();
            let events: Vec<_> = told
                .iter()
                .filter(|one| one.body["client"] == *client)
                .map(|one| one.body["event"].as_str().expect("text").to_owned())
                .collect();
            assert_eq!(
                events,
                ["connected", "subscribed", "unsubscribed", "disconnected"]
            );
        }
        assert_eq!(metrics.notices_dropped.get(), 0);
        shard.stop().await;
    });
}

#[test]
fn notices_that_the_backend_does_not_take_are_counted_and_the_end_does_not_wait_for_them() {
    run(async {
        let server = Server::start().await;
        server.does("/told", Does::Answer(500, String::new()));
        let shard = Shard::start(&told_at(&server));
        shard.tell(&who(), NoticeKind::Connected);
        let metrics = std::sync::Arc::clone(&shard.metrics);
        until("it is counted", || metrics.notices_failed.get() == 1).await;
        assert_eq!(server.asked("/told").len(), 1, "at most once");
        server.does("/told", Does::Hangs);
        let sent = NOTICES_A_LANE_MAX as u64 + 100;
        for _ in 0..sent {
            shard.tell(&who(), NoticeKind::Connected);
        }
        until("the lane is full", || metrics.notices_dropped.get() > 0).await;
        let begun = Instant::now();
        shard.stop().await;
        assert!(begun.elapsed() < NOTICES_END_MAX * 5);
        assert_eq!(
            metrics.notices_dropped.get(),
            sent,
            "each of them is accounted for"
        );
    });
}

//! Other nodes: those that do not answer are named, and what is no message of a node is refused.

use std::time::Instant;

use flux_redis_fixtures::Server;
use serde_json::{Value, json};

use crate::gateway::{Gateway, until};
use crate::support::{call, connected, plan, result, subscribed};

fn cluster(redis: &Server, count: usize) -> Vec<Gateway> {
    let nodes: Vec<Gateway> = (1..=count)
        .map(|n| {
            let settings = json!({ "redis": redis.url() });
            plan(&format!("gateway-{n}"), &settings).start()
        })
        .collect();
    for node in &nodes {
        until("all nodes answer", || {
            let info = call(node, "info", &json!({}));
            let known = info["result"]["nodes"].as_array()?.len();
            (known == count && info.get("unanswered").is_none()).then_some(())
        });
    }
    nodes
}

#[test]
fn a_node_that_was_killed_is_named_in_time_and_the_others_have_done_it() {
    let Some(redis) = Server::start() else { return };
    let mut nodes = cluster(&redis, 3);
    let (mut client, id) = connected(&nodes[1]);
    let (_subscriber, _) = subscribed(&nodes[1], "alive");
    nodes[2].signal("KILL");
    nodes[2].wait();
    for (method, body) in [
        ("info", json!({})),
        ("channels", json!({})),
        ("disconnect", json!({ "client": id })),
        ("refresh", json!({ "user": "nobody" })),
        (
            "unsubscribe",
            json!({ "user": "nobody", "channel": "alive" }),
        ),
        ("subscribe", json!({ "user": "nobody", "channel": "alive" })),
    ] {
        let asked = Instant::now();
        let answer = call(&nodes[0], method, &body);
        assert!(
            asked.elapsed().as_secs() < 4,
            "{method} took {:?}",
            asked.elapsed()
        );
        assert_eq!(
            answer["unanswered"],
            json!(["gateway-3"]),
            "{method}: {answer}"
        );
        match method {
            "info" => assert_eq!(answer["result"]["nodes"].as_array().map(Vec::len), Some(2)),
            "channels" => assert_eq!(answer["result"]["channels"]["alive"]["num_clients"], 1),
            _ => assert_eq!(answer["result"], json!({})),
        }
    }
    let _ = client.end();
    assert!(nodes[0].metric("flux_bus_unanswered", "") >= 6);
    // What concerns a channel asks no other node.
    assert_eq!(
        call(
            &nodes[0],
            "publish",
            &json!({ "channel": "alive", "data": 1 })
        ),
        json!({ "result": {} })
    );
}

#[test]
fn a_node_that_has_left_is_not_missed() {
    let Some(redis) = Server::start() else { return };
    let mut nodes = cluster(&redis, 2);
    nodes[1].signal("TERM");
    nodes[1].wait();
    until("the registry shows that it has left", || {
        let info: Value = call(&nodes[0], "info", &json!({}));
        let alone = info["result"]["nodes"].as_array()?.len() == 1;
        (alone && info.get("unanswered").is_none()).then_some(())
    });
}

#[test]
fn what_is_no_message_of_a_node_is_refused_and_counted() {
    let Some(redis) = Server::start() else { return };
    let nodes = cluster(&redis, 2);
    for garbage in [
        "",
        "hello",
        "{}",
        r#"{"v":9,"everything":"else"}"#,
        r#"{"v":1,"id":"0000000000000001","from":"x","within_ms":1,"request":{"dance":{}}}"#,
    ] {
        for channel in ["centrifugo.control", "centrifugo.node.gateway-1"] {
            redis.ask(&["PUBLISH", channel, garbage]);
        }
    }
    until("all of it is counted", || {
        (nodes[0].metric("flux_bus_refused", "") == 10).then_some(())
    });
    // An answer that nobody asked for does nothing either.
    let answer = r#"{"v":1,"id":"0000000000000001","from":"gateway-2","answer":{"found":{"sessions":1},"is_partial":false}}"#;
    redis.ask(&["PUBLISH", "centrifugo.node.gateway-1", answer]);
    until("it is counted too", || {
        (nodes[0].metric("flux_bus_late", "") == 1).then_some(())
    });
    assert_eq!(
        result(&nodes[0], "info", &json!({}))["nodes"]
            .as_array()
            .map(Vec::len),
        Some(2)
    );
}

#[test]
fn the_bus_comes_back_after_its_connections_were_cut() {
    let Some(redis) = Server::start() else { return };
    let nodes = cluster(&redis, 2);
    redis.ask(&["CLIENT", "KILL", "TYPE", "pubsub"]);
    until("all nodes answer again", || {
        let info = call(&nodes[0], "info", &json!({}));
        info.get("unanswered").is_none().then_some(())
    });
    until("the loss was counted", || {
        (nodes[0].metric("flux_bus_lost", "") >= 1).then_some(())
    });
}

//! Every method: asked of one node, done where the client is.

use flux_redis_fixtures::Server;
use serde_json::{Value, json};

use crate::client::{Client, End};
use crate::gateway::{Gateway, request, until};
use crate::support::{SECRET, call, connected, error, plan, push, result, subscribed, token};

/// A node, or two that a Redis joins: where the backend asks, and where the clients are.
struct Nodes {
    asked: Gateway,
    other: Option<Gateway>,
    _redis: Option<Server>,
}

impl Nodes {
    fn one() -> Self {
        Self {
            asked: plan("gateway-1", &json!({})).start(),
            other: None,
            _redis: None,
        }
    }

    /// None where there is no Redis on the machine.
    fn two() -> Option<Self> {
        let redis = Server::start()?;
        let start = |id: &str| plan(id, &json!({ "redis": redis.url() })).start();
        let (asked, other) = (start("gateway-1"), start("gateway-2"));
        // The registry has to have shown each to the other.
        for gateway in [&asked, &other] {
            until("both nodes know each other", || {
                let nodes = call(gateway, "info", &json!({}));
                let count = nodes["result"]["nodes"].as_array()?.len();
                (count == 2).then_some(())
            });
        }
        Some(Self {
            asked,
            other: Some(other),
            _redis: Some(redis),
        })
    }

    /// Where the clients are.
    fn clients(&self) -> &Gateway {
        self.other.as_ref().unwrap_or(&self.asked)
    }
}

fn both(test: impl Fn(&Nodes)) {
    test(&Nodes::one());
    println!("the same across two nodes");
    if let Some(nodes) = Nodes::two() {
        test(&nodes);
    }
}

#[test]
fn what_is_published_reaches_subscribers_on_every_node() {
    both(|nodes| {
        let (mut client, _) = subscribed(nodes.clients(), "news");
        let published = json!({ "channel": "news", "data": {"n": 1} });
        assert_eq!(result(&nodes.asked, "publish", &published), json!({}));
        assert_eq!(push(&mut client, "pub")["pub"]["data"], json!({"n": 1}));
        let published = json!({ "channel": "news", "b64data": "MTI=" });
        assert_eq!(result(&nodes.asked, "publish", &published), json!({}));
        assert_eq!(push(&mut client, "pub")["pub"]["data"], 12);
        let broadcast = json!({ "channels": ["news", "nobody:knows", ""], "data": 3 });
        let responses = result(&nodes.asked, "broadcast", &broadcast)["responses"].take();
        assert_eq!(responses[0], json!({ "result": {} }));
        assert_eq!(responses[1]["error"]["code"], 102);
        assert_eq!(responses[2]["error"]["code"], 107);
        assert_eq!(push(&mut client, "pub")["pub"]["data"], 3);
    });
}

#[test]
fn tags_travel_with_a_publication() {
    both(|nodes| {
        let (mut client, _) = subscribed(nodes.clients(), "news");
        let published = json!({ "channel": "news", "data": 1, "tags": {"k": "v", "a": "b"} });
        assert_eq!(result(&nodes.asked, "publish", &published), json!({}));
        assert_eq!(
            push(&mut client, "pub")["pub"]["tags"],
            json!({"k": "v", "a": "b"})
        );
    });
}

#[test]
fn what_cannot_be_published_is_refused_by_code() {
    let node = Nodes::one();
    for (body, code) in [
        (json!({ "data": 1 }), 107),
        (json!({ "channel": "a" }), 107),
        (json!({ "channel": "x:a", "data": 1 }), 102),
        (json!({ "channel": "a".repeat(300), "data": 1 }), 107),
        // Clients of the JSON format could not be given it.
        (json!({ "channel": "a", "b64data": "/w==" }), 107),
        (
            json!({ "channel": "a", "data": "x".repeat(1_000_000) }),
            107,
        ),
    ] {
        assert_eq!(error(&node.asked, "publish", &body), code);
    }
    for method in ["presence", "presence_stats", "history", "history_remove"] {
        assert_eq!(
            error(&node.asked, method, &json!({ "channel": "a" })),
            108,
            "{method}"
        );
        assert_eq!(
            error(&node.asked, method, &json!({ "channel": "x:a" })),
            102,
            "{method}"
        );
        assert_eq!(error(&node.asked, method, &json!({})), 107, "{method}");
    }
    assert_eq!(error(&node.asked, "rpc", &json!({ "method": "m" })), 104);
    for method in ["subscribe", "unsubscribe", "disconnect", "refresh"] {
        // Nobody is named: that must not mean everybody.
        assert_eq!(
            error(&node.asked, method, &json!({ "channel": "a" })),
            107,
            "{method}"
        );
    }
}

#[test]
fn a_history_is_paged_and_removed_and_keeps_its_position() {
    both(|nodes| {
        let channel = "full:history";
        for n in 1..=4 {
            let body = json!({ "channel": channel, "data": n, "idempotency_key": format!("k{n}") });
            let first = result(&nodes.asked, "publish", &body);
            assert_eq!(first["offset"], n);
            assert_eq!(
                result(nodes.clients(), "publish", &body),
                first,
                "the same key"
            );
        }
        let skipped = json!({ "channel": channel, "data": 9, "skip_history": true });
        assert_eq!(result(&nodes.asked, "publish", &skipped), json!({}));
        let top = result(nodes.clients(), "history", &json!({ "channel": channel }));
        assert_eq!((&top["offset"], top.get("publications")), (&json!(4), None));
        let epoch = top["epoch"].as_str().expect("text");
        let page = |body: serde_json::Value| {
            let page = result(&nodes.asked, "history", &body);
            let publications = page["publications"].as_array().cloned().unwrap_or_default();
            publications
                .iter()
                .map(|publication| publication["data"].as_u64().expect("a number"))
                .collect::<Vec<_>>()
        };
        let since = json!({ "offset": 2, "epoch": epoch });
        assert_eq!(
            page(json!({ "channel": channel, "limit": -1 })),
            [1, 2, 3, 4]
        );
        assert_eq!(page(json!({ "channel": channel, "limit": 2 })), [1, 2]);
        assert_eq!(
            page(json!({ "channel": channel, "limit": 9, "since": since })),
            [3, 4]
        );
        assert_eq!(
            page(json!({ "channel": channel, "limit": 2, "reverse": true })),
            [4, 3]
        );
        let foreign =
            json!({ "channel": channel, "limit": 1, "since": {"offset": 1, "epoch": "other"} });
        assert_eq!(error(&nodes.asked, "history", &foreign), 112);
        assert_eq!(
            result(
                &nodes.asked,
                "history_remove",
                &json!({ "channel": channel })
            ),
            json!({})
        );
        assert_eq!(page(json!({ "channel": channel, "limit": -1 })), [0u64; 0]);
        let after = result(&nodes.asked, "history", &json!({ "channel": channel }));
        assert_eq!(
            (&after["offset"], &after["epoch"]),
            (&json!(4), &top["epoch"])
        );
    });
}

#[test]
fn a_version_that_is_not_newer_is_not_published() {
    let node = Nodes::one();
    let channel = "full:versions";
    let publish = |version: u64| {
        let body = json!({ "channel": channel, "data": version, "version": version, "version_epoch": "a" });
        result(&node.asked, "publish", &body);
    };
    for version in [3, 2, 3, 5] {
        publish(version);
    }
    let all = result(
        &node.asked,
        "history",
        &json!({ "channel": channel, "limit": -1 }),
    );
    let data: Vec<_> = all["publications"]
        .as_array()
        .expect("some")
        .iter()
        .map(|p| &p["data"])
        .collect();
    assert_eq!(data, [3, 5]);
}

#[test]
fn who_is_present_is_known_on_every_node() {
    both(|nodes| {
        let channel = "full:presence";
        let (client, id) = subscribed(nodes.clients(), channel);
        let body = json!({ "channel": channel });
        let presence = until("the client is present", || {
            let presence = result(&nodes.asked, "presence", &body)["presence"].take();
            presence.get(&id).cloned()
        });
        assert_eq!(presence, json!({ "client": id, "user": "" }));
        assert_eq!(
            result(&nodes.asked, "presence_stats", &body),
            json!({ "num_clients": 1, "num_users": 1 })
        );
        drop(client);
        until("the client has left", || {
            let stats = result(&nodes.asked, "presence_stats", &body);
            (stats["num_clients"] == 0).then_some(())
        });
    });
}

#[test]
fn a_channel_counts_once_on_however_many_shards_it_has_subscribers() {
    let node = plan("counts", &json!({ "shards": 2 })).start();
    // The kernel spreads them over the shards: all on one has a chance of 1 in 2^15.
    let mut clients: Vec<_> = (0..16).map(|_| subscribed(&node, "cats")).collect();
    clients.push(subscribed(&node, "dogs"));
    let info = result(&node, "info", &json!({}));
    assert_eq!(info["nodes"][0]["num_channels"], 2, "{info}");
    assert_eq!(info["nodes"][0]["num_subs"], 17, "{info}");
    let (status, _, body) = request(
        node.admin,
        "GET /api/status HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    );
    let shown: Value = serde_json::from_str(&body).expect("JSON");
    assert_eq!((status, &shown["channels"]), (200, &json!(2)), "{shown}");
    let on_shards: u64 = (0..2)
        .map(|shard| {
            shown["shards"][shard]["channels"]
                .as_u64()
                .expect("a count")
        })
        .sum();
    assert_eq!(on_shards, 3, "{shown}");
}

#[test]
fn channels_and_nodes_are_those_of_the_whole_cluster() {
    both(|nodes| {
        let (_one, _) = subscribed(nodes.clients(), "cats");
        let (_two, _) = subscribed(&nodes.asked, "cats");
        let (_three, _) = subscribed(nodes.clients(), "dogs");
        let channels = |pattern: &str| {
            result(&nodes.asked, "channels", &json!({ "pattern": pattern }))["channels"].take()
        };
        assert_eq!(channels("c*"), json!({ "cats": {"num_clients": 2} }));
        let all = channels("");
        assert_eq!(all["dogs"], json!({ "num_clients": 1 }));
        let info = result(&nodes.asked, "info", &json!({}));
        let infos = info["nodes"].as_array().expect("nodes");
        assert_eq!(infos.len(), if nodes.other.is_some() { 2 } else { 1 });
        let sum = |key: &str| {
            infos
                .iter()
                .map(|node| node[key].as_u64().expect(key))
                .sum::<u64>()
        };
        assert_eq!((sum("num_clients"), sum("num_subs")), (3, 3));
        assert_eq!(infos[0]["uid"], "gateway-1");
    });
}

#[test]
fn a_client_is_subscribed_and_unsubscribed_from_the_servers_side_wherever_it_is() {
    both(|nodes| {
        let (mut client, id) = connected(nodes.clients());
        let subscribe = json!({ "client": id, "channel": "full:private", "data": {"hello": 1} });
        assert_eq!(result(&nodes.asked, "subscribe", &subscribe), json!({}));
        let subscribe = push(&mut client, "subscribe");
        assert_eq!(subscribe["channel"], "full:private");
        assert_eq!(subscribe["subscribe"]["data"], json!({"hello": 1}));
        let publish = json!({ "channel": "full:private", "data": 1 });
        assert_eq!(result(&nodes.asked, "publish", &publish)["offset"], 1);
        assert_eq!(push(&mut client, "pub")["pub"]["offset"], 1);
        let unsubscribe = json!({ "client": id, "channel": "full:private" });
        assert_eq!(result(&nodes.asked, "unsubscribe", &unsubscribe), json!({}));
        let unsubscribe = push(&mut client, "unsubscribe");
        assert_eq!(unsubscribe["unsubscribe"]["code"], 2000);
    });
}

#[test]
fn a_client_is_disconnected_wherever_it_is_and_nobody_else() {
    both(|nodes| {
        let (mut gone, id) = connected(nodes.clients());
        let (mut kept, _) = subscribed(nodes.clients(), "kept");
        // An id that nobody has ends nobody.
        let nobody = json!({ "client": "nobody" });
        assert_eq!(result(&nodes.asked, "disconnect", &nobody), json!({}));
        let disconnect = json!({ "client": id, "disconnect": {"code": 4501, "reason": "go away"} });
        assert_eq!(result(&nodes.asked, "disconnect", &disconnect), json!({}));
        assert_eq!(gone.end(), End::Closed(4501, "go away".to_owned()));
        result(
            &nodes.asked,
            "publish",
            &json!({ "channel": "kept", "data": 1 }),
        );
        assert_eq!(push(&mut kept, "pub")["pub"]["data"], 1);
        let (mut expired, id) = connected(nodes.clients());
        let refresh = json!({ "client": id, "expired": true });
        assert_eq!(result(&nodes.asked, "refresh", &refresh), json!({}));
        assert!(matches!(expired.end(), End::Closed(3005, _)));
    });
}

#[test]
fn a_batch_is_carried_out_in_its_order_and_its_replies_stand_in_it_too() {
    let node = Nodes::one();
    let (mut client, _) = subscribed(&node.asked, "batch");
    let commands: Vec<_> = (0..50)
        .map(|n| json!({ "publish": { "channel": "batch", "data": n } }))
        .chain([
            json!({ "dance": {} }),
            json!({ "publish": { "channel": "x:y", "data": 1 } }),
        ])
        .collect();
    let answer = call(&node.asked, "batch", &json!({ "commands": commands }));
    let replies = answer["replies"].as_array().expect("replies");
    assert_eq!(replies.len(), 52);
    assert_eq!(replies[0], json!({ "publish": {} }));
    assert_eq!(replies[50]["error"]["code"], 104);
    assert_eq!(replies[51]["error"]["code"], 102);
    for n in 0..50 {
        assert_eq!(push(&mut client, "pub")["pub"]["data"], n);
    }
    let parallel =
        json!({ "parallel": true, "commands": [{"info": {}}, {"presence": {"channel": "x:y"}}] });
    let answer = call(&node.asked, "batch", &parallel);
    assert!(answer["replies"][0]["info"]["nodes"].is_array(), "{answer}");
    assert_eq!(answer["replies"][1]["error"]["code"], 102);
}

#[test]
fn a_user_with_a_token_is_reached_by_the_users_id_on_every_node() {
    let settings = json!({ "client": { "token": { "hmac_secret_key": SECRET } } });
    let Some(redis) = Server::start() else { return };
    let start = |id: &str| {
        let mut settings = settings.clone();
        settings["redis"] = json!(redis.url());
        plan(id, &settings).start()
    };
    let (asked, other) = (start("gateway-1"), start("gateway-2"));
    until("both nodes know each other", || {
        let nodes = call(&asked, "info", &json!({}));
        let count = nodes["result"]["nodes"].as_array()?.len();
        (count == 2).then_some(())
    });
    // Without a token nobody is let in where tokens decide.
    let mut stranger = Client::open(other.clients, "/connection/websocket");
    stranger.tell(&json!({ "connect": {} }));
    assert!(matches!(stranger.end(), End::Closed(3507 | 3501, _)));
    let connected = |gateway: &Gateway, user: &str| {
        let mut client = Client::open(gateway.clients, "/connection/websocket");
        let reply = client.ask(&json!({ "connect": { "token": token(user) } }));
        assert!(reply.get("connect").is_some(), "{reply}");
        client
    };
    let mut first = connected(&asked, "42");
    let mut second = connected(&other, "42");
    let mut kept = connected(&other, "43");
    let info = result(&asked, "info", &json!({}));
    let users: u64 = info["nodes"]
        .as_array()
        .expect("nodes")
        .iter()
        .map(|node| node["num_users"].as_u64().expect("a number"))
        .sum();
    assert_eq!(users, 3, "{info}");
    let subscribe = json!({ "user": "42", "channel": "full:42" });
    assert_eq!(result(&asked, "subscribe", &subscribe), json!({}));
    result(
        &asked,
        "publish",
        &json!({ "channel": "full:42", "data": "hello" }),
    );
    for client in [&mut first, &mut second] {
        assert_eq!(push(client, "pub")["pub"]["data"], "hello");
    }
    assert_eq!(
        result(&asked, "disconnect", &json!({ "user": "42" })),
        json!({})
    );
    for client in [&mut first, &mut second] {
        assert_eq!(
            client.end(),
            End::Closed(3503, "force disconnect".to_owned())
        );
    }
    let reply = kept.ask(&json!({ "subscribe": { "channel": "news" } }));
    assert!(reply.get("subscribe").is_some(), "{reply}");
}

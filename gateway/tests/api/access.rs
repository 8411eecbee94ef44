//! Who may call, and what is answered to what is no request.

use std::io::Write;
use std::net::TcpStream;

use flux_gateway::limits::API_BODY_BYTES_MAX;
use serde_json::{Value, json};

use crate::gateway::{request, until};
use crate::support::{KEY, call, key, plan, post, push, subscribed};

const BODY: &str = r#"{"channel":"a","data":1}"#;

#[test]
fn without_the_key_nothing_is_done_and_nothing_is_learnt() {
    let node = plan("gateway-1", &json!({})).start();
    for headers in [
        "",
        "X-API-Key: k-4712\r\n",
        "X-API-Key: k-471\r\n",
        "X-API-Key:\r\n",
        "Authorization: Bearer k-4711\r\n",
    ] {
        for path in ["/api/publish", "/api/nothing", "/api"] {
            assert_eq!(
                post(node.admin, path, headers, BODY),
                (401, String::new()),
                "{headers}"
            );
        }
    }
    assert_eq!(node.metric("flux_api_requests", ""), 0);
    assert_eq!(node.metric("flux_api_unauthorized", ""), 15);
    for (path, headers) in [
        ("/api/publish", key()),
        ("/api/publish", format!("Authorization: apikey {KEY}\r\n")),
        (&format!("/api/publish?api_key={KEY}"), String::new()),
    ] {
        assert_eq!(post(node.admin, path, &headers, BODY).0, 200, "{path}");
    }
    assert_eq!(node.metric("flux_api_requests", "publish"), 3);
}

#[test]
fn what_is_no_request_is_refused_and_the_node_goes_on() {
    let node = plan("gateway-1", &json!({})).start();
    let with_key = key();
    assert_eq!(post(node.admin, "/api/dance", &with_key, "{}").0, 404);
    let (mut client, _) = subscribed(&node, "a");
    for body in ["", "{", "[]", "null", "\u{0}", r#"{"channel":1}"#, "{}{}"] {
        let (status, said) = post(node.admin, "/api/publish", &with_key, body);
        assert_eq!(status, 400, "{body}");
        assert!(said.starts_with("the body is not what the method takes: "));
    }
    // What it quotes of a body has an end.
    let long = format!(r#"{{"channel":["{}"]}}"#, "x".repeat(100_000));
    let (status, said) = post(node.admin, "/api/history", &with_key, &long);
    assert!(status == 400 && said.len() <= 300, "{status} {said}");
    let get =
        format!("GET /api/publish HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{with_key}\r\n");
    assert_eq!(request(node.admin, &get).0, 405);
    // Said to be long, without being sent.
    let long = format!(
        "POST /api/publish HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{with_key}Content-Length: 99999999\r\n\r\n"
    );
    assert_eq!(request(node.admin, &long).0, 413);
    // Not said before, and too long all the same. It is cut off, perhaps before the answer is read.
    let chunk = format!("100000\r\n{}\r\n", "x".repeat(0x10_0000));
    let chunked = format!(
        "POST /api/publish HTTP/1.1\r\nHost: x\r\n{with_key}Transfer-Encoding: chunked\r\n\r\n{}",
        chunk.repeat(1 + API_BODY_BYTES_MAX / 0x10_0000)
    );
    let mut socket = TcpStream::connect(node.admin).expect("a listener");
    let _ = socket.write_all(chunked.as_bytes());
    until("it is refused", || {
        (node.metric("flux_api_refused", "too_large") == 2).then_some(())
    });
    assert_eq!(node.metric("flux_api_unreadable", ""), 8);
    for (reason, count) in [("unknown_method", 1), ("not_post", 1), ("too_large", 2)] {
        assert_eq!(node.metric("flux_api_refused", reason), count, "{reason}");
    }
    // A field that nobody knows is no mistake, as in Centrifugo; and nothing was published before.
    let body = json!({ "channel": "a", "data": 1, "of_a_later_version": {} });
    assert_eq!(call(&node, "publish", &body), json!({ "result": {} }));
    assert_eq!(push(&mut client, "pub")["pub"]["data"], 1);
}

#[test]
fn errors_stand_in_the_status_where_that_is_wanted() {
    let node = plan("gateway-1", &json!({})).start();
    let unknown = r#"{"channel":"x:a","data":1}"#;
    let headers = format!("{}X-Centrifugo-Error-Mode: transport\r\n", key());
    let (status, body) = post(node.admin, "/api/publish", &headers, unknown);
    assert_eq!(
        (status, &*body),
        (404, r#"{"code":102,"message":"unknown channel"}"#)
    );
    assert_eq!(post(node.admin, "/api/publish", &key(), unknown).0, 200);
    let settings = json!({ "http_api": { "key": KEY, "error_mode": "transport" } });
    let node = plan("gateway-1", &settings).start();
    assert_eq!(post(node.admin, "/api/publish", &key(), unknown).0, 404);
}

#[test]
fn the_old_form_is_understood() {
    let node = plan("gateway-1", &json!({})).start();
    let (mut client, _) = subscribed(&node, "a");
    let commands = r#"{"id":7,"method":"publish","params":{"channel":"a","data":1}}
        {"method":1,"params":{"channels":["a"],"data":2}}{"method":"DANCE"}"#;
    let (status, body) = post(node.admin, "/api", &key(), commands);
    assert_eq!(status, 200);
    let replies: Vec<Value> = body
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    assert_eq!(replies[0], json!({ "id": 7, "result": {} }));
    assert_eq!(
        replies[1],
        json!({ "result": { "responses": [{"result": {}}] } })
    );
    assert_eq!(replies[2]["error"]["code"], 104);
    assert_eq!(push(&mut client, "pub")["pub"]["data"], 1);
    assert_eq!(push(&mut client, "pub")["pub"]["data"], 2);
    assert_eq!(post(node.admin, "/api", &key(), "").0, 400);
}

#[test]
fn the_api_is_on_the_client_port_only_where_it_is_external() {
    let node = plan("gateway-1", &json!({})).start();
    assert_eq!(post(node.clients, "/api/publish", &key(), BODY).0, 404);
    let settings = json!({ "http_api": { "key": KEY, "external": true } });
    let node = plan("gateway-1", &settings).start();
    let (mut client, _) = subscribed(&node, "a");
    let (status, body) = post(node.clients, "/api/publish", &key(), BODY);
    assert_eq!((status, &*body), (200, r#"{"result":{}}"#));
    assert_eq!(push(&mut client, "pub")["pub"]["data"], 1);
    assert_eq!(post(node.clients, "/api/publish", "", BODY).0, 401);
    assert_eq!(
        post(
            node.clients,
            &format!("/api/publish?api_key={KEY}"),
            "",
            BODY
        )
        .0,
        200
    );
    assert_eq!(post(node.clients, "/api/dance", &key(), BODY).0, 404);
    // What belongs to the admin address stays there.
    let get = "GET /api/status HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    assert_ne!(request(node.clients, get).0, 200);
}

#[test]
fn without_a_key_nobody_is_let_in_unless_everybody_is() {
    let closed = plan("gateway-1", &json!({ "http_api": {} })).start();
    assert_eq!(
        post(closed.admin, "/api/publish", "X-API-Key:\r\n", BODY).0,
        401
    );
    let open = plan("gateway-1", &json!({ "http_api": { "insecure": true } })).start();
    assert_eq!(post(open.admin, "/api/publish", "", BODY).0, 200);
    let off = plan(
        "gateway-1",
        &json!({ "http_api": { "disabled": true, "key": KEY } }),
    )
    .start();
    assert_eq!(post(off.admin, "/api/publish", &key(), BODY).0, 404);
}

#[test]
fn the_document_is_served_without_a_key() {
    let node = plan("gateway-1", &json!({})).start();
    let (status, body) = node.ask("/api/openapi.json");
    assert_eq!(status, 200);
    let document: Value = serde_json::from_str(&body).expect("JSON");
    assert_eq!(document["openapi"], "3.1.0");
    assert_eq!(node.ask("/health").0, 200);
}

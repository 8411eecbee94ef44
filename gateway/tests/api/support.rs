//! A backend, and nodes for it to speak to.

use std::net::SocketAddr;

use serde_json::{Value, json};

use crate::client::Client;
use crate::gateway::{Gateway, Plan, request};

/// The key of every node here.
pub(crate) const KEY: &str = "k-4711";

/// What tokens are signed with.
pub(crate) const SECRET: &str = "bread-and-butter";

/// A token of this user, as `flux-gateway token` makes it.
pub(crate) fn token(user: &str) -> String {
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_flux-gateway"))
        .args(["token", "--user", user])
        .env("FLUX_CLIENT_TOKEN_HMAC_SECRET_KEY", SECRET)
        .output()
        .expect("the program runs");
    assert!(output.status.success());
    String::from_utf8(output.stdout)
        .expect("text")
        .trim()
        .to_owned()
}

/// A channel with everything on.
fn full() -> Value {
    json!({
        "name": "full", "presence": true, "join_leave": false,
        "history_size": 10, "history_ttl": "60s", "force_positioning": true,
        "allow_subscribe_for_client": true, "allow_subscribe_for_anonymous": true,
    })
}

/// A node with the key, and `more` settings.
pub(crate) fn plan(id: &str, more: &Value) -> Plan {
    let mut settings = json!({
        "id": id,
        "http_api": { "key": KEY },
        "channel": {
            "without_namespace": {
                "allow_subscribe_for_client": true, "allow_subscribe_for_anonymous": true,
                "allow_publish_for_client": true, "allow_publish_for_anonymous": true,
            },
            "namespaces": [full()],
        },
    });
    if let (Some(all), Some(more)) = (settings.as_object_mut(), more.as_object()) {
        all.extend(more.clone());
    }
    Plan::new(settings)
}

/// POSTs a body with the key: status and body of the answer.
pub(crate) fn post(address: SocketAddr, path: &str, headers: &str, body: &str) -> (u16, String) {
    let length = body.len();
    let text = format!(
        "POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{headers}Content-Length: {length}\r\n\r\n{body}"
    );
    let (status, _, body) = request(address, &text);
    (status, body)
}

/// The key's header.
pub(crate) fn key() -> String {
    format!("X-API-Key: {KEY}\r\n")
}

/// Calls a method; the whole answer.
pub(crate) fn call(gateway: &Gateway, method: &str, body: &Value) -> Value {
    let path = format!("/api/{method}");
    let (status, answer) = post(gateway.admin, &path, &key(), &body.to_string());
    assert_eq!(status, 200, "{method} {body}: {answer}");
    serde_json::from_str(&answer).expect("JSON")
}

/// Calls a method; its result.
pub(crate) fn result(gateway: &Gateway, method: &str, body: &Value) -> Value {
    let mut answer = call(gateway, method, body);
    assert!(answer.get("error").is_none(), "{method} {body}: {answer}");
    assert!(
        answer.get("unanswered").is_none(),
        "{method} {body}: {answer}"
    );
    answer["result"].take()
}

/// The code of the error that a method answers with.
pub(crate) fn error(gateway: &Gateway, method: &str, body: &Value) -> u64 {
    let answer = call(gateway, method, body);
    answer["error"]["code"]
        .as_u64()
        .unwrap_or_else(|| panic!("{method} {body}: {answer}"))
}

/// A client of the node, and its id.
pub(crate) fn connected(gateway: &Gateway) -> (Client, String) {
    let mut client = Client::open(gateway.clients, "/connection/websocket");
    let reply = client.ask(&json!({ "connect": {} }));
    let id = reply["connect"]["client"]
        .as_str()
        .expect("an id")
        .to_owned();
    (client, id)
}

/// The same, subscribed.
pub(crate) fn subscribed(gateway: &Gateway, channel: &str) -> (Client, String) {
    let (mut client, id) = connected(gateway);
    let reply = client.ask(&json!({ "subscribe": { "channel": channel } }));
    assert!(reply.get("subscribe").is_some(), "{reply}");
    (client, id)
}

/// The next push of this kind; others are passed over.
pub(crate) fn push(client: &mut Client, kind: &str) -> Value {
    loop {
        let mut line = client.line().expect("a push");
        if line["push"].get(kind).is_some() {
            return line["push"].take();
        }
    }
}

//! Tokens and the backend through the whole program: a client's command, a shard, the control
//! plane, and back.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::time::{Duration, SystemTime};

use flux_gateway::token::{IssueArgs, Secret, TokenConfig, issue};
use serde_json::{Value, json};

use super::client::{Client, End};
use super::gateway::{Plan, until};

const SECRET: &str = "of the tests";

fn token(user: &str, channel: Option<&str>, at: SystemTime) -> String {
    let config = TokenConfig {
        hmac_secret_key: Secret::new(SECRET),
        ..TokenConfig::default()
    };
    let args = IssueArgs {
        user: user.to_owned(),
        ttl: Duration::from_secs(600),
        channel: channel.map(str::to_owned),
        info: None,
    };
    issue(&config, "client.token", &args, at).expect("made")
}

/// A backend that answers every request with `answer` of its path and document.
fn backend(answer: fn(&str, &Value) -> Value) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            std::thread::spawn(move || {
                let mut reader = BufReader::new(stream);
                let mut line = String::new();
                while reader.read_line(&mut line).is_ok_and(|count| count > 0) {
                    let path = line.split(' ').nth(1).unwrap_or_default().to_owned();
                    let mut length = 0;
                    loop {
                        line.clear();
                        reader.read_line(&mut line).expect("a head");
                        if line.trim().is_empty() {
                            break;
                        }
                        let header = line.to_ascii_lowercase();
                        if let Some(value) = header.strip_prefix("content-length:") {
                            length = value.trim().parse().expect("a length");
                        }
                    }
                    let mut body = vec![0; length];
                    reader.read_exact(&mut body).expect("a body");
                    let document = serde_json::from_slice(&body).expect("JSON");
                    let text = answer(&path, &document).to_string();
                    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", text.len());
                    let stream = reader.get_mut();
                    if stream.write_all((head + &text).as_bytes()).is_err() {
                        return;
                    }
                    line.clear();
                }
            });
        }
    });
    address
}

#[test]
fn a_token_lets_in_whom_it_names_and_nobody_else() {
    let gateway = Plan::new(json!({"client": {"token": {"hmac_secret_key": SECRET}}})).start();
    let open = || Client::open(gateway.clients, "/connection/websocket");
    let now = SystemTime::now();
    let mut client = open();
    let reply = client.ask(&json!({"connect": {"token": token("42", None, now)}}));
    assert_eq!(reply["connect"]["expires"], true, "{reply}");
    let reply = client.ask(&json!({"refresh": {"token": token("42", None, now)}}));
    assert_eq!(reply["refresh"]["expires"], true, "{reply}");
    let subscribe = |token: &str| json!({"subscribe": {"channel": "$private", "token": token}});
    let reply = client.ask(&subscribe("garbage"));
    assert_eq!(reply["error"]["code"], 103, "{reply}");
    let reply = client.ask(&subscribe(&token("42", Some("$private"), now)));
    assert!(reply.get("subscribe").is_some(), "{reply}");
    client.tell(&json!({"refresh": {"token": token("43", None, now)}}));
    assert_eq!(client.end(), End::Closed(3500, "invalid token".to_owned()));

    let mut late = open();
    let reply = late.ask(&json!({"connect": {"token": token("42", None, SystemTime::UNIX_EPOCH)}}));
    assert_eq!(reply["error"]["code"], 109, "{reply}");
    for bad in [
        json!({"token": "garbage"}),
        json!({"token": token("42", Some("a"), now)}),
    ] {
        let mut client = open();
        client.tell(&json!({"connect": bad}));
        assert_eq!(client.end(), End::Closed(3500, "invalid token".to_owned()));
    }
    let mut client = open();
    client.tell(&json!({"connect": {}}));
    assert!(matches!(client.end(), End::Closed(3501, _)));
    assert_eq!(gateway.metric("flux_tokens", "expired"), 1);
    assert!(gateway.metric("flux_tokens", "accepted") >= 3);
}

#[test]
fn the_backend_decides_who_connects_and_answers_calls() {
    let address = backend(|path, document| match path {
        "/connect" if document["data"]["key"] == "good" => {
            json!({"result": {"user": "42", "data": {"hello": true}}})
        }
        "/connect" => json!({"disconnect": {"code": 4403, "reason": "go away"}}),
        "/rpc" => {
            json!({"result": {"data": {"of": document["user"], "method": document["method"]}}})
        }
        _ => json!({}),
    });
    let url = |path: &str| format!("http://{address}{path}");
    let told = json!({"enabled": true, "endpoint": url("/told")});
    let gateway = Plan::new(json!({
        "client": {"proxy": {
            "connect": {"enabled": true, "endpoint": url("/connect")},
            "connected": told, "disconnected": told,
        }},
        "rpc": {"proxy": {"endpoint": url("/rpc")}, "without_namespace": {"proxy_enabled": true}},
    }))
    .start();
    let open = || Client::open(gateway.clients, "/connection/websocket");
    let mut client = open();
    let reply = client.ask(&json!({"connect": {"data": {"key": "good"}}}));
    assert_eq!(reply["connect"]["data"], json!({"hello": true}), "{reply}");
    let reply = client.ask(&json!({"rpc": {"method": "sum", "data": 1}}));
    assert_eq!(
        reply["rpc"]["data"],
        json!({"of": "42", "method": "sum"}),
        "{reply}"
    );
    let mut stranger = open();
    stranger.tell(&json!({"connect": {}}));
    assert_eq!(stranger.end(), End::Closed(4403, "go away".to_owned()));
    drop(client);
    until("both notices are sent", || {
        (gateway.metric("flux_notices_sent", "") == 2).then_some(())
    });
    assert_eq!(gateway.metric("flux_backend_failures", ""), 0);
}

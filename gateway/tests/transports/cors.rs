//! What pages of other origins may do, and what does not exist.

use flux_gateway::http::{Rejection, Transports};

use super::client::wait_for;
use super::exchange::Exchange;
use super::settings;

const PATHS: [&str; 5] = [
    "/connection/sse",
    "/connection/http_stream",
    "/connection/uni_sse",
    "/connection/uni_http_stream",
    "/emulation",
];
const CONNECT: &str = r#"{"id":1,"connect":{}}"#;

#[test]
fn a_preflight_of_an_allowed_origin_is_told_what_it_may_send() {
    let node = settings().start();
    for path in PATHS {
        let request = format!(
            "OPTIONS {path} HTTP/1.1\r\nHost: x\r\nOrigin: https://app.example.com\r\n\
             Access-Control-Request-Method: POST\r\nAccess-Control-Request-Headers: content-type,x-custom\r\n\r\n"
        );
        let (head, body) = Exchange::send(node.address, request.as_bytes()).answer();
        assert_eq!((head.status, &*body), (204, ""), "{path}");
        assert_eq!(
            head.field("Access-Control-Allow-Origin"),
            "https://app.example.com"
        );
        assert_eq!(head.field("Access-Control-Allow-Credentials"), "true");
        assert_eq!(
            head.field("Access-Control-Allow-Headers"),
            "content-type,x-custom"
        );
        assert!(head.field("Access-Control-Allow-Methods").contains("POST"));
    }
}

#[test]
fn only_allowed_origins_get_through_and_are_told_so() {
    let node = settings().start();
    for path in PATHS {
        let origin = "Origin: https://app.example.com\r\n";
        let mut allowed = Exchange::post_with(node.address, path, origin, CONNECT.as_bytes());
        let head = allowed.head();
        assert_eq!(
            head.field("Access-Control-Allow-Origin"),
            "https://app.example.com",
            "{path}, {}",
            head.status
        );
        for method in ["POST", "OPTIONS"] {
            let request = format!(
                "{method} {path} HTTP/1.1\r\nHost: x\r\nOrigin: https://evil.net\r\nContent-Length: 0\r\n\r\n"
            );
            let (head, _) = Exchange::send(node.address, request.as_bytes()).answer();
            assert_eq!(head.status, 403, "{method} {path}");
            assert_eq!(head.field("Access-Control-Allow-Origin"), "");
        }
        let mut no_page = Exchange::post(node.address, path, CONNECT);
        let head = no_page.head();
        assert_eq!(head.field("Access-Control-Allow-Origin"), "");
    }
    let at = Rejection::ALL
        .iter()
        .position(|rejection| *rejection == Rejection::Origin)
        .expect("listed");
    wait_for("the refusals to be counted", || {
        node.count(|counters| &counters.rejections[at]) == 2 * PATHS.len() as u64
    });
}

#[test]
fn other_methods_are_refused_by_name() {
    let node = settings().start();
    for (request, allow) in [
        ("GET /connection/http_stream", "POST, OPTIONS"),
        ("PUT /connection/http_stream", "POST, OPTIONS"),
        ("GET /emulation", "POST, OPTIONS"),
        ("DELETE /connection/sse", "GET, POST, OPTIONS"),
        ("POST /connection/websocket", "GET"),
        ("POST /connection/uni_websocket", "GET"),
    ] {
        let request = format!("{request} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n");
        let (head, _) = Exchange::send(node.address, request.as_bytes()).answer();
        assert_eq!(
            (head.status, head.field("Allow")),
            (405, allow),
            "{request}"
        );
    }
    let (head, _) = Exchange::get(node.address, "/connection/sse").answer();
    assert_eq!(head.status, 400, "no connect command");
}

#[test]
fn what_is_switched_off_does_not_exist() {
    let mut settings = settings();
    settings.transports = Transports {
        websocket: false,
        ..Transports::default()
    };
    let node = settings.start();
    for path in PATHS
        .into_iter()
        .chain(["/api/info", "/connection/websocket"])
    {
        let (head, _) = Exchange::post(node.address, path, CONNECT).answer();
        assert_eq!(head.status, 404, "{path}");
    }
}

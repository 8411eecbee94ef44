//! Requests that the control plane answers.

use std::net::SocketAddr;

use flux_gateway::shard::plain::{PlainAnswer, PlainKind, PlainRequest};

use super::client::wait_for;
use super::exchange::{Exchange, emulate};
use super::node::Node;
use super::settings;

fn asked(node: &mut Node) -> PlainRequest {
    let mut request = None;
    wait_for("the request", || {
        request = node.plain.try_recv().ok();
        request.is_some()
    });
    request.expect("waited for")
}

fn post(address: SocketAddr, target: &str) -> Exchange {
    let fields = "X-API-Key: K\r\nAuthorization: apikey K\r\nCookie: secret\r\n";
    Exchange::post_with(address, target, fields, b"{\"channel\":\"c\"}")
}

#[test]
fn a_request_to_the_server_api_is_handed_over_whole_and_answered_as_it_says() {
    let mut node = settings().start();
    let exchange = post(node.address, "/api/publish?api_key=K");
    let PlainRequest { kind, answer } = asked(&mut node);
    let PlainKind::Api(request) = kind else {
        panic!("{kind:?}")
    };
    assert_eq!(
        (&*request.method, &*request.path_and_query),
        ("POST", "/api/publish?api_key=K")
    );
    assert_eq!(
        request.headers,
        [
            ("authorization", "apikey K".to_owned()),
            ("x-api-key", "K".to_owned())
        ]
    );
    assert_eq!(request.body, b"{\"channel\":\"c\"}");
    answer.answer(PlainAnswer {
        status: 409,
        content_type: "application/json".to_owned(),
        body: b"{\"result\":{}}".to_vec(),
    });
    let (head, body) = exchange.answer();
    assert_eq!((head.status, &*body), (409, "{\"result\":{}}"));
    assert_eq!(head.field("Content-Type"), "application/json");
}

#[test]
fn a_request_that_is_dropped_or_whose_client_is_gone_is_settled() {
    let mut node = settings().start();
    let dropped = post(node.address, "/api/info");
    drop(asked(&mut node));
    assert_eq!(dropped.answer().0.status, 503);
    let gone = post(node.address, "/api/info");
    let request = asked(&mut node);
    drop(gone);
    wait_for("the connection's end", || {
        node.count(|counters| &counters.connections) == 0
    });
    request.answer.answer(PlainAnswer {
        status: 200,
        content_type: String::new(),
        body: Vec::new(),
    });
    let next = post(node.address, "/api/info");
    asked(&mut node).answer.answer(PlainAnswer {
        status: 200,
        content_type: String::new(),
        body: b"ok".to_vec(),
    });
    assert_eq!(next.answer().1, "ok");
}

#[test]
fn commands_for_another_node_are_handed_over() {
    let mut node = settings().start();
    let exchange = emulate(node.address, "node-2", "S", "{}");
    let PlainRequest { kind, answer } = asked(&mut node);
    let expected = PlainKind::Emulation {
        node: "node-2".to_owned(),
        session: "S".to_owned(),
        data: b"{}".to_vec(),
    };
    assert_eq!(kind, expected);
    answer.answer(PlainAnswer {
        status: 404,
        content_type: String::new(),
        body: Vec::new(),
    });
    assert_eq!(exchange.answer().0.status, 404);
}

#[test]
fn a_control_plane_that_does_not_come_round_refuses_further_requests() {
    use flux_gateway::shard::plain::PLAIN_REQUESTS_MAX;
    let node = settings().start();
    let mut waiting: Vec<Exchange> = (0..PLAIN_REQUESTS_MAX)
        .map(|_| post(node.address, "/api/info"))
        .collect();
    wait_for("all of them to be handed over", || {
        node.plain.len() == PLAIN_REQUESTS_MAX
    });
    let (head, _) = post(node.address, "/api/info").answer();
    assert_eq!(head.status, 503);
    assert_eq!(head.field("Retry-After"), "1");
    drop(node);
    waiting.clear();
}

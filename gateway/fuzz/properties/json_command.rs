//! Whatever is taken for commands is bounded by the message and makes valid JSON again; data stands on one line.

use flux_gateway::protocol::{Request, json};

pub(crate) fn check(bytes: &[u8]) {
    let mut count = 0;
    for command in json::decode(bytes) {
        count += 1;
        let Ok(command) = command else { break };
        let data = match &command.request {
            Some(Request::Publish(publish)) => &publish.data,
            Some(Request::Rpc(rpc)) => &rpc.data,
            Some(Request::Send(send)) => &send.data,
            Some(Request::Connect(connect)) => &connect.data,
            Some(Request::Subscribe(subscribe)) => &subscribe.data,
            _ => continue,
        };
        assert!(data.is_empty() || json::check_value(data).is_ok());
    }
    assert!(count <= bytes.len() + 1);
    let _ = json::decode_connect_request(bytes);
    // What we take for JSON is JSON for everybody, and the other way round within our depth.
    let theirs = serde_json::from_slice::<serde::de::IgnoredAny>(bytes).is_ok();
    if json::is_value(bytes) {
        assert!(theirs);
        assert!(json::check_value(&json::on_one_line(bytes)).is_ok());
    }
}

//! Whatever is taken for commands is bounded by the message, and everything in it stands in the message.

use flux_gateway::protocol::{Request, protobuf};

pub(crate) fn check(bytes: &[u8]) {
    let within = |part: &[u8]| part.is_empty() || bytes.as_ptr_range().contains(&part.as_ptr());
    let mut count = 0;
    for command in protobuf::decode(bytes) {
        count += 1;
        let Ok(command) = command else { break };
        if let Some(Request::Publish(publish)) = &command.request {
            assert!(within(publish.channel.as_bytes()) && within(&publish.data));
        }
        if let Some(Request::Connect(connect)) = &command.request {
            assert!(connect.subs.len() <= bytes.len());
        }
    }
    assert!(count <= bytes.len() + 1);
    let _ = protobuf::decode_connect_request(bytes);
}

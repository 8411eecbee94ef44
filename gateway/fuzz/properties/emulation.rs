//! Whatever is posted as commands of a session: everything that is taken out of it stands in it.

use flux_gateway::http::Emulation;
use flux_gateway::protocol::protobuf;

pub(crate) fn check(body: &[u8]) {
    if let Some(request) = Emulation::from_json(body) {
        assert!(request.node.len() + request.session.len() + request.data.len() <= body.len());
    }
    let read = Emulation::from_protobuf(body);
    let Ok(request) = protobuf::decode_emulation(body) else {
        assert_eq!(read, None);
        return;
    };
    assert!(request.node.len() + request.session.len() + request.data.len() <= body.len());
    let expected = Emulation {
        node: request.node.to_owned(),
        session: request.session.to_owned(),
        data: request.data.to_vec(),
    };
    assert_eq!(read, Some(expected));
}

//! Whatever comes through Redis as a message of another node is refused or comes back as it was.

use flux_gateway::bus::Document;

pub(crate) fn check(bytes: &[u8]) {
    if let Ok(document) = Document::decode(bytes)
        && let Some(written) = document.clone().encode()
    {
        assert_eq!(Document::decode(&written), Ok(document));
    }
}

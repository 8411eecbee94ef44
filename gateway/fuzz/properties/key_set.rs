//! Whatever stands where a key set should be, it is read or refused, and holds no more keys than it may.

pub(crate) fn check(document: &[u8]) {
    if let Ok(count) = flux_gateway::token::examine_key_set(document) {
        assert!(count <= flux_gateway::limits::JWKS_KEYS_MAX);
    }
}

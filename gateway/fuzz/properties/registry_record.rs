//! Whatever stands in the registry under a node's name, it is refused or holds what it has to.

use flux_registry::{Departure, NodeRecord};

pub(crate) fn check(bytes: &[u8]) {
    if let Ok(record) = NodeRecord::parse("gateway-1", bytes) {
        assert_eq!(record.id, "gateway-1");
        assert!(record.check().is_ok());
    }
    let _ = Departure::parse(bytes);
}

//! What is sent to the backend, and what its answers say (pure).
//!
//! | what | file |
//! |---|---|
//! | questions and notices out | `question` |
//! | answers in | `answer` |

mod answer;
mod question;

use std::time::{Duration, SystemTime};

pub(crate) use answer::{Garbage, connect, publish, readable_by, refresh, rpc, subscribe};
pub(crate) use question::{notice, question};

use crate::authority::payload::Allowed;

/// How much longer credentials hold when the backend cannot say: then it is asked again.
pub(crate) const REFRESH_AGAIN_IN: Duration = Duration::from_secs(60);

/// Feeds anything to the parsers of answers, as tests and the fuzzer do. What would be granted to a
/// client that reads JSON.
#[must_use]
pub fn examine(answer: &[u8], now: SystemTime) -> Vec<Vec<u8>> {
    let mut granted = Vec::new();
    if let Ok(Ok(Some(grant))) = connect(answer, Allowed::Json, now) {
        granted.extend([grant.info, grant.data, grant.meta]);
        let subs = grant.subs.into_iter();
        granted.extend(subs.flat_map(|(_, grant)| [grant.info, grant.data]));
    }
    if let Ok(Ok(grant)) = subscribe(answer, Allowed::Json, now) {
        granted.extend([grant.info, grant.data]);
    }
    if let Ok(Ok(grant)) = publish(answer, Allowed::Json) {
        granted.extend(grant.data);
    }
    if let Ok(Ok(grant)) = rpc(answer, Allowed::Json) {
        granted.push(grant.data);
    }
    if let Ok(Ok(grant)) = refresh(answer, now) {
        granted.extend(grant.info);
    }
    let _ = connect(answer, Allowed::Bytes, now);
    let _ = subscribe(answer, Allowed::Bytes, now);
    let _ = publish(answer, Allowed::Bytes);
    let _ = rpc(answer, Allowed::Bytes);
    granted
}

//! Whatever Redis answers where others have written: what is handed on is what the gateway writes itself, at most as much
//! as came.

pub(crate) fn check(resp: &[u8]) {
    let data = flux_gateway::engine::redis::examine_answer(resp);
    assert!(data.iter().map(Vec::len).sum::<usize>() <= resp.len());
}

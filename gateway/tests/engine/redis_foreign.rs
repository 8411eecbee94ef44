//! Promise: what others put where our keys are in Redis is refused and counted, costs nobody else anything, and
//! when it is gone everything goes on.

use flux_gateway::engine::PublishOptions;
use flux_gateway::engine::history::HistoryQuery;
use flux_gateway::protocol::{ClientId, ClientInfo, ErrorCode};

use crate::door::{Door, RedisNode, in_history};

const ALL: HistoryQuery = HistoryQuery {
    limit: 100,
    since: None,
    reverse: false,
};

fn members(door: &mut Door, channel: &str) -> Result<usize, ErrorCode> {
    let asker = door.asker();
    door.engine.presence(channel, asker);
    let members = door.until("members", |door| door.members.remove(&asker.command));
    members.map(|members| members.len())
}

/// The offsets that a page of the history has.
fn page(door: &mut Door, channel: &str) -> Vec<u64> {
    let page = door.page(channel, ALL).expect("answered");
    page.publications.iter().map(|one| one.offset).collect()
}

#[test]
fn entries_of_the_stream_that_are_none_of_ours_are_passed_over_and_counted() {
    let Some((server, mut a, mut b)) = RedisNode::two() else {
        return;
    };
    for data in 1..=2 {
        a.door.publish("room", data).expect("stored");
    }
    // Without our field, with more than our field, with a record of nobody's, out of our numbering.
    for (offset, entry) in [
        (3, "3-0 event created"),
        (4, "4-0 d x more y"),
        (5, "5-0 d FLX1p"),
        (6, "5-7 d x"),
    ] {
        server.command("HINCRBY centrifugo.meta.room s 1");
        server.command(&format!("XADD centrifugo.stream.room {entry}"));
        assert_eq!(page(&mut b.door, "room"), [1, 2], "{offset}");
    }
    assert_eq!(
        a.door
            .publish("room", 7)
            .expect("stored")
            .expect("a place")
            .offset,
        7
    );
    assert_eq!(page(&mut b.door, "room"), [1, 2, 7]);
    let counted = b.metrics.rejected_content.get() + b.metrics.rejected_format.get();
    assert_eq!(counted, 1 + 2 + 3 + 4 + 4);
    assert_eq!(
        (a.metrics.redis_lost.get(), b.metrics.redis_lost.get()),
        (0, 0)
    );
}

#[test]
fn keys_of_another_type_are_refused_one_by_one_and_the_rest_goes_on() {
    let Some((server, mut a, mut b)) = RedisNode::two() else {
        return;
    };
    let once = |key: &'static str| PublishOptions {
        idempotency_key: key,
        ..in_history()
    };
    // The result of an idempotent publish.
    server.command("SET centrifugo.result.4.room.taken x");
    let taken = a.door.publish_with("room", 1, &once("taken"));
    assert_eq!(a.door.publish_answer(taken), Err(ErrorCode::Internal));
    assert_eq!(a.metrics.redis_refused.get(), 1);
    // One that looks like ours and holds nothing that could be a place.
    server.command("HSET centrifugo.result.4.room.odd e epoch s many");
    let odd = a.door.publish_with("room", 1, &once("odd"));
    assert_eq!(a.door.publish_answer(odd), Err(ErrorCode::Internal));
    assert_eq!(a.metrics.redis_refused.get(), 2);
    let free = a.door.publish_with("room", 1, &once("free"));
    let place = a
        .door
        .publish_answer(free)
        .expect("stored")
        .expect("a place");
    assert_eq!(place.offset, 1, "what was refused is not stored");
    server.command("DEL centrifugo.result.4.room.taken");
    let again = a.door.publish_with("room", 2, &once("taken"));
    let place = a
        .door
        .publish_answer(again)
        .expect("stored")
        .expect("a place");
    assert_eq!(place.offset, 2);
    assert_eq!(page(&mut b.door, "room"), [1, 2]);

    // Newest offset and epoch that are none.
    server.command("HSET centrifugo.meta.odd e epoch s many");
    assert_eq!(a.door.publish("odd", 1), Err(ErrorCode::Internal));
    assert_eq!(b.door.page("odd", ALL).err(), Some(ErrorCode::Internal));
    server.command("DEL centrifugo.meta.odd");
    a.door.publish("odd", 1).expect("stored");

    // Who is present.
    server.command("RPUSH centrifugo.presence.room x");
    assert_eq!(members(&mut b.door, "room"), Err(ErrorCode::Internal));
    assert!(b.metrics.redis_refused.get() >= 1);
    let info = ClientInfo {
        user: "ann",
        client: ClientId::from_random(1),
        conn_info: b"",
        chan_info: b"",
    };
    a.door.engine.enter("other", info);
    a.door.turn();
    a.door.until("it is present", |door| {
        (members(door, "other") == Ok(1)).then_some(())
    });
    server.command("DEL centrifugo.presence.room");
    assert_eq!(members(&mut b.door, "room"), Ok(0));
    assert_eq!(
        (a.metrics.redis_lost.get(), b.metrics.redis_lost.get()),
        (0, 0)
    );
}

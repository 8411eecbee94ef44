//! Promise: publications of a channel with history are numbered across nodes; what is kept of them can be
//! read by everybody, and whoever comes back gets from it what it missed.

use std::time::Instant;

use flux_gateway::engine::PublishOptions;
use flux_gateway::engine::history::HistoryQuery;
use flux_gateway::protocol::ErrorCode;
use flux_gateway::pubsub::{KnownEpoch, StreamPosition};
use flux_redis_fixtures::Server as RedisServer;

use crate::door::{HISTORY, RedisNode, in_history};

fn query(limit: u32, since: Option<(u64, KnownEpoch)>, reverse: bool) -> HistoryQuery {
    HistoryQuery {
        limit,
        since,
        reverse,
    }
}

#[test]
fn publications_are_numbered_across_nodes_and_the_past_can_be_read() {
    let Some((_server, mut a, mut b)) = RedisNode::two() else {
        return;
    };
    let (key_a, start) = a.door.listening("room");
    let (key_b, other) = b.door.listening("room");
    assert_eq!((start, start.offset), (other, 0));
    for n in 1..=10 {
        let door = if n % 2 == 0 { &mut a.door } else { &mut b.door };
        let position = door
            .publish("room", n)
            .expect("accepted")
            .expect("a position");
        assert_eq!((position.epoch, position.offset), (start.epoch, n));
    }
    a.door.has_all(key_a, 1, 10);
    b.door.has_all(key_b, 1, 10);
    let mut offsets = |query| {
        let page = a.door.page("room", query)?;
        assert_eq!(page.position.offset, 10);
        Ok::<_, ErrorCode>(
            page.publications
                .iter()
                .map(|p| p.offset)
                .collect::<Vec<_>>(),
        )
    };
    let same = KnownEpoch::Is(start.epoch);
    assert_eq!(offsets(query(0, None, false)), Ok(vec![]));
    assert_eq!(offsets(query(3, None, false)), Ok(vec![1, 2, 3]));
    assert_eq!(offsets(query(2, Some((4, same)), false)), Ok(vec![5, 6]));
    assert_eq!(offsets(query(2, None, true)), Ok(vec![10, 9]));
    assert_eq!(
        offsets(query(2, Some((4, KnownEpoch::Any)), true)),
        Ok(vec![3, 2])
    );
    assert_eq!(
        offsets(query(u32::MAX, None, false)),
        Ok((1..=10).collect())
    );
    let foreign = Some((4, KnownEpoch::Foreign));
    assert_eq!(
        offsets(query(2, foreign, false)),
        Err(ErrorCode::UnrecoverablePosition)
    );
    assert_eq!(
        offsets(query(2, Some((0, same)), true)),
        Err(ErrorCode::BadRequest)
    );

    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("one");
    runtime
        .block_on(b.handle.remove_history("room"))
        .expect("removed");
    let page = runtime.block_on(b.handle.history("room", query(9, None, false), HISTORY));
    let page = page.expect("a page");
    assert_eq!((page.publications.len(), page.position.offset), (0, 10));
    a.door.publish("room", 11).expect("accepted");
    a.door.has_all(key_a, 1, 11);
}

#[test]
fn a_publication_sent_twice_is_one_and_an_old_version_is_none() {
    let Some(server) = RedisServer::start() else {
        return;
    };
    let mut node = RedisNode::joined(&server.url());
    let (key, _) = node.door.listening("room");
    let keyed = PublishOptions {
        idempotency_key: "k",
        ..in_history()
    };
    let versioned = |version, version_epoch| PublishOptions {
        version,
        version_epoch,
        ..in_history()
    };
    let huge = u64::MAX;
    for (options, offset) in [
        (keyed, 1),
        (keyed, 1),
        (versioned(9, ""), 2),
        (versioned(9, ""), 2),
        (versioned(10, ""), 3),
        (versioned(2, "other"), 4),
        (versioned(2, ""), 4),
        (versioned(huge - 1, ""), 5),
        (versioned(huge, ""), 6),
        (versioned(huge, ""), 6),
    ] {
        let command = node.door.publish_with("room", 1, &options);
        let position = node.door.publish_answer(command).expect("accepted");
        assert_eq!(position.expect("a position").offset, offset, "{options:?}");
    }
    node.door.has_all(key, 1, 6);
    // Without history the key alone decides.
    let key = node.door.listen("plain", None);
    node.door
        .until("the reply", |door| door.subscribed.get(&key).copied())
        .expect("accepted");
    let keyed = PublishOptions {
        idempotency_key: "k",
        ..PublishOptions::default()
    };
    for data in [1, 2] {
        let command = node.door.publish_with("plain", data, &keyed);
        assert_eq!(node.door.publish_answer(command), Ok(None));
    }
    let last = node
        .door
        .publish_with("plain", 3, &PublishOptions::default());
    assert_eq!(node.door.publish_answer(last), Ok(None));
    node.door.until("both", |door| {
        (door.got.get(&key)?.len() >= 2).then_some(())
    });
    assert_eq!(
        node.door.got[&key],
        [(0, "1".to_owned()), (0, "3".to_owned())]
    );
}

#[test]
fn scripts_that_redis_has_forgotten_are_brought_again() {
    let Some(server) = RedisServer::start() else {
        return;
    };
    let mut node = RedisNode::joined(&server.url());
    let (key, start) = node.door.listening("room");
    node.door.publish("room", 1).expect("accepted");
    server.command("SCRIPT FLUSH");
    node.door.publish("room", 2).expect("accepted");
    server.command("SCRIPT FLUSH");
    let page = node
        .door
        .page("room", query(9, None, false))
        .expect("a page");
    assert_eq!(
        (page.publications.len(), page.position.epoch),
        (2, start.epoch)
    );
    node.door.has_all(key, 1, 2);
    assert!(node.metrics.redis_scripts_unknown.get() >= 2);
    // Many under way at once keep their order and are all accepted.
    server.command("SCRIPT FLUSH");
    let commands: Vec<_> = (3..=50)
        .map(|n| node.door.publish_with("room", n, &in_history()))
        .collect();
    for (command, offset) in commands.into_iter().zip(3..) {
        let position = node.door.publish_answer(command).expect("accepted");
        assert_eq!(position.expect("a position").offset, offset);
    }
    node.door.has_all(key, 1, 50);
}

#[test]
fn a_storm_of_those_who_come_back_is_one_read() {
    let Some((_server, mut a, mut b)) = RedisNode::two() else {
        return;
    };
    for n in 1..=200 {
        a.door.publish("room", n).expect("accepted");
    }
    let position = a
        .door
        .page("room", query(0, None, false))
        .expect("a page")
        .position;
    let began = Instant::now();
    let key = b.door.listen("room", Some(HISTORY));
    let commands: Vec<(u64, u32)> = (0..2_000)
        .map(|n| {
            let offset = 100 + n % 100;
            let since = StreamPosition { offset, ..position };
            (offset, b.door.recover("room", key, since))
        })
        .collect();
    for (offset, command) in commands {
        let recovery = b.door.recovery(command).expect("answered");
        assert!(recovery.recovered, "{offset}");
        let got = recovery.publications.iter().map(|p| p.offset);
        assert!(got.eq(offset + 1..=200), "{offset}");
    }
    let (took, reads) = (began.elapsed(), b.metrics.redis_reads.get());
    println!("{reads} reads in {took:?}");
    assert!(reads <= 2 + took.as_secs(), "{reads} reads in {took:?}");
    // Older than anybody wanted: one more read, for all of them.
    let commands: Vec<u32> = (0..500)
        .map(|n| {
            b.door.recover(
                "room",
                key,
                StreamPosition {
                    offset: n % 50,
                    ..position
                },
            )
        })
        .collect();
    for command in commands {
        assert!(b.door.recovery(command).expect("answered").recovered);
    }
    let (took, reads) = (began.elapsed(), b.metrics.redis_reads.get());
    assert!(reads <= 2 + took.as_secs(), "{reads} reads in {took:?}");
    // More than a client takes at once, and more than there is.
    a.door.publish("room", 201).expect("accepted");
    b.door.has_all(key, 201, 201);
    for n in 202..=320 {
        a.door.publish("room", n).expect("accepted");
    }
    b.door.has_all(key, 201, 320);
    let command = b.door.recover(
        "room",
        key,
        StreamPosition {
            offset: 1,
            ..position
        },
    );
    let recovery = b.door.recovery(command).expect("answered");
    assert_eq!(
        (recovery.recovered, recovery.publications.len()),
        (false, 0)
    );
    assert_eq!(recovery.position.offset, 320);
}

#[test]
fn garbage_in_the_stream_and_in_the_channel_is_counted_and_never_a_hole() {
    let Some((server, mut a, mut b)) = RedisNode::two() else {
        return;
    };
    let (key, start) = b.door.listening("room");
    a.door.publish("room", 1).expect("accepted");
    b.door.has_all(key, 1, 1);
    for garbage in [
        "hello",
        "FLX2",
        "FLX2abcdefgh1:x",
        "\"FLX2abcdefgh1:FLX1p\\x00\"",
    ] {
        server.command(&format!("PUBLISH centrifugo.client.room {garbage}"));
    }
    a.door.publish("room", 2).expect("accepted");
    b.door.has_all(key, 1, 2);
    assert_eq!(
        b.metrics.rejected_content.get() + b.metrics.rejected_format.get(),
        4
    );
    // Somebody else's entry at offset 3: whoever needs it is told.
    server.command("HINCRBY centrifugo.meta.room s 1");
    server.command("XADD centrifugo.stream.room 3-0 d garbage");
    a.door.publish("room", 4).expect("accepted");
    b.door.until("the announcement", |door| {
        door.lost.contains(&key).then_some(())
    });
    assert_eq!(b.door.offsets(key), [1, 2]);
    let (again, position) = b.door.listening("room");
    assert_eq!(position, StreamPosition { offset: 4, ..start });
    for (offset, recovered) in [(2, false), (3, true), (4, true)] {
        let command = b
            .door
            .recover("room", again, StreamPosition { offset, ..start });
        assert_eq!(
            b.door.recovery(command).expect("answered").recovered,
            recovered,
            "{offset}"
        );
    }
    // Keys of another type.
    server.command("SET centrifugo.meta.taken x");
    assert_eq!(a.door.publish("taken", 1), Err(ErrorCode::Internal));
    let refused = b.door.listen("taken", Some(HISTORY));
    let result = b
        .door
        .until("a refusal", |door| door.subscribed.get(&refused).copied());
    assert_eq!(result, Err(ErrorCode::Internal));
    server.command("SET centrifugo.stream.odd x");
    let position = a
        .door
        .publish("odd", 1)
        .expect("taken over")
        .expect("a position");
    assert_eq!(position.offset, 1);
    assert_eq!(
        (a.metrics.redis_lost.get(), b.metrics.redis_lost.get()),
        (0, 0)
    );
}

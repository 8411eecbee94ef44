//! Streams and windows against a model that keeps everything and computes each answer from the
//! rules as they are written down.

use std::time::{Duration, Instant};

use fastrand::Rng;

use super::super::history::{
    HistoryOptions, HistoryQuery, Publications, RecoveryMode, RecoveryRequest,
};
use super::*;
use crate::engine::history::StoredPublication;
use crate::protocol::{ClientId, ClientInfo, Tags};
use crate::pubsub::{KnownEpoch, MessageRef};

/// Everything that a stream has had, and from when on it is gone.
struct Model {
    options: HistoryOptions,
    epoch: Epoch,
    /// Offset and data.
    kept: Vec<(u64, String)>,
    top: u64,
    version: u64,
    version_epoch: String,
    expires_at: Instant,
}

impl Model {
    fn read(&self, publications: &Publications) -> Vec<(u64, String)> {
        publications
            .iter()
            .map(|publication| {
                let text =
                    String::from_utf8_lossy(publication.message.as_ref().payload()).into_owned();
                (publication.offset, text)
            })
            .collect()
    }

    fn expire(&mut self, now: Instant) {
        if now >= self.expires_at {
            self.kept.clear();
        }
    }

    /// The rule of the protocol: all that was read behind the offset, up to the limit, reaches from
    /// the offset to the top, or nothing was read and the offset is the top.
    fn recover(&self, request: &RecoveryRequest) -> Option<Vec<(u64, String)>> {
        match request.mode {
            RecoveryMode::Stream => {
                let behind = self
                    .kept
                    .iter()
                    .filter(|(offset, _)| *offset > request.offset);
                let read: Vec<_> = behind
                    .take(request.publications_max as usize)
                    .cloned()
                    .collect();
                let is_whole = match (read.first(), read.last()) {
                    (Some((first, _)), Some((last, _))) => {
                        *first == request.offset + 1 && *last == self.top
                    }
                    _ => request.offset == self.top,
                };
                (request.epoch.matches(self.epoch) && is_whole).then_some(read)
            }
            RecoveryMode::Cache => {
                let has_it = request.offset > 0
                    && request.offset == self.top
                    && request.epoch == KnownEpoch::Is(self.epoch);
                match self.kept.last() {
                    _ if has_it => Some(Vec::new()),
                    Some(newest) => Some(vec![newest.clone()]),
                    None => None,
                }
            }
        }
    }

    fn page(&self, query: &HistoryQuery) -> Result<Vec<(u64, String)>, ErrorCode> {
        let mut read = self.kept.clone();
        if let Some((since, epoch)) = query.since {
            if !epoch.matches(self.epoch) {
                return Err(ErrorCode::UnrecoverablePosition);
            }
            if query.reverse && since == 0 {
                return Err(ErrorCode::BadRequest);
            }
            read.retain(|(offset, _)| match query.reverse {
                true => *offset < since,
                false => *offset > since,
            });
        }
        if query.reverse {
            read.reverse();
        }
        read.truncate(query.limit as usize);
        Ok(read)
    }
}

fn epoch_of(rng: &mut Rng, own: Epoch) -> KnownEpoch {
    match rng.u8(..8) {
        0 => KnownEpoch::Any,
        1 => KnownEpoch::Foreign,
        2 => KnownEpoch::Is(Epoch::from_random(rng.u64(..))),
        _ => KnownEpoch::Is(own),
    }
}

fn offset_of(rng: &mut Rng, top: u64) -> u64 {
    match rng.u8(..10) {
        0 => u64::MAX - rng.u64(..2),
        1 => top,
        2 => 0,
        _ => rng.u64(..top + 3),
    }
}

#[test]
fn a_stream_answers_as_the_rules_say_whatever_was_published_read_removed_or_expired() {
    let seed = fastrand::u64(..);
    let mut rng = Rng::with_seed(seed);
    for _ in 0..60 {
        let options = HistoryOptions {
            size: rng.u32(1..12),
            ttl: Duration::from_millis(100),
            meta_ttl: Duration::from_secs(1),
        };
        let mut now = Instant::now();
        let epoch = Epoch::from_random(rng.u64(..));
        let mut stream = Stream::new(epoch, now, &options);
        let mut model = Model {
            options,
            epoch,
            kept: Vec::new(),
            top: 0,
            version: 0,
            version_epoch: String::new(),
            expires_at: now,
        };
        for step in 0..300 {
            now += Duration::from_millis(rng.u64(..8));
            if rng.u8(..60) == 0 {
                now += options.ttl;
            }
            model.expire(now);
            stream.expire(now);
            match rng.u8(..10) {
                0..5 => publish(&mut rng, &mut model, &mut stream, now, step),
                5..7 => {
                    let request = RecoveryRequest {
                        mode: [RecoveryMode::Stream, RecoveryMode::Cache][rng.usize(..2)],
                        offset: offset_of(&mut rng, model.top),
                        epoch: epoch_of(&mut rng, epoch),
                        publications_max: rng.u32(..12),
                    };
                    let recovery = stream.recover(&request);
                    let expected = model.recover(&request);
                    assert_eq!(
                        recovery.recovered,
                        expected.is_some(),
                        "seed {seed}: {request:?}"
                    );
                    let read = model.read(&recovery.publications);
                    assert_eq!(
                        read,
                        expected.unwrap_or_default(),
                        "seed {seed}: {request:?}"
                    );
                    assert_eq!(recovery.position, stream.position());
                }
                7..9 => {
                    let query = HistoryQuery {
                        limit: [0, 1, 5, u32::MAX][rng.usize(..4)],
                        since: rng
                            .bool()
                            .then(|| (offset_of(&mut rng, model.top), epoch_of(&mut rng, epoch))),
                        reverse: rng.bool(),
                    };
                    let page = stream.page(&query);
                    let read = page.map(|page| model.read(&page.publications));
                    assert_eq!(read, model.page(&query), "seed {seed}: {query:?}");
                }
                _ if rng.u8(..10) == 0 => {
                    assert_eq!(stream.clear(), model.kept.len());
                    model.kept.clear();
                }
                _ => {
                    let dropped = stream.drop_oldest();
                    assert_eq!(dropped, !model.kept.is_empty(), "seed {seed}");
                    if dropped {
                        model.kept.remove(0);
                    }
                }
            }
            assert_eq!(stream.position().offset, model.top, "seed {seed}");
            assert_eq!(stream.is_empty(), model.kept.is_empty(), "seed {seed}");
        }
    }
}

fn publish(rng: &mut Rng, model: &mut Model, stream: &mut Stream, now: Instant, step: u32) {
    let data = format!("{step}").repeat(rng.usize(1..40));
    let conditions = rng.bool().then(|| Conditions {
        version: rng.u64(..6),
        version_epoch: ["", "x", "y"][rng.usize(..3)].into(),
        ..Conditions::default()
    });
    let message = MessageRef::data(data.as_bytes());
    let entered = stream.enter(message, conditions.as_ref(), &model.options, now);
    let conditions = conditions.unwrap_or_default();
    let is_comparable =
        conditions.version_epoch.is_empty() || *conditions.version_epoch == *model.version_epoch;
    if conditions.version > 0 && is_comparable && conditions.version <= model.version {
        assert_eq!(entered, Entered::Stale(stream.position()));
        return;
    }
    if conditions.version > 0 {
        model.version = conditions.version;
        model.version_epoch = conditions.version_epoch.into();
    }
    model.top += 1;
    model.kept.push((model.top, data));
    let excess = model.kept.len().saturating_sub(model.options.size as usize);
    model.kept.drain(..excess);
    model.expires_at = now + model.options.ttl;
    assert_eq!(entered, Entered::At(stream.position()));
}

#[test]
fn a_window_takes_only_what_joins_on_and_answers_up_to_where_its_reader_is() {
    let stored = |offset: u64| StoredPublication {
        offset,
        message: MessageRef::data(offset.to_string().as_bytes())
            .store(&mut flux_runtime::log::LogWriter::new(), "elsewhere"),
    };
    let mut window = Window::new(10);
    assert_eq!((window.first(), window.top(), window.len()), (11, 10, 0));
    assert!(window.covers(10) && !window.covers(9) && !window.covers(11));
    assert!(
        !window.append_at(12, MessageRef::data(b"12")),
        "11 is missing"
    );
    for offset in 11..=14_u64 {
        assert!(window.append_at(offset, MessageRef::data(offset.to_string().as_bytes())));
    }
    assert!(
        !window.extend_front(&[stored(8), stored(9)]),
        "10 is missing"
    );
    assert!(!window.extend_front(&[stored(8), stored(10)]), "a hole");
    assert!(window.extend_front(&[stored(9), stored(10)]));
    assert!(window.covers(8) && !window.covers(7));
    let older: Vec<_> = (0..=8).map(stored).collect();
    assert!(!window.extend_front(&older), "nothing has offset 0");
    assert!(window.extend_front(&older[1..]));
    assert_eq!((window.first(), window.len()), (1, 14));

    let epoch = Epoch::from_random(7);
    let mut request = RecoveryRequest {
        mode: RecoveryMode::Stream,
        offset: 8,
        epoch: KnownEpoch::Is(epoch),
        publications_max: 300,
    };
    let missed = |window: &mut Window, up_to| {
        let position = StreamPosition {
            epoch,
            offset: up_to,
        };
        let recovery = window.recover(&request, position);
        assert_eq!(recovery.position, position);
        let offsets: Vec<u64> = recovery.publications.iter().map(|p| p.offset).collect();
        for publication in recovery.publications.iter() {
            let text = publication.offset.to_string();
            assert_eq!(publication.message.as_ref().payload(), text.as_bytes());
        }
        recovery.recovered.then_some(offsets)
    };
    assert_eq!(missed(&mut window, 12), Some(vec![9, 10, 11, 12]));
    assert_eq!(missed(&mut window, 8), Some(vec![]));
    assert_eq!(
        missed(&mut window, 7),
        None,
        "the reader is behind the client"
    );
    window.keep(5);
    assert_eq!(missed(&mut window, 12), None, "9 is gone");
    request.mode = RecoveryMode::Cache;
    let position = StreamPosition { epoch, offset: 12 };
    let newest = window.recover(&request, position);
    assert!(newest.recovered && newest.publications[0].offset == 12);
}

#[test]
fn those_who_missed_the_same_share_one_answer_and_what_is_kept_stays_whole() {
    let mut window = Window::new(0);
    let info = ClientInfo {
        user: "ann",
        client: ClientId::from_random(1),
        conn_info: b"{}",
        chan_info: b"[1]",
    };
    let message = MessageRef::Publication {
        data: b"{\"n\":1}",
        info: Some(info),
        tags: Tags::NONE,
        delta: true,
    };
    for _ in 0..10 {
        window.append(message);
    }
    let epoch = Epoch::from_random(1);
    let query = HistoryQuery {
        limit: 5,
        since: None,
        reverse: false,
    };
    let mut page = || window.page(&query, epoch).expect("a page").publications;
    let (first, second) = (page(), page());
    assert!(std::sync::Arc::ptr_eq(&first, &second));
    assert_eq!(first[4].message.as_ref(), message);
    window.keep(1);
    assert_eq!(first[0].message.as_ref(), message, "an answer outlives it");
    window.drop_oldest();
    assert_eq!((window.bytes(), window.top(), window.first()), (0, 10, 11));
}

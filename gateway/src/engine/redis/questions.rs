//! What is asked of Redis besides publishing and subscribing: as commands, and what their answers
//! mean. They travel on a connection of their own, so that nothing that is published waits behind a
//! large answer.

use std::sync::Arc;
use std::time::Duration;

use flux_runtime::log::LogWriter;
use redis::{Cmd, Value};

use super::super::history::{HistoryPage, HistoryQuery, StoredPublication};
use super::super::request::{Reply, ReplyTo};
use super::super::{Event, Members, PresenceStats};
use super::keys::Keys;
use super::present::{Dead, ENTRIES_TTL, Step};
use super::record::{self, Body, ORIGIN_OF_NOBODY};
use super::scan::{Scan, Scanned, stats};
use super::scripts::{LastSeen, Range, Scripts, stretch};
use super::shards::Shards;
use super::streams::Wanted;
use crate::protocol::{ClientId, ErrorCode};
use crate::pubsub::{Epoch, MessageRef};

pub(super) enum Question {
    /// A stretch of a channel's history, for its subscribers here.
    Read(Wanted),
    History {
        channel: Arc<str>,
        query: HistoryQuery,
        meta_ttl: Duration,
        reply: ReplyTo<HistoryPage>,
    },
    Remove {
        channel: Arc<str>,
        reply: Reply<()>,
    },
    Presence {
        channel: Arc<str>,
        scan: Box<Scan>,
        reply: ReplyTo<Members>,
    },
    PresenceStats {
        channel: Arc<str>,
        scan: Box<Scan>,
        reply: ReplyTo<PresenceStats>,
    },
    /// What is to be done about who is present.
    Present(Arc<str>, Step),
    /// A dead node's member is to be removed.
    Expel(Arc<str>, Box<Dead>),
}

impl Question {
    /// Whose entry it changes.
    pub(super) fn member(&self) -> Option<(&Arc<str>, ClientId)> {
        match self {
            Question::Present(channel, Step::Enter(client, _) | Step::Exit(client)) => {
                Some((channel, *client))
            }
            _ => None,
        }
    }

    /// It will not be answered.
    pub(super) fn refuse(self, why: ErrorCode, shards: &mut Shards) {
        match self {
            Question::Read(_) => {}
            Question::Present(channel, step) => {
                let is_remembered = match step {
                    Step::Enter(client, _) | Step::Exit(client) => {
                        shards.present.owe(&channel, Some(client))
                    }
                    Step::Clean(_) => shards.present.owe(&channel, None),
                    // There will be another.
                    Step::Check(_) => true,
                };
                shards.metrics.presence_dropped.add((!is_remembered).into());
            }
            Question::Expel(channel, _) => {
                let is_remembered = shards.present.owe(&channel, None);
                shards.metrics.presence_dropped.add((!is_remembered).into());
            }
            Question::Presence { reply, .. } => {
                shards.answer(reply, Err(why), |asker, result| Event::Presence {
                    asker,
                    result,
                });
            }
            Question::PresenceStats { reply, .. } => {
                let event = |asker, result| Event::PresenceStats { asker, result };
                shards.answer(reply, Err(why), event);
            }
            Question::History { reply, .. } => {
                shards.answer(reply, Err(why), |asker, result| Event::History {
                    asker,
                    result,
                });
            }
            Question::Remove { reply, .. } => {
                let _ = reply.send(Err(why));
            }
        }
    }

    /// The command that asks it; scripts by their text where `is_known` is false. `epoch` is for a
    /// channel that has none.
    pub(super) fn command(
        &self,
        keys: &Keys,
        scripts: &Scripts,
        epoch: Epoch,
        is_known: bool,
    ) -> Cmd {
        let read = |channel: &str, range: &Range, seen: Option<&LastSeen>, meta_ttl: Duration| {
            let mut call = scripts.read.call(is_known);
            call.arg(2)
                .arg(keys.stream(channel))
                .arg(keys.meta(channel));
            call.arg(epoch.as_str()).arg(milliseconds(meta_ttl));
            range.put_into(&mut call);
            LastSeen::put_into(seen, &mut call);
            call
        };
        match self {
            Question::Read(wanted) => {
                let seen = wanted.seen.as_ref();
                read(&wanted.channel, &wanted.range, seen, wanted.meta_ttl)
            }
            Question::History {
                channel,
                query,
                meta_ttl,
                ..
            } => read(channel, &range_of(query), None, *meta_ttl),
            Question::Presence { channel, scan, .. }
            | Question::PresenceStats { channel, scan, .. } => scan.command(keys.presence(channel)),
            Question::Present(channel, Step::Clean(cursor)) => {
                cursor.command(keys.presence(channel))
            }
            Question::Present(channel, Step::Enter(client, entry)) => {
                let mut call = scripts.enter.call(is_known);
                call.arg(1)
                    .arg(keys.presence(channel))
                    .arg(client.to_string());
                call.arg(&entry[..]).arg(milliseconds(ENTRIES_TTL));
                call
            }
            Question::Present(channel, Step::Exit(client)) => {
                let mut command = redis::cmd("HDEL");
                command.arg(keys.presence(channel)).arg(client.to_string());
                command
            }
            Question::Present(channel, Step::Check(client)) => {
                let mut command = redis::cmd("HEXISTS");
                command.arg(keys.presence(channel)).arg(client.to_string());
                command
            }
            Question::Expel(channel, dead) => {
                let mut leave = Vec::new();
                let body = Body::Message(MessageRef::Leave(dead.info.as_ref()));
                record::encode(&mut leave, ORIGIN_OF_NOBODY, 0, body);
                let mut call = scripts.expel.call(is_known);
                call.arg(1).arg(keys.presence(channel)).arg(&dead.field[..]);
                call.arg(&dead.value[..]).arg(leave);
                call.arg(keys.channel(channel)).arg(keys.publish_command());
                call
            }
            Question::Remove { channel, .. } => {
                let mut removed = Vec::new();
                record::encode(&mut removed, ORIGIN_OF_NOBODY, 0, Body::Removed);
                let mut call = scripts.remove.call(is_known);
                call.arg(1).arg(keys.stream(channel)).arg(removed);
                call.arg(keys.channel(channel)).arg(keys.publish_command());
                call
            }
        }
    }
}

/// A time as Redis takes it; at least one millisecond, or the key would be deleted at once.
pub(super) fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis())
        .unwrap_or(u64::MAX)
        .clamp(1, TTL_MAX_MS)
}

/// A hundred years: beyond what anybody means, below what Redis refuses.
const TTL_MAX_MS: u64 = 100 * 366 * 24 * 3_600 * 1_000;

fn range_of(query: &HistoryQuery) -> Range {
    let since = query.since.map(|(offset, _)| offset);
    let (after, before) = match query.reverse {
        false => (since.unwrap_or(0), None),
        true => (0, since),
    };
    Range {
        after,
        before,
        limit: query.limit,
        reverse: query.reverse,
    }
}

/// Passes on what Redis has answered. Hands out what has to be asked next, where that was not all.
pub(super) fn answer(question: Question, answer: &Value, shards: &mut Shards) -> Option<Question> {
    match question {
        Question::History { query, reply, .. } => {
            let result = page(&query, answer, shards);
            shards.answer(reply, result, |asker, result| Event::History {
                asker,
                result,
            });
        }
        Question::Remove { reply, .. } => {
            let _ = reply.send(Ok(()));
        }
        Question::Presence {
            channel,
            scan,
            reply,
        } => {
            let result = match members(*scan, &channel, answer, shards) {
                Ok(result) => result,
                Err(scan) => {
                    return Some(Question::Presence {
                        channel,
                        scan,
                        reply,
                    });
                }
            };
            shards.answer(reply, result, |asker, result| Event::Presence {
                asker,
                result,
            });
        }
        Question::PresenceStats {
            channel,
            scan,
            reply,
        } => {
            let result = match members(*scan, &channel, answer, shards) {
                Ok(result) => result.map(|members| stats(&members)),
                Err(scan) => {
                    return Some(Question::PresenceStats {
                        channel,
                        scan,
                        reply,
                    });
                }
            };
            let event = |asker, result| Event::PresenceStats { asker, result };
            shards.answer(reply, result, event);
        }
        Question::Present(_, Step::Check(_)) if *answer == Value::Int(0) => {
            shards.metrics.redis_presence_lost.add(1);
            shards.present.rewrite();
        }
        Question::Present(..) | Question::Expel(..) => {}
        // The streams' own.
        Question::Read(_) => {}
    }
    None
}

/// All members, or why there is no answer; as error what goes on behind a page that was not the last.
fn members(
    scan: Scan,
    channel: &str,
    answer: &Value,
    shards: &Shards,
) -> Result<Result<Members, ErrorCode>, Box<Scan>> {
    let (scanned, rejected) = scan.take(channel, answer, &shards.present);
    shards.metrics.rejected_content.add(rejected);
    match scanned {
        Scanned::More(scan) => Err(Box::new(scan)),
        Scanned::All(members) => Ok(Ok(members)),
        Scanned::Failed(code) => Ok(Err(code)),
    }
}

fn page(query: &HistoryQuery, answer: &Value, shards: &Shards) -> Result<HistoryPage, ErrorCode> {
    let Ok(stretch) = stretch(answer) else {
        shards.metrics.rejected_content.add(1);
        return Err(ErrorCode::Internal);
    };
    shards
        .metrics
        .rejected_content
        .add(stretch.rejected.len() as u64);
    match query.since {
        Some((_, known)) if !known.matches(stretch.position.epoch) => {
            return Err(ErrorCode::UnrecoverablePosition);
        }
        Some((0, _)) if query.reverse => return Err(ErrorCode::BadRequest),
        _ => {}
    }
    let mut log = LogWriter::new();
    let publications = stretch
        .entries
        .iter()
        .map(|(offset, message)| StoredPublication {
            offset: *offset,
            message: message.store(&mut log, ""),
        })
        .collect();
    Ok(HistoryPage {
        publications,
        position: stretch.position,
    })
}

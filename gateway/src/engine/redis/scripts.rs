//! What happens in Redis in one step, as Lua, and what is answered.
//!
//! | script | keys | answer |
//! |---|---|---|
//! | `APPEND`: a publication of a channel with history | stream, meta, result if it has an idempotency key | what happened, epoch, offset |
//! | `PUBLISH_ONCE`: one without history that has an idempotency key | result | what happened |
//! | `READ`: a stretch of a channel's history | stream, meta | epoch, newest offset, entries, id of the oldest that is kept (none: empty), how long it all is kept (ms) |
//! | `REMOVE`: forgets the publications, not the position | stream | nothing of interest |
//! | `ENTER`: somebody is present | presence | nothing of interest |
//! | `EXPEL`: a dead node's member is not | presence | nothing of interest |
//!
//! Invariants
//! - The meta hash holds epoch `e`, newest offset `s`, version `v` and its epoch `ve`. Where it has
//!   no epoch there is no history: whoever comes first gives it one, and a stream left over from
//!   another life is deleted with it.
//! - Entry `N-0` of the stream, field `d`, is the record of the publication with offset N. The
//!   stream ends at `s` or is gone.
//! - Who reads on from a place names the publication that it has seen there. Where another one stands
//!   there now, or the history ends before it, publications were lost (a replica took over that did not
//!   have them) and their offsets given again: the channel gets a new epoch, so that nobody takes the
//!   new ones for the old.
//! - Offsets are text in Lua wherever they are compared or passed on: its numbers are exact only up
//!   to 2^53.

use std::time::Duration;

use redis::Value;

use super::record::{self, Body, Mark, Rejected};
use crate::limits::{REDIS_READ_BYTES_MAX, REDIS_READ_PUBLICATIONS_MAX};
use crate::pubsub::{MessageRef, StreamPosition};

/// A script and the name that Redis knows it by.
pub(super) struct Script {
    pub(super) code: &'static str,
    sha1: String,
}

impl Script {
    fn new(code: &'static str) -> Self {
        Self {
            code,
            sha1: sha1_smol::Sha1::from(code).digest().to_string(),
        }
    }

    /// A call of it by its name; with its text, which makes Redis know it, where `is_known` is
    /// false.
    pub(super) fn call(&self, is_known: bool) -> redis::Cmd {
        match is_known {
            true => {
                let mut call = redis::cmd("EVALSHA");
                call.arg(&self.sha1);
                call
            }
            false => {
                let mut call = redis::cmd("EVAL");
                call.arg(self.code);
                call
            }
        }
    }
}

/// All of them.
pub(super) struct Scripts {
    pub(super) append: Script,
    pub(super) publish_once: Script,
    pub(super) read: Script,
    pub(super) remove: Script,
    pub(super) enter: Script,
    pub(super) expel: Script,
}

impl Scripts {
    pub(super) fn new() -> Self {
        Self {
            append: Script::new(APPEND),
            publish_once: Script::new(PUBLISH_ONCE),
            read: Script::new(READ),
            remove: Script::new(REMOVE),
            enter: Script::new(ENTER),
            expel: Script::new(EXPEL),
        }
    }

    pub(super) fn all(&self) -> [&Script; 6] {
        let Self {
            append,
            publish_once,
            read,
            remove,
            enter,
            expel,
        } = self;
        [append, publish_once, read, remove, enter, expel]
    }
}

/// ARGV: 1 record, 2 size, 3 ttl (ms), 4 meta ttl (ms), 5 epoch if there is none, 6 pub/sub channel,
/// 7 command to publish with, 8 version, 9 version epoch, 10 ttl of the result (ms).
const APPEND: &str = r"
local result = KEYS[3]
if result then
    local known = redis.call('HMGET', result, 'e', 's')
    if known[1] and known[2] then return {2, known[1], known[2]} end
end
local meta = redis.call('HMGET', KEYS[2], 'e', 's', 'v', 've')
local epoch = meta[1]
if not epoch then
    epoch = ARGV[5]
    redis.call('DEL', KEYS[1], KEYS[2])
    redis.call('HSET', KEYS[2], 'e', epoch)
    meta = {epoch, false, false, false}
end
if ARGV[8] ~= '0' then
    local last = meta[3]
    local comparable = ARGV[9] == '' or ARGV[9] == meta[4]
    local newer = not last or #ARGV[8] > #last or (#ARGV[8] == #last and ARGV[8] > last)
    if last and comparable and not newer then
        redis.call('PEXPIRE', KEYS[2], ARGV[4])
        return {3, epoch, meta[2] or '0'}
    end
end
local offset = string.format('%.0f', redis.call('HINCRBY', KEYS[2], 's', 1))
local added = redis.pcall('XADD', KEYS[1], 'MAXLEN', '=', ARGV[2], offset .. '-0', 'd', ARGV[1])
if type(added) == 'table' and added.err then
    redis.call('DEL', KEYS[1])
    redis.call('XADD', KEYS[1], 'MAXLEN', '=', ARGV[2], offset .. '-0', 'd', ARGV[1])
end
if ARGV[8] ~= '0' then
    redis.call('HSET', KEYS[2], 'v', ARGV[8], 've', ARGV[9])
end
redis.call('PEXPIRE', KEYS[1], ARGV[3])
redis.call('PEXPIRE', KEYS[2], ARGV[4])
if result then
    redis.call('HSET', result, 'e', epoch, 's', offset)
    redis.call('PEXPIRE', result, ARGV[10])
end
redis.call(ARGV[7], ARGV[6], 'FLX2' .. epoch .. offset .. ':' .. ARGV[1])
return {1, epoch, offset}
";

/// ARGV: 1 record, 2 pub/sub channel, 3 command to publish with, 4 ttl of the result (ms).
const PUBLISH_ONCE: &str = r"
if not redis.call('SET', KEYS[1], '1', 'NX', 'PX', ARGV[4]) then return {2} end
redis.call(ARGV[3], ARGV[2], ARGV[1])
return {1}
";

/// ARGV: 1 epoch if there is none, 2 meta ttl (ms), 3 command (XRANGE, XREVRANGE), 4 from, 5 to,
/// 6 entries at most, 7 bytes at most (one entry is given in any case), 8 epoch and 9 offset of what the
/// reader has seen (none: empty), 10 its origin and sequence as in its record (not known: empty).
const READ: &str = r"
local meta = redis.call('HMGET', KEYS[2], 'e', 's')
local epoch, top = meta[1], meta[2] or '0'
if not epoch then
    epoch, top = ARGV[1], '0'
    redis.call('DEL', KEYS[1], KEYS[2])
    redis.call('HSET', KEYS[2], 'e', epoch)
end
if ARGV[8] == epoch then
    local seen = ARGV[9]
    local is_other = #top < #seen or (#top == #seen and top < seen)
    if not is_other and ARGV[10] ~= '' then
        local there = redis.pcall('XRANGE', KEYS[1], seen .. '-0', seen .. '-0')
        local record = there[1] and there[1][2][2]
        is_other = record and string.sub(record, 7, 22) ~= ARGV[10]
    end
    if is_other then
        epoch = ARGV[1]
        redis.call('HSET', KEYS[2], 'e', epoch)
    end
end
redis.call('PEXPIRE', KEYS[2], ARGV[2])
local kept = redis.pcall('XRANGE', KEYS[1], '-', '+', 'COUNT', 1)
local oldest, lasts = kept[1] and kept[1][1] or '', redis.call('PTTL', KEYS[1])
local entries, left, room = {}, tonumber(ARGV[6]), tonumber(ARGV[7])
local from = ARGV[4]
while left > 0 do
    local want = math.min(left, 64)
    local part = redis.pcall(ARGV[3], KEYS[1], from, ARGV[5], 'COUNT', want)
    if part.err then break end
    for _, entry in ipairs(part) do
        for _, field in ipairs(entry[2]) do room = room - #field end
        if room < 0 and #entries > 0 then return {epoch, top, entries, oldest, lasts} end
        entries[#entries + 1] = entry
    end
    if #part < want then break end
    left = left - want
    from = '(' .. part[#part][1]
end
return {epoch, top, entries, oldest, lasts}
";

/// ARGV: 1 record, 2 pub/sub channel, 3 command to publish with.
const REMOVE: &str = r"
redis.call('DEL', KEYS[1])
redis.call(ARGV[3], ARGV[2], ARGV[1])
return {1}
";

/// ARGV: 1 client, 2 entry, 3 ttl (ms).
const ENTER: &str = r"
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return {1}
";

/// ARGV: 1 client, 2 entry as it was read, 3 leave record, 4 pub/sub channel, 5 command to publish
/// with.
const EXPEL: &str = r"
if redis.call('HGET', KEYS[1], ARGV[1]) ~= ARGV[2] then return {2} end
redis.call('HDEL', KEYS[1], ARGV[1])
redis.call(ARGV[5], ARGV[4], ARGV[3])
return {1}
";

/// A stretch of a channel's history that is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Range {
    /// Only behind this offset.
    pub(super) after: u64,
    /// Only before this offset.
    pub(super) before: Option<u64>,
    /// How many at most.
    pub(super) limit: u32,
    /// Newest first.
    pub(super) reverse: bool,
}

impl Range {
    /// Only the position.
    pub(super) const NOTHING: Self = Self {
        after: 0,
        before: None,
        limit: 0,
        reverse: false,
    };

    /// Everything behind an offset, as far as one read goes.
    pub(super) fn after(after: u64) -> Self {
        Self {
            after,
            limit: REDIS_READ_PUBLICATIONS_MAX,
            ..Self::NOTHING
        }
    }

    /// Command, first and last id.
    fn ids(&self) -> (&'static str, String, String) {
        let low = match self.after {
            0 => "-".to_owned(),
            after => format!("({after}-{}", u64::MAX),
        };
        let high = match self.before {
            None => "+".to_owned(),
            Some(before) => format!("({before}-0"),
        };
        match self.reverse {
            false => ("XRANGE", low, high),
            true => ("XREVRANGE", high, low),
        }
    }

    /// The arguments of `READ` that say it.
    pub(super) fn put_into(&self, call: &mut redis::Cmd) {
        let (command, from, to) = self.ids();
        let limit = self.limit.min(REDIS_READ_PUBLICATIONS_MAX);
        call.arg(command).arg(from).arg(to);
        call.arg(limit).arg(REDIS_READ_BYTES_MAX);
    }

    /// The newest publication.
    pub(super) const NEWEST: Self = Self {
        after: 0,
        before: None,
        limit: 1,
        reverse: true,
    };
}

/// The last publication that a reader has seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct LastSeen {
    pub(super) position: StreamPosition,
    /// None where only its place is known.
    pub(super) mark: Option<Mark>,
}

impl LastSeen {
    /// The arguments of `READ` that say it.
    pub(super) fn put_into(seen: Option<&Self>, call: &mut redis::Cmd) {
        let Some(Self { position, mark }) = seen else {
            call.arg("").arg("").arg("");
            return;
        };
        call.arg(position.epoch.as_str()).arg(position.offset);
        match mark {
            Some(mark) => call.arg(&mark.to_be_bytes()[..]),
            None => call.arg(""),
        };
    }
}

/// What `READ` has answered.
#[derive(Debug)]
pub(super) struct Stretch<'a> {
    /// The newest position.
    pub(super) position: StreamPosition,
    /// As they stand in the stream, in the order asked for, without those that are none of ours:
    /// there, an offset is missing.
    pub(super) entries: Vec<(u64, MessageRef<'a>)>,
    /// Which publications those are.
    pub(super) marks: Vec<Mark>,
    /// Why entries were refused.
    pub(super) rejected: Vec<Rejected>,
    /// Publications before this offset are not kept any more: behind the newest one where none is.
    pub(super) oldest: u64,
    /// How long those that are kept still are; none where their time does not end.
    pub(super) expires_in: Option<Duration>,
}

/// Takes the answer of `READ` apart.
pub(super) fn stretch(answer: &Value) -> Result<Stretch<'_>, Rejected> {
    let Value::Array(parts) = answer else {
        return Err(Rejected::Content);
    };
    let [epoch, top, Value::Array(raw), oldest, Value::Int(lasts_ms)] = &parts[..] else {
        return Err(Rejected::Content);
    };
    let position = position_of(epoch, top)?;
    let oldest = match bytes(oldest).ok_or(Rejected::Content)? {
        b"" => position.offset.saturating_add(1),
        // Somebody else's entry says nothing about ours.
        id => offset_of_entry(id).unwrap_or(0),
    };
    let mut entries = Vec::with_capacity(raw.len());
    let mut marks = Vec::with_capacity(raw.len());
    let mut rejected = Vec::new();
    for entry in raw {
        match publication(entry) {
            Ok((offset, message, mark)) => {
                entries.push((offset, message));
                marks.push(mark);
            }
            Err(why) => rejected.push(why),
        }
    }
    Ok(Stretch {
        position,
        entries,
        marks,
        rejected,
        oldest,
        expires_in: u64::try_from(*lasts_ms).ok().map(Duration::from_millis),
    })
}

fn offset_of_entry(id: &[u8]) -> Result<u64, Rejected> {
    record::offset_of(id.strip_suffix(b"-0").ok_or(Rejected::Format)?)
}

fn publication(entry: &Value) -> Result<(u64, MessageRef<'_>, Mark), Rejected> {
    let Value::Array(parts) = entry else {
        return Err(Rejected::Content);
    };
    let [id, Value::Array(fields)] = &parts[..] else {
        return Err(Rejected::Content);
    };
    let [name, data] = &fields[..] else {
        return Err(Rejected::Format);
    };
    if bytes(name) != Some(b"d") {
        return Err(Rejected::Format);
    }
    let id = bytes(id).ok_or(Rejected::Content)?;
    let offset = offset_of_entry(id)?;
    let record = record::decode(bytes(data).ok_or(Rejected::Content)?)?;
    match record.body {
        Body::Message(message @ MessageRef::Publication { .. }) if offset > 0 => {
            Ok((offset, message, record.mark()))
        }
        _ => Err(Rejected::Content),
    }
}

/// What became of a publication.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Published, without a place in a history.
    Taken,
    /// Stored and published.
    Stored(StreamPosition),
    /// Not published again: its idempotency key is known (then this is the first one's place), or
    /// its version is not newer (then it is the newest place).
    Suppressed(Option<StreamPosition>),
    /// Redis does not do it.
    Refused,
    /// It belongs to another server, or to none at the moment; nothing was done.
    Elsewhere,
    /// The server does nothing at the moment, and is about to be given up; nothing was done.
    Unavailable,
    /// Redis does not know the script; nothing was done.
    Unknown,
}

/// Takes the answer to a publication apart: of PUBLISH, of `APPEND`, of `PUBLISH_ONCE`. None when
/// it is not an answer to any of them.
pub(super) fn outcome(answer: &Value) -> Option<Outcome> {
    let parts = match answer {
        Value::Int(_) | Value::SimpleString(_) => return Some(Outcome::Taken),
        Value::Array(parts) => &parts[..],
        _ => return None,
    };
    Some(match parts {
        [Value::Int(1)] => Outcome::Taken,
        [Value::Int(2)] => Outcome::Suppressed(None),
        [Value::Int(1), epoch, offset] => match position_of(epoch, offset) {
            Ok(position) => Outcome::Stored(position),
            Err(_) => Outcome::Refused,
        },
        [Value::Int(2 | 3), epoch, offset] => match position_of(epoch, offset) {
            Ok(position) => Outcome::Suppressed(Some(position)),
            Err(_) => Outcome::Refused,
        },
        _ => return None,
    })
}

fn position_of(epoch: &Value, offset: &Value) -> Result<StreamPosition, Rejected> {
    let epoch = record::epoch_of(bytes(epoch).ok_or(Rejected::Content)?)?;
    let offset = match offset {
        Value::Int(offset) => u64::try_from(*offset).map_err(|_| Rejected::Content)?,
        other => record::offset_of(bytes(other).ok_or(Rejected::Content)?)?,
    };
    Ok(StreamPosition { epoch, offset })
}

pub(super) fn bytes(value: &Value) -> Option<&[u8]> {
    match value {
        Value::BulkString(bytes) => Some(bytes),
        Value::SimpleString(text) => Some(text.as_bytes()),
        _ => None,
    }
}

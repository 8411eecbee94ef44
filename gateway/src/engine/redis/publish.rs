//! The command that publishes something.

use redis::Cmd;

use super::super::IDEMPOTENCY_TTL;
use super::keys::Keys;
use super::ledger::{Append, Once};
use super::questions::milliseconds;
use super::scripts::Scripts;
use super::server::Outgoing;
use crate::pubsub::Epoch;

/// The command for `outgoing`, which is `record` in Redis. `epoch` is for a channel that has none.
pub(super) fn command(
    outgoing: &Outgoing<'_>,
    record: &[u8],
    keys: &Keys,
    scripts: &Scripts,
    probe_channel: &[u8],
    epoch: Epoch,
) -> Cmd {
    match outgoing {
        Outgoing::Probe => publish(keys, probe_channel, record),
        Outgoing::Message(channel) => publish(keys, keys.channel(channel).as_bytes(), record),
        Outgoing::Once(once) => publish_once(once, record, keys, scripts),
        Outgoing::Append(append) => publish_in_history(append, record, keys, scripts, epoch),
        Outgoing::Nothing => redis::cmd("PING"),
    }
}

fn publish(keys: &Keys, name: &[u8], record: &[u8]) -> Cmd {
    let mut command = redis::cmd(keys.publish_command());
    command.arg(name).arg(record);
    command
}

fn publish_once(once: &Once, record: &[u8], keys: &Keys, scripts: &Scripts) -> Cmd {
    let channel = once.message.channel();
    let mut call = scripts.publish_once.call(once.is_known);
    call.arg(1).arg(keys.result(channel, &once.key)).arg(record);
    call.arg(keys.channel(channel)).arg(keys.publish_command());
    call.arg(milliseconds(IDEMPOTENCY_TTL));
    call
}

fn publish_in_history(
    append: &Append,
    record: &[u8],
    keys: &Keys,
    scripts: &Scripts,
    epoch: Epoch,
) -> Cmd {
    let channel = append.message.channel();
    let history = &append.history;
    let (key, version, version_epoch) = match &append.conditions {
        None => ("", 0, ""),
        Some(conditions) => (
            &*conditions.idempotency_key,
            conditions.version,
            &*conditions.version_epoch,
        ),
    };
    let mut call = scripts.append.call(append.is_known);
    call.arg(if key.is_empty() { 2 } else { 3 });
    call.arg(keys.stream(channel)).arg(keys.meta(channel));
    if !key.is_empty() {
        call.arg(keys.result(channel, key));
    }
    call.arg(record).arg(history.size.max(1));
    call.arg(milliseconds(history.ttl));
    call.arg(milliseconds(history.meta_ttl.max(history.ttl)));
    call.arg(epoch.as_str());
    call.arg(keys.channel(channel)).arg(keys.publish_command());
    call.arg(version).arg(version_epoch);
    call.arg(milliseconds(IDEMPOTENCY_TTL));
    call
}

//! Who is present: this node's own members, which it writes to Redis and writes again whenever they
//! may be missing there, and which entries of other nodes count. No I/O.
//!
//! An entry names its node and that node's generation in the registry. It counts while the registry
//! holds this generation alive; when the registry declares it dead, its members are gone for all
//! readers at once, and living nodes remove the entries. Only who has really removed one says so to
//! the channel (`EXPEL` in `scripts`).
//!
//! Invariants
//! - Redis is told of each change in the end: what it has not carried out is owed, and done again when Redis is
//!   there; members are written again after each reconnection and every `REWRITE_INTERVAL` (an entry nobody
//!   renews expires).
//! - Nothing is written before the own generation is known.
//! - An entry is removed only when its generation was seen alive and is not any more, or when the
//!   registry holds a later one of the same node.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use flux_registry::Snapshot;
use foldhash::fast::RandomState;
use hashbrown::{HashMap, HashSet};
use tokio::sync::watch;

use super::entries::{entry, written};
use super::scan::Cursor;
use crate::limits::REDIS_OWED_MAX;
use crate::protocol::ClientId;
use crate::pubsub::OwnedClientInfo;

/// All members are written again this often.
const REWRITE_INTERVAL: Duration = Duration::from_secs(20 * 60);
/// How long the entries of a channel outlive the last write to it.
pub(super) const ENTRIES_TTL: Duration = Duration::from_secs(3_600);
/// How often Redis is asked whether it still has so many of the members. One would not do: it may have been
/// written since Redis lost all of them.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);
const CHECKED_AT_ONCE: usize = 16;
/// How long it is remembered who has left: a replica that takes over may not have heard of it.
const LEFT_FOR: Duration = Duration::from_secs(60);
/// Dead generations that are remembered; beyond it all are forgotten, and readers go on ignoring them.
const DEAD_MAX: usize = 4_096;

/// What is to be done in Redis about one channel.
#[derive(Debug)]
pub(super) enum Step {
    /// The member's entry.
    Enter(ClientId, Vec<u8>),
    Exit(ClientId),
    /// Whether the member is there.
    Check(ClientId),
    /// Entries of dead nodes are to be found and removed, from here on.
    Clean(Cursor),
}

/// An entry of a dead node.
pub(super) struct Dead {
    pub(super) field: Vec<u8>,
    pub(super) value: Vec<u8>,
    pub(super) info: OwnedClientInfo,
}

#[derive(Default)]
pub(super) struct Present {
    node: String,
    nodes: Option<watch::Receiver<Arc<Snapshot>>>,
    /// Generations that the registry holds alive; none before it was read.
    live: Option<HashMap<String, u64, RandomState>>,
    dead: HashMap<String, u64, RandomState>,
    /// 0 while it is not known.
    generation: u64,
    own: HashMap<Arc<str>, HashMap<ClientId, OwnedClientInfo, RandomState>, RandomState>,
    /// Members whose entries may have to change.
    changed: VecDeque<(Arc<str>, ClientId)>,
    is_listed: HashSet<(Arc<str>, ClientId), RandomState>,
    /// Channels to be cleaned, from this time on.
    to_clean: VecDeque<(Instant, Arc<str>)>,
    /// Who has left lately, oldest first.
    left: VecDeque<(Instant, Arc<str>, ClientId)>,
    /// Members whose change Redis has not carried out: without it, who has left would stay.
    owed: HashSet<(Arc<str>, ClientId), RandomState>,
    /// Channels that Redis has not let be cleaned.
    unclean: HashSet<Arc<str>, RandomState>,
    retried_at: Option<Instant>,
    written_at: Option<Instant>,
    checked_at: Option<Instant>,
    /// Members to be checked, now and later: all of them in turn.
    to_check: VecDeque<(Arc<str>, ClientId)>,
    checks_left: usize,
}

impl Present {
    /// Entries are written as those of `node`, and count by what `nodes` says.
    pub(super) fn follow(&mut self, node: &str, nodes: watch::Receiver<Arc<Snapshot>>) {
        self.node = node.to_owned();
        self.nodes = Some(nodes);
    }

    pub(super) fn enter(&mut self, channel: &Arc<str>, info: OwnedClientInfo) {
        let client = info.client;
        self.own
            .entry(Arc::clone(channel))
            .or_default()
            .insert(client, info);
        self.list(channel, client);
    }

    pub(super) fn exit(&mut self, channel: &Arc<str>, client: ClientId, now: Instant) {
        let Some(members) = self.own.get_mut(channel) else {
            return;
        };
        if members.remove(&client).is_some() {
            if members.is_empty() {
                self.own.remove(channel);
            }
            self.list(channel, client);
            self.left.push_back((now, Arc::clone(channel), client));
            self.forget_left(now);
        }
    }

    fn forget_left(&mut self, now: Instant) {
        while let Some((at, ..)) = self.left.front()
            && (self.left.len() > REDIS_OWED_MAX || now.saturating_duration_since(*at) > LEFT_FOR)
        {
            self.left.pop_front();
        }
    }

    /// The member's entry was not changed as it should have been.
    pub(super) fn again(&mut self, channel: &Arc<str>, client: ClientId) {
        self.list(channel, client);
    }

    /// Redis has not carried out a step. False when there is no room to remember it: an entry that should go
    /// stays until it expires.
    #[must_use = "what is not remembered is counted"]
    pub(super) fn owe(&mut self, channel: &Arc<str>, member: Option<ClientId>) -> bool {
        if self.owed.len() + self.unclean.len() >= REDIS_OWED_MAX {
            return false;
        }
        match member {
            Some(client) => self.owed.insert((Arc::clone(channel), client)),
            None => self.unclean.insert(Arc::clone(channel)),
        };
        true
    }

    /// Redis is there: what is owed is to be done.
    pub(super) fn retry(&mut self, now: Instant) {
        let is_due = |at: Instant| now.saturating_duration_since(at) >= CHECK_INTERVAL;
        if !self.retried_at.is_none_or(is_due) {
            return;
        }
        self.retried_at = Some(now);
        for (channel, client) in std::mem::take(&mut self.owed) {
            self.list(&channel, client);
        }
        let unclean = std::mem::take(&mut self.unclean);
        self.to_clean
            .extend(unclean.into_iter().map(|channel| (now, channel)));
    }

    /// Redis may have lost what was written: all of it is written again, and who has left lately is removed
    /// again.
    pub(super) fn rewrite(&mut self) {
        let left = self.left.iter();
        let left = left.map(|(_, channel, client)| (Arc::clone(channel), *client));
        let all: Vec<_> = self.members_here().chain(left).collect();
        for (channel, client) in all {
            self.list(&channel, client);
        }
    }

    /// Time has passed. `listened` gives the channels that somebody here listens to.
    pub(super) fn tick(
        &mut self,
        now: Instant,
        delay: impl FnOnce() -> Duration,
        listened: impl FnOnce() -> Vec<Arc<str>>,
    ) {
        self.forget_left(now);
        let is_due = |at: Option<Instant>, every: Duration| {
            at.is_none_or(|at| now.saturating_duration_since(at) >= every)
        };
        if is_due(self.written_at, REWRITE_INTERVAL) {
            self.written_at = Some(now);
            self.rewrite();
        }
        let Some(nodes) = &mut self.nodes else { return };
        if !nodes.has_changed().unwrap_or(false) && self.live.is_some() {
            return;
        }
        let snapshot = Arc::clone(&nodes.borrow_and_update());
        if snapshot.read_at.is_none() {
            return;
        }
        let live: HashMap<String, u64, RandomState> = snapshot
            .nodes
            .iter()
            .filter(|(_, view)| view.fresh || view.held)
            .map(|(id, view)| (id.clone(), view.record.generation))
            .collect();
        let before = self.live.replace(live).unwrap_or_default();
        let mut has_died = false;
        for (id, generation) in before {
            let now_there = self.live.as_ref().and_then(|live| live.get(&id));
            if now_there != Some(&generation) {
                if self.dead.len() >= DEAD_MAX {
                    self.dead.clear();
                }
                self.dead.insert(id, generation);
                has_died = true;
            }
        }
        let own = self
            .live
            .as_ref()
            .and_then(|live| live.get(&self.node))
            .copied();
        let was_there = self.dead.contains_key(&self.node);
        if let Some(own) = own
            && (own != self.generation || was_there)
        {
            // Others have taken the earlier one, or this one while it was away, for dead.
            self.generation = own;
            self.dead.remove(&self.node);
            self.rewrite();
        }
        if has_died {
            let at = now + delay();
            let mut channels = listened();
            channels.extend(self.own.keys().cloned());
            channels.sort_unstable();
            channels.dedup();
            self.to_clean.clear();
            self.to_clean
                .extend(channels.into_iter().map(|channel| (at, channel)));
        }
    }

    /// What is to be done next.
    pub(super) fn next(&mut self, now: Instant) -> Option<(Arc<str>, Step)> {
        if self.generation == 0 {
            return None;
        }
        if let Some((channel, client)) = self.changed.pop_front() {
            let listed = (channel, client);
            self.is_listed.remove(&listed);
            let channel = listed.0;
            let step = match self
                .own
                .get(&channel)
                .and_then(|members| members.get(&client))
            {
                Some(info) => Step::Enter(client, self.entry(info)),
                None => Step::Exit(client),
            };
            return Some((channel, step));
        }
        let is_due = |at: Instant| now.saturating_duration_since(at) >= CHECK_INTERVAL;
        if self.checked_at.is_none_or(is_due) {
            self.checked_at = Some(now);
            self.checks_left = CHECKED_AT_ONCE;
            if self.to_check.is_empty() {
                self.to_check = self.members_here().collect();
            }
        }
        while self.checks_left > 0
            && let Some((channel, client)) = self.to_check.pop_front()
        {
            self.checks_left -= 1;
            if self.is_here(&channel, client) {
                return Some((channel, Step::Check(client)));
            }
        }
        match self.to_clean.front() {
            Some((at, _)) if *at <= now => {
                let (_, channel) = self.to_clean.pop_front()?;
                Some((channel, Step::Clean(Cursor::default())))
            }
            _ => None,
        }
    }

    /// The members of `channel` on this node.
    pub(super) fn own(&self, channel: &str) -> impl Iterator<Item = &OwnedClientInfo> {
        self.own.get(channel).into_iter().flat_map(HashMap::values)
    }

    /// Whether an entry of this node counts: not those of this node, which knows its members itself.
    pub(super) fn counts(&self, node: &str, generation: u64) -> bool {
        let is_alive = match &self.live {
            Some(live) => live.get(node) == Some(&generation),
            None => true,
        };
        node != self.node && is_alive
    }

    /// The entries of dead nodes among these.
    pub(super) fn dead<'a>(
        &self,
        entries: impl Iterator<Item = (&'a [u8], &'a [u8])>,
    ) -> Vec<Dead> {
        entries
            .filter_map(|(field, value)| {
                let (node, generation, info) = entry(value).ok()?;
                let is_dead = self.dead.get(node).is_some_and(|dead| generation <= *dead);
                let live = self.live.as_ref().and_then(|live| live.get(node));
                let is_superseded = live.is_some_and(|live| *live > generation);
                let is_live = live == Some(&generation);
                (!is_live && (is_dead || is_superseded)).then(|| Dead {
                    field: field.to_vec(),
                    value: value.to_vec(),
                    info,
                })
            })
            .collect()
    }

    /// How many of this node's clients are present somewhere.
    pub(super) fn len(&self) -> usize {
        self.own.values().map(HashMap::len).sum()
    }

    fn members_here(&self) -> impl Iterator<Item = (Arc<str>, ClientId)> {
        self.own.iter().flat_map(|(channel, members)| {
            members.keys().map(|client| (Arc::clone(channel), *client))
        })
    }

    fn is_here(&self, channel: &str, client: ClientId) -> bool {
        let members = self.own.get(channel);
        members.is_some_and(|members| members.contains_key(&client))
    }

    fn list(&mut self, channel: &Arc<str>, client: ClientId) {
        if self.is_listed.insert((Arc::clone(channel), client)) {
            self.changed.push_back((Arc::clone(channel), client));
        }
    }

    fn entry(&self, info: &OwnedClientInfo) -> Vec<u8> {
        written(&self.node, self.generation, info.as_ref())
    }
}

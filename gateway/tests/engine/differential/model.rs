//! What a channel is: everything in lists, each answer computed from the rules as they are written
//! down.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::{Duration, Instant};

use flux_gateway::engine::history::{
    HistoryOptions, HistoryPage, HistoryQuery, RecoveryMode, RecoveryRequest, StoredPublication,
};
use flux_gateway::engine::{PresenceStats, PublishOptions};
use flux_gateway::protocol::ErrorCode;
use flux_gateway::pubsub::{Epoch, KnownEpoch, OwnedClientInfo, StreamPosition};

use super::content::text;

/// Offset and everything that a client sees, see `content`.
pub(super) type Read = Vec<(u64, String)>;

pub(super) fn read(publications: &[StoredPublication]) -> Read {
    publications
        .iter()
        .map(|stored| (stored.offset, text(stored.message.as_ref())))
        .collect()
}

#[derive(Debug)]
pub(super) struct Model {
    pub(super) name: &'static str,
    pub(super) history: Option<HistoryOptions>,
    /// Known once an engine has named it.
    pub(super) epoch: Option<Epoch>,
    pub(super) top: u64,
    kept: Read,
    published_at: Option<Instant>,
    version: u64,
    version_epoch: String,
    results: HashMap<String, Option<StreamPosition>>,
    members: BTreeMap<[u8; 16], OwnedClientInfo>,
}

impl Model {
    pub(super) fn new(name: &'static str, history: Option<HistoryOptions>) -> Self {
        Self {
            name,
            history,
            epoch: None,
            top: 0,
            kept: Vec::new(),
            published_at: None,
            version: 0,
            version_epoch: String::new(),
            results: HashMap::new(),
            members: BTreeMap::new(),
        }
    }

    /// Name, epoch and top.
    pub(super) fn top(&self) -> (&'static str, Option<Epoch>, u64) {
        (self.name, self.epoch, self.top)
    }

    /// What has to pass until it is beyond doubt whether the publications have expired.
    pub(super) fn doubt(&self) -> Option<Duration> {
        let age = self.published_at?.elapsed();
        let ttl = self.history?.ttl;
        (age > ttl.mul_f32(0.6) && age < ttl.mul_f32(1.6)).then(|| ttl.mul_f32(1.6) - age)
    }

    pub(super) fn expire(&mut self) {
        if let (Some(history), Some(at)) = (self.history, self.published_at)
            && at.elapsed() > history.ttl
        {
            self.kept.clear();
        }
    }

    /// Nobody has used it for too long: it begins anew.
    pub(super) fn forget(&mut self) {
        *self = Self {
            results: std::mem::take(&mut self.results),
            members: std::mem::take(&mut self.members),
            ..Self::new(self.name, self.history)
        };
    }

    /// An engine has named the epoch in an answer.
    pub(super) fn name_epoch(&mut self, epoch: Epoch) {
        // What is answered to a publication made again may be of an epoch that is over.
        self.epoch.get_or_insert(epoch);
    }

    pub(super) fn position(&self) -> Option<StreamPosition> {
        self.history.map(|_| StreamPosition {
            epoch: self.epoch.expect("an engine has named it"),
            offset: self.top,
        })
    }

    /// Whether an engine's word about where the channel stands is right.
    pub(super) fn check_position(&mut self, position: Option<StreamPosition>) {
        let name = self.name;
        assert_eq!(position.is_some(), self.history.is_some(), "{name}");
        if let Some(position) = position {
            let epoch = *self.epoch.get_or_insert(position.epoch);
            assert_eq!(
                (epoch, self.top),
                (position.epoch, position.offset),
                "{name}"
            );
        }
    }

    /// Takes a publication in; says whether it is published, and the position that is answered.
    pub(super) fn publish(
        &mut self,
        data: &str,
        options: &PublishOptions<'_>,
    ) -> (bool, Option<StreamPosition>) {
        let key = options.idempotency_key;
        if let Some(result) = self.results.get(key) {
            return (false, *result);
        }
        if let Some(history) = self.history {
            let is_comparable =
                options.version_epoch.is_empty() || options.version_epoch == self.version_epoch;
            if options.version > 0 && is_comparable && options.version <= self.version {
                return (false, self.position());
            }
            if options.version > 0 {
                self.version = options.version;
                options.version_epoch.clone_into(&mut self.version_epoch);
            }
            self.top += 1;
            self.kept.push((self.top, data.to_owned()));
            let excess = self.kept.len().saturating_sub(history.size as usize);
            self.kept.drain(..excess);
            self.published_at = Some(Instant::now());
        }
        if !key.is_empty() {
            self.results.insert(key.to_owned(), self.position());
        }
        (true, self.position())
    }

    pub(super) fn remove_history(&mut self) {
        self.kept.clear();
    }

    fn matches(&self, known: KnownEpoch) -> bool {
        known.matches(self.epoch.expect("an engine has named it"))
    }

    pub(super) fn recover(&self, request: &RecoveryRequest) -> Option<Read> {
        match request.mode {
            RecoveryMode::Stream => {
                let behind = self
                    .kept
                    .iter()
                    .filter(|(offset, _)| *offset > request.offset);
                let read: Read = behind
                    .take(request.publications_max as usize)
                    .cloned()
                    .collect();
                let is_whole = match (read.first(), read.last()) {
                    (Some((first, _)), Some((last, _))) => {
                        *first == request.offset + 1 && *last == self.top
                    }
                    _ => request.offset == self.top,
                };
                (self.matches(request.epoch) && is_whole).then_some(read)
            }
            RecoveryMode::Cache => {
                let has_it = request.offset > 0
                    && request.offset == self.top
                    && request.epoch == KnownEpoch::Is(self.epoch.expect("named"));
                match self.kept.last() {
                    _ if has_it => Some(Vec::new()),
                    Some(newest) => Some(vec![newest.clone()]),
                    None => None,
                }
            }
        }
    }

    pub(super) fn check_page(&self, query: &HistoryQuery, answer: &Result<HistoryPage, ErrorCode>) {
        let answer = answer
            .as_ref()
            .map(|page| (read(&page.publications), Some(page.position)))
            .map_err(|code| *code);
        let expected = self.page(query).map(|read| (read, self.position()));
        assert_eq!(answer, expected, "{}: {query:?}", self.name);
    }

    fn page(&self, query: &HistoryQuery) -> Result<Read, ErrorCode> {
        let mut read = self.kept.clone();
        if let Some((since, epoch)) = query.since {
            if !self.matches(epoch) {
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

    pub(super) fn enter(&mut self, info: OwnedClientInfo) {
        self.members.insert(*info.client.as_bytes(), info);
    }

    pub(super) fn exit(&mut self, client: [u8; 16]) {
        self.members.remove(&client);
    }

    pub(super) fn is_member(&self, client: [u8; 16]) -> bool {
        self.members.contains_key(&client)
    }

    /// Whether these are the members.
    pub(super) fn has_members(&self, members: &[OwnedClientInfo]) -> bool {
        let mut members: Vec<_> = members.iter().collect();
        members.sort_by_key(|info| *info.client.as_bytes());
        members.into_iter().eq(self.members.values())
    }

    pub(super) fn stats(&self) -> PresenceStats {
        let users: HashSet<&str> = self.members.values().map(|info| &*info.user).collect();
        PresenceStats {
            clients: self.members.len() as u64,
            users: users.len() as u64,
        }
    }
}

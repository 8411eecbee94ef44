//! What a client may ask about a channel: its past, and who is there.

use std::rc::Rc;

use super::commands::{Denied, channel_options};
use super::{DataFormat, Effect, Session};
use crate::engine::PresenceStats;
use crate::engine::history::{HistoryPage, HistoryQuery, StoredPublication};
use crate::protocol::command::HistoryRequest;
use crate::protocol::{ClientInfo, ErrorCode, Publication, Reply};
use crate::pubsub::{KnownEpoch, MessageRef, OwnedClientInfo};

impl Session {
    pub(super) fn history(
        &mut self,
        id: u32,
        request: &HistoryRequest<'_>,
        effect: &mut impl FnMut(Effect<'_>),
    ) -> Result<(), Denied> {
        let channel = &*request.channel;
        let config = Rc::clone(&self.config);
        let options = channel_options(&config, channel)?;
        let history = config
            .channels
            .history(options)
            .ok_or(ErrorCode::NotAvailable)?;
        let subscribed = self.subscriptions.contains(channel);
        if !config.insecure && !options.may_read_history(self.user(), subscribed) {
            return Err(ErrorCode::PermissionDenied.into());
        }
        if self.is_json() && options.publication_data_format == DataFormat::Binary {
            return Err(ErrorCode::BadRequest.into());
        }
        let since = request
            .since
            .as_ref()
            .map(|(offset, epoch)| (*offset, KnownEpoch::parse(epoch)));
        // Nothing stands before the beginning.
        if request.reverse && since.is_some_and(|(offset, _)| offset == 0) {
            return Err(ErrorCode::BadRequest.into());
        }
        self.hand_over()?;
        let limit_max = config.limits.history_publications_max;
        effect(Effect::History {
            id,
            channel,
            query: HistoryQuery {
                limit: u32::try_from(request.limit).map_or(limit_max, |limit| limit.min(limit_max)),
                since,
                reverse: request.reverse,
            },
            options: history,
        });
        Ok(())
    }

    pub(super) fn presence(
        &mut self,
        id: u32,
        channel: &str,
        effect: &mut impl FnMut(Effect<'_>),
    ) -> Result<(), Denied> {
        self.check_presence(channel)?;
        effect(Effect::Presence { id, channel });
        Ok(())
    }

    pub(super) fn presence_stats(
        &mut self,
        id: u32,
        channel: &str,
        effect: &mut impl FnMut(Effect<'_>),
    ) -> Result<(), Denied> {
        self.check_presence(channel)?;
        effect(Effect::PresenceStats { id, channel });
        Ok(())
    }

    fn check_presence(&mut self, channel: &str) -> Result<(), Denied> {
        let config = Rc::clone(&self.config);
        let options = channel_options(&config, channel)?;
        if !options.presence {
            return Err(ErrorCode::NotAvailable.into());
        }
        let subscribed = self.subscriptions.contains(channel);
        if !config.insecure && !options.may_see_presence(self.user(), subscribed) {
            return Err(ErrorCode::PermissionDenied.into());
        }
        self.hand_over()
    }

    /// The engine's answer to [`Effect::History`].
    pub fn on_history(
        &mut self,
        id: u32,
        result: Result<&HistoryPage, ErrorCode>,
        out: &mut Vec<u8>,
    ) {
        if !self.is_answer_wanted() {
            return;
        }
        match result {
            Err(error) => self.reply(out, id, &Reply::from(error)),
            Ok(page) => {
                let publications: Vec<_> = page.publications.iter().map(publication).collect();
                let reply = Reply::History {
                    publications: &publications,
                    offset: page.position.offset,
                    epoch: page.position.epoch.as_str(),
                };
                self.reply(out, id, &reply);
            }
        }
        self.settle();
    }

    /// The engine's answer to [`Effect::Presence`].
    pub fn on_presence(
        &mut self,
        id: u32,
        result: Result<&[OwnedClientInfo], ErrorCode>,
        out: &mut Vec<u8>,
    ) {
        if !self.is_answer_wanted() {
            return;
        }
        match result {
            Err(error) => self.reply(out, id, &Reply::from(error)),
            Ok(members) => {
                let members: Vec<ClientInfo<'_>> =
                    members.iter().map(OwnedClientInfo::as_ref).collect();
                self.reply(out, id, &Reply::Presence(&members));
            }
        }
        self.settle();
    }

    /// The engine's answer to [`Effect::PresenceStats`].
    pub fn on_presence_stats(
        &mut self,
        id: u32,
        result: Result<PresenceStats, ErrorCode>,
        out: &mut Vec<u8>,
    ) {
        if !self.is_answer_wanted() {
            return;
        }
        // The protocol counts in 32 bits.
        let count = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
        let reply = result.map_or_else(Reply::from, |stats| Reply::PresenceStats {
            clients: count(stats.clients),
            users: count(stats.users),
        });
        self.reply(out, id, &reply);
        self.settle();
    }
}

/// A publication of the past, whole.
pub(super) fn publication(stored: &StoredPublication) -> Publication<'_> {
    let (data, info, tags) = match stored.message.as_ref() {
        MessageRef::Publication {
            data, info, tags, ..
        } => (data, info, tags),
        // Joins and leaves are not kept.
        MessageRef::Join(_) | MessageRef::Leave(_) => return Publication::default(),
    };
    Publication {
        data,
        info,
        offset: stored.offset,
        tags,
        delta: false,
    }
}

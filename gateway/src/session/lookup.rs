//! What a client may ask about a channel: its past, and who is there.

use std::borrow::Cow;
use std::rc::Rc;

use super::commands::{Denied, channel_options};
use super::publish::json_line;
use super::{DataFormat, Effect, Session};
use crate::engine::PresenceStats;
use crate::engine::history::{HistoryPage, HistoryQuery, StoredPublication};
use crate::protocol::command::HistoryRequest;
use crate::protocol::{ClientInfo, ErrorCode, Publication, Reply, json};
use crate::pubsub::{KnownEpoch, OwnedClientInfo};

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
                let Some(altered) = altered(&page.publications, self.is_json(), false) else {
                    // Asking again would not help, and reading on would leave a gap.
                    self.reply(out, id, &Reply::from(ErrorCode::BadRequest));
                    return self.settle();
                };
                let publications = presented(&page.publications, &altered);
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

/// Data of publications that a client gets in another form than they were published: the place of
/// each, and the form.
pub(super) type Altered = Vec<(usize, Vec<u8>)>;

/// Which data has to be altered for a client; none where some of it is nothing that the client's
/// format can carry. A client of the JSON format gets JSON on one line; with deltas, which are no
/// JSON, all data of a subscription as text.
pub(super) fn altered(
    publications: &[StoredPublication],
    is_json: bool,
    is_text: bool,
) -> Option<Altered> {
    let mut altered = Altered::new();
    if !is_json {
        return Some(altered);
    }
    for (at, stored) in publications.iter().enumerate() {
        let line = json_line(stored.message.as_ref().payload())?;
        if is_text {
            let mut text = Vec::with_capacity(line.len() + 16);
            json::encode_text(&mut text, std::str::from_utf8(&line).ok()?);
            altered.push((at, text));
        } else if let Cow::Owned(line) = line {
            altered.push((at, line));
        }
    }
    Some(altered)
}

/// Publications of the past, whole.
pub(super) fn presented<'a>(
    publications: &'a [StoredPublication],
    altered: &'a Altered,
) -> Vec<Publication<'a>> {
    let mut presented: Vec<_> = publications.iter().map(publication).collect();
    for (at, data) in altered {
        presented[*at].data = data;
    }
    presented
}

fn publication(stored: &StoredPublication) -> Publication<'_> {
    // Joins and leaves are not kept.
    let message = stored.message.as_ref();
    Publication {
        data: message.payload(),
        info: message.info(),
        offset: stored.offset,
        tags: message.tags(),
        delta: false,
    }
}

#[cfg(test)]
mod tests {
    use flux_runtime::log::LogWriter;

    use super::*;
    use crate::pubsub::MessageRef;

    #[test]
    fn a_client_gets_what_its_format_can_carry() {
        let mut arena = LogWriter::new();
        let mut stored = |data: &[u8]| StoredPublication {
            offset: 1,
            message: MessageRef::data(data).store(&mut arena, "a"),
        };
        let fine = [stored(b"{\"a\":1}"), stored(b"[1,\n2]")];
        let bytes = [stored(b"\xff")];
        assert_eq!(altered(&fine, false, false), Some(vec![]));
        assert_eq!(altered(&bytes, false, true), Some(vec![]));
        let lines = altered(&fine, true, false).expect("JSON");
        assert_eq!(lines, [(1, b"[1, 2]".to_vec())]);
        assert_eq!(presented(&fine, &lines)[1].data, b"[1, 2]");
        assert_eq!(presented(&fine, &lines)[0].data, b"{\"a\":1}");
        let texts = altered(&fine, true, true).expect("JSON");
        assert_eq!(texts[0], (0, br#""{\"a\":1}""#.to_vec()));
        assert_eq!(altered(&bytes, true, false), None);
        assert_eq!(altered(&bytes, true, true), None);
    }
}

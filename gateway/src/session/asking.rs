//! Questions to the authority, and the commands that wait for their answers.
//!
//! As in Centrifugo, a client's commands are carried out one after the other: those behind one that
//! waits for the authority are kept as they came, decoded again when it is their turn. Pongs are
//! not kept, so that a slow backend does not make a client look gone.

use std::time::Instant;

use super::commands::Denied;
use super::particulars::Asking;
use super::{Effect, Session};
use crate::authority::{Answer, Question, QuestionKind, Refusal};
use crate::protocol::command::{Command, RpcRequest};
use crate::protocol::{Disconnect, ErrorCode, Reply};

impl Session {
    /// Asks what a command needs to know. What comes behind it waits.
    pub(super) fn ask(
        &mut self,
        asking: Asking,
        kind: QuestionKind,
        effect: &mut impl FnMut(Effect<'_>),
    ) {
        debug_assert!(!self.is_waiting(), "two questions at once");
        let who = self.who();
        self.more().asking = Some(asking);
        effect(Effect::Ask(Question { who, kind }));
    }

    pub(super) fn rpc(
        &mut self,
        id: u32,
        request: &RpcRequest<'_>,
        effect: &mut impl FnMut(Effect<'_>),
    ) -> Result<(), Denied> {
        self.config.rpc.check(&request.method)?;
        let question = QuestionKind::Rpc {
            method: request.method.clone().into_owned(),
            data: request.data.clone().into_owned(),
        };
        self.ask(Asking::Rpc { id }, question, effect);
        Ok(())
    }

    /// Keeps a command, of which `bytes` are the encoded form, until those before it are answered.
    pub(super) fn put_off(
        &mut self,
        command: &Command<'_>,
        bytes: &[u8],
        effect: &mut impl FnMut(Effect<'_>),
    ) {
        if command.id == 0 && command.request.is_none() {
            if self.pong().is_err() {
                self.disconnect(Disconnect::BAD_REQUEST, effect);
            }
            return;
        }
        let separator: &[u8] = if self.is_json() { b"\n" } else { b"" };
        let stash = &mut self.more().stash;
        stash.add(bytes, separator);
        if stash.len() > self.config.limits.stashed_bytes_max {
            self.disconnect(Disconnect::TOO_MANY_REQUESTS, effect);
        }
    }

    /// Whether so many commands wait that no more should be read.
    pub(super) fn is_stash_heavy(&self) -> bool {
        self.more
            .as_ref()
            .is_some_and(|more| more.stash.len() >= self.config.limits.stashed_bytes_max / 16)
    }

    /// The authority's answer to an [`Effect::Ask`]. An answer that nobody waits for any more
    /// changes nothing.
    pub fn on_answer(
        &mut self,
        answer: Answer,
        now: Instant,
        out: &mut Vec<u8>,
        effect: &mut impl FnMut(Effect<'_>),
    ) {
        let Some(more) = &mut self.more else {
            return;
        };
        match answer {
            Answer::Refresh(result) if more.renews_connection => {
                self.connection_renewed(result, now, effect);
            }
            Answer::SubRefresh(result) if more.renews_subscription.is_some() => {
                self.subscription_renewed(result, now, out, effect);
            }
            answer => match more.asking.take() {
                Some(asking) => self.answer_command(asking, answer, now, out, effect),
                None => return,
            },
        }
        self.resume(now, out, effect);
        self.reschedule();
        self.settle();
    }

    fn answer_command(
        &mut self,
        asking: Asking,
        answer: Answer,
        now: Instant,
        out: &mut Vec<u8>,
        effect: &mut impl FnMut(Effect<'_>),
    ) {
        let (id, denied) = match (asking, answer) {
            (
                Asking::Connect {
                    id,
                    has_token,
                    since,
                },
                Answer::Connect(result),
            ) => {
                return self.connect_answered(id, has_token, &since, result, now, out, effect);
            }
            (Asking::Subscribe { id, channel, wants }, Answer::Subscribe(Ok(grant))) => {
                (id, self.begin(id, &channel, wants, grant, now, effect))
            }
            (Asking::Publish { id, channel, data }, Answer::Publish(Ok(grant))) => (
                id,
                self.publish_granted(id, &channel, &data, &grant, effect),
            ),
            (Asking::Rpc { id }, Answer::Rpc(Ok(grant))) => {
                match self.for_client(&grant.data) {
                    Some(data) => self.reply(out, id, &Reply::Rpc { data: &data }),
                    None => self.reply(out, id, &Reply::from(ErrorCode::Internal)),
                }
                return;
            }
            (Asking::Refresh { id }, Answer::Refresh(Ok(grant))) => {
                return self.refreshed(id, grant, now, out, effect);
            }
            (Asking::SubRefresh { id, channel }, Answer::SubRefresh(Ok(grant))) => {
                return self.sub_refreshed(id, &channel, grant, now, out, effect);
            }
            (Asking::Subscribe { id, .. }, Answer::Subscribe(Err(refusal)))
            | (Asking::Publish { id, .. }, Answer::Publish(Err(refusal)))
            | (Asking::Rpc { id }, Answer::Rpc(Err(refusal)))
            | (Asking::Refresh { id }, Answer::Refresh(Err(refusal)))
            | (Asking::SubRefresh { id, .. }, Answer::SubRefresh(Err(refusal))) => {
                return self.refuse(id, &refusal, out, effect);
            }
            // The answer to something else: the command goes on waiting for its own.
            (asking, _) => {
                self.more().asking = Some(asking);
                return;
            }
        };
        if let Err(denied) = denied {
            self.deny(id, denied, out, effect);
        }
    }

    /// The authority says no.
    pub(super) fn refuse(
        &mut self,
        id: u32,
        refusal: &Refusal,
        out: &mut Vec<u8>,
        effect: &mut impl FnMut(Effect<'_>),
    ) {
        match refusal {
            Refusal::Error(error) => self.fail(id, error.as_ref(), out, effect),
            Refusal::Disconnect { code, reason } => {
                self.disconnect(Disconnect::new(*code, reason), effect);
            }
        }
    }

    /// Carries out the commands that waited, until one of them waits for the authority again.
    pub(super) fn resume(
        &mut self,
        now: Instant,
        out: &mut Vec<u8>,
        effect: &mut impl FnMut(Effect<'_>),
    ) {
        if self.is_waiting() {
            return;
        }
        let Some(more) = self.more.as_mut().filter(|more| !more.stash.is_empty()) else {
            return;
        };
        let mut stash = std::mem::take(&mut more.stash);
        let mut commands = self.wire.format.decode(stash.rest());
        let whole = commands.remaining().len();
        let mut left = 0;
        for command in commands.by_ref() {
            let Ok(command) = command else {
                // It was decoded when it came.
                self.disconnect(Disconnect::BAD_REQUEST, effect);
                break;
            };
            if self.on_command(&command, now, out, effect).is_break() || self.is_closed() {
                break;
            }
            if self.is_waiting() {
                left = 1;
                break;
            }
        }
        if left > 0 {
            left = commands.remaining().len();
        }
        if left > 0 && !self.is_closed() {
            stash.advance(whole - left);
            self.more().stash = stash;
        }
    }
}

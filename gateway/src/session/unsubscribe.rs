//! How subscriptions end.

use super::commands::Denied;
use super::subscriptions::Subscription;
use super::{Effect, Session};
use crate::authority::NoticeKind;
use crate::protocol::{Disconnect, ErrorCode, Push, Reply, SubscribeResult, Unsubscribe};

impl Session {
    pub(super) fn client_unsubscribes(
        &mut self,
        id: u32,
        channel: &str,
        out: &mut Vec<u8>,
        effect: &mut impl FnMut(Effect<'_>),
    ) -> Result<(), Denied> {
        if channel.is_empty() {
            return Err(Disconnect::BAD_REQUEST.into());
        }
        if let Some(subscription) = self.subscriptions.remove(channel) {
            self.answer_pending(&subscription, out);
            self.end(&subscription, 0, effect);
            self.reschedule();
        }
        self.reply(out, id, &Reply::Unsubscribe);
        Ok(())
    }

    /// The server ends one subscription. Nothing happens where there is none, and before the client
    /// has connected.
    pub fn unsubscribe(
        &mut self,
        channel: &str,
        unsubscribe: Unsubscribe<'_>,
        out: &mut Vec<u8>,
        effect: &mut impl FnMut(Effect<'_>),
    ) {
        if self.is_connected() {
            self.end_by_server(channel, unsubscribe, out, effect);
            self.settle();
        }
    }

    pub(super) fn end_by_server(
        &mut self,
        channel: &str,
        unsubscribe: Unsubscribe<'_>,
        out: &mut Vec<u8>,
        effect: &mut impl FnMut(Effect<'_>),
    ) {
        let Some(subscription) = self.subscriptions.remove(channel) else {
            return;
        };
        self.answer_pending(&subscription, out);
        self.end(&subscription, unsubscribe.code, effect);
        // A client that the server had begun to subscribe knows nothing of it.
        if subscription.is_live || !subscription.is_server_side() {
            let push = Push::Unsubscribe {
                channel,
                unsubscribe,
            };
            self.push(out, &push);
        }
        self.reschedule();
    }

    /// Publications of the channel are lost: the client is told, so that it recovers or starts
    /// anew. One that is subscribed by the server cannot subscribe by itself, and connects again.
    /// Nothing happens where there is no subscription.
    pub fn lost(&mut self, channel: &str, out: &mut Vec<u8>, effect: &mut impl FnMut(Effect<'_>)) {
        let Some(subscription) = self.subscriptions.get(channel) else {
            return;
        };
        let id = subscription.id;
        if subscription.is_server_side() {
            self.disconnect(Disconnect::INSUFFICIENT_STATE, effect);
        } else if subscription.is_live {
            self.unsubscribe(channel, Unsubscribe::INSUFFICIENT_STATE, out, effect);
        } else {
            // Its position is still its own: it tries again with it.
            if let Some(subscription) = self.subscriptions.remove(channel) {
                self.end(&subscription, 0, effect);
            }
            self.reply(out, id, &Reply::from(ErrorCode::Internal));
            self.reschedule();
            self.settle();
        }
    }

    /// A subscribe that still waits succeeds and ends in one: nothing was published in between, and
    /// the client may subscribe again without waiting for the engine.
    fn answer_pending(&self, subscription: &Subscription, out: &mut Vec<u8>) {
        if !subscription.is_live && !subscription.is_server_side() {
            let reply = Reply::Subscribe(SubscribeResult::default());
            self.reply(out, subscription.id, &reply);
        }
    }

    /// The effects of a subscription's end. The leave comes behind the unsubscribe, so that it does
    /// not reach the client that left.
    pub(super) fn end(
        &self,
        subscription: &Subscription,
        code: u16,
        effect: &mut impl FnMut(Effect<'_>),
    ) {
        let channel = &*subscription.channel;
        effect(Effect::Unsubscribe { channel });
        if !subscription.is_live {
            return;
        }
        if subscription.is_present {
            effect(Effect::Exit {
                channel,
                client: self.client,
            });
        }
        if subscription.announces {
            effect(Effect::Leave {
                channel,
                info: self.info(subscription.chan_info()),
            });
        }
        if self.config.notices.unsubscribed {
            let channel = channel.to_owned();
            effect(Effect::Notify(
                self.notice(NoticeKind::Unsubscribed { channel, code }),
            ));
        }
    }
}

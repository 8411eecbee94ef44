//! How a subscription begins.

use std::rc::Rc;
use std::time::{Duration, Instant};

use super::commands::{Denied, channel_options};
use super::lookup::{Altered, altered, presented};
use super::particulars::Asking;
use super::rules::Gate;
use super::subscriptions::{Details, Granted, Source, Subscription};
use super::{ChannelOptions, DataFormat, DeltaType, Effect, Session, Subscribed};
use crate::authority::{NoticeKind, QuestionKind, SubscribeGrant};
use crate::engine::history::{HistoryOptions, Recovery, RecoveryMode, RecoveryRequest};
use crate::protocol::command::{SincePosition, SubscribeRequest};
use crate::protocol::{Disconnect, ErrorCode, Publication, Push, Reply, SubscribeResult};
use crate::pubsub::{KnownEpoch, StreamPosition};

/// Bit of a subscribe's flag: a position that cannot be recovered is error 112.
const FAILS_UNRECOVERED: i64 = 2;

/// How a client wants to be subscribed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(
    clippy::struct_excessive_bools,
    reason = "each is a field of the protocol's request"
)]
pub(super) struct Wants {
    positioned: bool,
    recoverable: bool,
    join_leave: bool,
    delta: bool,
    recover: bool,
    fails_unrecovered: bool,
    offset: u64,
    epoch: KnownEpoch,
}

impl Default for Wants {
    fn default() -> Self {
        Self::since(&SincePosition::default())
    }
}

impl Wants {
    /// Only to go on from where the client was.
    pub(super) fn since(since: &SincePosition<'_>) -> Self {
        Self {
            positioned: false,
            recoverable: false,
            join_leave: false,
            delta: false,
            recover: since.recover,
            fails_unrecovered: false,
            offset: since.offset,
            epoch: KnownEpoch::parse(&since.epoch),
        }
    }

    /// To go on from a position that is known otherwise.
    pub(super) fn from_position(position: Option<(u64, KnownEpoch)>) -> Self {
        position.map_or_else(Self::default, |(offset, epoch)| Self {
            recover: true,
            offset,
            epoch,
            ..Self::default()
        })
    }

    fn of(request: &SubscribeRequest<'_>) -> Self {
        Self {
            positioned: request.positioned,
            recoverable: request.recoverable,
            join_leave: request.join_leave,
            delta: !request.delta.is_empty(),
            fails_unrecovered: request.flag & FAILS_UNRECOVERED != 0,
            ..Self::since(&request.since)
        }
    }
}

/// On which terms a subscription begins.
struct Terms {
    granted: Granted,
    /// Whether the channel's subscribers are told when the client comes and goes.
    announces: bool,
    /// Whether the client is told when others do.
    join_leave: bool,
    history: Option<HistoryOptions>,
    recover: Option<RecoveryRequest>,
}

/// What the client is told about a subscription that is live.
#[derive(Debug)]
pub(super) struct Confirmed {
    pub(super) channel: Box<str>,
    granted: Granted,
    /// Where the client is to renew the credentials.
    expires_at: Option<Instant>,
    data: Vec<u8>,
    position: Option<StreamPosition>,
    recovery: Option<Recovery>,
    /// How the client gets what it missed.
    altered: Altered,
}

impl Confirmed {
    fn is_recovered(&self) -> bool {
        self.recovery
            .as_ref()
            .is_some_and(|recovery| recovery.recovered)
    }

    /// What was missed.
    pub(super) fn publications(&self) -> Vec<Publication<'_>> {
        self.recovery.as_ref().map_or_else(Vec::new, |recovery| {
            presented(&recovery.publications, &self.altered)
        })
    }

    /// The answer to the subscribe.
    pub(super) fn result<'a>(
        &'a self,
        publications: &'a [Publication<'a>],
        now: Instant,
    ) -> SubscribeResult<'a> {
        let granted = &self.granted;
        let position = self
            .position
            .as_ref()
            .filter(|_| granted.positioned || granted.recoverable);
        let goes_on = granted.was_recovering && self.is_recovered();
        SubscribeResult {
            ttl_seconds: self
                .expires_at
                .map(|at| seconds(at.saturating_duration_since(now))),
            recoverable: granted.recoverable,
            positioned: granted.positioned,
            epoch: position.map_or("", |position| position.epoch.as_str()),
            // The client counts on from its own offset with the publications that come along.
            offset: position.map_or(0, |position| {
                if goes_on {
                    granted.offset
                } else {
                    position.offset
                }
            }),
            publications,
            was_recovering: granted.was_recovering,
            recovered: goes_on,
            data: &self.data,
            delta: granted.delta,
        }
    }
}

/// Whole seconds for the protocol, which has no smaller ones: a time that has begun counts.
pub(super) fn seconds(time: Duration) -> u32 {
    let seconds = time.as_nanos().div_ceil(Duration::from_secs(1).as_nanos());
    u32::try_from(seconds).unwrap_or(u32::MAX).max(1)
}

impl Session {
    pub(super) fn subscribe(
        &mut self,
        id: u32,
        request: &SubscribeRequest<'_>,
        now: Instant,
        effect: &mut impl FnMut(Effect<'_>),
    ) -> Result<(), Denied> {
        let channel = &*request.channel;
        if channel.is_empty() || !matches!(&*request.delta, "" | "fossil") {
            return Err(Disconnect::BAD_REQUEST.into());
        }
        let config = Rc::clone(&self.config);
        if channel.len() > config.limits.channel_length_max_bytes {
            return Err(ErrorCode::BadRequest.into());
        }
        self.subscriptions
            .admits(channel, config.limits.channels_max)?;
        let options = config.channels.options(channel)?;
        let has_token = !request.token.is_empty();
        let asks = if config.insecure {
            false
        } else if has_token {
            true
        } else if config.channels.is_private(channel) {
            return Err(ErrorCode::PermissionDenied.into());
        } else {
            match config.channels.gate(channel, options, self.user()) {
                Gate::Open => false,
                Gate::Backend => true,
                Gate::Closed => return Err(ErrorCode::PermissionDenied.into()),
            }
        };
        if request.kind != 0 {
            return Err(ErrorCode::NotAvailable.into());
        }
        if request.has_tags_filter {
            return Err(ErrorCode::BadRequest.into());
        }
        let wants = Wants::of(request);
        if !asks {
            return self.begin(id, channel, wants, SubscribeGrant::default(), now, effect);
        }
        let question = QuestionKind::Subscribe {
            channel: channel.to_owned(),
            token: request.token.clone().into_owned(),
            data: request.data.clone().into_owned(),
        };
        let asking = Asking::Subscribe {
            id,
            channel: channel.into(),
            wants,
        };
        self.ask(asking, question, effect);
        Ok(())
    }

    /// Begins a subscription that is allowed: what the client wants, as far as the channel's options
    /// and the grant let it. `id` 0: the server subscribes the client.
    pub(super) fn begin(
        &mut self,
        id: u32,
        channel: &str,
        wants: Wants,
        grant: SubscribeGrant,
        now: Instant,
        effect: &mut impl FnMut(Effect<'_>),
    ) -> Result<(), Denied> {
        let config = Rc::clone(&self.config);
        let options = channel_options(&config, channel)?;
        self.subscriptions
            .admits(channel, config.limits.channels_max)?;
        // What may be published there could not be written to the client.
        if self.is_json() && options.publication_data_format == DataFormat::Binary {
            return Err(ErrorCode::BadRequest.into());
        }
        if grant
            .expires_in
            .is_some_and(|expires_in| expires_in.is_zero())
        {
            return Err(ErrorCode::Expired.into());
        }
        let data = self
            .for_client(&grant.data)
            .ok_or(ErrorCode::Internal)?
            .into_owned();
        let Terms {
            granted,
            announces,
            join_leave,
            history,
            recover,
        } = self.terms(options, wants, &grant);
        let details = Details {
            chan_info: grant.info.into(),
            expires_at: grant
                .expires_in
                .and_then(|expires_in| now.checked_add(expires_in)),
            backend_renews: options.sub_refresh_proxy_enabled,
            granted,
            data,
        };
        // Most subscriptions have nothing of it.
        let is_plain =
            details.is_plain() && details.data.is_empty() && !granted.positioned && !granted.delta;
        self.subscriptions.begin(Subscription {
            channel: channel.into(),
            details: (!is_plain).then(|| Box::new(details)),
            id,
            is_live: false,
            announces,
            is_present: grant.presence.unwrap_or(options.presence),
            source: match id {
                0 => Source::Server,
                _ => Source::Client,
            },
        });
        self.reschedule();
        effect(Effect::Subscribe {
            id,
            channel,
            join_leave,
            delta: granted.delta,
            history,
            recover,
        });
        Ok(())
    }

    /// What the client wants, as far as the channel's options and the grant let it.
    fn terms(&self, options: &ChannelOptions, wants: Wants, grant: &SubscribeGrant) -> Terms {
        let config = &self.config;
        let user = self.user();
        let may_read_history = config.insecure || options.may_read_history(user, true);
        let may_see_presence = config.insecure || options.may_see_presence(user, true);
        let announces = grant.join_leave.unwrap_or(options.join_leave);
        let pushes_join_leave = grant
            .force_push_join_leave
            .unwrap_or(options.force_push_join_leave);
        let history = config.channels.history(options);
        let recoverable = history.is_some()
            && (grant.force_recovery.unwrap_or(options.force_recovery)
                || (wants.recoverable && (options.allow_recovery || may_read_history)));
        let is_position_forced = grant.force_positioning.unwrap_or(options.force_positioning);
        let positioned = history.is_some()
            && (recoverable
                || is_position_forced
                || (wants.positioned && (options.allow_positioning || may_read_history)));
        let was_recovering = recoverable && wants.recover;
        let is_asked_for_cache =
            options.auto_cache_recover && options.force_recovery_mode == RecoveryMode::Cache;
        let recovers = was_recovering || (recoverable && is_asked_for_cache);
        Terms {
            granted: Granted {
                positioned,
                recoverable,
                delta: wants.delta && options.allowed_delta_types.contains(&DeltaType::Fossil),
                was_recovering,
                fails_unrecovered: wants.fails_unrecovered,
                offset: wants.offset,
            },
            announces,
            join_leave: pushes_join_leave || (wants.join_leave && announces && may_see_presence),
            history,
            recover: recovers.then_some(RecoveryRequest {
                mode: options.force_recovery_mode,
                offset: wants.offset,
                epoch: wants.epoch,
                publications_max: config.limits.recovery_publications_max,
            }),
        }
    }

    /// The engine's answer to [`Effect::Subscribe`]. With an error the subscription is gone on
    /// both sides. An answer that nobody waits for any more changes nothing.
    pub fn on_subscribed(
        &mut self,
        channel: &str,
        id: u32,
        result: Result<Subscribed<'_>, ErrorCode>,
        now: Instant,
        out: &mut Vec<u8>,
        effect: &mut impl FnMut(Effect<'_>),
    ) {
        if self.subscriptions.pending(channel, id).is_none() {
            return;
        }
        match result {
            Ok(subscribed) => self.confirm(channel, subscribed, now, out, effect),
            Err(error) => {
                self.subscriptions.remove(channel);
                if id > 0 {
                    self.reply(out, id, &Reply::from(error));
                } else if !self.is_connected() {
                    // A client that connects without what the server has it subscribed to would
                    // not know what it misses.
                    self.disconnect(Disconnect::SERVER_ERROR, effect);
                }
            }
        }
        self.reschedule();
        self.settle();
    }

    fn confirm(
        &mut self,
        channel: &str,
        subscribed: Subscribed<'_>,
        now: Instant,
        out: &mut Vec<u8>,
        effect: &mut impl FnMut(Effect<'_>),
    ) {
        let is_json = self.is_json();
        let Some(subscription) = self.subscriptions.get_mut(channel) else {
            return;
        };
        let id = subscription.id;
        let Some(confirmed) = confirmed(subscription, subscribed, is_json) else {
            // It would miss the same whenever it came back.
            return self.disconnect(Disconnect::INAPPROPRIATE_PROTOCOL, effect);
        };
        if confirmed.granted.was_recovering
            && confirmed.granted.fails_unrecovered
            && !confirmed.is_recovered()
        {
            // It never was live.
            if let Some(subscription) = self.subscriptions.remove(channel) {
                self.end(&subscription, 0, effect);
            }
            return self.reply(out, id, &Reply::from(ErrorCode::UnrecoverablePosition));
        }
        subscription.settle();
        let is_connecting = !self.is_connected();
        if !is_connecting {
            self.tell_subscribed(id, &confirmed, now, out);
        }
        if let Some(subscription) = self.subscriptions.get(channel) {
            let info = self.info(subscription.chan_info());
            if subscription.is_present {
                effect(Effect::Enter { channel, info });
            }
            if subscription.announces {
                effect(Effect::Join { channel, info });
            }
            if self.config.notices.subscribed {
                let channel = channel.to_owned();
                effect(Effect::Notify(
                    self.notice(NoticeKind::Subscribed { channel }),
                ));
            }
        }
        if is_connecting {
            self.connect_proceeds(confirmed, now, out, effect);
        }
    }

    /// The reply to the client's subscribe; where the server subscribed it, a push, and what it
    /// missed behind it.
    fn tell_subscribed(&self, id: u32, confirmed: &Confirmed, now: Instant, out: &mut Vec<u8>) {
        let publications = confirmed.publications();
        let result = confirmed.result(&publications, now);
        if id > 0 {
            return self.reply(out, id, &Reply::Subscribe(result));
        }
        let channel = &*confirmed.channel;
        self.push(out, &Push::Subscribe { channel, result });
        for publication in &publications {
            let publication = *publication;
            self.push(
                out,
                &Push::Publication {
                    channel,
                    publication,
                },
            );
        }
    }
}

/// None where the client's format cannot carry what it missed.
fn confirmed(
    subscription: &mut Subscription,
    subscribed: Subscribed<'_>,
    is_json: bool,
) -> Option<Confirmed> {
    let mut confirmed = Confirmed {
        channel: subscription.channel.clone(),
        granted: Granted::default(),
        expires_at: None,
        data: Vec::new(),
        position: subscribed.position,
        recovery: subscribed.recovery.cloned(),
        altered: Altered::new(),
    };
    let is_server_side = subscription.is_server_side();
    if let Some(details) = &mut subscription.details {
        confirmed.granted = details.granted;
        confirmed.data = std::mem::take(&mut details.data);
        if !details.backend_renews && !is_server_side {
            confirmed.expires_at = details.expires_at;
        }
    }
    if let Some(recovery) = &confirmed.recovery {
        confirmed.altered = altered(&recovery.publications, is_json, confirmed.granted.delta)?;
    }
    Some(confirmed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_that_has_begun_counts() {
        for (time, expected) in [
            (Duration::ZERO, 1),
            (Duration::from_secs(600), 600),
            (Duration::from_millis(599_001), 600),
            (Duration::MAX, u32::MAX),
        ] {
            assert_eq!(seconds(time), expected, "{time:?}");
        }
    }
}

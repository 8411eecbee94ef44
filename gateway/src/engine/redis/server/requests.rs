//! What shards and the control plane ask for.

use std::time::Instant;

use super::super::super::request::{Conditions, Request};
use super::super::ledger::{Append, Content, LedgerFull, Once, Publisher};
use super::super::questions::Question;
use super::super::shards::Shards;
use super::{Phase, Server};
use crate::protocol::ErrorCode;

impl Server {
    pub(in super::super) fn carry_out(
        &mut self,
        request: Request,
        now: Instant,
        shards: &mut Shards,
    ) {
        match request {
            Request::Subscribe {
                channel,
                variant,
                shard,
                key,
                history,
            } => {
                let waiter = (shard, key);
                if history.is_some() && !self.streams.can_join(&channel) {
                    return shards.subscribed(waiter, Err(ErrorCode::Internal));
                }
                // Joined first: from the answer on, nothing may be missed.
                shards.join(&channel, variant, shard, key);
                match history {
                    None => {
                        if self.interest.join(&channel, waiter) {
                            shards.subscribed(waiter, Ok(None));
                        }
                    }
                    Some(options) => {
                        let is_confirmed = self.interest.want(&channel);
                        let streams = &mut self.streams;
                        streams.join(&channel, waiter, options, is_confirmed, now, shards);
                    }
                }
            }
            Request::Unsubscribe {
                channel,
                variant,
                shard,
                key,
            } => {
                let has_ended = shards.leave(&channel, variant, shard, key);
                let waiter = (shard, key);
                self.interest.leave(&channel, waiter, has_ended);
                self.streams.leave(&channel, waiter, has_ended, now, shards);
            }
            Request::Recover {
                channel,
                key,
                request,
                shard,
                asker,
                ..
            } => {
                let who = (shard, key);
                let streams = &mut self.streams;
                streams.recover(&channel, who, request, asker, now, shards);
            }
            Request::Publish {
                message,
                history,
                conditions,
                reply,
            } => {
                let key = |conditions: &Conditions| conditions.idempotency_key.clone();
                let content = match (history, conditions) {
                    (Some(history), conditions) => {
                        Content::Append(Append::new(message, history, conditions))
                    }
                    (None, Some(conditions)) if !conditions.idempotency_key.is_empty() => {
                        Content::Once(Box::new(Once {
                            message,
                            key: key(&conditions),
                            is_known: true,
                        }))
                    }
                    _ => Content::Message(message),
                };
                self.publish(content, reply, now, shards);
            }
            Request::History {
                channel,
                query,
                history,
                reply,
            } => self.ask(
                Question::History {
                    channel,
                    query,
                    meta_ttl: history.meta_ttl.max(history.ttl),
                    reply,
                },
                shards,
            ),
            Request::RemoveHistory { channel, reply } => {
                self.ask(Question::Remove { channel, reply }, shards);
            }
            Request::Enter { channel, info } => shards.present.enter(&channel, *info),
            Request::Exit { channel, client } => shards.present.exit(&channel, client, now),
            Request::Presence { channel, reply } => {
                self.ask(
                    Question::Presence {
                        channel,
                        scan: Box::default(),
                        reply,
                    },
                    shards,
                );
            }
            Request::PresenceStats { channel, reply } => {
                self.ask(
                    Question::PresenceStats {
                        channel,
                        scan: Box::default(),
                        reply,
                    },
                    shards,
                );
            }
            Request::Channels { reply } => {
                let _ = reply.send(Ok(shards.channels()));
            }
        }
    }

    pub(in super::super) fn publish(
        &mut self,
        content: Content,
        reply: Option<Publisher>,
        now: Instant,
        shards: &mut Shards,
    ) {
        let result = match (&content, self.phase) {
            // It has to be in order with what others publish: all must hear all.
            (Content::Message(message), Phase::Away | Phase::Restoring) => {
                shards.metrics.local_only.add(1);
                self.sequence(message.channel(), message.as_ref(), None, shards);
                Ok(None)
            }
            // Here only the key or the place tells what was published: no Redis, no publication.
            (_, Phase::Away) | (Content::Once(_), Phase::Restoring) => Err(ErrorCode::Internal),
            _ => {
                let result = self.ledger.push(content, reply);
                if let Err(LedgerFull(reply)) = result {
                    match reply {
                        Some(reply) => {
                            shards.metrics.refused.add(1);
                            shards.published(reply, Err(ErrorCode::TooManyRequests));
                        }
                        None => shards.metrics.presence_dropped.add(1),
                    }
                }
                if self.ledger.wants_probe() {
                    self.probe(now);
                }
                return;
            }
        };
        if let Some(reply) = reply {
            shards.published(reply, result);
        }
    }
}

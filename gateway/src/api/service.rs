//! What the methods of the server API do: with channels through the engine, with clients through
//! the bus.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::StreamExt;

use super::answer::{Answer, ChannelInfo, NodeInfo, Outcome, Published, Response};
use super::metrics::ApiMetrics;
use super::request::{
    BROADCAST_CHANNELS_MAX, Batch, Channels, History, Method, Payload, Publish, Request, Subscribe,
    TEXT_BYTES_MAX, Unsubscribe,
};
use super::target::{disconnect_of, expires_in, meant, millis, refresh_of, unix_now};
use crate::bus::operation::{Bytes, Found, Grant, Operation};
use crate::bus::{Bus, Reports};
use crate::engine::history::HistoryQuery;
use crate::engine::{EngineHandle, PublishOptions};
use crate::protocol::{ErrorCode, Tags, Unsubscribe as End};
use crate::pubsub::{KnownEpoch, MessageRef};
use crate::session::{ChannelOptions, ChannelRules, DataFormat};

/// Engine calls of one request that are under way at the same time.
const AT_ONCE: usize = 64;

/// Everything that the methods work with; cheap to clone.
#[derive(Clone, Debug)]
pub struct Service {
    /// Channels.
    pub engine: EngineHandle,
    /// Clients, on whichever node.
    pub bus: Bus,
    /// Which channels there are.
    pub rules: Arc<ChannelRules>,
    /// Longest name of a channel, in bytes.
    pub channel_length_max: usize,
    /// Longest payload of a publication, in bytes; beyond it error 107.
    pub payload_bytes_max: usize,
    /// What is counted.
    pub metrics: Arc<ApiMetrics>,
}

/// What a channel's name gives.
struct Known<'a> {
    name: &'a str,
    options: &'a ChannelOptions,
}

impl Service {
    /// Carries one request out. A batch is a bad request here: see [`Service::batch`].
    pub async fn run(&self, request: Request) -> Outcome {
        let method = request.method();
        let outcome = match request {
            Request::Publish(publish) => {
                let published = self.publish(&publish, &publish.channel).await;
                Outcome::alone(published.map(Answer::Published))
            }
            Request::Broadcast(broadcast) => Outcome::alone(self.broadcast(&broadcast).await),
            Request::Presence(of) => Outcome::alone(self.presence(&of.channel).await),
            Request::PresenceStats(of) => Outcome::alone(self.presence_stats(&of.channel).await),
            Request::History(history) => Outcome::alone(self.history(&history).await),
            Request::HistoryRemove(of) => Outcome::alone(self.history_remove(&of.channel).await),
            Request::Subscribe(subscribe) => self.everywhere(self.subscribe(&subscribe)).await,
            Request::Unsubscribe(unsubscribe) => {
                self.everywhere(self.unsubscribe(unsubscribe)).await
            }
            Request::Disconnect(disconnect) => self.everywhere(disconnect_of(disconnect)).await,
            Request::Refresh(refresh) => self.everywhere(refresh_of(&refresh, unix_now())).await,
            Request::Channels(channels) => self.channels(channels).await,
            Request::Info => self.info().await,
            // As in Centrifugo, whose methods are those of its extensions, of which there are none.
            Request::Rpc(_) => Outcome::alone(Err(ErrorCode::MethodNotFound)),
            Request::Batch(_) => Outcome::alone(Err(ErrorCode::BadRequest)),
        };
        self.metrics.count(method, &outcome);
        outcome
    }

    /// Carries the commands of a batch out, in their order unless it says otherwise.
    ///
    /// # Errors
    /// 107 when there are too many.
    pub async fn batch(&self, batch: Batch) -> Result<Vec<(Option<Method>, Outcome)>, ErrorCode> {
        if batch.is_too_long() {
            return Err(ErrorCode::BadRequest);
        }
        let at_once = if batch.parallel { AT_ONCE } else { 1 };
        let replies = futures_util::stream::iter(batch.commands)
            .map(|command| async move {
                match command {
                    Some(command) => (Some(command.method()), self.run(command).await),
                    None => (None, Outcome::alone(Err(ErrorCode::MethodNotFound))),
                }
            })
            .buffered(at_once);
        Ok(replies.collect().await)
    }

    fn known<'a>(&'a self, channel: &'a str) -> Result<Known<'a>, ErrorCode> {
        if channel.is_empty() || channel.len() > self.channel_length_max {
            return Err(ErrorCode::BadRequest);
        }
        let options = self.rules.options(channel)?;
        Ok(Known {
            name: channel,
            options,
        })
    }

    async fn publish(&self, request: &Publish, channel: &str) -> Result<Published, ErrorCode> {
        let payload = request.payload()?;
        self.publish_payload(request, channel, &payload).await
    }

    async fn publish_payload(
        &self,
        request: &Publish,
        channel: &str,
        payload: &Payload,
    ) -> Result<Published, ErrorCode> {
        let Known { name, options } = self.known(channel)?;
        let is_short = payload.bytes.len() <= self.payload_bytes_max;
        if !is_short || !fits(options.publication_data_format, payload) {
            return Err(ErrorCode::BadRequest);
        }
        let history = self.rules.history(options);
        let message = MessageRef::Publication {
            data: &payload.bytes,
            info: None,
            // Packed by `Publish::payload`.
            tags: Tags::from_packed(&payload.tags).unwrap_or(Tags::NONE),
            delta: request.delta || options.delta_publish,
        };
        let options = PublishOptions {
            history: history.filter(|_| !request.skip_history),
            idempotency_key: &request.idempotency_key,
            version: request.version,
            version_epoch: &request.version_epoch,
        };
        let position = self.engine.publish(name, message, &options).await?;
        Ok(Published::from(position))
    }

    async fn broadcast(&self, request: &Publish) -> Result<Answer, ErrorCode> {
        if request.channels.is_empty() || request.channels.len() > BROADCAST_CHANNELS_MAX {
            return Err(ErrorCode::BadRequest);
        }
        let payload = request.payload()?;
        let payload = &payload;
        let responses = futures_util::stream::iter(0..request.channels.len())
            .map(|at| async move {
                let channel = &request.channels[at];
                match self.publish_payload(request, channel, payload).await {
                    Ok(published) => Response::Result(published),
                    Err(error) => Response::Error(error.into()),
                }
            })
            .buffered(AT_ONCE);
        Ok(Answer::Broadcast {
            responses: responses.collect().await,
        })
    }

    async fn presence(&self, channel: &str) -> Result<Answer, ErrorCode> {
        let known = self.known(channel)?;
        if !known.options.presence {
            return Err(ErrorCode::NotAvailable);
        }
        let members = self.engine.presence(known.name).await?;
        Ok(Answer::from(&*members))
    }

    async fn presence_stats(&self, channel: &str) -> Result<Answer, ErrorCode> {
        let known = self.known(channel)?;
        if !known.options.presence {
            return Err(ErrorCode::NotAvailable);
        }
        Ok(Answer::from(self.engine.presence_stats(known.name).await?))
    }

    async fn history(&self, request: &History) -> Result<Answer, ErrorCode> {
        let known = self.known(&request.channel)?;
        let history = self.rules.history(known.options);
        let history = history.ok_or(ErrorCode::NotAvailable)?;
        let query = HistoryQuery {
            // Negative: all that are kept, which is also the most that there can be.
            limit: u32::try_from(request.limit)
                .map_or(history.size, |limit| limit.min(history.size)),
            since: request
                .since
                .as_ref()
                .map(|since| (since.offset, KnownEpoch::parse(&since.epoch))),
            reverse: request.reverse,
        };
        let page = self.engine.history(known.name, query, history).await?;
        Ok(Answer::from(&page))
    }

    async fn history_remove(&self, channel: &str) -> Result<Answer, ErrorCode> {
        let known = self.known(channel)?;
        if self.rules.history(known.options).is_none() {
            return Err(ErrorCode::NotAvailable);
        }
        self.engine.remove_history(known.name).await?;
        Ok(Answer::Done {})
    }

    fn subscribe(&self, request: &Subscribe) -> Result<Option<Operation>, ErrorCode> {
        self.known(&request.channel)?;
        let meant = meant(&request.user, &request.client, &request.session)?;
        let value = |switch: Option<super::request::BoolValue>| switch.map(|switch| switch.value);
        let overrides = request.overrides.unwrap_or_default();
        let grant = Grant {
            expires_in_ms: expires_in(request.expire_at, unix_now()).map(millis),
            info: Bytes(request.info()?),
            data: Bytes(request.data()?),
            presence: value(overrides.presence),
            join_leave: value(overrides.join_leave),
            force_push_join_leave: value(overrides.force_push_join_leave),
            force_recovery: value(overrides.force_recovery),
            force_positioning: value(overrides.force_positioning),
        };
        let recover_since = match &request.recover_since {
            Some(since) if since.epoch.len() > TEXT_BYTES_MAX => return Err(ErrorCode::BadRequest),
            Some(since) => Some((since.offset, since.epoch.clone())),
            None => None,
        };
        Ok(meant.of(|target| Operation::Subscribe {
            target,
            channel: request.channel.clone(),
            grant: Box::new(grant),
            recover_since,
        }))
    }

    fn unsubscribe(&self, request: Unsubscribe) -> Result<Option<Operation>, ErrorCode> {
        if !request.channel.is_empty() {
            self.known(&request.channel)?;
        }
        let meant = meant(&request.user, &request.client, &request.session)?;
        Ok(meant.of(|target| Operation::Unsubscribe {
            target,
            channel: request.channel,
            code: End::SERVER.code,
            reason: End::SERVER.reason.to_owned(),
        }))
    }

    /// Has every node do it; nothing is done where nobody can be meant.
    async fn everywhere(&self, operation: Result<Option<Operation>, ErrorCode>) -> Outcome {
        match operation {
            Err(error) => Outcome::alone(Err(error)),
            Ok(None) => Outcome::alone(Ok(Answer::Done {})),
            Ok(Some(operation)) => Outcome {
                unanswered: self.bus.everywhere(&operation).await.unanswered,
                result: Ok(Answer::Done {}),
            },
        }
    }

    async fn channels(&self, request: Channels) -> Outcome {
        let pattern = request.pattern;
        if pattern.len() > TEXT_BYTES_MAX {
            return Outcome::alone(Err(ErrorCode::BadRequest));
        }
        let said = self.bus.everywhere(&Operation::Channels { pattern }).await;
        channels_of(said)
    }

    async fn info(&self) -> Outcome {
        info_of(self.bus.everywhere(&Operation::Info {}).await)
    }
}

/// Whether the channel takes it.
fn fits(format: DataFormat, payload: &Payload) -> bool {
    match format {
        DataFormat::Json => payload.is_json,
        DataFormat::JsonObject => {
            let first = payload
                .bytes
                .iter()
                .find(|byte| !byte.is_ascii_whitespace());
            payload.is_json && first == Some(&b'{')
        }
        DataFormat::Binary => true,
    }
}

fn channels_of(said: Reports) -> Outcome {
    let mut channels: BTreeMap<String, ChannelInfo> = BTreeMap::new();
    for (_, found) in said.reports {
        if let Found::Channels(names) = found {
            for (name, clients) in names {
                channels.entry(name).or_default().num_clients += clients;
            }
        }
    }
    Outcome {
        result: Ok(Answer::Channels { channels }),
        unanswered: said.unanswered,
    }
}

fn info_of(said: Reports) -> Outcome {
    let mut nodes: Vec<NodeInfo> = said
        .reports
        .into_iter()
        .filter_map(|(id, found)| match found {
            Found::Node(node) => Some(NodeInfo {
                uid: id.clone(),
                name: id,
                version: node.version,
                num_clients: node.clients,
                num_users: node.users,
                num_channels: node.channels,
                uptime: node.uptime_s,
                num_subs: node.subscriptions,
            }),
            Found::Sessions(_) | Found::Channels(_) => None,
        })
        .collect();
    nodes.sort_unstable_by(|a, b| a.uid.cmp(&b.uid));
    Outcome {
        result: Ok(Answer::Info { nodes }),
        unanswered: said.unanswered,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_of_all_nodes_are_put_together() {
        let said = Reports {
            reports: vec![
                (
                    "b".to_owned(),
                    Found::Channels(vec![("x".to_owned(), 2), ("y".to_owned(), 1)]),
                ),
                ("a".to_owned(), Found::Channels(vec![("x".to_owned(), 3)])),
            ],
            unanswered: vec!["c".to_owned()],
        };
        let outcome = channels_of(said);
        let Ok(Answer::Channels { channels }) = outcome.result else {
            panic!("channels");
        };
        assert_eq!(channels["x"].num_clients, 5);
        assert_eq!(outcome.unanswered, ["c"]);
    }
}

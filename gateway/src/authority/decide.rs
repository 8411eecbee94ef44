//! From a question to its answer: by the token where there is one, else by the backend.

use std::sync::Arc;
use std::time::SystemTime;

use super::{
    Answer, AuthorityConfig, AuthorityMetrics, ConnectGrant, PublishGrant, Question, QuestionKind,
    RefreshGrant, Refusal, RpcGrant, SubscribeGrant, Who,
};
use crate::backend::wire::{self, Garbage, REFRESH_AGAIN_IN};
use crate::backend::{Endpoint, Routes, Trouble, http};
use crate::protocol::{Disconnect, ErrorCode};
use crate::token::{TokenError, Verifier};

/// Knows the keys and the endpoints.
pub(super) struct Decider {
    connections: Verifier,
    /// None: as connections.
    subscriptions: Option<Verifier>,
    routes: Routes,
    allow_anonymous: bool,
}

impl Decider {
    pub(super) fn new(
        config: &AuthorityConfig,
        metrics: &Arc<AuthorityMetrics>,
    ) -> Result<Self, String> {
        config.check()?;
        let client = http::client()?;
        let verifier =
            |config, section| Verifier::new(config, section, client.clone(), Arc::clone(metrics));
        let subscriptions = &config.subscription_token;
        Ok(Self {
            connections: verifier(&config.token, "client.token")?,
            subscriptions: subscriptions
                .enabled
                .then(|| verifier(&subscriptions.options, "client.subscription_token"))
                .transpose()?,
            routes: Routes::new(&config.backend, &client)?,
            allow_anonymous: config.allow_anonymous,
        })
    }

    pub(super) fn routes(&self) -> &Routes {
        &self.routes
    }

    /// The answer to a question. Takes as long as a key set or an endpoint may; cancel-safe.
    pub(super) async fn answer(&self, question: &Question, now: SystemTime) -> Answer {
        let Question { who, kind } = question;
        match kind {
            QuestionKind::Connect { token, .. } if token.is_empty() => {
                Answer::Connect(self.connect(who, kind).await)
            }
            QuestionKind::Connect { token, .. } => {
                let grant = self.connections.connect(token, now).await;
                Answer::Connect(grant.map_err(|error| refusal(error, Disconnect::INVALID_TOKEN)))
            }
            QuestionKind::Refresh { token } if token.is_empty() => {
                Answer::Refresh(self.refresh(who, kind).await)
            }
            QuestionKind::Refresh { token } => {
                let grant = self.connections.connect(token, now).await;
                Answer::Refresh(refreshed(grant.map(|grant| {
                    let channels = grant.subs.into_iter().map(|(channel, _)| channel);
                    (grant.user == who.user).then(|| RefreshGrant {
                        expired: false,
                        expires_in: grant.expires_in,
                        info: Some(grant.info),
                        channels: Some(channels.collect()),
                    })
                })))
            }
            QuestionKind::Subscribe { token, .. } if token.is_empty() => {
                let allowed = wire::readable_by(who);
                let read = |answer: &[u8], now| wire::subscribe(answer, allowed, now);
                Answer::Subscribe(self.ask(who, kind, read).await.map_err(told))
            }
            QuestionKind::Subscribe { channel, token, .. } => {
                Answer::Subscribe(self.subscribe_by_token(who, channel, token, now).await)
            }
            QuestionKind::SubRefresh { token, .. } if token.is_empty() => {
                Answer::SubRefresh(self.refresh(who, kind).await)
            }
            QuestionKind::SubRefresh { channel, token } => {
                let read = self.of_subscriptions();
                let token = read.subscribe(token, wire::readable_by(who), now).await;
                Answer::SubRefresh(refreshed(token.map(|token| {
                    token.is_for(who, channel).then(|| RefreshGrant {
                        expired: false,
                        expires_in: token.grant.expires_in,
                        info: Some(token.grant.info.clone()),
                        channels: None,
                    })
                })))
            }
            QuestionKind::Publish { .. } => {
                let allowed = wire::readable_by(who);
                let read = |answer: &[u8], _| wire::publish(answer, allowed);
                Answer::Publish(self.ask(who, kind, read).await.map_err(told))
            }
            QuestionKind::Rpc { .. } => {
                let allowed = wire::readable_by(who);
                let read = |answer: &[u8], _| wire::rpc(answer, allowed);
                Answer::Rpc(self.ask(who, kind, read).await.map_err(told))
            }
        }
    }

    fn of_subscriptions(&self) -> &Verifier {
        self.subscriptions.as_ref().unwrap_or(&self.connections)
    }

    async fn subscribe_by_token(
        &self,
        who: &Who,
        channel: &str,
        token: &str,
        now: SystemTime,
    ) -> Result<SubscribeGrant, Refusal> {
        let read = self.of_subscriptions();
        let token = read.subscribe(token, wire::readable_by(who), now).await;
        let token = token.map_err(|error| refusal(error, ErrorCode::PermissionDenied))?;
        if !token.is_for(who, channel) {
            return Err(Disconnect::INVALID_TOKEN.into());
        }
        Ok(token.grant)
    }

    async fn connect(&self, who: &Who, kind: &QuestionKind) -> Result<ConnectGrant, Refusal> {
        let allowed = wire::readable_by(who);
        let read = |answer: &[u8], now| wire::connect(answer, allowed, now);
        match self.ask(who, kind, read).await {
            Ok(Some(grant)) => Ok(grant),
            // The backend has nothing to say: as if there were none.
            Ok(None) if self.allow_anonymous => Ok(ConnectGrant::default()),
            Ok(None) | Err(Trouble::Failed(ErrorCode::Unauthorized)) => {
                Err(Disconnect::BAD_REQUEST.into())
            }
            Err(trouble) => Err(told(trouble)),
        }
    }

    /// While the backend is in trouble, credentials hold a little longer.
    async fn refresh(&self, who: &Who, kind: &QuestionKind) -> Result<RefreshGrant, Refusal> {
        match self.ask(who, kind, wire::refresh).await {
            Ok(grant) => Ok(grant),
            Err(Trouble::Means(end @ Refusal::Disconnect { .. })) => Err(end),
            Err(Trouble::Failed(error @ (ErrorCode::NotAvailable | ErrorCode::UnknownChannel))) => {
                Err(error.into())
            }
            // Nobody waits for the answer to whom an error could be told.
            Err(Trouble::Means(Refusal::Error(_)) | Trouble::Failed(_)) => Ok(RefreshGrant {
                expires_in: Some(REFRESH_AGAIN_IN),
                ..RefreshGrant::default()
            }),
        }
    }

    async fn ask<T>(
        &self,
        who: &Who,
        kind: &QuestionKind,
        read: impl Fn(&[u8], SystemTime) -> Result<Result<T, Refusal>, Garbage>,
    ) -> Result<T, Trouble> {
        let endpoint: &Endpoint = self.routes.of_question(kind).map_err(Trouble::Failed)?;
        let document = wire::question(who, kind, endpoint.config()).map_err(Trouble::Failed)?;
        let answer = endpoint.ask(document, &who.headers).await?;
        // Time has passed since the question.
        match read(&answer, SystemTime::now()) {
            Ok(decided) => decided.map_err(Trouble::Means),
            Err(garbage) => Err(endpoint.was_garbage(&garbage)),
        }
    }
}

fn told(trouble: Trouble) -> Refusal {
    match trouble {
        Trouble::Failed(error) => error.into(),
        Trouble::Means(refusal) => refusal,
    }
}

/// What a client is told of a token; why it is invalid is nobody else's business.
fn refusal(error: TokenError, invalid: impl Into<Refusal>) -> Refusal {
    match error {
        TokenError::Expired => ErrorCode::TokenExpired.into(),
        TokenError::ExpiredAtOnce => ErrorCode::Expired.into(),
        TokenError::Invalid(_) => invalid.into(),
        TokenError::Unjudged => ErrorCode::Internal.into(),
    }
}

/// The outcome of a refresh by a token; none: it is somebody else's.
fn refreshed(grant: Result<Option<RefreshGrant>, TokenError>) -> Result<RefreshGrant, Refusal> {
    match grant {
        Ok(Some(grant)) => Ok(grant),
        Ok(None) => Err(Disconnect::INVALID_TOKEN.into()),
        Err(TokenError::Expired | TokenError::ExpiredAtOnce) => Ok(RefreshGrant {
            expired: true,
            ..RefreshGrant::default()
        }),
        Err(error) => Err(refusal(error, Disconnect::INVALID_TOKEN)),
    }
}

/// A question's answer that is a refusal.
pub(super) fn refused(kind: &QuestionKind, refusal: Refusal) -> Answer {
    match kind {
        QuestionKind::Connect { .. } => Answer::Connect(Err::<ConnectGrant, _>(refusal)),
        QuestionKind::Refresh { .. } => Answer::Refresh(Err(refusal)),
        QuestionKind::Subscribe { .. } => Answer::Subscribe(Err(refusal)),
        QuestionKind::SubRefresh { .. } => Answer::SubRefresh(Err(refusal)),
        QuestionKind::Publish { .. } => Answer::Publish(Err::<PublishGrant, _>(refusal)),
        QuestionKind::Rpc { .. } => Answer::Rpc(Err::<RpcGrant, _>(refusal)),
    }
}

//! Requests on the client port that the shards hand over: the server API where it is external, and
//! emulation for sessions of other nodes.

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{Request, header};
use tower::ServiceExt;

use crate::bus::Bus;
use crate::limits::API_ANSWER_BYTES_MAX;
use crate::shard::plain::{ApiRequest, PlainAnswer, PlainKind, PlainReply, PlainRequests};

/// Answers requests until no shard is left to send any. How many are under way is bounded by how
/// many the shards may have out.
pub async fn serve(mut requests: PlainRequests, api: Option<Router>, bus: Bus) {
    while let Some(request) = requests.recv().await {
        match request.kind {
            PlainKind::Api(asked) => match &api {
                Some(router) => {
                    tokio::spawn(answer(router.clone(), asked, request.answer));
                }
                None => request.answer.answer(empty(404)),
            },
            PlainKind::Emulation {
                node,
                session,
                data,
            } => {
                let status = match bus.commands(&node, &session, data) {
                    Ok(()) => 204,
                    Err(_) => 404,
                };
                request.answer.answer(empty(status));
            }
        }
    }
}

async fn answer(router: Router, asked: ApiRequest, reply: PlainReply) {
    let mut request = Request::builder()
        .method(asked.method.as_str())
        .uri(asked.path_and_query);
    for (name, value) in asked.headers {
        request = request.header(name, value);
    }
    let Ok(request) = request.body(Body::from(asked.body)) else {
        return reply.answer(empty(400));
    };
    let Ok(response) = router.oneshot(request).await;
    let status = response.status().as_u16();
    let content_type = response.headers().get(header::CONTENT_TYPE);
    let content_type = content_type.and_then(|value| value.to_str().ok());
    let content_type = content_type.unwrap_or_default().to_owned();
    match to_bytes(response.into_body(), API_ANSWER_BYTES_MAX).await {
        Ok(body) => reply.answer(PlainAnswer {
            status,
            content_type,
            body: body.into(),
        }),
        Err(_) => reply.answer(empty(500)),
    }
}

fn empty(status: u16) -> PlainAnswer {
    PlainAnswer {
        status,
        content_type: String::new(),
        body: Vec::new(),
    }
}

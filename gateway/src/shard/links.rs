//! What joins the shards of a node to its control plane: made once at start, one side for each.

use flux_runtime::mailbox::{Receiver, Sender, Waker, mailbox};
use tokio::sync::mpsc;

use crate::authority::{Answered, Door};

use super::call::{CALLS_MAX, Call, Calls};
use super::order::{ORDERS_MAX, Order};
use super::plain::{PLAIN_REQUESTS_MAX, PlainAnswered, PlainRequest, PlainRequests};

/// The shards' way to the control plane, common to all of them.
#[derive(Clone, Debug)]
pub struct ControlPlane {
    /// To the other shards.
    pub calls: Calls,
    /// To the authority.
    pub authority: Door,
    /// To whoever answers requests of the control plane.
    pub plain: mpsc::Sender<PlainRequest>,
}

/// What one shard hears from the control plane.
#[derive(Debug)]
pub struct ShardLinks {
    /// Drain and end.
    pub orders: Receiver<Order>,
    /// Actions on its sessions, questions about them.
    pub calls: Receiver<Call>,
    /// The authority's answers.
    pub answers: Receiver<Answered>,
    /// Answers to plain requests.
    pub plain_answers: Receiver<PlainAnswered>,
    /// Goes with each plain request.
    pub plain_answer: Sender<PlainAnswered>,
}

/// What the control plane hears from the shards, and tells them.
#[derive(Debug)]
pub struct ShardsEnd {
    /// Drain and end, one for each shard.
    pub orders: Vec<Sender<Order>>,
    /// The authority's answers, one for each shard. There is room for every answer: a shard has no
    /// more questions out than its mailbox holds.
    pub answers: Vec<Sender<Answered>>,
    /// Requests to answer.
    pub plain: PlainRequests,
}

/// Questions of one shard that are not answered yet; beyond it the session gets error 111.
pub const QUESTIONS_MAX: usize = 4_096;

/// Joins as many shards as there are wakers, in their order.
#[must_use]
pub fn links(wakers: &[Waker], authority: Door) -> (ControlPlane, Vec<ShardLinks>, ShardsEnd) {
    let mut shards = Vec::with_capacity(wakers.len());
    let (mut orders, mut calls, mut answers) = (Vec::new(), Vec::new(), Vec::new());
    for waker in wakers {
        let (order, order_receiver) = mailbox(ORDERS_MAX, waker.clone());
        let (call, call_receiver) = mailbox(CALLS_MAX, waker.clone());
        let (answer, answer_receiver) = mailbox(QUESTIONS_MAX, waker.clone());
        let (plain_answer, plain_answers) = mailbox(PLAIN_REQUESTS_MAX, waker.clone());
        orders.push(order);
        calls.push(call);
        answers.push(answer);
        shards.push(ShardLinks {
            orders: order_receiver,
            calls: call_receiver,
            answers: answer_receiver,
            plain_answers,
            plain_answer,
        });
    }
    let (plain, requests) = mpsc::channel(PLAIN_REQUESTS_MAX * wakers.len().max(1));
    let control = ControlPlane {
        calls: Calls::new(calls),
        authority,
        plain,
    };
    let end = ShardsEnd {
        orders,
        answers,
        plain: requests,
    };
    (control, shards, end)
}

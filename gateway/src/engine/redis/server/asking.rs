//! Questions to Redis: those that wait for their turn, and what follows from the answers.

use std::sync::Arc;
use std::time::Instant;

use redis::Value;

use super::super::present::Step;
use super::super::questions::{self, Question};
use super::super::record::Rejected;
use super::super::scan::Page;
use super::super::scripts::stretch;
use super::super::shards::Shards;
use super::{Phase, Server, count_rejected};
use crate::limits::REDIS_QUESTIONS_MAX;
use crate::protocol::ErrorCode;

impl Server {
    pub(super) fn ask(&mut self, question: Question, shards: &mut Shards) {
        if self.phase == Phase::Away {
            question.refuse(ErrorCode::Internal, shards);
        } else if self.questions.len() >= REDIS_QUESTIONS_MAX {
            shards.metrics.refused.add(1);
            question.refuse(ErrorCode::TooManyRequests, shards);
        } else {
            self.questions.push_back(question);
        }
    }

    /// Whether there is room for another [`Self::take_step`].
    pub(in super::super) fn may_take_steps(&self) -> bool {
        self.questions.len() < REDIS_QUESTIONS_MAX / 2
    }

    /// Does something about who is present; while there is no connection it is owed.
    pub(in super::super) fn take_step(
        &mut self,
        channel: Arc<str>,
        step: Step,
        shards: &mut Shards,
    ) {
        let question = Question::Present(channel, step);
        match self.phase {
            Phase::Away => question.refuse(ErrorCode::Internal, shards),
            Phase::Restoring | Phase::Up => self.questions.push_back(question),
        }
    }

    /// The next questions, at most so many. Each is to be given back to [`Self::answered`] or
    /// [`Self::unanswered`].
    pub(in super::super) fn next_questions(
        &mut self,
        count: usize,
        now: Instant,
        shards: &Shards,
    ) -> Vec<Question> {
        let mut next: Vec<Question> = Vec::new();
        if self.phase == Phase::Away {
            return next;
        }
        // Subscribers wait for these.
        next.extend(
            self.streams
                .next_reads(count, now)
                .into_iter()
                .map(Question::Read),
        );
        shards.metrics.redis_reads.add(next.len() as u64);
        let rest = self.questions.len().min(count - next.len());
        next.extend(self.questions.drain(..rest));
        next
    }

    /// Whether [`Self::next_questions`] would give any.
    pub(in super::super) fn has_questions(&self, now: Instant) -> bool {
        self.phase != Phase::Away && (!self.questions.is_empty() || self.streams.has_reads(now))
    }

    /// Redis has answered a question.
    pub(in super::super) fn answered(
        &mut self,
        question: Question,
        answer: &Value,
        now: Instant,
        shards: &mut Shards,
    ) {
        if let Value::ServerError(error) = answer {
            tracing::debug!(?error, "Redis has refused a question");
            shards.metrics.redis_refused.add(1);
            return self.refused_question(question, now, shards);
        }
        match question {
            Question::Read(wanted) => match stretch(answer) {
                Ok(stretch) => {
                    for why in &stretch.rejected {
                        count_rejected(*why, shards);
                    }
                    if self.streams.read(&wanted.channel, &stretch, now, shards) {
                        self.interest.forget(&wanted.channel);
                    }
                }
                Err(why) => {
                    count_rejected(why, shards);
                    self.refused_question(Question::Read(wanted), now, shards);
                }
            },
            Question::Present(channel, Step::Clean(_)) => {
                let Ok(page) = Page::of(answer) else {
                    return count_rejected(Rejected::Content, shards);
                };
                for dead in shards.present.dead(page.entries()) {
                    shards.metrics.redis_expelled.add(1);
                    let expel = Question::Expel(Arc::clone(&channel), Box::new(dead));
                    self.questions.push_back(expel);
                }
                if let Some(cursor) = page.next {
                    let rest = Question::Present(channel, Step::Clean(cursor));
                    self.questions.push_back(rest);
                }
            }
            other => self
                .questions
                .extend(questions::answer(other, answer, shards)),
        }
    }

    /// A question that Redis did not understand, as it has forgotten the scripts.
    pub(in super::super) fn ask_again(&mut self, question: Question) {
        // There are as many of these as there may be under way.
        self.questions.push_front(question);
    }

    /// A question that another server, or nobody at the moment, has to answer.
    pub(in super::super) fn misplaced(
        &mut self,
        question: Question,
        now: Instant,
        shards: &mut Shards,
    ) {
        if let Question::Read(wanted) = &question {
            self.streams.retry(&wanted.channel, now);
        }
        question.refuse(ErrorCode::Internal, shards);
    }

    /// A question that Redis has not answered, as the connection was lost.
    pub(in super::super) fn unanswered(&mut self, question: Question, shards: &mut Shards) {
        // Reads are wanted anew after the next confirmation.
        question.refuse(ErrorCode::Internal, shards);
    }

    fn refused_question(&mut self, question: Question, now: Instant, shards: &mut Shards) {
        match question {
            Question::Read(wanted) => {
                if self.streams.failed(&wanted.channel, now, shards) {
                    self.interest.forget(&wanted.channel);
                }
            }
            other => other.refuse(ErrorCode::Internal, shards),
        }
    }
}

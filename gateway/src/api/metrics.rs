//! What the server API counts.

use super::answer::Outcome;
use super::request::Method;
use crate::metrics::Count;

/// What the server API counts.
#[derive(Debug, Default)]
pub struct ApiMetrics {
    /// Requests carried out, by [`Method::ALL`].
    pub requests: [Count; Method::ALL.len()],
    /// Of these, those that were answered with an error.
    pub errors: [Count; Method::ALL.len()],
    /// Requests without the key.
    pub unauthorized: Count,
    /// Bodies that are not what the method takes.
    pub unreadable: Count,
    /// Requests that did not come as far as their method, by [`Refused::ALL`].
    pub refused: [Count; Refused::ALL.len()],
}

/// Why a request with the key does not come as far as its method.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// There is no method of that name.
    UnknownMethod,
    /// It is no POST.
    NotPost,
    /// Its body is longer than it may be.
    TooLarge,
    /// Its body does not come to its end.
    CutOff,
}

impl Refused {
    /// All of them, in their order.
    pub const ALL: [Self; 4] = [
        Self::UnknownMethod,
        Self::NotPost,
        Self::TooLarge,
        Self::CutOff,
    ];

    /// What the metric calls it.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::UnknownMethod => "unknown_method",
            Self::NotPost => "not_post",
            Self::TooLarge => "too_large",
            Self::CutOff => "cut_off",
        }
    }
}

impl ApiMetrics {
    /// A request did not come as far as its method.
    pub fn refuse(&self, why: Refused) {
        self.refused[why as usize].add(1);
    }

    /// A request was carried out.
    pub fn count(&self, method: Method, outcome: &Outcome) {
        self.requests[method as usize].add(1);
        if outcome.result.is_err() {
            self.errors[method as usize].add(1);
        }
    }
}

//! Who decides what a client may do, beyond the channel rules: its tokens, and the backend.
//!
//! A session asks ([`Question`]) and goes on when it is answered ([`Answer`]); the asking crosses
//! from its shard to the control plane and back, so that neither a signature nor a backend that is
//! down keeps a shard from its work.
//!
//! Times in answers count from the moment of the answer: sessions know no wall clock.

mod answer;
mod question;

pub use answer::{
    Answer, ConnectGrant, OwnedError, PublishGrant, RefreshGrant, Refusal, RpcGrant, SubscribeGrant,
};
pub use question::{Notice, NoticeKind, Question, QuestionKind, Who};

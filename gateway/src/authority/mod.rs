//! Who decides what a client may do, beyond the channel rules: its tokens, and the backend.
//!
//! A session asks ([`Question`]) and goes on when it is answered ([`Answer`]); the asking crosses
//! from its shard to the control plane and back, so that neither a signature nor a backend that is
//! down keeps a shard from its work.
//!
//! Times in answers count from the moment of the answer: sessions know no wall clock.

//!
//! | what | file |
//! |---|---|
//! | what a session asks | `question` |
//! | what it is answered | `answer` |
//! | the way there and back | `door` |
//! | questions side by side, answers back in order | `run` |
//! | from a question to its answer | `decide` |
//! | notices to the backend | `notices` |
//! | what it is made of | `config` |
//! | configuration sections within sections | `nested` |
//! | JSON or base64, expiry, overrides: common to tokens and backend | `payload`, `options` |
//! | what is counted | `metrics` |

mod answer;
mod config;
mod decide;
mod door;
mod metrics;
mod nested;
mod notices;
pub(crate) mod options;
pub(crate) mod payload;
mod question;
mod run;

pub use answer::{
    Answer, ConnectGrant, OwnedError, PublishGrant, RefreshGrant, Refusal, RpcGrant, SubscribeGrant,
};
pub use config::AuthorityConfig;
use decide::refused;
pub use door::{Answered, Asked, Door, Inbox, Wanted, door};
pub use metrics::AuthorityMetrics;
pub(crate) use nested::Object;
pub use nested::{Named, Switched};
pub use question::{Headers, Notice, NoticeKind, Question, QuestionKind, Who};
pub use run::Authority;

//! The live topology page of a Flux cluster.
//!
//! | stage | file |
//! |---|---|
//! | flags, environment, file | `config.rs` |
//! | read the registry, ask nodes and balancers | `collect/` |
//! | what was seen at one moment, as plain data | `observe.rs` (pure) |
//! | probe results to a verdict | `probe.rs` (pure) |
//! | observation to document and timeline | `topology/` (pure) |
//! | timeline and sparklines | `timeline.rs`, `history.rs` (pure) |
//! | the document as it goes out | `document.rs` |
//! | documents to event streams, at most 4 a second | `stream.rs` |
//! | routes and security headers | `server.rs` |
//! | the page itself, embedded | `page.rs`, `page/` |
//! | every bound | `limits.rs` |

pub mod collect;
pub mod config;
pub mod document;
pub mod history;
pub mod limits;
mod metrics;
pub mod observe;
mod page;
pub mod probe;
mod run;
pub mod server;
pub mod stream;
pub mod timeline;
pub mod topology;

pub use run::run;

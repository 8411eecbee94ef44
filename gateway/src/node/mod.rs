//! A node: its shards, and the control plane beside them.
//!
//! | what | file |
//! |---|---|
//! | from configuration to running shards | `start` |
//! | what is shown of it: `/api/status`, the registry's record, liveness of shards | `status` |
//! | the control plane's life: admin pages, signals, drain, exit code | `run` |
//! | what it runs beside them: bus, server API | `services` |
//! | the end of the shards | `stop` |

mod run;
mod services;
mod start;
mod status;
mod stop;

pub use run::run;
pub use start::{Node, StartError};
pub use status::NodeStatus;

//! Flux's registry: which nodes there are, who holds which id, and where a connection goes.
//!
//! | what | file | pure |
//! |---|---|---|
//! | what a node says about itself | `record` | yes |
//! | its lease on its id: register, renew, be fenced, leave | `lease` | yes |
//! | what readers see, and when not to believe it | `membership` | yes |
//! | who owns which key | `ring` | yes |
//! | where a new connection goes | `placement` | yes |
//! | Redis: scripts, connections, TLS | `redis` | |
//! | the same in memory | `memory` | |
//! | the tasks: reading, heartbeats | `registry`, `task` | |
//!
//! The pure parts mention no socket, runtime, clock or randomness; `tests/pure.rs` checks that.

mod error;
mod lease;
pub mod limits;
mod membership;
mod memory;
mod placement;
mod record;
mod redis;
mod registry;
mod ring;
mod task;

pub use crate::redis::{
    ClientCertificate, ClusterLocator, ClusterSlots, Endpoint, RedisDeployment, RedisLogin,
    RedisSettings, RedisTls, SLOTS, SentinelDeployment, SentinelLocator, client_at,
    local_ip_towards, redis_client, slot_of, tls_without_authorities,
};
pub use error::{ConfigError, RegistryError};
pub use lease::{Lease, LeaseEvent, Reply, Request, ServerClock, Step};
pub use membership::{
    Doubt, Entry, Membership, NodeView, Reading, RegistryState, Rejected, Snapshot,
};
pub use memory::MemoryStore;
pub use placement::{Choice, LoadEstimate, Member, Placement, PlacementConfig, Reason, Standing};
pub use record::{Departure, NodeRecord, NodeState, RECORD_VERSION, RecordError, valid_id};
pub use registry::{Registry, RegistryConfig, advertised};
pub use ring::{Ring, Walk, WalkIndices, key_hash};
pub use task::{Beat, LeaseControl, LeaseHandle, run_lease};

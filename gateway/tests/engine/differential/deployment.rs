//! What may stand behind the Redis engine, each of real processes, and what can happen to it.

use flux_redis_fixtures::{Cluster, Sentinels, Server};
use flux_registry::{RedisDeployment, RedisSettings};

/// A deployment.
pub(super) enum Deployment {
    One(Server),
    /// A master, a replica, three sentinels.
    Sentinel(Sentinels),
    /// Three masters with a replica each; sharded pub/sub.
    Cluster(Cluster),
}

/// How Redis, or a node, fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// All subscriber connections are cut.
    CutSubscribers,
    /// All other connections are cut.
    CutPublishers,
    /// It stands still for so many milliseconds; of a cluster, one master.
    Stop(u64),
    /// It forgets everything: each channel gets another epoch.
    Forget,
    /// It is killed and started again: what it knew is gone.
    Die,
    /// Channels go from master to master.
    MoveSlots,
    /// A replica takes over, as it was told to.
    FailOver,
    /// The registry declares a node dead for a while that is not.
    DeclareDead,
}

impl Deployment {
    pub(super) fn one() -> Option<Self> {
        Server::start().map(Self::One)
    }

    pub(super) fn sentinel() -> Option<Self> {
        Sentinels::start().map(Self::Sentinel)
    }

    pub(super) fn cluster() -> Option<Self> {
        Cluster::start().map(Self::Cluster)
    }

    pub(super) fn name(&self) -> RedisDeployment {
        let settings = match self {
            Self::One(server) => RedisSettings {
                address: vec![server.url()],
                ..RedisSettings::default()
            },
            Self::Sentinel(sentinels) => RedisSettings {
                sentinel_address: sentinels.addresses(),
                sentinel_master_name: sentinels.master_name().into(),
                ..RedisSettings::default()
            },
            Self::Cluster(cluster) => RedisSettings {
                cluster_address: cluster.addresses()[..2].to_vec(),
                ..RedisSettings::default()
            },
        };
        let found = settings.deployment().expect("valid settings");
        found.expect("a deployment")
    }

    /// What can happen to it.
    pub(super) fn faults(&self) -> &'static [Fault] {
        use Fault::{
            CutPublishers, CutSubscribers, DeclareDead, Die, FailOver, Forget, MoveSlots, Stop,
        };
        match self {
            Self::One(_) => &[
                CutSubscribers,
                CutPublishers,
                Stop(300),
                Stop(5_000),
                Forget,
                Die,
                DeclareDead,
            ],
            Self::Sentinel(_) => &[CutSubscribers, Stop(300), FailOver, Forget, FailOver],
            Self::Cluster(_) => &[
                CutSubscribers,
                CutPublishers,
                Stop(300),
                MoveSlots,
                FailOver,
                MoveSlots,
                Forget,
            ],
        }
    }

    /// Whether Redis itself may lose what it has acknowledged: what clients see then is that they are told.
    pub(super) fn may_lose(&self, fault: Fault) -> bool {
        match fault {
            Fault::Forget | Fault::Die => true,
            // Sentinel's takes no care of what the replica does not have yet.
            Fault::FailOver => matches!(self, Self::Sentinel(_)),
            _ => false,
        }
    }

    /// The servers that publications go to.
    fn masters(&self) -> Vec<&Server> {
        match self {
            Self::One(server) => vec![server],
            Self::Sentinel(sentinels) => {
                vec![&sentinels.servers[sentinels.master().expect("a master")]]
            }
            Self::Cluster(cluster) => {
                let masters = cluster.masters().into_iter();
                masters.map(|at| &cluster.nodes[at]).collect()
            }
        }
    }

    /// Lets it happen; `go_on` is what clients do meanwhile, for so many milliseconds.
    pub(super) fn suffer(&mut self, fault: Fault, channels: &[&str], mut go_on: impl FnMut(u64)) {
        match (fault, self) {
            (Fault::CutSubscribers, this) => this.tell_all(&["CLIENT", "KILL", "TYPE", "pubsub"]),
            (Fault::CutPublishers, this) => this.tell_all(&["CLIENT", "KILL", "TYPE", "normal"]),
            (Fault::Forget, this) => this.tell_all(&["FLUSHALL"]),
            (Fault::Stop(time_ms), this) => {
                let masters = this.masters();
                masters[0].pause();
                go_on(time_ms);
                masters[0].resume();
            }
            (Fault::Die, Self::One(server)) => {
                server.kill();
                go_on(300);
                server.restart();
            }
            (Fault::MoveSlots, Self::Cluster(cluster)) => {
                for channel in channels {
                    let slot = cluster.slot(&format!("{{{channel}}}"));
                    let masters = cluster.masters();
                    let from = cluster.master_of(slot).expect("an owner");
                    let to = masters.into_iter().find(|at| *at != from);
                    cluster.migrate(slot, to.expect("another master"), |_| go_on(50));
                }
            }
            (Fault::FailOver, Self::Cluster(cluster)) => {
                cluster.fail_over(cluster.masters()[0]);
                go_on(300);
                cluster.wait_until_whole();
            }
            (Fault::FailOver, Self::Sentinel(sentinels)) => {
                let to = 1 - sentinels.master().expect("a master");
                sentinels.fail_over();
                go_on(1_000);
                sentinels.wait_until_master_is(to);
                sentinels.wait_until_whole();
            }
            (fault, _) => panic!("{fault:?} does not happen here"),
        }
    }

    fn tell_all(&self, command: &[&str]) {
        for master in self.masters() {
            master.tell(command);
        }
    }
}

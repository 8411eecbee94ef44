//! Where a new connection goes: the ring's order, limited by health, load and slow start.
//!
//! Invariants:
//! * While a member is eligible, [`Placement::choose`] names one.
//! * While some eligible member is below its bound, none at its bound is chosen; bounds follow the weights,
//!   so that there always is one unless the members' own capacities say otherwise.
//! * Members that are not eligible are skipped clockwise: the others keep their keys, exactly as if the
//!   member had been taken out of the ring.
//! * The answer depends on the members, the key and `now` only: equal balancers agree.

use std::sync::Arc;
use std::time::{Duration, Instant};

use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::limits::ALTERNATIVES_MAX;
use super::ring::{Ring, WalkIndices};

/// Seed of the second hash of a key, which decides when the key may follow a returning member.
const SLOW_START_SEED: u64 = 0x666c_7578_736c_6f77;

/// What a balancer holds of a member now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Takes new connections.
    Eligible,
    /// Not eligible, but last known as good: walked in panic mode.
    Doubtful,
    /// Draining, gone or never good: takes nothing, not even in panic mode.
    Out,
}

/// One member of the placement.
#[derive(Clone, Debug)]
pub struct Member {
    /// Node id.
    pub id: Arc<str>,
    /// Share of the ring; 0 takes nothing.
    pub weight: u32,
    /// Whether it may take connections.
    pub standing: Standing,
    /// Connections that it holds, as far as this balancer knows ([`LoadEstimate::connections`]).
    pub load: u64,
    /// Connections that it takes at most, 0 if unknown.
    pub capacity: u64,
    /// When it came back, while its slow start lasts. `None` at the balancer's start and afterwards.
    pub returned: Option<Instant>,
}

/// Limits of the placement.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PlacementConfig {
    /// Load bound over the mean: 1.25 lets a member hold a quarter more than its share.
    pub bound: f64,
    /// How long a returning member takes to get its whole share of new keys.
    pub slow_start: Duration,
    /// Panic mode below this share of eligible members.
    pub panic_below: f64,
}

impl Default for PlacementConfig {
    fn default() -> Self {
        PlacementConfig {
            bound: 1.25,
            slow_start: Duration::from_secs(30),
            panic_below: 0.5,
        }
    }
}

/// Why the chosen member was chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// It owns the key.
    Owner,
    /// The owner, or who comes next, may not take it: not eligible, at its bound, or starting slowly.
    NextInRing,
    /// Every eligible member is at its bound or its capacity: the least loaded one takes it.
    LeastLoaded,
    /// Under half of the members are eligible: health is not believed.
    Panic,
}

/// Answer of [`Placement::choose`]. Indices are those of [`Placement::members`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// Where the connection goes first.
    pub member: usize,
    /// Why.
    pub reason: Reason,
    /// Where to go when that fails, in this order: eligible members first, then doubtful ones,
    /// [`ALTERNATIVES_MAX`] at most. The chosen member is not among them.
    pub next: Vec<usize>,
}

/// The ring with what is known of each member. Rebuilt (off the data path) when members or weights change;
/// the rest of a [`Member`] is set in place.
#[derive(Clone, Debug)]
pub struct Placement {
    ring: Ring,
    members: Vec<Member>,
    config: PlacementConfig,
}

impl Placement {
    /// A placement over `members`. Members with weight 0 and repeated ids are left out.
    pub fn new(members: Vec<Member>, config: PlacementConfig) -> Placement {
        let ring = Ring::new(members.iter().map(|m| (&*m.id, m.weight)));
        Placement::with_ring(ring, members, config)
    }

    /// A placement over a ring that was built before, elsewhere. Members that the ring does not have are
    /// left out; a ring member without a [`Member`] takes nothing.
    pub fn with_ring(ring: Ring, members: Vec<Member>, config: PlacementConfig) -> Placement {
        let mut ordered: Vec<Member> = ring
            .ids()
            .iter()
            .enumerate()
            .map(|(index, id)| Member {
                id: id.clone(),
                weight: ring.weight(index),
                standing: Standing::Out,
                load: 0,
                capacity: 0,
                returned: None,
            })
            .collect();
        for member in members {
            if let Some(index) = ring.index_of(&member.id) {
                let weight = ring.weight(index);
                ordered[index] = Member { weight, ..member };
            }
        }
        Placement {
            ring,
            members: ordered,
            config,
        }
    }

    /// The ring below.
    pub fn ring(&self) -> &Ring {
        &self.ring
    }

    /// Members, ascending by id.
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// The member named `id`.
    pub fn member_mut(&mut self, id: &str) -> Option<&mut Member> {
        let index = self.ring.index_of(id)?;
        self.members.get_mut(index)
    }

    /// Like [`Placement::member_mut`], by the index of [`Placement::members`].
    pub fn member_at_mut(&mut self, index: usize) -> Option<&mut Member> {
        self.members.get_mut(index)
    }

    /// The ring's order for `key`, owner first, nothing applied.
    pub fn candidates(&self, key: u64) -> impl Iterator<Item = &Arc<str>> {
        self.ring.walk(key)
    }

    /// Whether so few members are eligible that health is not believed.
    pub fn panicking(&self) -> bool {
        let [eligible, doubtful] = self.counts();
        self.is_panic(eligible, doubtful)
    }

    fn is_panic(&self, eligible: usize, doubtful: usize) -> bool {
        let known = eligible + doubtful;
        doubtful > 0 && (eligible as f64) < self.config.panic_below * known as f64
    }

    /// Where a new connection with `key` goes. `None` only if no member is eligible and none is doubtful.
    ///
    /// Looks at each member once, and at the ring only as far as it has to.
    pub fn choose(&self, key: u64, now: Instant) -> Option<Choice> {
        let mut order = Order::new(self.ring.walk_indices(key));
        let [eligible, doubtful] = self.counts();
        let (member, reason) = if self.is_panic(eligible, doubtful) {
            let known = |index: usize| self.members[index].standing != Standing::Out;
            (order.find(known)?, Reason::Panic)
        } else {
            self.choose_eligible(key, now, &mut order)?
        };
        let mut next = Vec::with_capacity(ALTERNATIVES_MAX);
        // Without counting, a walk for what is not there would go round the whole ring.
        for (standing, mut left) in [
            (Standing::Eligible, eligible),
            (Standing::Doubtful, doubtful),
        ] {
            let mut at = 0;
            while left > 0
                && next.len() < ALTERNATIVES_MAX
                && let Some(index) = order.get(at)
            {
                at += 1;
                if self.members[index].standing == standing {
                    left -= 1;
                    if index != member {
                        next.push(index);
                    }
                }
            }
        }
        Some(Choice {
            member,
            reason,
            next,
        })
    }

    fn choose_eligible(
        &self,
        key: u64,
        now: Instant,
        order: &mut Order<'_>,
    ) -> Option<(usize, Reason)> {
        let bounds = Bounds::new(&self.members, &self.config, now);
        let eligible = |index: usize| self.members[index].standing == Standing::Eligible;
        let below = |index: usize| {
            let member = &self.members[index];
            eligible(index)
                && member.load < bounds.of(member)
                && (member.capacity == 0 || member.load < member.capacity)
        };
        let follows = |index: usize| {
            let share = slow_start_share(&self.members[index], &self.config, now);
            share >= 1.0 || unit(key) < share
        };
        if let Some(index) = order.find(|index| below(index) && follows(index)) {
            let reason = match order.get(0) == Some(index) {
                true => Reason::Owner,
                false => Reason::NextInRing,
            };
            return Some((index, reason));
        }
        // The bound of a returning member grows with its slow start, so that it may take what nobody
        // else can without being swamped.
        if let Some(index) = order.find(below) {
            return Some((index, Reason::NextInRing));
        }
        let all = order.all().iter().copied();
        all.filter(|index| eligible(*index))
            .min_by(|a, b| {
                let filling = |index: &usize| {
                    let member = &self.members[*index];
                    let full = member.capacity != 0 && member.load >= member.capacity;
                    (full, member.load as f64 / bounds.weight(member))
                };
                let (a, b) = (filling(a), filling(b));
                a.0.cmp(&b.0).then(a.1.total_cmp(&b.1))
            })
            .map(|index| (index, Reason::LeastLoaded))
    }

    /// Members that are eligible, and those that are doubtful.
    fn counts(&self) -> [usize; 2] {
        let (mut eligible, mut doubtful) = (0, 0);
        for member in &self.members {
            match member.standing {
                Standing::Eligible => eligible += 1,
                Standing::Doubtful => doubtful += 1,
                Standing::Out => {}
            }
        }
        [eligible, doubtful]
    }
}

/// The ring's order for a key, walked as far as somebody has looked.
struct Order<'a> {
    walk: WalkIndices<'a>,
    known: Vec<usize>,
}

impl<'a> Order<'a> {
    fn new(walk: WalkIndices<'a>) -> Order<'a> {
        Order {
            walk,
            known: Vec::with_capacity(ALTERNATIVES_MAX + 1),
        }
    }

    fn get(&mut self, at: usize) -> Option<usize> {
        while self.known.len() <= at {
            self.known.push(self.walk.next()?);
        }
        Some(self.known[at])
    }

    fn find(&mut self, wanted: impl Fn(usize) -> bool) -> Option<usize> {
        let mut at = 0;
        loop {
            let index = self.get(at)?;
            if wanted(index) {
                return Some(index);
            }
            at += 1;
        }
    }

    fn all(&mut self) -> &[usize] {
        self.known.extend(self.walk.by_ref());
        &self.known
    }
}

/// Load bounds (arXiv 1608.01350) over eligible members, with weights: `max(1, ceil(bound * (m + 1) * w / W))`
/// where `m` counts the connections that are there and the one that comes.
struct Bounds<'a> {
    per_weight: f64,
    config: &'a PlacementConfig,
    now: Instant,
}

impl<'a> Bounds<'a> {
    fn new(members: &[Member], config: &'a PlacementConfig, now: Instant) -> Bounds<'a> {
        let mut bounds = Bounds {
            per_weight: 0.0,
            config,
            now,
        };
        let (mut load, mut weight) = (0u64, 0.0);
        for member in members {
            if member.standing == Standing::Eligible {
                load = load.saturating_add(member.load);
                weight += bounds.weight(member);
            }
        }
        if weight > 0.0 {
            bounds.per_weight = config.bound * (load as f64 + 1.0) / weight;
        }
        bounds
    }

    fn weight(&self, member: &Member) -> f64 {
        // Never 0: a lone returning member must be able to hold everything.
        f64::from(member.weight) * slow_start_share(member, self.config, self.now).max(1e-6)
    }

    fn of(&self, member: &Member) -> u64 {
        // What should be whole must not be rounded up by the error of the division.
        let share = self.per_weight * self.weight(member) * (1.0 - 1e-12);
        (share.ceil() as u64).max(1)
    }
}

/// How much of its share a member gets: 0 at its return, 1 when its slow start is over.
fn slow_start_share(member: &Member, config: &PlacementConfig, now: Instant) -> f64 {
    match member.returned {
        None => 1.0,
        Some(_) if config.slow_start.is_zero() => 1.0,
        Some(returned) => {
            let elapsed = now.saturating_duration_since(returned);
            (elapsed.as_secs_f64() / config.slow_start.as_secs_f64()).min(1.0)
        }
    }
}

/// A key's place in the slow start, even over 0..1 and the same in every balancer.
fn unit(key: u64) -> f64 {
    let hash = xxh3_64_with_seed(&key.to_le_bytes(), SLOW_START_SEED);
    (hash >> 11) as f64 / (1u64 << 53) as f64
}

/// Connections of a node as a balancer sees them: what the node reported plus what passed here since.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LoadEstimate {
    report: (u64, u64),
    reported: u64,
    since: i64,
}

impl LoadEstimate {
    /// Takes the node's own figure. A repeated report (same generation and seq) changes nothing.
    pub fn reported(&mut self, generation: u64, seq: u64, connections: u64) {
        if self.report != (generation, seq) {
            *self = LoadEstimate {
                report: (generation, seq),
                reported: connections,
                since: 0,
            };
        }
    }

    /// A connection to the node was opened here.
    pub fn opened(&mut self) {
        self.since = self.since.saturating_add(1);
    }

    /// A connection to the node ended here.
    pub fn closed(&mut self) {
        self.since = self.since.saturating_sub(1);
    }

    /// The estimate.
    pub fn connections(&self) -> u64 {
        self.reported.saturating_add_signed(self.since)
    }
}

//! Every bound of the gateway in one place: name, default, what happens beyond it.

use std::time::Duration;

/// Arrays and objects inside one another in a command and in its data; beyond it the message is not
/// decodable, close 3501. Other clients' parsers are recursive, and one deep value would disconnect
/// all subscribers of its channel.
pub const JSON_DEPTH_MAX: u32 = 128;

/// Longest payload, in bytes, that is compared with the one before it for a delta; longer ones are
/// sent whole. A delta costs time in proportion to both: about a millisecond at this length where
/// they have nothing in common. Clients' messages are no longer than this by default.
pub const DELTA_BYTES_MAX: usize = 64 * 1024;

/// How many of something a client may send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// In the long run; at least 1.
    pub per_second: u32,
    /// At once, after a rest; at least 1.
    pub burst: u32,
}

impl Rate {
    /// Time between two of them in the long run.
    #[must_use]
    pub fn interval(self) -> Duration {
        Duration::from_secs(1) / self.per_second.max(1)
    }
}

/// Bounds on one client's session. Centrifugo's key stands beside what Centrifugo also has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionLimits {
    /// Subscriptions of one client, pending ones included; beyond it error 106
    /// (`client.channel_limit`).
    pub channels_max: usize,
    /// Length of a channel name; beyond it error 107 (`channel.max_length`).
    pub channel_length_max_bytes: usize,
    /// Commands handed to the engine and not answered yet; beyond it error 111. Reading pauses at
    /// half of it ([`Session::wants_pause`](crate::session::Session::wants_pause)), so a client
    /// meets the error only with a burst inside few messages.
    pub pending_commands_max: u32,
    /// Bytes of commands that wait until a question about an earlier one is answered; beyond it
    /// close 3013. Reading pauses at a sixteenth of it, so a client meets the close only with a
    /// burst that was under way already.
    pub stashed_bytes_max: usize,
    /// Commands of one client, pongs not counted; beyond it error 111, or close 3013 for those that
    /// have no reply. None: as many as it likes.
    pub commands_rate: Option<Rate>,
    /// Publishes of one client; beyond it error 111. None: as many as it likes.
    pub publishes_rate: Option<Rate>,
    /// Publications in one answer about the history (`client.history_max_publication_limit`).
    pub history_publications_max: u32,
    /// Publications that are recovered at once; more than this have to be missed for good
    /// (`client.recovery_max_publication_limit`).
    pub recovery_publications_max: u32,
    /// Time that a client has to renew its connection's credentials once they have expired; beyond
    /// it close 3005 (`client.expired_close_delay`).
    pub expired_close_delay: Duration,
    /// As `expired_close_delay`, of a subscription; beyond it the subscription ends with 2501
    /// (`client.expired_sub_close_delay`).
    pub expired_sub_close_delay: Duration,
    /// Time until the backend is asked again to renew credentials when it could not be.
    pub renewal_retry_delay: Duration,
    /// Time from the transport's opening to the connect command; beyond it close 3502
    /// (`client.stale_close_delay`).
    pub stale_close_delay: Duration,
    /// Time between two pings to a client, whole seconds (`client.ping_interval`).
    pub ping_interval: Duration,
    /// Time for the pong; beyond it close 3012 (`client.pong_timeout`).
    pub pong_timeout: Duration,
}

impl SessionLimits {
    /// What applies unless configured otherwise.
    pub const DEFAULT: Self = Self {
        channels_max: 128,
        channel_length_max_bytes: 255,
        pending_commands_max: 1_024,
        stashed_bytes_max: 1024 * 1024,
        commands_rate: None,
        publishes_rate: None,
        history_publications_max: 300,
        recovery_publications_max: 300,
        expired_close_delay: Duration::from_secs(25),
        expired_sub_close_delay: Duration::from_secs(25),
        renewal_retry_delay: Duration::from_secs(60),
        stale_close_delay: Duration::from_secs(10),
        ping_interval: Duration::from_secs(25),
        pong_timeout: Duration::from_secs(8),
    };

    /// Whether the limits agree with one another.
    ///
    /// # Errors
    /// One line that names the key, the value and what is allowed.
    pub fn validate(&self) -> Result<(), String> {
        if self.ping_interval < Duration::from_secs(1) {
            return Err(format!(
                "client.ping_interval = {:?}: at least 1s, since the protocol carries whole seconds",
                self.ping_interval
            ));
        }
        if self.pong_timeout.is_zero() || self.pong_timeout >= self.ping_interval {
            return Err(format!(
                "client.pong_timeout = {:?}: more than 0 and less than client.ping_interval ({:?})",
                self.pong_timeout, self.ping_interval
            ));
        }
        if self.channels_max == 0 || self.channel_length_max_bytes == 0 {
            return Err(format!(
                "client.channel_limit = {}, channel.max_length = {}: both at least 1",
                self.channels_max, self.channel_length_max_bytes
            ));
        }
        if self.pending_commands_max < 2 || self.stashed_bytes_max < 16 {
            return Err(format!(
                "limits.pending_commands = {}, limits.stashed_bytes = {}: at least 2 and 16",
                self.pending_commands_max, self.stashed_bytes_max
            ));
        }
        for (rate, key) in [
            (self.commands_rate, "limits.commands_rate"),
            (self.publishes_rate, "limits.publishes_rate"),
        ] {
            if let Some(rate) = rate
                && (rate.per_second == 0 || rate.burst == 0)
            {
                return Err(format!(
                    "{key}: {} a second, {} at once: both at least 1, or leave it out",
                    rate.per_second, rate.burst
                ));
            }
        }
        if self.renewal_retry_delay.is_zero() {
            return Err("limits.renewal_retry_delay = 0s: more than 0".to_owned());
        }
        Ok(())
    }
}

impl Default for SessionLimits {
    fn default() -> Self {
        Self::DEFAULT
    }
}

// A pong that may come after the next ping could not be told from the next one's.
const _: () = assert!(
    SessionLimits::DEFAULT.pong_timeout.as_millis()
        < SessionLimits::DEFAULT.ping_interval.as_millis()
);

/// Bytes of replies waiting for a client beyond which nothing more is read from it: it makes answers
/// faster than it takes them.
pub const READ_PAUSE_BYTES: usize = 128 * 1024;
/// Longest wait for a client's answer to a close frame; beyond it the connection is cut.
pub const CLOSE_WAIT_MAX: Duration = Duration::from_secs(3);
/// Longest wait for a client to take an answer and close, after a plain request; beyond it the
/// connection is cut.
pub const LINGER_MAX: Duration = Duration::from_secs(2);
/// Most bytes that a connection may be behind by before it is closed as a slow consumer (3008)
/// (`client.queue_max_size`).
pub const LAG_BYTES_MAX: u64 = 1024 * 1024;
/// Longest time that a send to a client may make no progress before it is closed (3008).
pub const SEND_STUCK_MAX: Duration = Duration::from_secs(10);
/// Longest time that a publication waits on a busy shard, so that several leave in one send
/// (`fanout.latency_budget`).
pub const FANOUT_LATENCY_BUDGET: Duration = Duration::from_millis(25);
/// Share of its time above which a shard counts as busy and sends less often.
pub const BUSY_TARGET: f32 = 0.47;
/// Publications' sends of one turn; beyond it they wait for the next turn, which follows at once: a
/// round to very many must not keep commands, timers and newer publications waiting for as long as
/// its sends take.
pub const ROUND_SENDS_A_TURN_MAX: usize = 128;

/// Messages that fit into the mailbox of a shard; beyond it they wait with their sender.
pub const MAILBOX_MESSAGES: usize = 4_096;
/// Most bytes of publications that wait with their sender for a shard whose mailbox is full;
/// beyond it the shard's subscribers of the channel are told that they missed something (2500).
/// Also, of publications of a shard's own channels that it has not got round to; beyond it publishes
/// are answered with error 111.
pub const PARKED_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Subscribes that wait with their shard because whoever orders the channels is behind; beyond it
/// subscribes are answered with error 111.
pub const INTEREST_PARKED_MAX: usize = 65_536;
/// Bytes of history that a node's memory engine keeps, over all its shards, which have equal parts of
/// it. Beyond it the channels used longest ago lose their oldest publications, which is counted;
/// who comes back to them is told that not all was recovered. What the process holds for it is at
/// most half as much again.
pub const HISTORY_BYTES_MAX: usize = 256 * 1024 * 1024;
/// Bytes of results of publications with an idempotency key that a node's memory engine remembers;
/// beyond it the oldest are forgotten before their time, which is counted.
pub const IDEMPOTENCY_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Questions of the control plane that the engine has not answered; beyond it they are answered with
/// error 111.
pub const ENGINE_CALLS_MAX: usize = 1_024;
/// Longest wait of the control plane for an answer of the engine; then error 100.
pub const ENGINE_CALL_TIMEOUT: Duration = Duration::from_secs(5);
/// Requests of all shards that the Redis engine has not looked at yet; beyond it publishes are
/// answered with error 111.
pub const REDIS_REQUESTS_MAX: usize = 16_384;
/// Publications handed to Redis whose fate is not known yet; beyond it publishes are answered with
/// error 111.
pub const REDIS_IN_FLIGHT_MAX: usize = 65_536;
/// As `REDIS_IN_FLIGHT_MAX`, in bytes.
pub const REDIS_IN_FLIGHT_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Bytes that Redis has delivered and nobody has looked at yet; beyond it the connection is
/// replaced.
pub const REDIS_RECEIVED_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Longest record that is accepted from Redis; longer ones are refused and counted.
pub const REDIS_RECORD_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Channels in one SUBSCRIBE or UNSUBSCRIBE.
pub const REDIS_SUBSCRIBE_BATCH: usize = 512;
/// Publications in one pipeline to Redis.
pub const REDIS_PUBLISH_BATCH: usize = 512;
/// Pipelines on their way to Redis at the same time.
pub const REDIS_PIPELINES_MAX: usize = 8;
/// How long a publication waits for a slot of a cluster that is on its way, or for a master, at most; then it is
/// answered with error 100. Less than the patience of whoever waits for the answer.
pub const REDIS_DETOUR_MAX: Duration = Duration::from_secs(4);
/// Time between two probes through Redis to the own subscriber connection.
pub const REDIS_PROBE_INTERVAL: Duration = Duration::from_secs(1);
/// Silence of the own probes after which all connections are replaced, counted from the last probe (or other
/// own message) that came back. One that dies silently is found at most so long after it, as the last one
/// came back before that; the rest of [`REDIS_LOSS_MAX`] is for new connections, for the subscriptions and
/// for reading what was missed.
pub const REDIS_PROBE_DEADLINE: Duration = Duration::from_millis(2_500);
/// Within this time a connection that dies silently is found and replaced, and its subscriptions have what
/// they missed, where Redis answers a new connection at once.
pub const REDIS_LOSS_MAX: Duration = Duration::from_secs(3);
/// Longest pause between two attempts to reach Redis.
pub const REDIS_RECONNECT_DELAY_MAX: Duration = Duration::from_secs(1);
/// Time between two looks at where Redis is, while nothing speaks against what is known: sentinels and
/// clusters only. What a master of old is given in the meantime is lost.
pub const REDIS_GUIDE_INTERVAL: Duration = Duration::from_secs(1);
/// Shortest time between two such looks.
pub const REDIS_GUIDE_PAUSE_MIN: Duration = Duration::from_millis(100);

/// Publications that one read of a channel's history in Redis gives at most; what is missing is read
/// next.
pub const REDIS_READ_PUBLICATIONS_MAX: u32 = 10_000;
/// As `REDIS_READ_PUBLICATIONS_MAX`, in bytes; one publication is given in any case.
pub const REDIS_READ_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Reads and presence commands on their way to Redis at the same time, in batches.
pub const REDIS_COMMAND_BATCHES_MAX: usize = 4;
/// Reads or presence commands in one batch.
pub const REDIS_COMMAND_BATCH: usize = 16;
/// Questions about history and presence that wait for their turn; beyond it error 111.
pub const REDIS_QUESTIONS_MAX: usize = 16_384;
/// Members in one page of a channel's presence hash.
pub const REDIS_MEMBERS_PAGE: usize = 1_000;
/// Entries of a channel's presence hash that are read for an answer; where there are more, who asks for
/// presence or its numbers gets error 106.
pub const REDIS_MEMBERS_MAX: usize = 131_072;
/// Changes of who is present that Redis has not carried out and that are done again; also, members that have
/// left lately. Beyond it entries of members that have left may stay until they expire.
pub const REDIS_OWED_MAX: usize = 262_144;
/// Shortest time between two reads of one channel's history for its subscribers.
pub const REDIS_READ_INTERVAL: Duration = Duration::from_secs(1);
/// Bytes of recent publications that a node remembers of one channel, for recoveries without a
/// read.
pub const REDIS_RECENT_BYTES_MAX: usize = 1024 * 1024;
/// Bytes of recent publications that a node remembers of all channels; beyond it those of quiet
/// channels are forgotten, and recoveries read.
pub const REDIS_RECENT_BYTES_ALL_MAX: usize = 128 * 1024 * 1024;
/// Bytes of publications of one channel that wait for what came before them; beyond it they are
/// read later.
pub const REDIS_HELD_BYTES_MAX: usize = 4 * 1024 * 1024;
/// How long a channel without subscribers is remembered: for those who come back.
pub const REDIS_STREAM_LINGER: Duration = Duration::from_secs(30);

// A record must fit into what may wait, or it could never be delivered.
const _: () = assert!(REDIS_RECORD_BYTES_MAX < REDIS_RECEIVED_BYTES_MAX);
const _: () = assert!(REDIS_RECORD_BYTES_MAX < PARKED_BYTES_MAX);
const _: () = assert!(REDIS_DETOUR_MAX.as_millis() < ENGINE_CALL_TIMEOUT.as_millis());
// One probe that takes long is no silence.
const _: () = assert!(REDIS_PROBE_INTERVAL.as_millis() * 2 < REDIS_PROBE_DEADLINE.as_millis());
const _: () = assert!(REDIS_PROBE_DEADLINE.as_millis() + 500 <= REDIS_LOSS_MAX.as_millis());

/// Events of the engine that a shard takes in one turn; what is left waits for the next one, behind
/// a round, so that many small channels cannot keep a shard from sending.
pub const EVENTS_A_TURN_MAX: usize = 4_096;

/// Questions of all shards that the authority has not looked at yet; beyond it they are answered with
/// error 111.
pub const QUESTIONS_WAITING_MAX: usize = 16_384;
/// Notices for the backend that the authority has not looked at yet; beyond it they are dropped.
pub const NOTICES_WAITING_MAX: usize = 16_384;
/// Longest wait for the control plane's answer to a request on the client port; beyond it 503.
pub const PLAIN_ANSWER_MAX: Duration = Duration::from_secs(35);
/// Longest body of a request to the server API on the client port; beyond it 413.
pub const API_BODY_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Questions being answered at the same time; beyond it they wait at the door.
pub const QUESTIONS_IN_FLIGHT_MAX: usize = 65_536;
/// Pause before an answer is offered again to a shard whose mailbox is full.
pub const ANSWER_RETRY: Duration = Duration::from_millis(1);
/// Notices that wait in one of the lanes to the backend; beyond it they are dropped.
pub const NOTICES_A_LANE_MAX: usize = 1_024;
/// How long notices may still leave when the node stops; the rest is dropped.
pub const NOTICES_END_MAX: Duration = Duration::from_secs(1);
/// Longest answer of the backend; a longer one is error 100.
pub const BACKEND_ANSWER_BYTES_MAX: usize = 1024 * 1024;
/// Longest token; a longer one is invalid.
pub const TOKEN_BYTES_MAX: usize = 64 * 1024;
/// Longest document with keys; of a longer one nothing is used.
pub const JWKS_BYTES_MAX: usize = 256 * 1024;
/// Keys in such a document; as above.
pub const JWKS_KEYS_MAX: usize = 256;
/// Longest answer of the server API on the client port, in bytes; beyond it 500.
pub const API_ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;

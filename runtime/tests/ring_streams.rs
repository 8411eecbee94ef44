//! Promise: whatever the sizes of queues and buffers, the kernel's features, partial sends,
//! backpressure and shortage of buffers, by descriptor or direct, each stream arrives byte for byte, every payload comes
//! back once and no buffer is lost.
//!
//! Chains of two real socket pairs on one ring: bytes sent into `source` arrive at `inlet`, are
//! sent on from the receive buffers into `outlet`, and are checked at `sink`.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

use std::collections::VecDeque;
use std::io;
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use flux_runtime::log::LogWriter;
use flux_runtime::mailbox::wake_pair;
use flux_runtime::ring::{
    Completion, Features, Key, NetRing, Payload, Piece, RecvBuffer, RecvHandle, RingConfig,
    Shutdown, Socket,
};

const PERIOD: usize = 251;

/// Byte `position` of every stream is `position % 251`, so that any range can be cut out of here.
static BYTES: [u8; PERIOD + 4096] = {
    let mut bytes = [0; PERIOD + 4096];
    let mut index = 0;
    while index < bytes.len() {
        bytes[index] = (index % PERIOD) as u8;
        index += 1;
    }
    bytes
};

fn range(position: u64, len: usize) -> &'static [u8] {
    let from = (position % PERIOD as u64) as usize;
    &BYTES[from..from + len.min(4096)]
}

/// The four sockets of a chain.
const SOURCE: u64 = 0;
const INLET: u64 = 1;
const OUTLET: u64 = 2;
const SINK: u64 = 3;

fn key(chain: usize, role: u64) -> Key {
    Key((chain as u64) << 8 | role)
}

struct Chain {
    sockets: [Socket; 4],
    total: u64,
    /// Bytes put into sends at `source` and confirmed.
    sent: u64,
    sending: bool,
    rest: Option<Payload>,
    source_shut: bool,
    inlet: Option<RecvHandle>,
    inlet_ended: bool,
    waiting: VecDeque<Piece>,
    forwarding: bool,
    forward_rest: Option<Payload>,
    outlet_shut: bool,
    sink: Option<RecvHandle>,
    /// Buffers held back for a while, as a busy service does.
    held: Vec<RecvBuffer>,
    received: u64,
    ended: bool,
}

fn tcp_pair(random: &mut fastrand::Rng) -> [OwnedFd; 2] {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (server, _) = listener.accept().unwrap();
    if random.bool() {
        // Small buffers make partial sends.
        for socket in [&client, &server] {
            let socket = socket2::SockRef::from(socket);
            socket.set_send_buffer_size(4096).unwrap();
            socket.set_recv_buffer_size(4096).unwrap();
        }
    }
    [client.into(), server.into()]
}

fn pair(random: &mut fastrand::Rng) -> [OwnedFd; 2] {
    if random.bool() {
        let (one, other) = UnixStream::pair().unwrap();
        [one.into(), other.into()]
    } else {
        tcp_pair(random)
    }
}

impl Chain {
    fn new(ring: &mut NetRing, random: &mut fastrand::Rng) -> Self {
        let [source, inlet] = pair(random);
        let [outlet, sink] = pair(random);
        let sockets = [source, inlet, outlet, sink].map(|socket| match random.bool() {
            true => ring.adopt(socket),
            false => socket.into(),
        });
        Self {
            sockets,
            total: random.u64(0..150_000),
            sent: 0,
            sending: false,
            rest: None,
            source_shut: false,
            inlet: None,
            inlet_ended: false,
            waiting: VecDeque::new(),
            forwarding: false,
            forward_rest: None,
            outlet_shut: false,
            sink: None,
            held: Vec::new(),
            received: 0,
            ended: false,
        }
    }

    /// What the next send carries: a few pieces of all kinds, now and then very many.
    fn next_payload(&self, random: &mut fastrand::Rng, log: &mut LogWriter) -> Payload {
        let mut payload = Payload::new();
        let mut position = self.sent;
        let pieces = match random.u8(..) {
            0..16 => random.usize(1..=300),
            16..64 => 40,
            _ => random.usize(1..=6),
        };
        for _ in 0..pieces {
            let longest = if random.u8(..) < 40 { 4096 } else { 200 };
            let len = random
                .usize(1..=longest)
                .min((self.total - position) as usize);
            let bytes = range(position, len);
            match random.u8(0..3) {
                0 => payload.push(bytes.to_vec()),
                1 => payload.push(log.append(&[bytes])),
                _ => payload.push(bytes),
            }
            position += len as u64;
        }
        payload
    }
}

struct Test {
    ring: NetRing,
    chains: Vec<Chain>,
    log: LogWriter,
    random: fastrand::Rng,
    sends: u64,
    returned: u64,
}

impl Test {
    fn complete(&mut self, completion: Completion) {
        let short = self.ring.buffers_short();
        match completion {
            Completion::Received { key, buffer } => {
                assert!(!buffer.is_empty());
                let chain = &mut self.chains[(key.0 >> 8) as usize];
                match key.0 & 0xff {
                    // What waits in buffers must not keep all others from receiving.
                    INLET if short => chain.waiting.push_back(buffer.to_vec().into()),
                    INLET => chain.waiting.push_back(buffer.into()),
                    SINK => {
                        for chunk in buffer.chunks(4096) {
                            assert_eq!(chunk, range(chain.received, chunk.len()));
                            chain.received += chunk.len() as u64;
                        }
                        if !short && self.random.u8(..) < 64 {
                            chain.held.push(buffer);
                        }
                    }
                    role => panic!("bytes at {role}"),
                }
            }
            Completion::ReceiveEnded { key, error } => {
                assert!(error.is_none(), "{error:?}");
                let chain = &mut self.chains[(key.0 >> 8) as usize];
                match key.0 & 0xff {
                    INLET => (chain.inlet, chain.inlet_ended) = (None, true),
                    SINK => (chain.sink, chain.ended) = (None, true),
                    role => panic!("an end at {role}"),
                }
            }
            Completion::Sent {
                key,
                mut payload,
                result,
            } => {
                self.returned += 1;
                let count = result.unwrap();
                assert!(count > 0 && count <= payload.len());
                payload.advance(count);
                let rest = (!payload.is_empty()).then_some(payload);
                let chain = &mut self.chains[(key.0 >> 8) as usize];
                match key.0 & 0xff {
                    SOURCE => {
                        chain.sent += count as u64;
                        (chain.sending, chain.rest) = (false, rest);
                    }
                    OUTLET => (chain.forwarding, chain.forward_rest) = (false, rest),
                    role => panic!("sent at {role}"),
                }
            }
            other => panic!("{other:?}"),
        }
    }

    fn act(&mut self, index: usize) {
        let Self {
            ring,
            chains,
            log,
            random,
            ..
        } = self;
        let chain = &mut chains[index];
        // Source.
        if !chain.sending && !chain.source_shut && random.u8(..) < 200 {
            if let Some(rest) = chain.rest.take() {
                ring.send(&chain.sockets[0], key(index, SOURCE), rest);
                chain.sending = true;
                self.sends += 1;
            } else if chain.sent < chain.total {
                let payload = chain.next_payload(random, log);
                ring.send(&chain.sockets[0], key(index, SOURCE), payload);
                chain.sending = true;
                self.sends += 1;
            } else {
                ring.shutdown(&chain.sockets[0], Shutdown::Write).unwrap();
                chain.source_shut = true;
            }
        }
        // Relay: stopped while much waits, started again when little does, and at random.
        let stop = chain.waiting.len() > 2 || random.u8(..) < 20;
        match chain.inlet {
            Some(handle) if stop => {
                ring.stop_recv(handle);
                chain.inlet = None;
                if random.bool() {
                    chain.inlet = Some(ring.recv(&chain.sockets[1], key(index, INLET)));
                }
            }
            None if !stop && !chain.inlet_ended => {
                chain.inlet = Some(ring.recv(&chain.sockets[1], key(index, INLET)));
            }
            _ => {}
        }
        if !chain.forwarding {
            let mut payload = chain.forward_rest.take().unwrap_or_default();
            for _ in 0..random.u8(0..4) {
                if let Some(buffer) = chain.waiting.pop_front() {
                    payload.push(buffer);
                }
            }
            if !payload.is_empty() {
                ring.send(&chain.sockets[2], key(index, OUTLET), payload);
                chain.forwarding = true;
                self.sends += 1;
            } else if chain.inlet_ended && chain.waiting.is_empty() && !chain.outlet_shut {
                ring.shutdown(&chain.sockets[2], Shutdown::Write).unwrap();
                chain.outlet_shut = true;
            }
        }
        // Sink.
        match chain.sink {
            None if !chain.ended => {
                chain.sink = Some(ring.recv(&chain.sockets[3], key(index, SINK)));
            }
            Some(handle) if random.u8(..) < 10 => {
                ring.stop_recv(handle);
                chain.sink = None;
            }
            _ => {}
        }
        if random.u8(..) < 100 {
            chain.held.clear();
        }
    }

    fn done(&self) -> bool {
        self.chains
            .iter()
            .all(|chain| chain.ended && chain.inlet_ended && !chain.sending && !chain.forwarding)
    }
}

fn run(config: &RingConfig, chains: usize) -> flux_runtime::ring::RingStats {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let (_waker, source) = wake_pair().unwrap();
    let mut ring = NetRing::new(config, source).unwrap();
    let mut test = Test {
        chains: (0..chains)
            .map(|_| Chain::new(&mut ring, &mut random))
            .collect(),
        ring,
        log: LogWriter::new(),
        random,
        sends: 0,
        returned: 0,
    };
    let deadline = Instant::now() + Duration::from_secs(60);
    while !test.done() {
        for index in 0..test.chains.len() {
            test.act(index);
        }
        // Short, as the actions are random and the next one may be what makes things go on.
        let now = test
            .ring
            .wait(Some(Instant::now() + Duration::from_micros(200)));
        while let Some(completion) = test.ring.next_completion() {
            test.complete(completion);
        }
        assert!(
            now < deadline,
            "stuck: {:?} {:?}",
            test.ring,
            test.ring.stats()
        );
    }
    for chain in &mut test.chains {
        assert_eq!(chain.received, chain.total);
        chain.held.clear();
    }
    assert_eq!(test.sends, test.returned, "each payload comes back once");
    assert_eq!(test.ring.buffers_lent(), 0);
    assert_eq!(test.ring.in_flight(), 0);
    let stats = *test.ring.stats();
    assert_eq!(stats.sends, test.sends);
    println!("{stats:?}");
    stats
}

fn features() -> impl Iterator<Item = Features> {
    [
        Features::all(),
        Features::none(),
        Features {
            multishot_recv: false,
            ..Features::all()
        },
        Features {
            defer_taskrun: false,
            ..Features::all()
        },
        Features {
            min_wait: false,
            registered_ring: false,
            ..Features::all()
        },
    ]
    .into_iter()
}

#[test]
fn streams_arrive_whole_with_each_set_of_features() {
    let mut partial_sends = 0;
    for allowed in features() {
        let config = RingConfig {
            allowed,
            ..RingConfig::default()
        };
        partial_sends += run(&config, 16).partial_sends;
    }
    assert!(partial_sends > 0, "the test does not force partial sends");
}

#[test]
fn streams_arrive_whole_when_buffers_run_out() {
    for allowed in features() {
        let config = RingConfig {
            buffer_len: 256,
            buffer_count: 8,
            buffer_count_max: 64,
            direct_slots: 7,
            allowed,
            ..RingConfig::default()
        };
        let stats = run(&config, 10);
        assert!(stats.no_buffers > 0, "the test does not starve receivers");
        assert!(stats.buffer_growths > 0);
    }
}

#[test]
fn streams_arrive_whole_when_queues_overflow() {
    for allowed in features() {
        let config = RingConfig {
            submission_entries: 2,
            completion_entries: 2,
            buffer_len: 512,
            allowed,
            ..RingConfig::default()
        };
        let stats = run(&config, 10);
        assert!(stats.completion_overflows > 0, "the test does not overflow");
        assert!(stats.submission_full > 0);
    }
}

/// With one buffer for all, each receiver gets its turn: nobody starves for good.
#[test]
fn one_buffer_serves_many_in_turn() {
    let config = RingConfig {
        buffer_len: 64,
        buffer_count: 1,
        buffer_count_max: 1,
        ..RingConfig::default()
    };
    let (_waker, source) = wake_pair().unwrap();
    let mut ring = NetRing::new(&config, source).unwrap();
    let pairs: Vec<_> = (0..16).map(|_| UnixStream::pair().unwrap()).collect();
    for (index, (near, far)) in pairs.iter().enumerate() {
        io::Write::write_all(&mut &*far, &[index as u8; 640]).unwrap();
        ring.recv(near, Key(index as u64));
    }
    let mut bytes = vec![0usize; pairs.len()];
    let deadline = Instant::now() + Duration::from_secs(20);
    let mut held: Option<RecvBuffer> = None;
    while bytes.iter().any(|count| *count < 640) {
        let now = ring.wait(Some(deadline));
        while let Some(completion) = ring.next_completion() {
            let Completion::Received { key, buffer } = completion else {
                panic!("{completion:?}");
            };
            assert!(buffer.iter().all(|byte| u64::from(*byte) == key.0));
            bytes[key.0 as usize] += buffer.len();
            held = Some(buffer);
        }
        // Given back only now: all others found none in the meantime.
        drop(held.take());
        assert!(now < deadline, "{bytes:?}");
        let least = bytes.iter().min().unwrap();
        let most = bytes
            .iter()
            .filter(|count| **count < 640)
            .max()
            .unwrap_or(least);
        // A receiver is ahead of the others by what one turn of the queue lets it.
        assert!(most - least <= 640, "{bytes:?}");
    }
    assert!(ring.stats().no_buffers > 0);
}

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::*;
use crate::mailbox::{Receiver, Sender, mailbox, wake_pair};
use crate::ring::{Key, Payload, Piece};

/// Returns what it receives; told what to do by mail.
struct Echo {
    /// Kept open for its accept.
    _listener: TcpListener,
    connections: Vec<Option<OwnedFd>>,
    mail: Receiver<Mail>,
    ticks: Arc<AtomicU64>,
}

#[derive(Debug)]
enum Mail {
    Stop,
    Panic,
    SpawnTicks,
}

const LISTENER: Key = Key(u64::MAX);

impl Service for Echo {
    fn on_completion(&mut self, ring: &mut NetRing, completion: Completion, _now: Instant) {
        match completion {
            Completion::Accepted { socket, .. } => {
                let key = Key(self.connections.len() as u64);
                ring.recv(&socket, key);
                self.connections.push(Some(socket));
            }
            Completion::Received { key, buffer } => {
                if let Some(Some(socket)) = self.connections.get(key.0 as usize) {
                    ring.send(socket, key, Payload::from(buffer));
                }
            }
            Completion::ReceiveEnded { key, .. } => {
                if let Some(socket) = self.connections[key.0 as usize].take() {
                    ring.close(socket, None);
                }
            }
            Completion::Sent {
                result, payload, ..
            } => {
                assert_eq!(result.ok(), Some(payload.len()));
            }
            other => unreachable!("{other:?}"),
        }
    }

    fn on_turn(&mut self, _ring: &mut NetRing, _now: Instant) -> Turn {
        match self.mail.pop() {
            Some(Mail::Stop) => return Turn::Stop,
            Some(Mail::Panic) => std::panic::panic_any("told to"),
            Some(Mail::SpawnTicks) => {
                let ticks = Arc::clone(&self.ticks);
                spawn_local(async move {
                    for _ in 0..20 {
                        glommio::timer::sleep(Duration::from_millis(2)).await;
                        ticks.fetch_add(1, Ordering::SeqCst);
                    }
                });
            }
            None => {}
        }
        Turn::WaitUntil(None)
    }
}

struct Running {
    shard: ShardThread,
    address: SocketAddr,
    mail: Sender<Mail>,
    ticks: Arc<AtomicU64>,
}

fn start(cpu: Option<usize>) -> Running {
    let (waker, source) = wake_pair().expect("an eventfd");
    let (mail, receiver) = mailbox(8, waker);
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let ticks = Arc::new(AtomicU64::new(0));
    let spec = ShardSpec {
        index: 3,
        cpu,
        name: "test-shard".to_owned(),
        ring: RingConfig::default(),
    };
    let shard = spawn(spec, source, {
        let ticks = Arc::clone(&ticks);
        move |ring| {
            ring.accept(&listener, LISTENER);
            Ok(Echo {
                _listener: listener,
                connections: Vec::new(),
                mail: receiver,
                ticks,
            })
        }
    })
    .expect("the shard starts");
    Running {
        shard,
        address,
        mail,
        ticks,
    }
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(Instant::now() < deadline, "in vain: {what}");
        std::thread::yield_now();
    }
}

#[test]
fn a_shard_serves_and_stops() {
    let running = start(None);
    for _ in 0..3 {
        let mut client = TcpStream::connect(running.address).expect("it listens");
        let mut back = [0; 5];
        client.write_all(b"hello").expect("it is written");
        client.read_exact(&mut back).expect("it comes back");
        assert_eq!(&back, b"hello");
    }
    assert!(!running.shard.panicked());
    running.mail.try_send(Mail::Stop).expect("room");
    running.shard.join().expect("an orderly end");
}

#[test]
fn dropping_a_shard_with_open_connections_ends() {
    let running = start(None);
    let clients: Vec<_> = (0..50)
        .map(|_| TcpStream::connect(running.address).expect("it listens"))
        .collect();
    running.mail.try_send(Mail::Stop).expect("room");
    running.shard.join().expect("an orderly end");
    drop(clients);
}

#[test]
fn a_panic_reaches_whoever_joins() {
    let running = start(None);
    running.mail.try_send(Mail::Panic).expect("room");
    until("the panic shows", || running.shard.panicked());
    match running.shard.join() {
        Err(ShardError::Panicked { index: 3, message }) => assert_eq!(message, "told to"),
        other => unreachable!("{other:?}"),
    }
}

#[test]
fn a_service_that_cannot_be_built_is_an_error_of_spawn() {
    struct Never;
    impl Service for Never {
        fn on_completion(&mut self, _: &mut NetRing, _: Completion, _: Instant) {}
        fn on_turn(&mut self, _: &mut NetRing, _: Instant) -> Turn {
            Turn::Stop
        }
    }
    let (_waker, source) = wake_pair().expect("an eventfd");
    let spec = ShardSpec {
        index: 0,
        cpu: None,
        name: "never".to_owned(),
        ring: RingConfig::default(),
    };
    let refused = spawn::<Never, _>(spec.clone(), source, |_| Err(io::Error::other("no port")));
    assert!(
        matches!(refused, Err(ShardError::Build { .. })),
        "{refused:?}"
    );

    let (_waker, source) = wake_pair().expect("an eventfd");
    let panicked = spawn::<Never, _>(spec, source, |_| std::panic::panic_any("while building"));
    assert!(
        matches!(panicked, Err(ShardError::Panicked { .. })),
        "{panicked:?}"
    );
}

#[test]
fn what_the_first_completions_of_a_long_turn_begin_does_not_wait_for_the_last() {
    const MANY: u64 = 600;
    const FIRST: Key = Key(MANY);
    /// Answers the first completion, and looks for the answer while it works on the last of the same turn.
    struct Storm {
        ours: Vec<UnixStream>,
        theirs: UnixStream,
        seen: u64,
        turns: u64,
        answered: Arc<AtomicU64>,
    }
    impl Service for Storm {
        fn on_completion(&mut self, ring: &mut NetRing, completion: Completion, _: Instant) {
            let Completion::Sent { key, .. } = completion else {
                unreachable!("{completion:?}")
            };
            if key == FIRST {
                return;
            }
            self.seen += 1;
            if self.seen == 1 {
                ring.send(&self.ours[0], FIRST, Payload::from(Piece::Static(b"!")));
            }
            if self.seen == MANY && self.turns == 1 {
                let mut bytes = [0; 16];
                self.theirs.set_nonblocking(true).expect("an open socket");
                let read = self.theirs.read(&mut bytes).expect("something to read");
                let answers = bytes[..read].iter().filter(|byte| **byte == b'!').count();
                self.answered.store(answers as u64, Ordering::SeqCst);
            }
        }

        fn on_turn(&mut self, _: &mut NetRing, _: Instant) -> Turn {
            self.turns += 1;
            if self.seen >= MANY {
                return Turn::Stop;
            }
            Turn::WaitUntil(None)
        }
    }
    let (_waker, source) = wake_pair().expect("an eventfd");
    let answered = Arc::new(AtomicU64::new(0));
    let spec = ShardSpec {
        index: 0,
        cpu: None,
        name: "storm".to_owned(),
        ring: RingConfig::default(),
    };
    let shard = spawn(spec, source, {
        let answered = Arc::clone(&answered);
        move |ring| {
            let (first, theirs) = UnixStream::pair()?;
            let (second, _) = UnixStream::pair()?;
            // The kernel does these while it takes them, so that all are done in the first turn.
            for key in 0..MANY {
                let socket = if key == 0 { &first } else { &second };
                ring.send(socket, Key(key), Payload::from(Piece::Static(b".")));
            }
            Ok(Storm {
                ours: vec![first, second],
                theirs,
                seen: 0,
                turns: 0,
                answered,
            })
        }
    })
    .expect("the shard starts");
    shard.join().expect("an orderly end");
    assert_eq!(answered.load(Ordering::SeqCst), 1);
}

#[test]
fn the_turn_counter_moves_while_idle_and_at_once_when_woken() {
    let running = start(None);
    let before = running.shard.turns();
    let started = Instant::now();
    until("an idle shard turns", || running.shard.turns() > before + 2);
    assert!(started.elapsed() < Duration::from_secs(5));
    let woken = running.shard.turns();
    running.shard.wake();
    until("a woken shard turns", || running.shard.turns() > woken);
    running.mail.try_send(Mail::Stop).expect("room");
    running.shard.join().expect("an orderly end");
}

#[test]
fn glommio_tasks_get_their_turn_beside_the_ring() {
    let running = start(None);
    running.mail.try_send(Mail::SpawnTicks).expect("room");
    let mut client = TcpStream::connect(running.address).expect("it listens");
    until("the ticks", || {
        client.write_all(b"x").expect("it is written");
        client.read_exact(&mut [0]).expect("it comes back");
        running.ticks.load(Ordering::SeqCst) == 20
    });
    running.mail.try_send(Mail::Stop).expect("room");
    running.shard.join().expect("an orderly end");
}

/// Everybody speaks at once in its second turn. Notes the time of each turn from there on, and how many
/// were heard by then.
struct Flood {
    _ours: Vec<UnixStream>,
    theirs: Vec<UnixStream>,
    turns: usize,
    heard: usize,
    notes: std::sync::mpsc::Sender<(Instant, usize)>,
}

impl Service for Flood {
    fn on_completion(&mut self, _ring: &mut NetRing, completion: Completion, _now: Instant) {
        assert!(matches!(completion, Completion::Received { .. }));
        self.heard += 1;
    }

    fn on_turn(&mut self, _ring: &mut NetRing, now: Instant) -> Turn {
        self.turns += 1;
        if self.turns == 2 {
            for mut each in &self.theirs {
                each.write_all(b".").expect("it is written");
            }
        }
        if self.turns >= 2 {
            let _ = self.notes.send((now, self.heard));
        }
        match self.heard == self.theirs.len() {
            true => Turn::Stop,
            // The receives stand after the first turn.
            false => Turn::WaitUntil(Some(now)),
        }
    }
}

#[test]
fn no_timer_overtakes_what_had_happened_before_it_while_a_shard_is_behind() {
    const CONNECTIONS: usize = 400;
    let (_waker, source) = wake_pair().expect("an eventfd");
    let (notes, noted) = std::sync::mpsc::channel();
    let spec = ShardSpec {
        index: 0,
        cpu: None,
        name: "flood".to_owned(),
        ring: RingConfig {
            buffer_count: 512,
            ..RingConfig::default()
        },
    };
    let shard = spawn(spec, source, move |ring| {
        let mut pairs = Vec::new();
        for key in 0..CONNECTIONS {
            let pair = UnixStream::pair()?;
            ring.recv(&pair.0, Key(key as u64));
            pairs.push(pair);
        }
        let (ours, theirs) = pairs.into_iter().unzip();
        Ok(Flood {
            _ours: ours,
            theirs,
            turns: 0,
            heard: 0,
            notes,
        })
    })
    .expect("the shard starts");
    shard.join().expect("an orderly end");
    let noted: Vec<_> = noted.iter().collect();
    let flooded = noted[0].0;
    let (last, behind) = noted[1..].split_last().expect("turns after the flood");
    assert_eq!(last.1, CONNECTIONS);
    assert!(last.0 > flooded, "time goes on once all were heard");
    for (time, heard) in behind {
        assert_eq!(*time, flooded, "with {heard} heard");
    }
}

//! The well-behaved clients, which measure, and the hostile ones.

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use tungstenite::{Message, WebSocket};

use super::target::Target;
use super::{Flags, attack, phase};

/// Time between two messages of one client.
const BEAT: Duration = Duration::from_millis(50);
const ATTACKERS: usize = 8;
/// Of the half-open connections one in so many drips its request.
const DRIPPING: usize = 10;

/// One phase's latencies, all clients together.
pub(crate) struct Figures {
    pub(crate) p50_us: u64,
    pub(crate) p99_us: u64,
    pub(crate) max_us: u64,
}

/// Runs the well-behaved clients for one phase. Latency counts from when a message was due, not from when a late
/// client came to send it.
pub(crate) fn measure(target: &Target, flags: &Flags) -> Figures {
    let begin = Instant::now() + Duration::from_millis(500);
    let end = begin + phase(flags);
    let clients: Vec<_> = (0..flags.clients)
        .map(|number| {
            let address = target.clients;
            let offset = BEAT * number as u32 / flags.clients as u32;
            std::thread::spawn(move || converse(address, number, begin + offset, end))
        })
        .collect();
    let mut all = Histogram::<u64>::new(3).expect("a histogram");
    for client in clients {
        all.add(client.join().expect("a client was disconnected"))
            .expect("of one kind");
    }
    Figures {
        p50_us: all.value_at_quantile(0.5),
        p99_us: all.value_at_quantile(0.99),
        max_us: all.max(),
    }
}

fn converse(address: SocketAddr, number: usize, begin: Instant, end: Instant) -> Histogram<u64> {
    let echoes = number.is_multiple_of(2);
    let path = if echoes {
        "/echo"
    } else {
        "/connection/websocket"
    };
    let stream = TcpStream::connect(address).expect("a listener");
    stream.set_nodelay(true).expect("a socket");
    let (mut socket, _) =
        tungstenite::client(format!("ws://{address}{path}"), stream).expect("an upgrade");
    if !echoes {
        let hello = format!(
            "{{\"id\":1,\"connect\":{{}}}}\n{{\"id\":2,\"subscribe\":{{\"channel\":\"own-{number}\"}}}}"
        );
        socket.send(Message::text(hello)).expect("sent");
        until_told(&mut socket, "\"id\":2");
    }
    let mut latencies = Histogram::new(3).expect("a histogram");
    let mut due = begin;
    let mut count = 0_u64;
    while due < end {
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        count += 1;
        if echoes {
            let text = format!("{count:020}");
            socket.send(Message::text(text.clone())).expect("sent");
            until_told(&mut socket, &text);
        } else {
            let id = count + 2;
            let publish = format!(
                "{{\"id\":{id},\"publish\":{{\"channel\":\"own-{number}\",\"data\":{{\"count\":{count}}}}}}}"
            );
            socket.send(Message::text(publish)).expect("sent");
            until_told(&mut socket, &format!("\"data\":{{\"count\":{count}}}"));
        }
        let latency = due.elapsed().as_micros() as u64;
        latencies.record(latency).expect("in range");
        due += BEAT;
    }
    let _ = socket.close(None);
    latencies
}

/// Reads until a message contains the words.
fn until_told(socket: &mut WebSocket<TcpStream>, words: &str) {
    loop {
        let message = socket.read().expect("the connection stands");
        if let Message::Text(text) = message
            && text.as_str().contains(words)
        {
            return;
        }
    }
}

/// Attacks for one phase and prints the number of attacks; fails when one did not get its rejection.
pub(crate) fn attack(address: SocketAddr, flags: &Flags) -> ExitCode {
    let end = Instant::now() + phase(flags);
    let half_open = half_open(address, flags.half_open, end);
    let attacks: Arc<Vec<_>> = Arc::new(
        attack::all()
            .into_iter()
            .filter(|attack| !attack.is_slow)
            .collect(),
    );
    let next = Arc::new(AtomicUsize::new(0));
    let count = Arc::new(AtomicU64::new(0));
    let pause = Duration::from_secs(1) * ATTACKERS as u32 / flags.attacks_per_s.max(1);
    let threads: Vec<_> = (0..ATTACKERS)
        .map(|_| {
            let (attacks, next, count) =
                (Arc::clone(&attacks), Arc::clone(&next), Arc::clone(&count));
            std::thread::spawn(move || {
                while Instant::now() < end {
                    let due = Instant::now() + pause;
                    let index = next.fetch_add(1, Relaxed) % attacks.len();
                    attacks[index].run(address)?;
                    count.fetch_add(1, Relaxed);
                    std::thread::sleep(due.saturating_duration_since(Instant::now()));
                }
                Ok::<(), String>(())
            })
        })
        .collect();
    let failures: Vec<_> = threads
        .into_iter()
        .filter_map(|thread| thread.join().expect("no panic").err())
        .collect();
    half_open.join().expect("no panic");
    if failures.is_empty() {
        println!("{}", count.load(Relaxed));
        return ExitCode::SUCCESS;
    }
    println!("{}", failures.join("\n"));
    ExitCode::FAILURE
}

/// Connections that say nothing, or as little as possible, until the phase is over.
fn half_open(address: SocketAddr, count: usize, end: Instant) -> std::thread::JoinHandle<()> {
    std::thread::spawn(move || {
        let mut connections: Vec<_> = (0..count)
            .map(|_| TcpStream::connect(address).expect("a listener"))
            .collect();
        for byte in b"GET /echo HTTP/1.1\r\nHost: x\r\nX-Slow: ".iter().cycle() {
            if Instant::now() >= end {
                return;
            }
            for connection in connections.iter_mut().step_by(DRIPPING) {
                let _ = connection.write_all(&[*byte]);
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    })
}

//! Promises about direct descriptors: a connection in a slot is served and ended like any other and
//! takes no open file of the process; without a free slot it keeps its descriptor; nothing of a closed
//! connection reaches the next one in its slot.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

mod support;

use std::collections::HashMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::time::{Duration, Instant};

use flux_runtime::mailbox::wake_pair;
use flux_runtime::ring::{
    Completion, Features, Key, NetRing, Payload, RecvHandle, RingConfig, Shutdown, Socket,
};
use support::set_limit;

const CHILD: &str = "FLUX_TEST_FEW_OPEN_FILES";
const PATIENCE: Duration = Duration::from_secs(20);

fn ring_of(direct_slots: u32) -> NetRing {
    let (_waker, source) = wake_pair().unwrap();
    let config = RingConfig {
        direct_slots,
        accept_pause: Duration::from_millis(10),
        ..RingConfig::default()
    };
    NetRing::new(&config, source).unwrap()
}

/// Turns until one completion is what `wanted` takes.
fn until<T>(ring: &mut NetRing, mut wanted: impl FnMut(Completion) -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        while let Some(completion) = ring.next_completion() {
            if let Some(found) = wanted(completion) {
                return found;
            }
        }
        assert!(ring.wait(Some(deadline)) < deadline, "in vain: {ring:?}");
    }
}

/// A turn that does not wait; whatever completes is dropped.
fn turn(ring: &mut NetRing) {
    ring.wait(Some(Instant::now()));
    while ring.next_completion().is_some() {}
}

fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    (client, listener.accept().unwrap().0)
}

fn open_files() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

/// Runs one test of this file in a process of its own: open files and their limit are the process's.
fn alone(test: &str) {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(CHILD, "1")
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

fn is_child() -> bool {
    std::env::var_os(CHILD).is_some()
}

#[test]
fn a_connection_in_a_slot_takes_no_open_file_and_is_served_to_its_end() {
    if !is_child() {
        return alone("a_connection_in_a_slot_takes_no_open_file_and_is_served_to_its_end");
    }
    let mut ring = ring_of(8);
    if !ring.features().direct_descriptors {
        println!("this kernel has no direct descriptors");
        return;
    }
    let (mut client, server) = pair();
    let before = open_files();
    let socket = ring.adopt(server);
    assert!(socket.is_direct());
    ring.recv(&socket, Key(7));
    turn(&mut ring);
    assert_eq!(open_files(), before - 1);

    client.write_all(b"ping").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    until(&mut ring, |completion| match completion {
        Completion::Received { key, buffer } => {
            assert_eq!((key, &*buffer), (Key(7), &b"ping"[..]));
            Some(())
        }
        other => panic!("{other:?}"),
    });
    until(&mut ring, |completion| match completion {
        Completion::ReceiveEnded { key, error: None } => {
            assert_eq!(key, Key(7));
            Some(())
        }
        other => panic!("{other:?}"),
    });
    // The shutdown does not overtake the send.
    ring.send(&socket, Key(7), Payload::from(&b"pong"[..]));
    ring.shutdown(&socket, Shutdown::Write).unwrap();
    until(&mut ring, |completion| match completion {
        Completion::Sent { result, .. } => {
            assert_eq!(result.unwrap(), 4);
            Some(())
        }
        other => panic!("{other:?}"),
    });
    let mut all = Vec::new();
    while ring.in_flight() > 0 {
        turn(&mut ring);
    }
    client.read_to_end(&mut all).unwrap();
    assert_eq!(all, b"pong");
    ring.close(socket, None);
    turn(&mut ring);
    assert_eq!(
        open_files(),
        before - 1,
        "the shutdown's descriptor is gone"
    );
}

#[test]
fn without_a_free_slot_a_socket_keeps_its_descriptor() {
    let mut ring = ring_of(2);
    let full = if ring.features().direct_descriptors {
        2
    } else {
        0
    };
    let (mut far, mut sockets) = (Vec::new(), Vec::new());
    for index in 0..4 {
        let (one, other) = UnixStream::pair().unwrap();
        far.push(one);
        let socket = ring.adopt(other);
        assert_eq!(socket.is_direct(), index < full);
        ring.send(&socket, Key(index), Payload::from(vec![index as u8]));
        sockets.push(socket);
    }
    turn(&mut ring);
    for (index, far) in far.iter_mut().enumerate() {
        let mut byte = [0];
        far.read_exact(&mut byte).unwrap();
        assert_eq!(byte, [index as u8]);
    }
    // A slot is there again only once the kernel has closed it.
    ring.close(sockets.remove(0), None);
    let early = ring.adopt(UnixStream::pair().unwrap().0);
    assert!(!early.is_direct());
    turn(&mut ring);
    let late = ring.adopt(UnixStream::pair().unwrap().0);
    assert_eq!(late.is_direct(), full > 0);

    for (slots, allowed) in [(0, Features::all()), (8, Features::none())] {
        let (_waker, source) = wake_pair().unwrap();
        let config = RingConfig {
            direct_slots: slots,
            allowed,
            ..RingConfig::default()
        };
        let mut ring = NetRing::new(&config, source).unwrap();
        assert!(!ring.features().direct_descriptors);
        assert_eq!(ring.direct_slots(), 0);
        assert!(!ring.adopt(UnixStream::pair().unwrap().0).is_direct());
    }
}

#[test]
fn a_socket_that_settles_is_received_from_and_sent_to_without_a_gap() {
    if !is_child() {
        return alone("a_socket_that_settles_is_received_from_and_sent_to_without_a_gap");
    }
    for stopping in [false, true] {
        let mut ring = ring_of(8);
        let (mut client, server) = pair();
        let before = open_files();
        let socket = Socket::from(OwnedFd::from(server));
        assert!(socket.descriptor().is_some() && !socket.is_direct());
        let receiver = ring.recv(&socket, Key(3));
        turn(&mut ring);
        let receiver = if stopping {
            // Its last completion is to come; it is begun again under the name that the socket has then.
            ring.stop_recv(receiver);
            None
        } else {
            Some(receiver)
        };
        ring.send(&socket, Key(3), Payload::from(&b"be"[..]));
        let socket = ring.settle(socket, receiver);
        assert_eq!(socket.is_direct(), ring.features().direct_descriptors);
        ring.send(&socket, Key(3), Payload::from(&b"fore"[..]));
        let receiver = receiver.or_else(|| Some(ring.recv(&socket, Key(3))));
        turn(&mut ring);
        if socket.is_direct() {
            assert_eq!(open_files(), before - 1);
        }
        let mut heard = [0; 6];
        client.read_exact(&mut heard).unwrap();
        assert_eq!(&heard, b"before");
        for said in [&b"one"[..], b"two"] {
            client.write_all(said).unwrap();
            until(&mut ring, |completion| match completion {
                Completion::Received { key, buffer } => {
                    assert_eq!((key, &*buffer), (Key(3), said));
                    Some(())
                }
                Completion::Sent { .. } => None,
                other => panic!("{other:?}"),
            });
        }
        assert_eq!(ring.in_flight(), 1, "one receiver");
        let again = ring.settle(socket, None);
        ring.close(again, receiver);
        turn(&mut ring);
        assert_eq!(client.read(&mut [0]).unwrap(), 0);
    }
}

#[test]
fn a_reset_ends_a_connection_whose_peer_takes_nothing() {
    for slots in [8, 0] {
        let mut ring = ring_of(slots);
        let (mut client, server) = pair();
        let socket = ring.adopt(server);
        let receiver = ring.recv(&socket, Key(1));
        // Until both kernel buffers are full and a send stays in flight.
        loop {
            ring.send(&socket, Key(1), Payload::from(vec![7; 1 << 20]));
            turn(&mut ring);
            if ring.in_flight() == 2 {
                break;
            }
        }
        ring.reset(socket, Some(receiver));
        let sent = until(&mut ring, |completion| match completion {
            Completion::Sent { result, .. } => Some(result),
            Completion::ReceiveEnded { .. } => None,
            other => panic!("{other:?}"),
        });
        assert!(sent.is_err(), "{sent:?}");
        let error = loop {
            match client.read(&mut [0; 65_536]) {
                Ok(0) => panic!("an orderly end after a reset, {slots} slots"),
                Ok(_) => {}
                Err(error) => break error,
            }
        };
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    }
}

/// What the peers of one slot's successive sockets see, with every kind of operation in flight when its
/// socket closes.
#[test]
fn nothing_of_a_closed_connection_reaches_the_next_one_in_its_slot() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    for slots in [1, 3] {
        let mut ring = ring_of(slots);
        // The peer of each open connection, by its number, which is also what it says and hears.
        let mut open: HashMap<u64, (Socket, Option<RecvHandle>, UnixStream)> = HashMap::new();
        let mut closed: Vec<(u64, UnixStream)> = Vec::new();
        let mut direct = 0;
        for number in 1..600u64 {
            let (near, far) = UnixStream::pair().unwrap();
            far.set_nonblocking(true).unwrap();
            let socket = if random.bool() {
                ring.adopt(near)
            } else {
                Socket::from(OwnedFd::from(near))
            };
            direct += u32::from(socket.is_direct());
            let receiver = ring.recv(&socket, Key(number));
            (&far).write_all(&number.to_ne_bytes()).unwrap();
            open.insert(number, (socket, Some(receiver), far));
            while open.len() > 6 || random.u8(..3) == 0 {
                let Some(number) = random.choice(open.keys().copied().collect::<Vec<_>>()) else {
                    break;
                };
                let (socket, receiver, far) = open.remove(&number).unwrap();
                for _ in 0..random.u8(0..3) {
                    let payload = Payload::from(number.to_ne_bytes().to_vec());
                    ring.send(&socket, Key(number), payload);
                }
                if random.bool() {
                    ring.shutdown(&socket, Shutdown::Both).unwrap();
                }
                let socket = match random.u8(..3) {
                    0 => ring.settle(socket, receiver),
                    _ => socket,
                };
                if random.bool() {
                    turn_checking(&mut ring, &open);
                }
                if random.bool() {
                    ring.reset(socket, receiver);
                } else {
                    ring.close(socket, receiver);
                }
                closed.push((number, far));
            }
            if random.bool() {
                turn_checking(&mut ring, &open);
            }
            // Those that are open hear nothing, and are not shut down by anyone.
            for (_, _, far) in open.values() {
                let heard = (&*far).read(&mut [0; 64]);
                assert_eq!(heard.unwrap_err().kind(), ErrorKind::WouldBlock);
            }
        }
        assert!(
            direct >= 50 || !ring.features().direct_descriptors,
            "{direct}"
        );
        turn(&mut ring);
        turn(&mut ring);
        for (number, mut far) in closed {
            let mut heard = Vec::new();
            match far.read_to_end(&mut heard) {
                Ok(_) => {}
                Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
            }
            assert!(heard.chunks(8).all(|chunk| chunk == number.to_ne_bytes()));
        }
    }
}

/// A turn. Bytes come under the name of the connection that they were said on; an end only to a
/// connection that is being closed.
fn turn_checking(
    ring: &mut NetRing,
    open: &HashMap<u64, (Socket, Option<RecvHandle>, UnixStream)>,
) {
    ring.wait(Some(Instant::now()));
    while let Some(completion) = ring.next_completion() {
        match completion {
            Completion::Received { key, buffer } => assert_eq!(&*buffer, key.0.to_ne_bytes()),
            Completion::ReceiveEnded { key, error } => {
                assert!(!open.contains_key(&key.0), "{key:?} {error:?}");
            }
            Completion::Sent { .. } => {}
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_shutdown_waits_for_a_descriptor_when_the_process_is_out_of_them() {
    if !is_child() {
        return alone("a_shutdown_waits_for_a_descriptor_when_the_process_is_out_of_them");
    }
    set_limit(4096);
    let mut ring = ring_of(64);
    let (mut client, server) = pair();
    let (mut other, closed_early) = pair();
    let socket = ring.adopt(server);
    let closed_early = ring.adopt(closed_early);
    turn(&mut ring);
    set_limit(0);
    ring.shutdown(&socket, Shutdown::Write).unwrap();
    ring.shutdown(&closed_early, Shutdown::Write).unwrap();
    turn(&mut ring);
    client
        .set_read_timeout(Some(Duration::from_millis(1)))
        .unwrap();
    let nothing = client.read(&mut [0]);
    if ring.features().direct_descriptors {
        assert_eq!(nothing.unwrap_err().kind(), ErrorKind::WouldBlock);
    }
    // What is closed meanwhile needs no shutdown, and its slot's next socket gets none.
    ring.close(closed_early, None);
    turn(&mut ring);
    assert_eq!(other.read(&mut [0]).unwrap(), 0);
    set_limit(4096);
    let (mut next, successor) = pair();
    let _successor = ring.adopt(successor);
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    let deadline = Instant::now() + Duration::from_millis(60);
    while Instant::now() < deadline {
        ring.wait(Some(deadline));
        while ring.next_completion().is_some() {}
    }
    assert_eq!(client.read(&mut [0]).unwrap(), 0, "the shutdown came late");
    next.set_nonblocking(true).unwrap();
    assert_eq!(
        next.read(&mut [0]).unwrap_err().kind(),
        ErrorKind::WouldBlock
    );
}

#[test]
fn one_process_holds_more_connections_than_it_may_have_open_files() {
    if !is_child() {
        return alone("one_process_holds_more_connections_than_it_may_have_open_files");
    }
    const FILES: u64 = 256;
    const RINGS: usize = 4;
    set_limit(FILES);
    let mut rings: Vec<NetRing> = (0..RINGS).map(|_| ring_of(10_000)).collect();
    if !rings[0].features().direct_descriptors {
        println!("this kernel has no direct descriptors");
        return;
    }
    assert_eq!(rings[0].direct_slots(), FILES as u32, "the kernel's bound");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    // Both ends here: clients in rings 0 and 1, servers in 2 and 3.
    let mut sockets: Vec<Vec<Socket>> = (0..RINGS).map(|_| Vec::new()).collect();
    let (clients, servers) = rings.split_at_mut(2);
    for index in 0..FILES as usize * 2 {
        let client = TcpStream::connect(address).unwrap();
        let (server, _) = listener.accept().unwrap();
        let (from, to) = (index % 2, index / FILES as usize);
        sockets[from].push(clients[from].adopt(client));
        sockets[2 + to].push(servers[to].adopt(server));
        turn(&mut clients[from]);
        turn(&mut servers[to]);
    }
    assert!(sockets.iter().flatten().all(Socket::is_direct));
    assert!(open_files() < 64);
    // Each of them is served.
    for (index, socket) in sockets[2..].iter().flatten().enumerate() {
        let server = &mut servers[index / FILES as usize];
        server.send(socket, Key(0), Payload::from(vec![index as u8; 3]));
    }
    servers.iter_mut().for_each(turn);
    for (index, client) in clients.iter_mut().enumerate() {
        for (at, socket) in sockets[index].iter().enumerate() {
            client.recv(socket, Key(at as u64));
        }
        let mut heard = 0;
        until(client, |completion| match completion {
            Completion::Received { key, buffer } => {
                assert_eq!(&*buffer, [(key.0 * 2 + index as u64) as u8; 3]);
                heard += 1;
                (heard == FILES).then_some(())
            }
            other => panic!("{other:?}"),
        });
    }
    // With a ring its sockets go.
    let mut ring = rings.pop().unwrap();
    ring.recv(&sockets[3][0], Key(1));
    drop(ring);
    let mut ended = 0;
    until(&mut rings[0], |completion| match completion {
        Completion::ReceiveEnded { .. } => {
            ended += 1;
            (ended == FILES / 2).then_some(())
        }
        other => panic!("{other:?}"),
    });
}

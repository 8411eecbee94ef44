//! Promises of SIGTERM: clients are told, evenly, and the process ends in time with exit code 0.

use std::time::{Duration, Instant};

use serde_json::json;

use super::client::{Client, End};
use super::gateway::{Gateway, Plan, until};

const CLIENTS: usize = 90;

/// When each client was told what, counted from now on.
fn ends(clients: Vec<Client>) -> Vec<(Duration, End)> {
    let began = Instant::now();
    let waiting: Vec<_> = clients
        .into_iter()
        .map(|mut client| std::thread::spawn(move || (client.end(), began.elapsed())))
        .collect();
    waiting
        .into_iter()
        .map(|thread| {
            let (end, after) = thread.join().expect("an end");
            (after, end)
        })
        .collect()
}

fn assert_all_told_to_come_back(ends: &[(Duration, End)]) {
    for (after, end) in ends {
        assert_eq!(
            *end,
            End::Closed(3001, "shutdown".to_owned()),
            "after {after:?}"
        );
    }
}

fn clients(gateway: &Gateway, count: usize) -> Vec<Client> {
    let clients: Vec<_> = (0..count)
        .map(|_| Client::subscribed(gateway, "c"))
        .collect();
    gateway.settles_at(count as u64);
    clients
}

#[test]
fn sigterm_closes_everybody_with_3001_evenly_and_exits_0() {
    let mut gateway = Plan::new(json!({ "drain_seconds": 6 })).start();
    let clients = clients(&gateway, CLIENTS);
    let began = Instant::now();
    gateway.signal("TERM");
    // In the first tenth the node only says that it is going; newcomers are still served.
    until("it is not ready", || {
        (gateway.ask("/ready").0 == 503).then_some(())
    });
    let mut told = ends(clients);
    assert_eq!(gateway.wait().code(), Some(0));
    assert!(
        began.elapsed() < Duration::from_secs(6),
        "{:?}",
        began.elapsed()
    );
    assert_all_told_to_come_back(&told);
    told.sort_by_key(|(after, _)| *after);
    let (first, last) = (told[0].0, told[CLIENTS - 1].0);
    let spread = last - first;
    assert!(spread > Duration::from_secs(3), "closes within {spread:?}");
    // Thirds of the closing phase, each with a third of the clients, give or take what a busy machine shifts.
    let mut thirds = [0usize; 3];
    for (after, _) in &told {
        let place = ((*after - first).as_secs_f64() / spread.as_secs_f64() * 3.0) as usize;
        thirds[place.min(2)] += 1;
    }
    assert!(
        thirds
            .iter()
            .all(|count| count.abs_diff(CLIENTS / 3) <= CLIENTS / 9),
        "{thirds:?}"
    );
}

#[test]
fn without_clients_the_end_comes_with_the_lame_duck_time() {
    let mut gateway = Plan::new(json!({ "drain_seconds": 10 })).start();
    let began = Instant::now();
    gateway.signal("TERM");
    assert_eq!(gateway.wait().code(), Some(0));
    assert!(
        began.elapsed() < Duration::from_secs(4),
        "{:?}",
        began.elapsed()
    );
}

#[test]
fn a_second_sigterm_closes_everybody_at_once_and_exits_0() {
    let mut gateway = Plan::new(json!({ "drain_seconds": 600 })).start();
    let clients = clients(&gateway, 30);
    let began = Instant::now();
    gateway.signal("TERM");
    until("the drain has begun", || {
        (gateway.ask("/ready").0 == 503).then_some(())
    });
    gateway.signal("TERM");
    let told = ends(clients);
    assert_eq!(gateway.wait().code(), Some(0));
    assert!(
        began.elapsed() < Duration::from_secs(10),
        "{:?}",
        began.elapsed()
    );
    assert_all_told_to_come_back(&told);
}

#[test]
fn sigint_drains_as_sigterm_does() {
    let mut gateway = Plan::new(json!({})).start();
    let clients = clients(&gateway, 5);
    gateway.signal("INT");
    let told = ends(clients);
    assert_eq!(gateway.wait().code(), Some(0));
    assert_all_told_to_come_back(&told);
}

#[test]
fn a_client_that_does_not_answer_its_close_frame_does_not_hold_up_the_exit() {
    let mut gateway = Plan::new(json!({ "drain_seconds": 6 })).start();
    let silent = clients(&gateway, 3);
    let began = Instant::now();
    gateway.signal("TERM");
    assert_eq!(gateway.wait().code(), Some(0));
    assert!(
        began.elapsed() < Duration::from_secs(7),
        "{:?}",
        began.elapsed()
    );
    drop(silent);
}

#[test]
fn sigterm_while_starting_ends_it_at_once_with_exit_0() {
    // Whenever it comes: from the moment that the process can catch it, and a little later each time.
    for delay in [0, 1, 2, 5, 10, 20, 50] {
        let mut gateway = Plan::new(json!({})).spawn();
        let status = format!("/proc/{}/status", gateway.pid());
        until("SIGTERM is caught", || {
            assert!(gateway.exited().is_none(), "{:?}", gateway.lines());
            let text = std::fs::read_to_string(&status).unwrap_or_default();
            let caught = text.lines().find_map(|line| line.strip_prefix("SigCgt:"))?;
            let caught = u64::from_str_radix(caught.trim(), 16).ok()?;
            (caught & (1 << 14) != 0).then_some(())
        });
        std::thread::sleep(Duration::from_millis(delay));
        let began = Instant::now();
        gateway.signal("TERM");
        let status = gateway.wait();
        assert_eq!(
            status.code(),
            Some(0),
            "{delay} ms: {status:?} {:?}",
            gateway.lines()
        );
        assert!(
            began.elapsed() < Duration::from_secs(3),
            "{delay} ms: {:?}",
            began.elapsed()
        );
    }
}

#[test]
fn sigterm_while_redis_does_not_answer_ends_it_in_time_with_exit_0() {
    // A listener that never accepts: connections are made, nothing is ever said.
    let hole = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let url = format!("redis://{}", hole.local_addr().expect("bound"));
    let mut gateway = Plan::new(json!({})).flag("--redis", &url).spawn();
    until("it listens", || {
        assert!(gateway.exited().is_none(), "{:?}", gateway.lines());
        gateway.record("listening")
    });
    let began = Instant::now();
    gateway.signal("TERM");
    assert_eq!(gateway.wait().code(), Some(0), "{:?}", gateway.lines());
    assert!(
        began.elapsed() < Duration::from_secs(5),
        "{:?}",
        began.elapsed()
    );
}

//! `flux-bench redis-publish` against a Redis whose faults are known.
#![allow(missing_docs, reason = "a test")]

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::thread;

use serde_json::Value;

/// What it does with a publication: from its number, counted from 0.
type Fate = fn(u64) -> Answer;

enum Answer {
    Delivered,
    Lost,
    Error,
}

/// Speaks as much of the protocol as is needed; its threads end with their connections.
fn redis(fate: Fate) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("its address");
    let subscribers = Arc::new(Mutex::new(Vec::new()));
    thread::spawn(move || {
        for stream in listener.incoming() {
            let stream = stream.expect("a connection");
            let subscribers = Arc::clone(&subscribers);
            thread::spawn(move || serve(&stream, fate, &subscribers));
        }
    });
    address
}

fn serve(mut stream: &TcpStream, fate: Fate, subscribers: &Mutex<Vec<TcpStream>>) -> Option<()> {
    let mut commands = BufReader::new(stream.try_clone().expect("the socket again"));
    let mut number = 0;
    loop {
        let words = words(&mut commands)?;
        if words[0] == b"SUBSCRIBE" {
            // Whoever has the answer may count on what is published from then on.
            let mine = stream.try_clone().expect("the socket again");
            subscribers.lock().expect("not poisoned").push(mine);
            let answer = b"*3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n:1\r\n";
            stream.write_all(answer).ok()?;
            continue;
        }
        let answer = fate(number);
        number += 1;
        if let Answer::Error = answer {
            stream.write_all(b"-NOSCRIPT no such script\r\n").ok()?;
            continue;
        }
        if let Answer::Delivered = answer {
            let data = words.last().expect("the record");
            let mut push =
                format!("*3\r\n$7\r\nmessage\r\n$1\r\nc\r\n${}\r\n", data.len()).into_bytes();
            push.extend_from_slice(data);
            push.extend_from_slice(b"\r\n");
            for mut subscriber in subscribers.lock().expect("not poisoned").iter() {
                subscriber.write_all(&push).ok()?;
            }
        }
        stream
            .write_all(b"*3\r\n:1\r\n$1\r\ne\r\n$1\r\n7\r\n")
            .ok()?;
    }
}

/// The words of the next command.
fn words(from: &mut impl BufRead) -> Option<Vec<Vec<u8>>> {
    let count = number(from)?;
    let mut words = Vec::new();
    for _ in 0..count {
        let len = number(from)?;
        let mut word = vec![0; len + 2];
        from.read_exact(&mut word).ok()?;
        word.truncate(len);
        words.push(word);
    }
    Some(words)
}

/// The number of a line like `*3` or `$17`.
fn number(from: &mut impl BufRead) -> Option<usize> {
    let mut line = String::new();
    from.read_line(&mut line).ok()?;
    line.trim().get(1..)?.parse().ok()
}

/// The report, where there is one, the exit code, and what it said.
fn run(fate: Fate, data: &str) -> (Value, i32, String) {
    let (process, thread) = (std::process::id(), thread::current().id());
    let file = std::env::temp_dir().join(format!("flux-bench-command-{process}-{thread:?}"));
    let command = format!("*2\r\n$7\r\nEVALSHA\r\n${}\r\n{data}\r\n", data.len());
    std::fs::write(&file, command).expect("the recorded command");
    let address = redis(fate).to_string();
    let done = Command::new(env!("CARGO_BIN_EXE_flux-bench"))
        .args([
            "redis-publish",
            "--address",
            &address,
            "--channel",
            "c",
            "--json",
        ])
        .args(["--rate", "500", "--size", "60", "--subscribers", "3"])
        .args(["--warmup", "0.1", "--duration", "0.4", "--engine", "epoll"])
        .arg("--command")
        .arg(&file)
        .output()
        .expect("run flux-bench");
    std::fs::remove_file(&file).expect("the file is still there");
    let report = serde_json::from_slice(&done.stdout).unwrap_or(Value::Null);
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    (report, done.status.code().expect("a code"), said)
}

/// Data as `fanout` publishes them, of 60 bytes.
fn data() -> String {
    let begin = r#"{"seq":"0.17","x":""#;
    format!("{begin}{}\"}}", "x".repeat(60 - begin.len() - 2))
}

#[test]
fn every_delivery_to_every_subscriber_counts() {
    let (report, code, said) = run(|_| Answer::Delivered, &data());
    assert_eq!(code, 0, "{said}");
    let published = report["published"].as_u64().expect("a number");
    assert!(published >= 200, "{report}");
    assert_eq!(report["received"], 3 * published, "{report}");
    assert_eq!(report["missing"], 0, "{report}");
    let measured = report["latency"]["count"].as_u64().expect("a number");
    assert!(
        measured > 0 && measured < 3 * published,
        "the warm-up does not count: {report}"
    );
}

#[test]
fn what_does_not_arrive_is_missing() {
    let fate = |number| match number % 10 {
        3 => Answer::Lost,
        _ => Answer::Delivered,
    };
    let (report, code, _) = run(fate, &data());
    assert_eq!(code, 1, "{report}");
    let published = report["published"].as_u64().expect("a number");
    let lost = (published + 6) / 10;
    assert_eq!(report["missing"], 3 * lost, "{report}");
}

#[test]
fn an_error_of_redis_ends_it_with_its_text() {
    let (report, code, said) = run(|_| Answer::Error, &data());
    assert_eq!((report, code), (Value::Null, 2), "{said}");
    assert!(said.contains("NOSCRIPT"), "{said}");
}

#[test]
fn a_command_without_the_data_is_refused_before_anything_is_sent() {
    let (report, code, said) = run(|_| Answer::Delivered, "something else");
    assert_eq!((report, code), (Value::Null, 2), "{said}");
    assert!(said.contains("no data"), "{said}");
}

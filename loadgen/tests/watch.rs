//! `flux-bench watch` against a server whose faults are known.
#![allow(missing_docs, reason = "a test")]

mod fake;

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};

use fake::{Fake, Faults};
use serde_json::Value;

struct Watch {
    child: Child,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

impl Watch {
    fn start(url: &str, arguments: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_flux-bench"))
            .args(["watch", url, "--json", "--stdin", "--settle", "8"])
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("start flux-bench");
        let lines = BufReader::new(child.stdout.take().expect("stdout")).lines();
        Self { child, lines }
    }

    /// Reads events until one satisfies `wanted`.
    fn until(&mut self, wanted: impl Fn(&Value) -> bool) -> Value {
        loop {
            let line = self
                .lines
                .next()
                .expect("an event before the end")
                .expect("utf-8");
            let event: Value = serde_json::from_str(&line).expect("JSON lines");
            if wanted(&event) {
                return event;
            }
        }
    }

    fn event(&mut self, name: &str) -> Value {
        self.until(|event| event["event"] == name)
    }

    /// Closes stdin: the summary and the exit code.
    fn end(mut self) -> (Value, i32) {
        drop(self.child.stdin.take());
        let summary = self.event("summary");
        assert!(self.lines.next().is_none(), "the summary is the last line");
        (
            summary,
            self.child.wait().expect("exit").code().expect("code"),
        )
    }
}

#[test]
fn a_sound_server_gets_a_clean_verdict() {
    let fake = Fake::start("gateway-1", Faults::default());
    let mut watch = Watch::start(
        &fake.url(),
        &["--clients", "20", "--channels", "4", "--rate", "200"],
    );
    watch.event("ready");
    writeln!(watch.child.stdin.as_ref().expect("stdin"), "kill gateway-2").expect("mark");
    assert_eq!(watch.event("mark")["text"], "kill gateway-2");
    watch.until(|event| event["event"] == "progress" && event["live"] == 20);
    let (summary, code) = watch.end();
    assert_eq!(code, 0, "{summary}");
    assert_eq!(summary["ok"], true);
    assert!(
        summary["published"].as_u64().expect("count") > 10,
        "{summary}"
    );
    assert_eq!(summary["acknowledged"], summary["published"]);
    assert_eq!(summary["expected"], summary["delivered"]);
    for none in [
        "lost",
        "duplicated",
        "reordered",
        "missed_while_away",
        "unknown",
        "losses",
        "failed_attempts",
        "away_at_end",
    ] {
        assert_eq!(summary[none], 0, "{none}: {summary}");
    }
    assert_eq!(summary["nodes"]["gateway-1"]["before"], 20);
    assert_eq!(summary["nodes"]["gateway-1"]["after"], 20);
    assert!(summary["latency"]["p99_us"].as_u64().expect("latency") > 0);
}

#[test]
fn dropped_and_doubled_deliveries_are_found() {
    let fake = Fake::start(
        "gateway-1",
        Faults {
            drop_every: 10,
            double_every: 7,
        },
    );
    let mut watch = Watch::start(
        &fake.url(),
        &["--clients", "10", "--channels", "2", "--rate", "200"],
    );
    watch.event("ready");
    watch.until(|event| event["event"] == "progress" && event["at_ms"].as_u64() > Some(2000));
    let (summary, code) = watch.end();
    let count = |name: &str| summary[name].as_u64().expect("count");
    assert_eq!(code, 1, "{summary}");
    assert_eq!(
        count("lost"),
        count("expected") - count("delivered"),
        "{summary}"
    );
    // Every tenth of what was due is gone; every seventieth was dropped and then sent once, "doubled".
    let dropped = count("expected") / 10 - count("expected") / 70;
    assert!(count("lost").abs_diff(dropped) <= 1, "{summary}");
    assert!(
        count("duplicated") > 0 && count("lost_same_node") == count("lost"),
        "{summary}"
    );
}

#[test]
fn clients_come_back_after_a_shutdown_close_and_what_they_missed_is_named() {
    let fake = Fake::start("gateway-1", Faults::default());
    let mut watch = Watch::start(
        &fake.url(),
        &["--clients", "12", "--channels", "1", "--rate", "100"],
    );
    watch.event("ready");
    fake.close_all(3001);
    let lost = watch.event("lost");
    assert_eq!(
        (&lost["code"], &lost["node"]),
        (&3001.into(), &"gateway-1".into())
    );
    let back = watch.until(|event| event["event"] == "live" && !event["before"].is_null());
    assert!(back["gap_ms"].as_u64() >= Some(450), "{back}");
    watch.until(|event| event["event"] == "progress" && event["live"] == 12);
    let (summary, code) = watch.end();
    assert_eq!(
        (code, &summary["lost"], &summary["duplicated"]),
        (0, &0.into(), &0.into()),
        "{summary}"
    );
    assert_eq!(summary["clients_reconnected"], 12);
    assert_eq!(summary["closes"][0]["code"], 3001);
    assert_eq!(summary["closes"][0]["slices_5s"], serde_json::json!([12]));
    assert!(summary["gap_ms_max"].as_u64() >= summary["gap_ms_p50"].as_u64());
}

#[test]
fn all_clients_are_cut_at_a_word_and_come_back() {
    let fake = Fake::start("gateway-1", Faults::default());
    let mut watch = Watch::start(&fake.url(), &["--clients", "12", "--channels", "1"]);
    watch.event("ready");
    writeln!(watch.child.stdin.as_ref().expect("stdin"), "cut").expect("mark");
    watch.event("lost");
    watch.until(|event| event["event"] == "progress" && event["live"] == 12);
    let (summary, code) = watch.end();
    assert_eq!((code, &summary["losses"]), (0, &12.into()), "{summary}");
    assert_eq!(summary["clients_reconnected"], 12);
}

#[test]
fn a_terminal_code_keeps_clients_away_and_fails_the_verdict() {
    let fake = Fake::start("gateway-1", Faults::default());
    let mut watch = Watch::start(&fake.url(), &["--clients", "3", "--channels", "1"]);
    watch.event("ready");
    fake.close_all(3501);
    watch.event("ended");
    let (summary, code) = watch.end();
    assert_eq!(
        (code, &summary["ended"], &summary["away_at_end"]),
        (1, &3.into(), &3.into()),
        "{summary}"
    );
}

#[test]
fn nobody_there_is_counted_by_kind() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("bind");
    let url = format!(
        "ws://{}/connection/websocket",
        listener.local_addr().expect("address")
    );
    drop(listener);
    let mut watch = Watch::start(&url, &["--clients", "2", "--ready", "0"]);
    watch.event("attempt_failed");
    let (summary, code) = watch.end();
    assert_eq!(
        code, 1,
        "a watch that saw nothing is not a success: {summary}"
    );
    assert!(
        summary["failed_attempts_by_kind"]["refused"].as_u64() >= Some(1),
        "{summary}"
    );
}

//! What an attack costs everybody else: 100 well-behaved clients measure their latency with and without hostile
//! ones beside them, in turns, in one run. Started by `scripts/hostile`, which builds it and gives it a core.
//!
//! The gateway runs on the first core, everything else on the second; the attackers in the idle class, so
//! that they take the gateway's time and not that of the clients that measure.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::panic,
    reason = "a command's own report"
)]

#[path = "../../tests/attack/mod.rs"]
mod attack;
mod crowd;
mod target;

use std::net::SocketAddr;
use std::process::{Command, ExitCode};
use std::time::Duration;

use clap::Parser;
use serde_json::json;

use crowd::Figures;
use target::Target;

/// Measures well-behaved clients beside hostile ones.
#[derive(Parser)]
struct Flags {
    /// Well-behaved clients; half of them echo, half publish to themselves.
    #[arg(long, default_value_t = 100)]
    clients: usize,
    /// Length of each phase in seconds.
    #[arg(long, default_value_t = 6)]
    seconds: u64,
    /// How often both phases are run; medians count.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Connections that stay half-open or drip their request byte by byte.
    #[arg(long, default_value_t = 3000)]
    half_open: usize,
    /// Hostile connections per second, of every kind in turn.
    #[arg(long, default_value_t = 500)]
    attacks_per_s: u32,
    /// End with one line of JSON.
    #[arg(long)]
    json: bool,
    /// Be the attackers of one phase (used by the program itself).
    #[arg(long, hide = true)]
    attack: Option<SocketAddr>,
}

/// What Done-when asks for: p99 with the attack over p99 without.
const RATIO_MAX: f64 = 1.5;

fn main() -> ExitCode {
    let flags = Flags::parse();
    if let Some(address) = flags.attack {
        return crowd::attack(address, &flags);
    }
    let target = Target::start();
    let mut quiet = Vec::new();
    let mut attacked = Vec::new();
    let mut carried_out = 0;
    for round in 1..=flags.rounds {
        quiet.push(crowd::measure(&target, &flags));
        let mut attackers = attackers(&target, &flags);
        // The half-open connections come first.
        target.holds(flags.half_open as u64);
        attacked.push(crowd::measure(&target, &flags));
        let answer = attackers.wait_with_answer();
        carried_out += answer;
        target.holds_at_most(0);
        eprintln!(
            "round {round}: p99 {} us without, {} us with {answer} attacks",
            quiet[round - 1].p99_us,
            attacked[round - 1].p99_us
        );
    }
    report(&flags, &quiet, &attacked, carried_out)
}

/// The process of the attackers.
struct Attackers(std::process::Child);

fn attackers(target: &Target, flags: &Flags) -> Attackers {
    let program = std::env::current_exe().expect("this program");
    // Not merely nice: only the idle class gives way at once to a client that wakes up.
    let child = Command::new("chrt")
        .args(["--idle", "0"])
        .arg(program)
        .args(["--attack", &target.clients.to_string()])
        .args(["--seconds", &(flags.seconds + 2).to_string()])
        .args(["--half-open", &flags.half_open.to_string()])
        .args(["--attacks-per-s", &flags.attacks_per_s.to_string()])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("the command chrt (package util-linux)");
    Attackers(child)
}

impl Attackers {
    /// How many attacks there were; each must have got its rejection.
    fn wait_with_answer(&mut self) -> u64 {
        let mut text = String::new();
        let mut stdout = self.0.stdout.take().expect("piped");
        std::io::Read::read_to_string(&mut stdout, &mut text).expect("text");
        let status = self.0.wait().expect("our child");
        assert!(status.success(), "attacks went unpunished:\n{text}");
        text.trim().parse().expect("a number")
    }
}

fn median(rounds: &[Figures], figure: impl Fn(&Figures) -> u64) -> u64 {
    let mut values: Vec<_> = rounds.iter().map(figure).collect();
    values.sort_unstable();
    values[values.len() / 2]
}

fn report(flags: &Flags, quiet: &[Figures], attacked: &[Figures], attacks: u64) -> ExitCode {
    println!(
        "{} clients, 20 messages/s each; {} half-open and {} hostile connections/s ({attacks} in all); median of {} rounds of {} s",
        flags.clients, flags.half_open, flags.attacks_per_s, flags.rounds, flags.seconds
    );
    println!("             without      with    ratio");
    let mut rows = Vec::new();
    let mut p99 = 0.0;
    for (name, without, with) in [
        (
            "p50",
            median(quiet, |f| f.p50_us),
            median(attacked, |f| f.p50_us),
        ),
        (
            "p99",
            median(quiet, |f| f.p99_us),
            median(attacked, |f| f.p99_us),
        ),
        (
            "max",
            median(quiet, |f| f.max_us),
            median(attacked, |f| f.max_us),
        ),
    ] {
        let ratio = with as f64 / without as f64;
        if name == "p99" {
            p99 = ratio;
        }
        println!("{name}      {without:>8} us {with:>6} us    {ratio:.2}");
        rows.push(json!({ "name": name, "unit": "us", "without": without, "with": with, "ratio": ratio, "rounds": flags.rounds }));
    }
    let is_kept = p99 <= RATIO_MAX;
    println!(
        "every attack got its rejection, no client was disconnected; p99 {} {RATIO_MAX} times",
        if is_kept { "stays within" } else { "EXCEEDS" }
    );
    if flags.json {
        println!("{}", json!({ "case": "hostile", "rows": rows }));
    }
    if is_kept {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// How long a phase lasts.
fn phase(flags: &Flags) -> Duration {
    Duration::from_secs(flags.seconds)
}

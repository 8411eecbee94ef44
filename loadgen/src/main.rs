//! `flux-bench`: load generator, benchmark driver, and the judge of drains and faults.
//!
//! It connects only to the address that its command line names.

mod clients;
mod net;
mod options;
mod pace;
mod process;
mod record;
mod report;
mod scenarios;
mod sys;
mod target;

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;

use crate::net::{EpollNet, RingNet};
use crate::options::{Cli, Command, Engine};
use crate::report::Output;
use crate::scenarios::driver::Driver;
use crate::scenarios::{Report, Scenario, Stop, bulk, echo, hop, pairs, serve_echo, watch};

fn main() -> ExitCode {
    let cli = Cli::parse();
    let output = Output::new(cli.json);
    match run(&cli.command, &output) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            output.warn(&format!("{error:#}"));
            ExitCode::from(2)
        }
    }
}

/// Runs a command; false: it ran, and what it found is not as it should be.
fn run(command: &Command, output: &Output) -> Result<bool> {
    let stop = &Stop::on_signals()?;
    match command {
        Command::Connect(options) => drive(options, output, stop),
        Command::ProbeConnect(options) => drive(options, output, stop),
        Command::Echo(options) => drive(&echo::Named("echo", options), output, stop),
        Command::Relay(options) => drive(&echo::Named("relay", options), output, stop),
        Command::Fanout(options) => drive(options, output, stop),
        Command::RedisPublish(options) => drive(options, output, stop),
        Command::Http(options) => drive(options, output, stop),
        Command::Channels(options) => drive(options, output, stop),
        Command::Idle(options) => drive(options, output, stop),
        Command::Million(options) => drive(options, output, stop),
        Command::Hop(options) => Ok(finish(&hop::run(options, output, stop)?, output)),
        Command::Bulk(options) => Ok(finish(&bulk::run(options, output, stop)?, output)),
        Command::Watch(options) => Ok(finish(&watch::run(options, output, stop)?, output)),
        Command::Pairs(options) => Ok(finish(&pairs::run(options)?, output)),
        Command::ServeEcho(options) => serve_echo::run(options.listen, output, stop).map(|()| true),
        Command::ServeBulk(options) => {
            bulk::serve::run(options.listen, output, stop).map(|()| true)
        }
    }
}

/// Over the event loop that the scenario asks for; unasked the ring, and epoll where there is no io_uring.
fn drive(scenario: &impl Scenario, output: &Output, stop: &Stop) -> Result<bool> {
    let wanted = scenario.engine();
    if wanted != Some(Engine::Epoll) {
        match RingNet::new() {
            Ok(net) => {
                let report = scenario.run(Driver { net, output, stop })?;
                return Ok(finish(&report, output));
            }
            Err(error) if wanted.is_some() => return Err(error.into()),
            Err(error) => output.warn(&format!("using epoll: {error}")),
        }
    }
    let net = EpollNet::new()?;
    let report = scenario.run(Driver { net, output, stop })?;
    Ok(finish(&report, output))
}

fn finish(report: &impl Report, output: &Output) -> bool {
    output.finish(report);
    report.complete()
}

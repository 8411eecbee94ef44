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
use crate::scenarios::{
    Stop, bulk, channels, connect, echo, fanout, http, idle, million, pairs, redis_publish,
    serve_echo, watch,
};

fn main() -> ExitCode {
    let cli = Cli::parse();
    let output = Output::new(cli.command.json());
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
    let stop = Stop::on_signals()?;
    match command {
        Command::Connect(options) => {
            let report = connect::run(&options.scenario(), output, &stop)?;
            output.finish(&report);
            Ok(report.all_stood())
        }
        Command::ProbeConnect(options) => {
            let report = connect::run(&options.scenario(), output, &stop)?;
            output.finish(&report);
            Ok(report.all_stood())
        }
        Command::Echo(options) => {
            let report = run_echo(&options.scenario("echo"), options.engine(), output, &stop)?;
            output.finish(&report);
            Ok(report.complete())
        }
        Command::Relay(options) => {
            let report = run_echo(&options.scenario("relay"), options.engine(), output, &stop)?;
            output.finish(&report);
            Ok(report.complete())
        }
        Command::ServeEcho(options) => {
            serve_echo::run(options.listen, output, &stop).map(|()| true)
        }
        Command::Bulk(options) => {
            let report = bulk::run(options, output, &stop)?;
            output.finish(&report);
            Ok(report.complete())
        }
        Command::ServeBulk(options) => {
            bulk::serve::run(options.listen, output, &stop).map(|()| true)
        }
        Command::Fanout(options) => {
            let report = match engine(options.engine(), output)? {
                Loop::Ring(net) => fanout::run(*net, &options.scenario(), output, &stop)?,
                Loop::Epoll(net) => fanout::run(*net, &options.scenario(), output, &stop)?,
            };
            output.finish(&report);
            Ok(report.complete())
        }
        Command::RedisPublish(options) => {
            let scenario = options.scenario()?;
            let report = match engine(options.engine(), output)? {
                Loop::Ring(net) => redis_publish::run(*net, &scenario, output, &stop)?,
                Loop::Epoll(net) => redis_publish::run(*net, &scenario, output, &stop)?,
            };
            output.finish(&report);
            Ok(report.complete())
        }
        Command::Http(options) => {
            let report = match engine(None, output)? {
                Loop::Ring(net) => http::run(*net, options, output, &stop)?,
                Loop::Epoll(net) => http::run(*net, options, output, &stop)?,
            };
            output.finish(&report);
            Ok(true)
        }
        Command::Channels(options) => {
            let report = match engine(None, output)? {
                Loop::Ring(net) => channels::run(*net, options, output, &stop)?,
                Loop::Epoll(net) => channels::run(*net, options, output, &stop)?,
            };
            output.finish(&report);
            Ok(report.complete())
        }
        Command::Idle(options) => {
            let report = idle::run(&options.scenario(), output, &stop)?;
            output.finish(&report);
            Ok(true)
        }
        Command::Million(options) => {
            let report = million::run(&options.scenario(), output, &stop)?;
            output.finish(&report);
            Ok(report.complete())
        }
        Command::Watch(options) => {
            let summary = watch::run(&options.scenario()?, output, &stop)?;
            output.finish(&summary);
            Ok(summary.ok())
        }
        Command::Pairs(options) => {
            let report = pairs::run(options)?;
            output.finish(&report);
            Ok(report.ok())
        }
    }
}

fn run_echo(
    options: &echo::Options,
    wanted: Option<Engine>,
    output: &Output,
    stop: &Stop,
) -> Result<echo::Report> {
    match engine(wanted, output)? {
        Loop::Ring(net) => echo::run(*net, options, output, stop),
        Loop::Epoll(net) => echo::run(*net, options, output, stop),
    }
}

enum Loop {
    Ring(Box<RingNet>),
    Epoll(Box<EpollNet>),
}

/// The event loop asked for; unasked the ring, and epoll where there is no io_uring.
fn engine(wanted: Option<Engine>, output: &Output) -> Result<Loop> {
    if wanted != Some(Engine::Epoll) {
        match RingNet::new() {
            Ok(net) => return Ok(Loop::Ring(Box::new(net))),
            Err(error) if wanted.is_some() => return Err(error.into()),
            Err(error) => output.warn(&format!("using epoll: {error}")),
        }
    }
    Ok(Loop::Epoll(Box::new(EpollNet::new()?)))
}

//! `flux-gateway`: reads the configuration, looks at the machine, runs a node. With a subcommand it
//! does something else: publishes, or makes a token.

use std::process::ExitCode;
use std::time::SystemTime;

use clap::Parser;
use flux_gateway::api::command::{self, PublishArguments};
use flux_gateway::config::{self, Command, Flags};
use flux_gateway::node::{self, Node, StartError};
use flux_gateway::token;
use flux_runtime::control::Signals;
use flux_runtime::{control, doctor, logging};

/// Nothing was started: the configuration or the machine does not allow it.
const EXIT_REFUSED: u8 = 2;

fn main() -> ExitCode {
    let flags = Flags::parse();
    if let Some(command) = &flags.command {
        return carry_out(command, &flags);
    }
    let loaded = match config::load(&flags) {
        Ok(loaded) => loaded,
        Err(error) => return refuse(&error.to_string()),
    };
    if flags.check_config {
        return say(&loaded.to_string());
    }
    if flags.doctor {
        return say(&doctor::examine().to_string());
    }
    logging::init();
    let signals = match Signals::install() {
        Ok(signals) => signals,
        Err(error) => return refuse(&format!("signals cannot be taken over: {error}")),
    };
    if let Some(finding) = doctor::examine().fatal() {
        return refuse(&finding);
    }
    let node = match Node::start(loaded.value) {
        Ok(node) => node,
        Err(error @ StartError::Shard(_)) => {
            tracing::error!(%error, "the node cannot start");
            return ExitCode::FAILURE;
        }
        Err(error) => return refuse(&error.to_string()),
    };
    let code = control::run(async {
        let outcome = node::run(node, signals).await;
        if let Err(error) = &outcome {
            tracing::error!(%error, "the control plane cannot start");
        }
        // Not by returning: the runtime would wait for a name lookup that hangs.
        std::process::exit(i32::from(!matches!(outcome, Ok(true))))
    });
    match code {
        Ok(never) => never,
        Err(error) => {
            tracing::error!(%error, "the control plane has no runtime");
            ExitCode::FAILURE
        }
    }
}

/// What is to be done instead of running a node.
fn carry_out(command: &Command, flags: &Flags) -> ExitCode {
    let file = match command {
        Command::Publish(PublishArguments { config, .. }) => config.as_deref(),
        Command::Token(_) => None,
    };
    let config = match config::load_unchecked(file.or(flags.config.as_deref())) {
        Ok(config) => config,
        Err(error) => return refuse(&error.to_string()),
    };
    let outcome = match command {
        Command::Publish(arguments) => {
            match control::run(command::publish(arguments, &config.http_api.key)) {
                Ok(outcome) => outcome,
                Err(error) => return refuse(&format!("no runtime: {error}")),
            }
        }
        Command::Token(arguments) => {
            let own = &config.client.subscription_token;
            let (section, token) = if arguments.channel.is_some() && own.enabled {
                ("client.subscription_token", &own.options)
            } else {
                ("client.token", &config.client.token)
            };
            token::issue(token, section, arguments, SystemTime::now())
        }
    };
    match outcome {
        Ok(text) => say(&format!("{text}\n")),
        Err(why) => {
            complain(&why);
            ExitCode::FAILURE
        }
    }
}

#[allow(clippy::print_stdout, reason = "what the command was asked to print")]
fn say(text: &str) -> ExitCode {
    print!("{text}");
    ExitCode::SUCCESS
}

fn refuse(why: &str) -> ExitCode {
    complain(why);
    ExitCode::from(EXIT_REFUSED)
}

#[allow(
    clippy::print_stderr,
    reason = "logs are not set up yet, and this is for the person at the terminal"
)]
fn complain(why: &str) {
    eprintln!("flux-gateway: {why}");
}

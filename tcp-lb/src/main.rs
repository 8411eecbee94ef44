//! `flux-lb`: the consistent-hashing TCP balancer.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use flux_lb::balancer::Balancer;
use flux_lb::config::{Affinity, Config};
use flux_registry::{RedisDeployment, Registry, RegistryConfig};
use flux_runtime::control::{self, Signals};
use flux_runtime::{config, doctor, logging};
use serde::Serialize;

/// Places TCP connections on the gateways of a cluster by consistent hashing.
///
/// Every key of the configuration can be given as flag (those below), as FLUX_KEY in the environment, or
/// in a file; flags win over environment over file.
#[derive(Debug, Parser, Serialize)]
#[command(name = "flux-lb", version)]
struct Flags {
    /// Name of this balancer on the dashboard [default: lb-1]
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    /// Where clients connect [default: 127.0.0.1:8080]
    #[arg(long, value_name = "IP:PORT")]
    #[serde(skip_serializing_if = "Option::is_none")]
    listen: Option<SocketAddr>,
    /// Where /live, /ready, /metrics and /api answer [default: 127.0.0.1:8090]
    #[arg(long, value_name = "IP:PORT")]
    #[serde(skip_serializing_if = "Option::is_none")]
    admin: Option<SocketAddr>,
    /// The registry [default: redis://127.0.0.1:6390]
    #[arg(long, value_name = "URL")]
    #[serde(skip_serializing_if = "Option::is_none")]
    redis: Option<String>,
    /// What connections are placed by [default: sid]
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    affinity: Option<Affinity>,
    /// Shards; 0 takes one per core [default: 0]
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    shards: Option<usize>,
    /// How long flows may go on after SIGTERM [default: 5]
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    drain_seconds: Option<u64>,
    /// Configuration file: TOML, JSON or YAML
    #[arg(long, env = "FLUX_CONFIG", value_name = "FILE")]
    #[serde(skip)]
    config: Option<PathBuf>,
    /// Print the effective configuration with its origins and end
    #[arg(long)]
    #[serde(skip)]
    check_config: bool,
    /// Print what this machine allows and end
    #[arg(long)]
    #[serde(skip)]
    doctor: bool,
}

/// Exit code for what the user has to put right before anything starts.
const REFUSED: u8 = 2;

#[allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command's own report"
)]
fn main() -> ExitCode {
    let flags = Flags::parse();
    if flags.doctor {
        print!("{}", doctor::examine());
        return ExitCode::SUCCESS;
    }
    let loaded = match config::load::<Config>(&flags, flags.config.as_deref()) {
        Ok(loaded) => loaded,
        Err(error) => {
            eprintln!("flux-lb: {error}");
            return ExitCode::from(REFUSED);
        }
    };
    if let Err(error) = loaded.value.check() {
        eprintln!("flux-lb: {error}");
        return ExitCode::from(REFUSED);
    }
    if flags.check_config {
        print!("{loaded}");
        return ExitCode::SUCCESS;
    }
    logging::init();
    if let Some(fatal) = doctor::examine().fatal() {
        eprintln!("flux-lb: {fatal}");
        return ExitCode::from(REFUSED);
    }
    match control::run(run(loaded.value)) {
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(error)) => {
            eprintln!("flux-lb: {error:#}");
            ExitCode::from(REFUSED)
        }
        Err(error) => {
            eprintln!("flux-lb: the control thread cannot start: {error}");
            ExitCode::from(REFUSED)
        }
    }
}

async fn run(config: Config) -> anyhow::Result<()> {
    let mut signals = Signals::install()?;
    let registry = Registry::connect(RegistryConfig {
        prefix: config.redis_prefix.clone(),
        deployment: RedisDeployment::from_short(&config.redis, &config.redis_ca_file)?,
        ..RegistryConfig::default()
    })?;
    let drain = Duration::from_secs(config.drain_seconds);
    let balancer = Balancer::start(config, &registry).await?;
    tracing::info!(listen = %balancer.listen, admin = %balancer.admin, "balancer is up");
    let signal = signals.next().await;
    tracing::info!(
        ?signal,
        drain_seconds = drain.as_secs(),
        "draining; once more ends at once"
    );
    tokio::select! {
        () = balancer.drain(drain) => tracing::info!("drained"),
        signal = signals.next() => tracing::info!(?signal, "ended at once"),
    }
    Ok(())
}

//! `flux-dashboard`: the live topology page of a Flux cluster.

use std::process::ExitCode;

use clap::Parser;
use flux_dashboard::config::{Config, Flags};
use flux_runtime::{config, control, logging};
use tokio::net::TcpListener;

fn main() -> ExitCode {
    let flags = Flags::parse();
    let loaded = match config::load::<Config>(&flags, flags.config.as_deref()) {
        Ok(loaded) => loaded,
        Err(error) => return refuse(&error.to_string()),
    };
    let sound = loaded.value.balancers().map(drop);
    if let Err(error) = sound.and_then(|()| loaded.value.registry().map(drop)) {
        return refuse(&error);
    }
    if flags.check_config {
        #[expect(clippy::print_stdout, reason = "this is what was asked for")]
        {
            print!("{loaded}");
        }
        return ExitCode::SUCCESS;
    }
    logging::init();
    match control::run(serve(loaded.value)) {
        Ok(code) => code,
        Err(error) => refuse(&format!("no runtime: {error}")),
    }
}

async fn serve(config: Config) -> ExitCode {
    let listener = match TcpListener::bind(config.listen).await {
        Ok(listener) => listener,
        Err(error) => {
            return refuse(&format!(
                "listen = {}: {error}; stop what holds it or give another --listen ADDR:PORT",
                config.listen
            ));
        }
    };
    let mut signals = match control::Signals::install() {
        Ok(signals) => signals,
        Err(error) => return refuse(&format!("signals: {error}")),
    };
    let page = listener.local_addr().unwrap_or(config.listen);
    tracing::info!(
        redis = without_login(&config.redis),
        balancer = config.balancer,
        "dashboard at http://{page}/dashboard"
    );
    let stop = async move {
        let signal = signals.next().await;
        tracing::info!(?signal, "stopping");
    };
    match flux_dashboard::run(listener, &config, stop).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => refuse(&format!("{error:#}")),
    }
}

/// A URL as it may stand in a log.
fn without_login(url: &str) -> String {
    match (url.find("://"), url.rfind('@')) {
        (Some(scheme), Some(at)) if at > scheme => {
            format!("{}://***@{}", &url[..scheme], &url[at + 1..])
        }
        _ => url.to_owned(),
    }
}

/// One line, and the exit code of a start that was refused.
fn refuse(why: &str) -> ExitCode {
    #[expect(clippy::print_stderr, reason = "the logger may not stand yet")]
    {
        eprintln!("flux-dashboard: {why}");
    }
    ExitCode::from(2)
}

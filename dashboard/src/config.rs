//! What can be configured, typed once at start.

use std::net::SocketAddr;

use clap::Parser;
use flux_registry::{RedisDeployment, Registry, RegistryConfig};
use serde::{Deserialize, Serialize};

/// Effective configuration: flags over environment (`FLUX_` and the key in
/// capitals) over file over these defaults.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where the page is served.
    pub listen: SocketAddr,
    /// The registry (`redis://`, `rediss://`).
    pub redis: String,
    /// File of PEM certificates to trust for `rediss://`; empty: the public authorities.
    pub redis_ca_file: String,
    /// Prefix of the registry's keys.
    pub redis_prefix: String,
    /// Admin addresses of the balancers, separated by commas.
    pub balancer: String,
    /// Name of the cluster on the page.
    pub cluster: String,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 9090)),
            redis: "redis://127.0.0.1:6390".to_owned(),
            redis_ca_file: String::new(),
            redis_prefix: "gateway".to_owned(),
            balancer: "http://127.0.0.1:8090".to_owned(),
            cluster: "flux".to_owned(),
        }
    }
}

impl Config {
    /// The registry; nothing is connected yet.
    ///
    /// # Errors
    /// One line that names the key and what is wrong with it.
    pub fn registry(&self) -> Result<Registry, String> {
        RedisDeployment::from_short(&self.redis, &self.redis_ca_file)
            .and_then(|deployment| {
                Registry::connect(RegistryConfig {
                    deployment,
                    prefix: self.redis_prefix.clone(),
                    ..RegistryConfig::default()
                })
            })
            .map_err(|error| error.to_string())
    }

    /// The balancers, one address each: `http://host:port`.
    ///
    /// # Errors
    /// One line that names the key, the value and what is allowed.
    pub fn balancers(&self) -> Result<Vec<String>, String> {
        let given = self.balancer.split(',').map(str::trim);
        given
            .filter(|one| !one.is_empty())
            .map(|one| {
                let address = one.strip_prefix("http://").unwrap_or(one);
                let address = address.trim_end_matches('/');
                let (host, port) = address.rsplit_once(':').unwrap_or((address, ""));
                let plain = !host.is_empty() && !host.contains(['/', '@', '?', '#', ' ']);
                if plain && port.parse::<u16>().is_ok_and(|port| port > 0) {
                    Ok(format!("http://{address}"))
                } else {
                    Err(format!(
                        "balancer = {one:?}: not an admin address; give http://HOST:PORT, several separated by commas"
                    ))
                }
            })
            .collect()
    }
}

/// Command line.
#[derive(Debug, Default, Parser, Serialize)]
#[command(
    name = "flux-dashboard",
    version,
    about = "The live topology page of a Flux cluster",
    after_help = "Each key may also come from the environment (FLUX_LISTEN, FLUX_REDIS, ...) or from --config FILE; \
flags win over the environment, the environment over the file.\nThe page is at http://LISTEN/dashboard."
)]
pub struct Flags {
    /// Address of the page [default: 127.0.0.1:9090]
    #[arg(long, value_name = "ADDR:PORT")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listen: Option<String>,
    /// Registry [default: redis://127.0.0.1:6390]
    #[arg(long, value_name = "URL")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub redis: Option<String>,
    /// Prefix of the registry's keys [default: gateway]
    #[arg(long, value_name = "PREFIX")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub redis_prefix: Option<String>,
    /// Balancers' admin addresses, separated by commas [default: http://127.0.0.1:8090]
    #[arg(long, value_name = "URL,...")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub balancer: Option<String>,
    /// Name of the cluster [default: flux]
    #[arg(long, value_name = "NAME")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cluster: Option<String>,
    /// Configuration file: TOML, JSON or YAML
    #[arg(long, env = "FLUX_CONFIG", value_name = "FILE")]
    #[serde(skip)]
    pub config: Option<std::path::PathBuf>,
    /// Validate, print the effective values with their origin, and exit
    #[arg(long)]
    #[serde(skip)]
    pub check_config: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn balancers(balancer: &str) -> Result<Vec<String>, String> {
        Config {
            balancer: balancer.to_owned(),
            ..Config::default()
        }
        .balancers()
    }

    #[test]
    fn balancers_are_addresses_separated_by_commas() {
        assert_eq!(
            balancers("http://127.0.0.1:8090, lb:80/"),
            Ok(vec![
                "http://127.0.0.1:8090".to_owned(),
                "http://lb:80".to_owned()
            ])
        );
        assert_eq!(balancers(""), Ok(Vec::new()));
        for bad in ["lb", "http://", "https://lb:80", "a@b:1", "lb:0", "lb:x"] {
            assert!(balancers(bad).is_err_and(|e| e.contains(bad)), "{bad}");
        }
    }
}

//! Which endpoint a question or a notice is for.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{BackendConfig, DEFAULT_PROXY, Endpoint, ProxyConfig};
use crate::authority::{Named, NoticeKind, QuestionKind, Switched, Wanted};
use crate::protocol::ErrorCode;
use crate::session::Naming;

type One = Option<Arc<Endpoint>>;

/// All endpoints, by what they are for.
pub struct Routes {
    connect: One,
    refresh: One,
    connected: One,
    disconnected: One,
    subscribed: One,
    unsubscribed: One,
    without_namespace: OfChannels,
    namespaces: BTreeMap<String, OfChannels>,
    naming: Naming,
    rpc: One,
    rpc_namespaces: BTreeMap<String, One>,
    rpc_boundary: String,
    all: Vec<Arc<Endpoint>>,
}

#[derive(Default)]
struct OfChannels {
    subscribe: One,
    publish: One,
    sub_refresh: One,
}

/// Makes each endpoint once, however often it is referred to: its bounds are for all its uses.
struct Maker<'a> {
    config: &'a BackendConfig,
    client: &'a reqwest::Client,
    made: BTreeMap<String, Arc<Endpoint>>,
}

impl Maker<'_> {
    fn make(&mut self, section: &str, config: &ProxyConfig) -> Result<Arc<Endpoint>, String> {
        if let Some(endpoint) = self.made.get(section) {
            return Ok(Arc::clone(endpoint));
        }
        let endpoint = Arc::new(Endpoint::new(section, config, self.client.clone())?);
        self.made.insert(section.to_owned(), Arc::clone(&endpoint));
        Ok(endpoint)
    }

    fn switched(&mut self, section: &str, proxy: &Switched<ProxyConfig>) -> Result<One, String> {
        if !proxy.enabled {
            return Ok(None);
        }
        self.make(section, &proxy.options).map(Some)
    }

    fn named(&mut self, name: Option<&str>, own: (&str, &ProxyConfig)) -> Result<One, String> {
        let Some(name) = name else { return Ok(None) };
        if name == DEFAULT_PROXY {
            return self.make(own.0, own.1).map(Some);
        }
        let config = self.config;
        match config.proxies.iter().find(|proxy| proxy.name == name) {
            Some(Named { name, options }) => {
                self.make(&format!("proxies.{name}"), options).map(Some)
            }
            None => Err(format!(
                "config key `proxies`: there is no proxy `{name}`; add it"
            )),
        }
    }

    fn of_channels(&mut self, route: &super::ChannelRoute) -> Result<OfChannels, String> {
        let own = &self.config.channel;
        Ok(OfChannels {
            subscribe: self.named(
                route.subscribe.as_deref(),
                ("channel.proxy.subscribe", &own.subscribe),
            )?,
            publish: self.named(
                route.publish.as_deref(),
                ("channel.proxy.publish", &own.publish),
            )?,
            sub_refresh: self.named(
                route.sub_refresh.as_deref(),
                ("channel.proxy.sub_refresh", &own.sub_refresh),
            )?,
        })
    }
}

impl Routes {
    /// The endpoints of a configuration.
    ///
    /// # Errors
    /// As [`BackendConfig::check`].
    pub fn new(config: &BackendConfig, client: &reqwest::Client) -> Result<Self, String> {
        config.check()?;
        let mut maker = Maker {
            config,
            client,
            made: BTreeMap::new(),
        };
        let events = &config.client;
        let rpc =
            |options: &super::RpcOptions| options.proxy_enabled.then(|| options.proxy_name.clone());
        let own_rpc = ("rpc.proxy", &config.rpc.proxy);
        let mut routes = Self {
            connect: maker.switched("client.proxy.connect", &events.connect)?,
            refresh: maker.switched("client.proxy.refresh", &events.refresh)?,
            connected: maker.switched("client.proxy.connected", &events.connected)?,
            disconnected: maker.switched("client.proxy.disconnected", &events.disconnected)?,
            subscribed: maker.switched("client.proxy.subscribed", &events.subscribed)?,
            unsubscribed: maker.switched("client.proxy.unsubscribed", &events.unsubscribed)?,
            without_namespace: maker.of_channels(&config.without_namespace)?,
            namespaces: BTreeMap::new(),
            naming: config.naming.clone(),
            rpc: maker.named(rpc(&config.rpc.without_namespace).as_deref(), own_rpc)?,
            rpc_namespaces: BTreeMap::new(),
            rpc_boundary: config.rpc.namespace_boundary.clone(),
            all: Vec::new(),
        };
        for (name, route) in &config.namespaces {
            let of_channels = maker.of_channels(route)?;
            routes.namespaces.insert(name.clone(), of_channels);
        }
        for namespace in &config.rpc.namespaces {
            let one = maker.named(rpc(&namespace.options).as_deref(), own_rpc)?;
            routes.rpc_namespaces.insert(namespace.name.clone(), one);
        }
        routes.all = maker.made.into_values().collect();
        Ok(routes)
    }

    /// Every endpoint, each once.
    #[must_use]
    pub fn all(&self) -> &[Arc<Endpoint>] {
        &self.all
    }

    /// Where a question goes.
    ///
    /// # Errors
    /// What the client is told where there is no endpoint for it.
    pub(crate) fn of_question(&self, kind: &QuestionKind) -> Result<&Arc<Endpoint>, ErrorCode> {
        let (one, otherwise) = match kind {
            QuestionKind::Connect { .. } => (&self.connect, ErrorCode::Unauthorized),
            QuestionKind::Refresh { .. } => (&self.refresh, ErrorCode::NotAvailable),
            QuestionKind::Subscribe { channel, .. } => {
                (&self.of(channel)?.subscribe, ErrorCode::PermissionDenied)
            }
            QuestionKind::Publish { channel, .. } => {
                (&self.of(channel)?.publish, ErrorCode::NotAvailable)
            }
            QuestionKind::SubRefresh { channel, .. } => {
                (&self.of(channel)?.sub_refresh, ErrorCode::NotAvailable)
            }
            QuestionKind::Rpc { method, .. } => match method.split_once(&*self.rpc_boundary) {
                Some((name, _)) if !self.rpc_boundary.is_empty() => {
                    let one = self.rpc_namespaces.get(name);
                    (
                        one.ok_or(ErrorCode::MethodNotFound)?,
                        ErrorCode::NotAvailable,
                    )
                }
                _ => (&self.rpc, ErrorCode::NotAvailable),
            },
        };
        one.as_ref().ok_or(otherwise)
    }

    fn of(&self, channel: &str) -> Result<&OfChannels, ErrorCode> {
        match self.naming.namespace(channel) {
            None => Ok(&self.without_namespace),
            Some(name) => self.namespaces.get(name).ok_or(ErrorCode::UnknownChannel),
        }
    }

    /// Where a notice goes, if anywhere.
    pub(crate) fn of_notice(&self, kind: &NoticeKind) -> Option<&Arc<Endpoint>> {
        match kind {
            NoticeKind::Connected => &self.connected,
            NoticeKind::Disconnected { .. } => &self.disconnected,
            NoticeKind::Subscribed { .. } => &self.subscribed,
            NoticeKind::Unsubscribed { .. } => &self.unsubscribed,
        }
        .as_ref()
    }
}

impl BackendConfig {
    /// Which notices there is an endpoint for.
    #[must_use]
    pub fn wanted(&self) -> Wanted {
        Wanted {
            connected: self.client.connected.enabled,
            disconnected: self.client.disconnected.enabled,
            subscribed: self.client.subscribed.enabled,
            unsubscribed: self.client.unsubscribed.enabled,
        }
    }

    /// Whether some endpoint that may be in use has TLS of its own.
    #[must_use]
    pub fn has_tls(&self) -> bool {
        self.every().any(|proxy| proxy.http.tls.enabled)
    }

    /// Names, in lower case, of the headers of the client's request that some endpoint in use is
    /// told of: what a session has to keep.
    #[must_use]
    pub fn forwarded_headers(&self) -> Vec<String> {
        let headers = self.every().flat_map(|proxy| &proxy.http_headers);
        let mut names: Vec<String> = headers.map(|name| name.to_ascii_lowercase()).collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    /// The endpoints that may be in use.
    fn every(&self) -> impl Iterator<Item = &ProxyConfig> {
        let events = &self.client;
        let switched = [
            &events.connect,
            &events.refresh,
            &events.connected,
            &events.disconnected,
            &events.subscribed,
            &events.unsubscribed,
        ];
        let own = [
            &self.channel.subscribe,
            &self.channel.publish,
            &self.channel.sub_refresh,
            &self.rpc.proxy,
        ];
        switched
            .into_iter()
            .filter(|proxy| proxy.enabled)
            .map(|proxy| &proxy.options)
            .chain(own)
            .chain(self.proxies.iter().map(|proxy| &proxy.options))
    }
}

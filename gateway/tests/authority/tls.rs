//! Promise: a backend that speaks TLS is asked where its certificate is of an authority that is trusted, the
//! machine's or one that the configuration names, and shown a certificate where it wants one.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use flux_gateway::authority::AuthorityConfig;
use flux_gateway::backend::{BackendConfig, Routes, http};
use flux_gateway::protocol::ErrorCode;
use flux_redis_fixtures::Certificates;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, ServerConnection, StreamOwned};
use serde_json::{Value, json};

use crate::backend::{data, error};
use crate::shard::{Shard, rpc, run, who};

/// A backend that answers every call with 1; ends with the test program.
fn serve(certificates: &Certificates, wants_a_certificate: bool) -> SocketAddr {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .expect("versions");
    let builder = if wants_a_certificate {
        let mut roots = RootCertStore::empty();
        let ca = CertificateDer::from_pem_slice(&certificates.pem("ca.pem")).expect("PEM");
        roots.add(ca).expect("an authority");
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
        builder.with_client_cert_verifier(verifier.build().expect("a verifier"))
    } else {
        builder.with_no_client_auth()
    };
    let chain = CertificateDer::from_pem_slice(&certificates.pem("server.pem")).expect("PEM");
    let key = PrivateKeyDer::from_pem_slice(&certificates.pem("server.key")).expect("PEM");
    let config = Arc::new(builder.with_single_cert(vec![chain], key).expect("a pair"));
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    std::thread::spawn(move || {
        for socket in listener.incoming().flatten() {
            let session = ServerConnection::new(Arc::clone(&config)).expect("a session");
            let mut stream = StreamOwned::new(session, socket);
            let mut request = Vec::new();
            let mut piece = [0; 4_096];
            // The document of a call ends with the bracket of its object.
            while !request.ends_with(b"}") {
                match stream.read(&mut piece) {
                    Ok(count @ 1..) => request.extend_from_slice(&piece[..count]),
                    _ => break,
                }
            }
            let answer = r#"{"result":{"data":1}}"#;
            let length = answer.len();
            let _ = write!(
                stream,
                "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{answer}"
            );
            stream.conn.send_close_notify();
            let _ = stream.flush();
        }
    });
    address
}

/// Calls go to this address, with this for `http.tls`.
fn calling(address: SocketAddr, tls: &Value) -> AuthorityConfig {
    let mut backend = BackendConfig::default();
    backend.rpc.without_namespace.proxy_enabled = true;
    let proxy = json!({
        "endpoint": format!("https://{address}/call"), "timeout": "5s", "http": {"tls": tls},
    });
    backend.rpc.proxy = serde_json::from_value(proxy).expect("known keys");
    AuthorityConfig {
        backend,
        ..AuthorityConfig::default()
    }
}

/// Whether a call is answered; if not, it is counted as a connection that failed.
async fn is_answered(config: &AuthorityConfig) -> bool {
    let mut shard = Shard::start(config);
    let answer = shard.answer(&who(), rpc("sum")).await;
    let failures = shard.endpoints[0].metrics().failed_connection.get();
    shard.stop().await;
    let is_answered = answer == data(b"1");
    assert!(
        is_answered || answer == error(ErrorCode::Internal),
        "{answer:?}"
    );
    assert_eq!(failures, u64::from(!is_answered));
    is_answered
}

#[test]
fn the_authority_of_a_backend_may_be_named_as_text_as_base64_or_as_a_file() {
    let Some(certificates) = Certificates::make() else {
        return;
    };
    let address = serve(&certificates, false);
    let text = String::from_utf8(certificates.pem("ca.pem")).expect("PEM");
    run(async {
        // The machine does not trust the authority of a test.
        assert!(!is_answered(&calling(address, &json!({}))).await);
        let file = certificates.path("ca.pem");
        for ca in [text.clone(), base64(&text), file.display().to_string()] {
            let tls = json!({"enabled": true, "server_ca_pem": ca});
            assert!(is_answered(&calling(address, &tls)).await, "{ca}");
            // Switched off, it says nothing, as in Centrifugo.
            let tls = json!({"enabled": false, "server_ca_pem": ca});
            assert!(!is_answered(&calling(address, &tls)).await, "{ca}");
        }
        // A certificate that this authority has not signed.
        let others = Certificates::make().expect("as before");
        let stranger = serve(&others, false);
        let tls = json!({"enabled": true, "server_ca_pem": text});
        assert!(!is_answered(&calling(stranger, &tls)).await);
    });
}

#[test]
fn a_backend_that_wants_a_certificate_is_shown_ours() {
    let Some(certificates) = Certificates::make() else {
        return;
    };
    let address = serve(&certificates, true);
    let path = |name: &str| certificates.path(name).display().to_string();
    let mut tls = json!({"enabled": true, "server_ca_pem": path("ca.pem")});
    run(async {
        assert!(!is_answered(&calling(address, &tls)).await);
        tls["cert_pem"] = path("client.pem").into();
        tls["key_pem"] = path("client.key").into();
        assert!(is_answered(&calling(address, &tls)).await);
    });
}

#[test]
fn certificates_that_are_none_are_refused_at_the_start_by_the_name_of_their_key() {
    let Some(certificates) = Certificates::make() else {
        return;
    };
    let address = SocketAddr::from(([127, 0, 0, 1], 1));
    let client = http::client().expect("a client");
    let key = String::from_utf8(certificates.pem("client.key")).expect("PEM");
    let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    for (tls, named) in [
        (json!({"server_ca_pem": "/no/such/file"}), "server_ca_pem"),
        (json!({"server_ca_pem": broken}), "server_ca_pem"),
        (json!({"server_ca_pem": key}), "server_ca_pem"),
        (json!({"cert_pem": broken}), "rpc.proxy.http.tls"),
        (json!({"cert_pem": broken, "key_pem": "hush"}), "key_pem"),
        (json!({"cert_pem": broken, "key_pem": broken}), "key_pem"),
    ] {
        let mut tls = tls;
        tls["enabled"] = true.into();
        let config = calling(address, &tls).backend;
        let why = Routes::new(&config, &client).err().expect("refused");
        assert!(why.starts_with("config key `rpc.proxy.http.tls"), "{why}");
        let shows = why.contains("hush") || why.contains("AAAA") || why.contains(&key);
        assert!(
            why.contains(named) && why.contains("give") && !shows,
            "{why}"
        );
    }
}

fn base64(text: &str) -> String {
    use ::base64::Engine as _;
    ::base64::engine::general_purpose::STANDARD.encode(text)
}

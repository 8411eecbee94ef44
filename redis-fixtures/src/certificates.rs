//! An authority of the test's own, and certificates of it.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use tempfile::TempDir;

use crate::server::{Program, Server};

/// Files of PEM in a directory of their own.
#[derive(Debug)]
pub struct Certificates {
    directory: TempDir,
}

impl Certificates {
    /// Makes an authority, a certificate for this machine and one for a client; `None` where openssl is
    /// missing.
    pub fn make() -> Option<Certificates> {
        let directory = tempfile::tempdir().expect("a directory");
        let names = "subjectAltName=DNS:localhost,IP:127.0.0.1\nbasicConstraints=CA:FALSE\n";
        std::fs::write(directory.path().join("names.cnf"), names).expect("written");
        let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
        let mut steps = vec![format!(
            "req -x509 {key} -days 2 -subj /CN=test-authority -keyout ca.key -out ca.pem"
        )];
        for name in ["server", "client"] {
            steps.push(format!(
                "req {key} -subj /CN={name} -keyout {name}.key -out {name}.csr"
            ));
            steps.push(format!(
                "x509 -req -in {name}.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile \
                 names.cnf -out {name}.pem"
            ));
        }
        for step in steps {
            let done = Command::new("openssl")
                .args(step.split_whitespace())
                .current_dir(directory.path())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .status();
            if !done.is_ok_and(|status| status.success()) {
                println!("SKIPPED: openssl makes no certificates here");
                return None;
            }
        }
        Some(Certificates { directory })
    }

    /// Path of `ca.pem`, `server.pem`, `server.key`, `client.pem` or `client.key`.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Content of one of them.
    pub fn pem(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.path(name)).expect("it was made")
    }
}

impl Server {
    /// One that wants TLS, a client certificate, and a user with a password: `gateway`, `s3cret`, with the
    /// rights in `rule`. Plain connections of the default user are left to the test. `None` where it cannot
    /// be had.
    pub fn secured(certificates: &Certificates, rule: &str) -> Option<Server> {
        let path = |name: &str| certificates.path(name).display().to_string();
        let (ca, certificate, key) = (path("ca.pem"), path("server.pem"), path("server.key"));
        let mut arguments = vec![
            "--tls-port",
            "$OTHER",
            "--tls-cert-file",
            &certificate,
            "--tls-key-file",
            &key,
            "--tls-ca-cert-file",
            &ca,
            "--requirepass",
            "another-s3cret",
            "--user",
            "gateway",
        ];
        arguments.extend(rule.split_whitespace());
        Server::start_with(Program::Redis, &arguments)
    }

    /// Where it speaks TLS.
    pub fn tls_url(&self) -> String {
        let port = self.argument("--tls-port").expect("it speaks TLS");
        format!("rediss://127.0.0.1:{port}")
    }
}

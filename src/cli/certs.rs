//! `kubewitness certs`: what a receiver and its API server need to know each other, and a key for
//! sealed dead letters.

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::Subcommand;
use crypto_box::SecretKey;
use crypto_box::aead::OsRng;

use crate::certs::{self, Request};
use crate::cli::{Done, Error};
use crate::config::PublicKey;
use crate::telemetry::chain;

/// What to make.
#[derive(Debug, Subcommand)]
pub enum Certs {
    /// Make a CA, the receiver's and the API server's certificates, and the webhook kubeconfig
    #[command(after_help = "Example:
  kubewitness certs init --host kubewitness.audit.svc --host 10.96.0.20 pki/

Files: ca.crt (client_ca_file), ca.key (keep it off the cluster), tls.crt, tls.key,
apiserver.crt, apiserver.key, webhook-kubeconfig.yaml (--audit-webhook-config-file)")]
    Init {
        /// Where the files go; nothing in it is overwritten
        dir: PathBuf,
        /// A name or address under which API servers reach the receiver (repeatable). The
        /// kubeconfig takes the first address, else the first name
        #[arg(long = "host", value_name = "HOST", required = true)]
        hosts: Vec<String>,
        /// The receiver's port
        #[arg(long, default_value_t = 8443)]
        port: u16,
        /// The receiver's path; /audit/CLUSTER names the cluster, which the receiver's `clusters`
        /// must list with the client's name
        #[arg(long, default_value = "/audit")]
        path: String,
        /// Common name of the API server's certificate
        #[arg(long, value_name = "NAME", default_value = "kube-apiserver")]
        client_name: String,
        /// Days for which both certificates are valid
        #[arg(long, default_value_t = 730)]
        days: u32,
        /// Days for which the CA is valid
        #[arg(long, default_value_t = 3_650)]
        ca_days: u32,
    },
    /// Make a key pair for dead letters: the secret half goes to a file, the public is printed
    SealingKey {
        /// File for the secret key; it must not exist. Keep it off the cluster
        file: PathBuf,
    },
}

/// Runs a subcommand.
///
/// # Errors
/// Files that exist or cannot be written, requests that make no sense: wrong input.
pub fn run(command: Certs) -> Result<Done, Error> {
    match command {
        Certs::Init { dir, hosts, port, path, client_name, days, ca_days } => {
            let request = Request { dir, hosts, port, path, client_name, days, ca_days };
            let files = certs::init(&request).map_err(|error| Error::Input(chain(&error)))?;
            let mut out = std::io::stdout().lock();
            for file in files {
                writeln!(out, "{}", file.display())?;
            }
        }
        Certs::SealingKey { file } => {
            let key = SecretKey::generate(&mut OsRng);
            write_secret(&file, &STANDARD.encode(key.to_bytes()))
                .map_err(|error| Error::Input(format!("{}: {error}", file.display())))?;
            let public = PublicKey(*key.public_key().as_bytes());
            writeln!(std::io::stdout(), "redaction: {{seal_to: {public}}}")?;
        }
    }
    Ok(Done::Fine)
}

/// Writes a new file that only its owner reads.
fn write_secret(path: &Path, text: &str) -> std::io::Result<()> {
    let mut options = std::fs::OpenOptions::new();
    let mut file = options.write(true).create_new(true).mode(0o600).open(path)?;
    writeln!(file, "{text}")?;
    file.sync_all()
}

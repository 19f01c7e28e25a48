//! A connection that is written once and then closed, from both sides.

use std::io::{self, ErrorKind};
use std::path::PathBuf;
use std::sync::Arc;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustls::crypto::ring;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::sinks::{SendError, certificate_remedy};

/// Encryption to a receiver.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Certificates in PEM that the receiver's must lead to.
    pub ca_file: PathBuf,
    /// The client's own certificate in PEM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cert_file: Option<PathBuf>,
    /// Its key in PEM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_file: Option<PathBuf>,
    /// The name in the receiver's certificate. Default: the host of the address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server_name: Option<String>,
}

/// What is needed to encrypt.
pub(crate) struct Tls {
    connector: TlsConnector,
    name: ServerName<'static>,
}

const REMEDY: &str = "mend `tls`: the certificates do not fit together";

impl Tls {
    /// Reads the certificates.
    pub(crate) fn new(config: &Config, address: &str) -> Result<Tls, SendError> {
        let wrong = |file: &PathBuf, error: &dyn std::fmt::Display| {
            SendError::block(format!("{}: {error}", file.display()), REMEDY)
        };
        let read = |file: &PathBuf| -> Result<Vec<CertificateDer<'static>>, SendError> {
            CertificateDer::pem_file_iter(file)
                .and_then(Iterator::collect)
                .map_err(|error| wrong(file, &error))
        };
        let mut roots = RootCertStore::empty();
        for certificate in read(&config.ca_file)? {
            roots.add(certificate).map_err(|error| wrong(&config.ca_file, &error))?;
        }
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| SendError::block(error.to_string(), REMEDY))?
            .with_root_certificates(roots);
        let client = match (&config.cert_file, &config.key_file) {
            (Some(cert), Some(key_file)) => {
                let key = PrivateKeyDer::from_pem_file(key_file)
                    .map_err(|error| wrong(key_file, &error))?;
                builder
                    .with_client_auth_cert(read(cert)?, key)
                    .map_err(|error| wrong(cert, &error))?
            }
            (None, None) => builder.with_no_client_auth(),
            _ => {
                let cause = "`cert_file` and `key_file` go together";
                return Err(SendError::block(cause, REMEDY));
            }
        };
        let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
        let host = config.server_name.as_deref().unwrap_or(host.trim_matches(['[', ']']));
        let name = ServerName::try_from(host.to_owned())
            .map_err(|error| SendError::block(format!("{host:?}: {error}"), REMEDY))?;
        Ok(Tls { connector: TlsConnector::from(Arc::new(client)), name })
    }
}

/// An open connection.
pub(crate) enum Connection {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Connection {
    /// Connects, and encrypts where that is wanted.
    pub(crate) async fn open(address: &str, tls: Option<Tls>) -> Result<Connection, SendError> {
        let failed = |what: &str, error: io::Error| trouble(&format!("{address}: {what}"), &error);
        let stream = TcpStream::connect(address).await;
        let stream = stream.map_err(|error| failed("cannot connect", error))?;
        let Some(tls) = tls else { return Ok(Connection::Plain(stream)) };
        let stream = tls.connector.connect(tls.name, stream).await;
        let stream = stream.map_err(|error| failed("cannot encrypt", error))?;
        Ok(Connection::Tls(Box::new(stream)))
    }

    fn socket(&self) -> &TcpStream {
        match self {
            Connection::Plain(stream) => stream,
            Connection::Tls(stream) => stream.get_ref().0,
        }
    }

    /// What was read to its end was not refused as well.
    fn unbroken(&self) -> Result<(), SendError> {
        match self.socket().take_error() {
            Ok(None) => Ok(()),
            Ok(Some(error)) | Err(error) => Err(trouble("broken before it was confirmed", &error)),
        }
    }

    /// Writes everything.
    pub(crate) async fn write(&mut self, bytes: &[u8]) -> Result<(), SendError> {
        let written = match self {
            Connection::Plain(stream) => stream.write_all(bytes).await,
            Connection::Tls(stream) => {
                let written = stream.write_all(bytes).await;
                if written.is_ok() { stream.flush().await } else { written }
            }
        };
        written.map_err(|error| trouble("cannot write", &error))
    }

    /// Ends the sending side; with `is_confirmed`, waits until the receiver ends its own.
    ///
    /// An end that the receiver made before it could have seen ours confirms nothing.
    pub(crate) async fn finish(mut self, is_confirmed: bool) -> Result<(), SendError> {
        let is_left = is_left(self.socket());
        let closed = match &mut self {
            Connection::Plain(stream) => stream.shutdown().await,
            Connection::Tls(stream) => stream.shutdown().await,
        };
        closed.map_err(|error| trouble("cannot close", &error))?;
        if !is_confirmed {
            return Ok(());
        }
        if is_left {
            return Err(SendError::retry("the receiver closed the connection before its end"));
        }
        let mut answer = [0; 1024];
        loop {
            let read = match &mut self {
                Connection::Plain(stream) => stream.read(&mut answer).await,
                Connection::Tls(stream) => stream.read(&mut answer).await,
            };
            match read {
                Ok(0) => return self.unbroken(),
                // Nobody answers in syslog; whatever it is, the end counts.
                Ok(_) => {}
                // What was decrypted and not read dies with the receiver, and leaves no other sign.
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => {
                    let cause = "the receiver closed the connection without TLS' close_notify; \
                        one that never sends it wants `confirm: none`";
                    return Err(SendError::retry(cause));
                }
                Err(error) => return Err(trouble("broken before it was confirmed", &error)),
            }
        }
    }
}

/// Whether the other side sends no more.
fn is_left(stream: &TcpStream) -> bool {
    let mut sides = [PollFd::new(stream, PollFlags::RDHUP)];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut sides, Some(&now)).is_ok_and(|ready| ready > 0)
}

/// A certificate's fault is for a person; everything else may pass.
fn trouble(what: &str, error: &io::Error) -> SendError {
    let cause = format!("{what}: {error}");
    let is_tls = error.get_ref().is_some_and(|inner| inner.is::<rustls::Error>());
    match certificate_remedy(&cause).filter(|_| is_tls) {
        Some(remedy) => SendError::block(cause, remedy),
        None => SendError::retry(cause),
    }
}

//! The receiver's side of TLS: certificates from files, and whose certificates are accepted.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, ring};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, RootCertStore, ServerConfig,
    SignatureScheme, version,
};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use sha2::{Digest, Sha256};
use x509_cert::der::Decode;
use x509_cert::der::asn1::{Ia5StringRef, PrintableStringRef, Utf8StringRef};
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;

use crate::ingest::webhook::Error;
use crate::ingest::webhook::config::{ClientCertificate, Config, Tls, TlsVersion};

/// TLS as configured, with the certificates that the files hold now.
pub(crate) struct TlsFiles {
    tls: Tls,
    /// Names of callers that are accepted; empty for all.
    names: Arc<BTreeSet<String>>,
    current: ArcSwap<ServerConfig>,
    /// Of all files' contents.
    digest: Mutex<[u8; 32]>,
}

/// The contents of the files.
struct Contents {
    certificate: Vec<u8>,
    key: Vec<u8>,
    client_ca: Option<Vec<u8>>,
}

impl TlsFiles {
    /// Reads and checks the files. Blocks.
    pub(crate) fn open(tls: &Tls, config: &Config) -> Result<TlsFiles, Error> {
        let mut names: BTreeSet<String> = tls.allowed_names.iter().cloned().collect();
        if !names.is_empty() {
            names.extend(config.clusters.iter().flat_map(|c| c.certificate_names.iter().cloned()));
        }
        let names = Arc::new(names);
        let contents = Contents::read(tls)?;
        let current = ArcSwap::from(contents.server_config(tls, &names)?);
        let digest = Mutex::new(contents.digest());
        Ok(TlsFiles { tls: tls.clone(), names, current, digest })
    }

    /// What the next handshake uses.
    pub(crate) fn current(&self) -> Arc<ServerConfig> {
        self.current.load_full()
    }

    /// Reads the files again; whether they changed. Blocks. After an error the old ones hold.
    pub(crate) fn reload(&self) -> Result<bool, Error> {
        let contents = Contents::read(&self.tls)?;
        let mut digest = self.digest.lock().unwrap_or_else(PoisonError::into_inner);
        if *digest == contents.digest() {
            return Ok(false);
        }
        self.current.store(contents.server_config(&self.tls, &self.names)?);
        *digest = contents.digest();
        Ok(true)
    }
}

impl Contents {
    fn read(tls: &Tls) -> Result<Contents, Error> {
        let read = |path: &Path| std::fs::read(path).map_err(|source| Error::read(path, source));
        Ok(Contents {
            certificate: read(&tls.cert_file)?,
            key: read(&tls.key_file)?,
            client_ca: tls.client_ca_file.as_deref().map(read).transpose()?,
        })
    }

    fn digest(&self) -> [u8; 32] {
        let mut hash = Sha256::new();
        for part in [&self.certificate, &self.key].into_iter().chain(self.client_ca.iter()) {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        hash.finalize().into()
    }

    fn server_config(
        &self,
        tls: &Tls,
        names: &Arc<BTreeSet<String>>,
    ) -> Result<Arc<ServerConfig>, Error> {
        let wrong =
            |path: &Path, problem: String| Error::Contents { path: path.to_owned(), problem };
        let chain = certificates(&self.certificate, &tls.cert_file)?;
        let key = PrivateKeyDer::from_pem_slice(&self.key).map_err(|error| {
            wrong(
                &tls.key_file,
                format!("holds no private key that can be read ({error}); write it as PEM"),
            )
        })?;
        let provider = Arc::new(ring::default_provider());
        let versions: &[_] = match tls.version_min {
            TlsVersion::V12 => &[&version::TLS12, &version::TLS13],
            TlsVersion::V13 => &[&version::TLS13],
        };
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(versions)
            .map_err(|error| wrong(&tls.cert_file, format!("cannot be used: {error}")))?;
        let builder = match (&self.client_ca, &tls.client_ca_file) {
            (Some(text), Some(path)) => {
                let inner = verifier(text, path, tls.client_certificate, provider)?;
                let names = Arc::clone(names);
                builder.with_client_cert_verifier(Arc::new(NamedClients { inner, names }))
            }
            _ => builder.with_no_client_auth(),
        };
        let mut config = builder.with_single_cert(chain, key).map_err(|error| {
            let key = tls.key_file.display();
            wrong(&tls.cert_file, format!("does not fit its key in {key}: {error}"))
        })?;
        // Every connection shows its certificate again: none outlives its authority or its end.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }
}

fn certificates(text: &[u8], path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let wrong = |problem: String| Error::Contents { path: path.to_owned(), problem };
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text).collect();
    match all {
        Ok(all) if all.is_empty() => Err(wrong("holds no certificate; write it as PEM".to_owned())),
        Ok(all) => Ok(all),
        Err(error) => Err(wrong(format!("is damaged: {error}"))),
    }
}

fn verifier(
    text: &[u8],
    path: &Path,
    client_certificate: ClientCertificate,
    provider: Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, Error> {
    let wrong = |problem: String| Error::Contents { path: path.to_owned(), problem };
    let mut roots = RootCertStore::empty();
    for certificate in certificates(text, path)? {
        roots.add(certificate).map_err(|error| wrong(format!("holds no authority: {error}")))?;
    }
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
    let builder = match client_certificate {
        ClientCertificate::Required => builder,
        ClientCertificate::Optional => builder.allow_unauthenticated(),
    };
    builder.build().map_err(|error| wrong(format!("holds no authority: {error}")))
}

/// Accepts certificates that an authority signed, of callers with the right names.
#[derive(Debug)]
struct NamedClients {
    inner: Arc<dyn ClientCertVerifier>,
    /// Empty for all.
    names: Arc<BTreeSet<String>>,
}

impl ClientCertVerifier for NamedClients {
    fn offer_client_auth(&self) -> bool {
        self.inner.offer_client_auth()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.inner.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.inner.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let verified = self.inner.verify_client_cert(end_entity, intermediates, now)?;
        let is_named = || names(end_entity).iter().any(|name| self.names.contains(name));
        match self.names.is_empty() || is_named() {
            true => Ok(verified),
            false => Err(CertificateError::ApplicationVerificationFailure.into()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

/// The common names and subject alternative names of a certificate; what cannot be read is no name.
pub(crate) fn names(certificate: &CertificateDer<'_>) -> Vec<String> {
    const COMMON_NAME: &str = "2.5.4.3";
    let Ok(certificate) = x509_cert::Certificate::from_der(certificate) else { return Vec::new() };
    let certificate = certificate.tbs_certificate;
    let mut names = Vec::new();
    let attributes = certificate.subject.0.iter().flat_map(|part| part.0.iter());
    for attribute in attributes.filter(|attribute| attribute.oid.to_string() == COMMON_NAME) {
        let value = &attribute.value;
        let text = value
            .decode_as::<Utf8StringRef<'_>>()
            .map(|text| text.as_str().to_owned())
            .or_else(|_| value.decode_as::<PrintableStringRef<'_>>().map(|t| t.as_str().to_owned()))
            .or_else(|_| {
                value.decode_as::<Ia5StringRef<'_>>().map(|text| text.as_str().to_owned())
            });
        names.extend(text);
    }
    if let Ok(Some((_, SubjectAltName(alternatives)))) = certificate.get::<SubjectAltName>() {
        names.extend(alternatives.iter().filter_map(|name| match name {
            GeneralName::DnsName(text) | GeneralName::Rfc822Name(text) => {
                Some(text.as_str().to_owned())
            }
            GeneralName::UniformResourceIdentifier(text) => Some(text.as_str().to_owned()),
            GeneralName::IpAddress(bytes) => address(bytes.as_bytes()),
            _ => None,
        }));
    }
    names
}

fn address(bytes: &[u8]) -> Option<String> {
    if let Ok(bytes) = <[u8; 4]>::try_from(bytes) {
        return Some(std::net::Ipv4Addr::from(bytes).to_string());
    }
    <[u8; 16]>::try_from(bytes).ok().map(|bytes| std::net::Ipv6Addr::from(bytes).to_string())
}

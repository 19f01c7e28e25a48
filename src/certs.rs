//! What mutual TLS between an API server and a receiver needs: a CA, both certificates, and the
//! kubeconfig that `--audit-webhook-config-file` names.

use std::io::Write;
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose, date_time_ymd,
};

use crate::clock;

/// The CA's certificate: the receiver's `client_ca_file`.
pub const CA_CERTIFICATE: &str = "ca.crt";
/// The CA's key, only needed to sign again; keep it off the cluster.
pub const CA_KEY: &str = "ca.key";
/// The receiver's certificate: its `cert_file`.
pub const SERVER_CERTIFICATE: &str = "tls.crt";
/// The receiver's key: its `key_file`.
pub const SERVER_KEY: &str = "tls.key";
/// The API server's certificate.
pub const CLIENT_CERTIFICATE: &str = "apiserver.crt";
/// The API server's key.
pub const CLIENT_KEY: &str = "apiserver.key";
/// The API server's webhook configuration, with its certificate and key inside.
pub const KUBECONFIG: &str = "webhook-kubeconfig.yaml";

/// The longest validity accepted: a hundred years.
const DAYS_MAX: u32 = 36_500;

/// What to make.
#[derive(Clone, Debug)]
pub struct Request {
    /// Where the files go; created when it does not exist.
    pub dir: PathBuf,
    /// Names and addresses under which API servers reach the receiver; at least one.
    pub hosts: Vec<String>,
    /// Port of the receiver, for the kubeconfig.
    pub port: u16,
    /// Path of the receiver, for the kubeconfig: `/audit`, or `/audit/<cluster>`.
    pub path: String,
    /// Common name of the API server's certificate; `allowed_names` may name it.
    pub client_name: String,
    /// Days for which the receiver's and the API server's certificates are valid.
    pub days: u32,
    /// Days for which the CA is valid; not less than `days`.
    pub ca_days: u32,
}

impl Request {
    /// A request with the defaults: port 8443, path `/audit`, client `kube-apiserver`, two years,
    /// the CA ten.
    pub fn new(dir: &Path, hosts: Vec<String>) -> Request {
        Request {
            dir: dir.to_owned(),
            hosts,
            port: 8443,
            path: "/audit".to_owned(),
            client_name: "kube-apiserver".to_owned(),
            days: 730,
            ca_days: 3_650,
        }
    }
}

/// Why no certificates were made; no file is left behind.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file that would be overwritten.
    #[error(
        "{} exists and is not overwritten; choose another directory or move it away", .0.display()
    )]
    Exists(PathBuf),
    /// The request makes no sense.
    #[error("{0}")]
    Request(String),
    /// A file could not be written.
    #[error("cannot write {}: {source}; check the directory and its permissions", path.display())]
    Write {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A key or certificate could not be made.
    #[error("cannot make the certificate of {name}: {source}")]
    Make {
        /// Whose it would have been.
        name: String,
        /// What the library said.
        source: rcgen::Error,
    },
}

/// A certificate and its key, as PEM.
#[derive(Clone)]
struct Pair {
    certificate: String,
    key: String,
}

/// Makes a CA, a certificate for the receiver, one for the API server, and the kubeconfig; returns
/// the files in that order. Keys and the kubeconfig are readable by their owner only. Blocks.
///
/// # Errors
/// [`Error`]; nothing that existed is changed, and nothing new is left.
pub fn init(request: &Request) -> Result<Vec<PathBuf>, Error> {
    check(request)?;
    let [ca, server, client] = make(request)?;
    let kubeconfig = kubeconfig(request, &ca, &client);
    let files = [
        (CA_CERTIFICATE, ca.certificate.as_str(), 0o644),
        (CA_KEY, &ca.key, 0o600),
        (SERVER_CERTIFICATE, &server.certificate, 0o644),
        (SERVER_KEY, &server.key, 0o600),
        (CLIENT_CERTIFICATE, &client.certificate, 0o644),
        (CLIENT_KEY, &client.key, 0o600),
        (KUBECONFIG, &kubeconfig, 0o600),
    ];
    let failed = |path: &Path, source| Error::Write { path: path.to_owned(), source };
    std::fs::create_dir_all(&request.dir).map_err(|source| failed(&request.dir, source))?;
    for (name, ..) in files {
        let path = request.dir.join(name);
        if path.symlink_metadata().is_ok() {
            return Err(Error::Exists(path));
        }
    }
    let mut written = Vec::new();
    for (name, text, mode) in files {
        let path = request.dir.join(name);
        let result = write(&path, text, mode).map_err(|source| match source.kind() {
            std::io::ErrorKind::AlreadyExists => Error::Exists(path.clone()),
            _ => failed(&path, source),
        });
        if !matches!(result, Err(Error::Exists(_))) {
            written.push(path);
        }
        if let Err(error) = result {
            for path in &written {
                // A file that cannot be removed is the lesser evil; the error is told.
                _ = std::fs::remove_file(path);
            }
            return Err(error);
        }
    }
    Ok(written)
}

fn write(path: &Path, text: &str, mode: u32) -> std::io::Result<()> {
    let mut options = std::fs::OpenOptions::new();
    let mut file = options.write(true).create_new(true).mode(mode).open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

fn check(request: &Request) -> Result<(), Error> {
    let wrong = |text: String| Err(Error::Request(text));
    if request.hosts.is_empty() {
        return wrong("no host given; name what API servers connect to (--host)".to_owned());
    }
    if let Some(host) = request.hosts.iter().find(|host| !is_host(host)) {
        return wrong(format!("{host:?} is neither a host name nor an address"));
    }
    if request.hosts[0].starts_with("*.") {
        return wrong(format!("{:?} cannot be connected to; name it last", request.hosts[0]));
    }
    if !(1..=DAYS_MAX).contains(&request.days) || request.ca_days > DAYS_MAX {
        return wrong(format!("a certificate is valid for 1 to {DAYS_MAX} days"));
    }
    if request.ca_days < request.days {
        return wrong("the CA must be valid for as long as the certificates it signs".to_owned());
    }
    let is_path_letter = |byte: u8| byte.is_ascii_alphanumeric() || b"/._~-".contains(&byte);
    if !request.path.starts_with('/') || !request.path.bytes().all(is_path_letter) {
        return wrong(format!("{:?} is no path; write one such as /audit", request.path));
    }
    if request.client_name.is_empty() || request.client_name.chars().any(char::is_control) {
        return wrong("the client's name is empty or holds control characters".to_owned());
    }
    Ok(())
}

fn is_host(host: &str) -> bool {
    let is_label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    host.parse::<IpAddr>().is_ok()
        || host.len() <= 253 && host.strip_prefix("*.").unwrap_or(host).split('.').all(is_label)
}

fn make(request: &Request) -> Result<[Pair; 3], Error> {
    let failed = |name: &str| {
        let name = name.to_owned();
        move |source| Error::Make { name, source }
    };
    let ca = "kubewitness CA";
    let authority = authority(ca, request.ca_days).map_err(failed(ca))?;
    let key = authority.key().serialize_pem();
    let own = Pair { certificate: authority.pem(), key };
    let host = &request.hosts[0];
    let server = ExtendedKeyUsagePurpose::ServerAuth;
    let server = signed(&authority, host, request.hosts.clone(), server, request.days)
        .map_err(failed(host))?;
    let name = &request.client_name;
    let client = ExtendedKeyUsagePurpose::ClientAuth;
    let client =
        signed(&authority, name, Vec::new(), client, request.days).map_err(failed(name))?;
    Ok([own, server, client])
}

fn authority(name: &str, days: u32) -> Result<CertifiedIssuer<'static, KeyPair>, rcgen::Error> {
    let mut params = params(name, Vec::new(), days)?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    CertifiedIssuer::self_signed(params, KeyPair::generate()?)
}

fn signed(
    authority: &CertifiedIssuer<'static, KeyPair>,
    name: &str,
    hosts: Vec<String>,
    purpose: ExtendedKeyUsagePurpose,
    days: u32,
) -> Result<Pair, rcgen::Error> {
    let mut params = params(name, hosts, days)?;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![purpose];
    params.use_authority_key_identifier_extension = true;
    let key = KeyPair::generate()?;
    let certificate = params.signed_by(&key, authority)?;
    Ok(Pair { certificate: certificate.pem(), key: key.serialize_pem() })
}

fn params(name: &str, hosts: Vec<String>, days: u32) -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::new(hosts)?;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    // A day early, for clocks that are late; to the day, as no one counts hours.
    let (first, last) = (date_after(-1), date_after(i64::from(days) + 1));
    let number = |number: i8| number.unsigned_abs();
    params.not_before =
        date_time_ymd(first.year().into(), number(first.month()), number(first.day()));
    params.not_after = date_time_ymd(last.year().into(), number(last.month()), number(last.day()));
    Ok(params)
}

/// The date (UTC) so many days from today.
fn date_after(days: i64) -> Date {
    let now = Timestamp::from_microsecond(clock::now_us()).unwrap_or(Timestamp::UNIX_EPOCH);
    now.to_zoned(TimeZone::UTC).date().saturating_add(days.days())
}

fn kubeconfig(request: &Request, ca: &Pair, client: &Pair) -> String {
    // An API server in the host's network does not resolve the names of services.
    let is_address = |host: &&String| host.parse::<IpAddr>().is_ok();
    let host = request.hosts.iter().find(is_address).unwrap_or(&request.hosts[0]);
    let host = match host.parse::<IpAddr>() {
        Ok(IpAddr::V6(address)) => format!("[{address}]"),
        _ => host.clone(),
    };
    let data = |pem: &str| STANDARD.encode(pem);
    format!(
        "# For kube-apiserver: --audit-webhook-config-file=<this file>. It holds a private key.\n\
         apiVersion: v1\n\
         kind: Config\n\
         clusters:\n\
         - name: kubewitness\n\
         \x20 cluster:\n\
         \x20   server: https://{host}:{port}{path}\n\
         \x20   certificate-authority-data: {ca}\n\
         users:\n\
         - name: kube-apiserver\n\
         \x20 user:\n\
         \x20   client-certificate-data: {certificate}\n\
         \x20   client-key-data: {key}\n\
         contexts:\n\
         - name: kubewitness\n\
         \x20 context:\n\
         \x20   cluster: kubewitness\n\
         \x20   user: kube-apiserver\n\
         current-context: kubewitness\n",
        port = request.port,
        path = request.path,
        ca = data(&ca.certificate),
        certificate = data(&client.certificate),
        key = data(&client.key),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn makes_files_that_only_their_owner_reads() {
        let dir = tempfile::tempdir().unwrap();
        let request = Request::new(&dir.path().join("pki"), vec!["audit".into(), "::1".into()]);
        let files = init(&request).unwrap();
        assert_eq!(files.len(), 7);
        for file in &files {
            let name = file.file_name().unwrap().to_str().unwrap();
            let mode = file.metadata().unwrap().permissions().mode() & 0o777;
            assert_eq!(mode & 0o077 != 0, name.ends_with(".crt"), "{name}: {mode:o}");
        }
        let kubeconfig = std::fs::read_to_string(&files[6]).unwrap();
        assert!(kubeconfig.contains("    server: https://[::1]:8443/audit\n"), "{kubeconfig}");
    }

    #[test]
    fn overwrites_nothing() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(CLIENT_KEY), "mine").unwrap();
        let error = init(&Request::new(dir.path(), vec!["a".into()])).unwrap_err();
        assert!(error.to_string().contains("apiserver.key exists"), "{error}");
        let left: Vec<_> = std::fs::read_dir(dir.path()).unwrap().collect();
        assert_eq!(left.len(), 1);
        assert_eq!(std::fs::read_to_string(dir.path().join(CLIENT_KEY)).unwrap(), "mine");
    }

    #[test]
    fn refuses_what_makes_no_sense() {
        let good = Request::new(Path::new("/nowhere/at/all"), vec!["a.b".into()]);
        for (request, words) in [
            (Request { hosts: vec![], ..good.clone() }, "no host"),
            (Request { hosts: vec!["a b".into()], ..good.clone() }, "\"a b\" is neither"),
            (Request { hosts: vec!["https://a".into()], ..good.clone() }, "is neither"),
            (Request { hosts: vec!["*.a".into()], ..good.clone() }, "name it last"),
            (Request { days: 0, ..good.clone() }, "1 to 36500"),
            (Request { days: 20, ca_days: 10, ..good.clone() }, "as long as"),
            (Request { path: "audit\n".into(), ..good.clone() }, "is no path"),
            (Request { client_name: String::new(), ..good.clone() }, "the client's name"),
        ] {
            let error = init(&request).unwrap_err();
            assert!(error.to_string().contains(words), "{error}");
        }
    }
}

//! Certificates: who may connect, what both sides speak, and what a change of the files does.

use std::path::Path;
use std::sync::Arc;

use kubewitness::certs;
use kubewitness::ingest::webhook::Error;
use kubewitness::ingest::webhook::config::{ClientCertificate, Cluster, Config, Tls, TlsVersion};
use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, Issuer, KeyPair,
    date_time_ymd,
};
use reqwest::Version;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};

use crate::apiserver::{ApiServer, batch};
use crate::webhook::Stage;

const BOTH: &[&SupportedProtocolVersion] = &[&TLS12, &TLS13];

/// A CA and its certificates, as `kubewitness certs init` makes them.
fn pki(dir: &Path) -> Tls {
    certs::init(&certs::Request::new(dir, vec!["127.0.0.1".into(), "localhost".into()])).unwrap();
    Tls {
        cert_file: dir.join(certs::SERVER_CERTIFICATE),
        key_file: dir.join(certs::SERVER_KEY),
        client_ca_file: Some(dir.join(certs::CA_CERTIFICATE)),
        client_certificate: ClientCertificate::Required,
        allowed_names: Vec::new(),
        version_min: TlsVersion::V12,
    }
}

type Identity = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

/// The API server's certificate as `certs init` makes it.
fn apiserver(dir: &Path) -> Identity {
    let chain = CertificateDer::pem_file_iter(dir.join(certs::CLIENT_CERTIFICATE)).unwrap();
    let key = PrivateKeyDer::from_pem_file(dir.join(certs::CLIENT_KEY)).unwrap();
    (chain.map(Result::unwrap).collect(), key)
}

/// A certificate that the CA in `dir` signed.
fn signed(dir: &Path, change: impl Fn(&mut CertificateParams)) -> Identity {
    let key = std::fs::read_to_string(dir.join(certs::CA_KEY)).unwrap();
    let mut own = CertificateParams::default();
    own.distinguished_name = DistinguishedName::new();
    own.distinguished_name.push(DnType::CommonName, "kubewitness CA");
    let ca = Issuer::new(own, KeyPair::from_pem(&key).unwrap());
    let mut params = CertificateParams::new(vec!["apiserver.shop".to_owned()]).unwrap();
    params.distinguished_name.push(DnType::CommonName, "another");
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    change(&mut params);
    let key = KeyPair::generate().unwrap();
    let certificate = params.signed_by(&key, &ca).unwrap();
    (vec![certificate.der().clone()], PrivateKeyDer::try_from(key.serialize_der()).unwrap())
}

/// A caller that trusts the CA in `dir`.
fn client(
    dir: &Path,
    identity: Option<Identity>,
    versions: &[&'static SupportedProtocolVersion],
) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(dir.join(certs::CA_CERTIFICATE)).unwrap()).unwrap();
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(roots);
    match identity {
        Some((chain, key)) => builder.with_client_auth_cert(chain, key).unwrap(),
        None => builder.with_no_client_auth(),
    }
}

fn url(stage: &Stage, path: &str) -> String {
    format!("https://{}{path}", stage.address)
}

/// Posts a batch; the status, or nothing when there was no connection.
async fn post(stage: &Stage, path: &str, tls: ClientConfig) -> Option<u16> {
    let apiserver = ApiServer::tls(&url(stage, path), tls);
    Some(apiserver.post(batch("a", 1).into()).await.ok()?.status().as_u16())
}

#[tokio::test]
async fn speaks_both_versions_and_both_protocols() {
    let dir = tempfile::tempdir().unwrap();
    let stage = Stage::start(Config { tls: Some(pki(dir.path())), ..Config::default() }).await;
    for versions in [&[&TLS12][..], &[&TLS13], BOTH] {
        for (alpn, version) in [(&[][..], Version::HTTP_11), (&[b"h2".to_vec()], Version::HTTP_2)] {
            let mut tls = client(dir.path(), Some(apiserver(dir.path())), versions);
            tls.alpn_protocols = alpn.to_vec();
            let apiserver = ApiServer::tls(&url(&stage, "/audit"), tls);
            for _ in 0..3 {
                let response = apiserver.post(batch("a", 400).into()).await.unwrap();
                assert_eq!((response.status().as_u16(), response.version()), (200, version));
            }
            assert_eq!(stage.taken().events.len(), 1_200);
        }
    }
    stage.stop().await;
    let tls = Tls { version_min: TlsVersion::V13, ..pki(dir.path().join("13").as_path()) };
    let (dir, stage) =
        (dir.path().join("13"), Stage::start(Config { tls: Some(tls), ..Config::default() }).await);
    for (versions, expected) in [(&[&TLS12][..], None), (&[&TLS13], Some(200))] {
        let tls = client(&dir, Some(apiserver(&dir)), versions);
        assert_eq!(post(&stage, "/audit", tls).await, expected);
    }
    stage.stop().await;
}

#[tokio::test]
async fn knows_callers_by_their_certificates() {
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (dir, other) = (dir.path(), other.path());
    let tls = pki(dir);
    pki(other);
    let named = Tls { allowed_names: vec!["kube-apiserver".into()], ..tls.clone() };
    let optional = Tls { client_certificate: ClientCertificate::Optional, ..tls.clone() };
    let clusters =
        vec![Cluster { name: "shop".into(), certificate_names: vec!["apiserver.shop".into()] }];
    let any = Stage::start(Config { tls: Some(tls), ..Config::default() }).await;
    let named =
        Stage::start(Config { tls: Some(named), clusters: clusters.clone(), ..Config::default() })
            .await;
    let bound = Stage::start(Config { tls: Some(optional), clusters, ..Config::default() }).await;
    let shop = || Some(signed(dir, |_| {}));
    let with = |change: fn(&mut CertificateParams)| Some(signed(dir, change));
    let expired = || with(|params| params.not_after = date_time_ymd(2020, 1, 1));
    let future = || with(|params| params.not_before = date_time_ymd(2095, 1, 1));
    let server =
        || with(|params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth]);
    let nobody = || with(|params| params.subject_alt_names.clear());
    for (name, stage, identity, path, expected) in [
        ("the API server", &any, Some(apiserver(dir)), "/audit", Some(200)),
        ("another signed one", &any, shop(), "/audit", Some(200)),
        ("none", &any, None, "/audit", None),
        ("of another CA", &any, Some(apiserver(other)), "/audit", None),
        ("expired", &any, expired(), "/audit", None),
        ("not yet valid", &any, future(), "/audit", None),
        ("a server's", &any, server(), "/audit", None),
        ("an allowed name", &named, Some(apiserver(dir)), "/audit", Some(200)),
        ("a cluster's name", &named, shop(), "/audit/shop", Some(200)),
        ("a name that is not allowed", &named, nobody(), "/audit", None),
        ("a bound one at its cluster", &bound, shop(), "/audit/shop", Some(200)),
        ("a bound one elsewhere", &bound, shop(), "/audit/other", Some(403)),
        ("an unbound one", &bound, Some(apiserver(dir)), "/audit", Some(200)),
        ("an unbound one at a cluster", &bound, Some(apiserver(dir)), "/audit/shop", Some(403)),
        ("none, where that is no error yet", &bound, None, "/audit", Some(401)),
        ("of another CA, all the same", &bound, Some(apiserver(other)), "/audit", None),
    ] {
        for versions in [&[&TLS12][..], &[&TLS13]] {
            let identity = identity.as_ref().map(|(chain, key)| (chain.clone(), key.clone_key()));
            let found = post(stage, path, client(dir, identity, versions)).await;
            assert_eq!(found, expected, "{name}, {versions:?}");
            let clusters: Vec<_> = stage.taken().events.into_iter().map(|(c, _)| c).collect();
            let shop = path.ends_with("shop").then(|| "shop".to_owned());
            assert_eq!(clusters, vec![shop; usize::from(expected == Some(200))], "{name}");
        }
    }
    let plain = ApiServer::plain(&any.url("/audit"));
    assert!(plain.post(batch("a", 1).into()).await.is_err(), "plain HTTP to a TLS port");
    for stage in [any, named, bound] {
        stage.stop().await;
    }
}

#[tokio::test]
async fn reads_changed_files_and_keeps_the_old_ones_when_they_are_bad() {
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let (old, new) = (dirs[0].path(), dirs[1].path());
    let tls = pki(old);
    pki(new);
    let stage = Stage::start(Config { tls: Some(tls), ..Config::default() }).await;
    let (mine, theirs) = (old.join("mine"), new);
    std::fs::create_dir(&mine).unwrap();
    for name in [certs::CA_CERTIFICATE, certs::CLIENT_CERTIFICATE, certs::CLIENT_KEY] {
        std::fs::copy(old.join(name), mine.join(name)).unwrap();
    }
    let reach = async |dir: &Path| {
        post(&stage, "/audit", client(dir, Some(apiserver(dir)), BOTH)).await == Some(200)
    };
    let replace = |name: &str| std::fs::copy(new.join(name), old.join(name)).unwrap();
    assert!(reach(&mine).await && !reach(theirs).await);
    assert_eq!(stage.access.reload().0, 0);
    // Half of the change, as a reader sees it that comes too early: key and certificate differ.
    replace(certs::SERVER_CERTIFICATE);
    let (changed, errors) = stage.access.reload();
    assert_eq!(changed, 0);
    let text = errors[0].to_string();
    assert!(text.contains("tls.crt does not fit its key in") && text.contains("tls.key"), "{text}");
    assert!(reach(&mine).await && !reach(theirs).await);
    replace(certs::SERVER_KEY);
    replace(certs::CA_CERTIFICATE);
    assert_eq!(stage.access.reload().0, 1);
    assert!(!reach(&mine).await && reach(theirs).await);
    stage.stop().await;
}

#[tokio::test]
async fn says_which_file_is_wrong() {
    let dir = tempfile::tempdir().unwrap();
    let tls = pki(dir.path());
    let file = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let empty = file("empty.pem", "");
    let missing = dir.path().join("missing.pem");
    for (tls, words) in [
        (Tls { cert_file: missing.clone(), ..tls.clone() }, "missing.pem: No such file"),
        (Tls { cert_file: empty.clone(), ..tls.clone() }, "empty.pem holds no certificate"),
        (Tls { key_file: empty.clone(), ..tls.clone() }, "empty.pem holds no private key"),
        (Tls { client_ca_file: Some(empty), ..tls.clone() }, "empty.pem holds no certificate"),
        (Tls { key_file: dir.path().join(certs::CLIENT_KEY), ..tls.clone() }, "apiserver.key"),
    ] {
        let config = Config { tls: Some(tls), ..Config::default() };
        let error: Error = kubewitness::ingest::webhook::check(&config).await.unwrap_err();
        assert!(error.to_string().contains(words), "{error}");
    }
}

//! What `kubewitness check` says of sinks: the exact words, mistake by mistake.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::{Method, Request, Response};
use rdkafka::mocking::MockCluster;
use rdkafka::types::RDKafkaRespErr;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

/// Answers by path: the first word is the name of a far side, behind it is what was asked of it.
async fn answer(request: Request<Body>) -> Response<Body> {
    let path = request.uri().path().to_owned();
    let is_put = request.method() == Method::PUT;
    let body = axum::body::to_bytes(request.into_body(), 1 << 20).await.unwrap();
    let (status, body) = said(&path, is_put, &body);
    let mut response = Response::builder().status(status);
    if status == 307 {
        response = response.header("location", "https://elsewhere.example.com/");
    }
    response.body(body.into()).unwrap()
}

fn said(path: &str, is_put: bool, body: &Bytes) -> (u16, &'static str) {
    let (name, rest) = path.trim_start_matches('/').split_once('/').unwrap_or((path, ""));
    match (name.trim_start_matches('/'), rest) {
        ("splunk", _) => (400, r#"{"text":"No data","code":5}"#),
        ("splunk-token", _) => (403, r#"{"text":"Invalid token","code":4}"#),
        ("splunk-disabled", _) => (403, r#"{"text":"Token disabled","code":1}"#),
        ("elastic-key", _) => (401, r#"{"error":"unable to authenticate"}"#),
        ("elastic" | "elastic-ready", "") => (200, r#"{"version":{"number":"8.15.3"}}"#),
        ("elastic-ready", _) => (200, "{}"),
        ("elastic", _) if is_put && serde_json::from_slice::<serde_json::Value>(body).is_ok() => {
            (200, r#"{"acknowledged":true}"#)
        }
        ("elastic", _) => (404, "{}"),
        ("forbidden", _) => (403, "no"),
        ("moved", _) => (307, ""),
        ("broken", _) => (503, "down for maintenance"),
        _ => (200, "{}"),
    }
}

/// A server with a certificate that nobody signed; it takes HTTP and, for syslog, anything.
async fn self_signed(listener: TcpListener) {
    let own = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = rustls_pki_types::PrivateKeyDer::try_from(own.signing_key.serialize_der()).unwrap();
    let config = rustls::ServerConfig::builder_with_provider(
        rustls::crypto::ring::default_provider().into(),
    )
    .with_safe_default_protocol_versions()
    .unwrap()
    .with_no_client_auth()
    .with_single_cert(vec![own.cert.der().clone()], key)
    .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    while let Ok((stream, _)) = listener.accept().await {
        // It ends with the client's refusal.
        let _ = acceptor.accept(stream).await;
    }
}

/// The lines about sinks that `check` prints for this one, addresses by name.
fn check(dir: &Path, sink: &str, names: &BTreeMap<String, &str>, args: &[&str]) -> Vec<String> {
    let mut sink = sink.to_owned();
    for (address, name) in names {
        sink = sink.replace(name, address);
    }
    let dir = dir.to_str().unwrap();
    let config = format!(
        "cluster: test-1\nsources: [{{type: webhook, listen: '127.0.0.1:0'}}]\n\
         spool: {{dir: {dir}/spool}}\nsinks:\n  - {{name: s, {sink}}}\n"
    );
    let file = format!("{dir}/c.yaml");
    std::fs::write(&file, config.replace("DIR", dir)).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_kubewitness"))
        .args(["check", "--config", &file])
        .args(args)
        .output()
        .unwrap();
    let mut text = String::from_utf8(output.stdout).unwrap();
    assert!(!text.is_empty(), "{sink}: {}", String::from_utf8_lossy(&output.stderr));
    for (address, name) in names {
        text = text.replace(address, name);
    }
    text = text.replace(dir, "DIR");
    text.lines().filter(|line| line.contains(" sink s: ")).map(str::to_owned).collect()
}

#[test]
fn check_says_exactly_what_is_wrong_with_a_sink() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let listen = || runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
    let (plain, secure) = (listen(), listen());
    let address = |listener: &TcpListener, host: &str| {
        format!("{host}:{}", listener.local_addr().unwrap().port())
    };
    let cluster = MockCluster::new(1).unwrap();
    cluster.create_topic("events", 1, 1).unwrap();
    let unknown = RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART;
    cluster.topic_error("evnts", unknown).unwrap();
    let names = BTreeMap::from([
        (address(&plain, "127.0.0.1"), "PLAIN"),
        (address(&secure, "localhost"), "SECURE"),
        (cluster.bootstrap_servers(), "KAFKA"),
    ]);
    runtime.spawn(async { axum::serve(plain, Router::new().fallback(answer)).await.unwrap() });
    runtime.spawn(self_signed(secure));
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("token"), "secret").unwrap();
    let mut other = rcgen::CertificateParams::new(["localhost".to_owned()]).unwrap();
    other.distinguished_name.push(rcgen::DnType::CommonName, "another authority");
    let other = other.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap();
    std::fs::write(dir.path().join("ca.pem"), other.pem()).unwrap();
    let mut wrong = Vec::new();
    for (sink, args, expected) in CASES {
        let found = check(dir.path(), sink, &names, args);
        if found != *expected {
            wrong.push(format!("{sink}\n  expected {expected:#?}\n  found {found:#?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

type Case = (&'static str, &'static [&'static str], &'static [&'static str]);

const BEST_EFFORT: &str = "note  sink s: best effort: without `acks` a collector confirms what is \
    in its memory only, and a crash there loses it unnoticed";

const CASES: &[Case] = &[
    (
        "type: splunk, url: 'http://PLAIN/splunk', token: {file: DIR/token}, acks: true",
        &[],
        &["ok    sink s: splunk would accept"],
    ),
    (
        "type: splunk, url: 'http://PLAIN/splunk', token: {file: DIR/token}",
        &[],
        &["ok    sink s: splunk would accept", BEST_EFFORT],
    ),
    (
        "type: splunk, url: 'http://PLAIN/splunk-token', token: {file: DIR/token}, acks: true",
        &[],
        &[
            r#"FAIL  sink s: answered 403: {"text":"Invalid token","code":4}; mend the token, or enable it"#,
        ],
    ),
    (
        "type: splunk, url: 'http://PLAIN/splunk-disabled', token: {file: DIR/token}, acks: true",
        &[],
        &[
            r#"FAIL  sink s: answered 403: {"text":"Token disabled","code":1}; mend the token, or enable it"#,
        ],
    ),
    (
        "type: elasticsearch, url: 'http://PLAIN/elastic-ready'",
        &[],
        &["ok    sink s: elasticsearch would accept"],
    ),
    (
        "type: elasticsearch, url: 'http://PLAIN/elastic-key'",
        &[],
        &[
            r#"FAIL  sink s: answered 401: {"error":"unable to authenticate"}; mend the sink's secret or its rights"#,
        ],
    ),
    (
        "type: elasticsearch, url: 'http://PLAIN/elastic', records: [alerts]",
        &[],
        &["FAIL  sink s: there is no lifecycle policy \"kubewitness\", no index template \
                \"kubewitness\", no data stream \"logs-kubewitness.alerts-default\"; run \
                `kubewitness check --install`, or put what is in deploy/siem/elasticsearch"],
    ),
    (
        "type: elasticsearch, url: 'http://PLAIN/elastic-ready'",
        &["--install"],
        &[
            "done  sink s: put _ilm/policy/kubewitness",
            "done  sink s: put _index_template/kubewitness",
            "ok    sink s: elasticsearch would accept",
        ],
    ),
    (
        "type: elasticsearch, url: 'http://PLAIN/forbidden'",
        &["--install"],
        &[
            "FAIL  sink s: not installed: answered 403: no; mend the sink's secret or its rights",
            "FAIL  sink s: answered 403: no; mend the sink's secret or its rights",
        ],
    ),
    (
        "type: http, url: 'https://SECURE/', http: {ca_file: DIR/ca.pem}",
        &[],
        &["FAIL  sink s: localhost: cannot reach it: client error (Connect): invalid peer \
                certificate: UnknownIssuer; the certificate is self-signed, or of an authority \
                unknown here: name it in `ca_file`"],
    ),
    (
        "type: syslog, address: 'SECURE', tls: {ca_file: DIR/ca.pem}",
        &[],
        &["FAIL  sink s: SECURE: cannot encrypt: invalid peer certificate: UnknownIssuer; the \
                certificate is self-signed, or of an authority unknown here: name it in `ca_file`"],
    ),
    (
        "type: http, url: 'http://PLAIN/moved'",
        &[],
        &["FAIL  sink s: answered 307: ; a redirect is never followed: name the final `url`"],
    ),
    (
        "type: http, url: 'http://PLAIN/broken'",
        &[],
        &["FAIL  sink s: answered 503: ; the sink would try again until it answers"],
    ),
    (
        "type: kafka, brokers: 'KAFKA', records: [events], topics: {events: events}",
        &[],
        &["ok    sink s: kafka would accept"],
    ),
    (
        "type: kafka, brokers: 'KAFKA', records: [events], topics: {events: evnts}",
        &[],
        &["FAIL  sink s: topic \"evnts\": UnknownTopicOrPartition (Broker: Unknown topic or \
                partition); create the topic, or mend its name"],
    ),
    (
        "type: file, path: DIR/none/lines",
        &[],
        &[
            "FAIL  sink s: cannot write DIR/none/lines: No such file or directory (os error 2); create its directory, writable",
        ],
    ),
];

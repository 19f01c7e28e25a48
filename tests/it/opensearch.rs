//! The sink of type elasticsearch against OpenSearch itself: where `tests/servers/opensearch.sh
//! start` has started one and `KUBEWITNESS_TEST_OPENSEARCH` names its directory; without it nothing
//! is tested.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use kubewitness::sinks::Item;
use kubewitness::sinks::config::Config;
use kubewitness::sinks::frame::{Frame, Unsent};
use reqwest::{Certificate, Client, Method};
use serde_json::{Value, json};

use crate::kafka::event;

const URL: &str = "https://localhost:29200";
const STREAM: &str = "logs-kubewitness.audit-default";
const RAW: &str = r#"{"auditID":"AUDIT","verb":"get","stage":"ResponseComplete","requestURI":"/api/v1/pods","objectRef":{"resource":"pods"},"requestObject":{"spec":{"a.b":1}},"annotations":{"authorization.k8s.io/decision":"allow"}}"#;

/// A server with its users, whose password is the same.
struct Server {
    dir: PathBuf,
    client: Client,
}

impl Server {
    fn of_environment() -> Option<Server> {
        let dir = PathBuf::from(std::env::var_os("KUBEWITNESS_TEST_OPENSEARCH")?);
        std::fs::write(dir.join("password"), "letmein\n").unwrap();
        std::fs::write(dir.join("wrong"), "letmeout\n").unwrap();
        kubewitness::tls::install();
        let ca = std::fs::read(dir.join("ca.pem")).unwrap();
        let ca = Certificate::from_pem_bundle(&ca).unwrap();
        Some(Server { client: Client::builder().tls_certs_only(ca).build().unwrap(), dir })
    }

    fn file(&self, name: &str) -> String {
        self.dir.join(name).to_str().unwrap().to_owned()
    }

    /// A sink of this user with more settings.
    fn sink(&self, username: &str, more: Value) -> Frame {
        let mut config = json!({
            "type": "opensearch", "name": "s", "records": ["events"], "url": URL,
            "auth": {"scheme": "Basic", "username": username,
                "secret": {"file": self.file("password")}},
            "http": {"ca_file": self.file("ca.pem")},
        });
        config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let config: Config = serde_json::from_value(config).unwrap();
        Frame::open(&config).unwrap()
    }

    /// What the server answers to its administrator.
    async fn ask(&self, method: Method, path: &str, body: Value) -> Value {
        let request = self.client.request(method, format!("{URL}/{path}"));
        let request = request.header("authorization", "Basic YWRtaW46bGV0bWVpbg==");
        let request = request.header("content-type", "application/json");
        let request = if body.is_null() { request } else { request.body(body.to_string()) };
        let answer = request.send().await.unwrap().bytes().await.unwrap();
        serde_json::from_slice(&answer).unwrap()
    }

    /// How many documents of a stream a query finds.
    async fn count(&self, stream: &str, query: Value) -> u64 {
        self.ask(Method::POST, &format!("{stream}/_refresh"), Value::Null).await;
        let found = self.ask(Method::POST, &format!("{stream}/_count"), query).await;
        found["count"].as_u64().unwrap_or_else(|| panic!("{found}"))
    }

    /// As on the first day: no streams, no template.
    async fn clear(&self) {
        self.ask(Method::DELETE, "_data_stream/logs-kubewitness.*", Value::Null).await;
        for template in ["kubewitness", "strict"] {
            self.ask(Method::DELETE, &format!("_index_template/{template}"), Value::Null).await;
        }
    }
}

/// Sends until all of it is over there or refused; returns the reasons of what was refused, and how
/// often it was told to wait.
async fn send_all(sink: &mut Frame, items: &[Item<'_>]) -> (Vec<String>, usize) {
    let mut load = sink.load_items(items.iter().copied());
    let mut waits = 0;
    while let Err(unsent) = sink.send(&mut load).await {
        assert!(matches!(unsent, Unsent::Retry { .. }), "{unsent}");
        waits += 1;
        assert!(waits < 1_000, "{unsent}");
        // As long as the backoff of a running instance.
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    (load.dead_letters("s", 0).into_iter().map(|letter| letter.reason).collect(), waits)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sink_against_opensearch() {
    let Some(server) = Server::of_environment() else { return };
    server.clear().await;
    preflight(&server).await;
    copies(&server).await;
    mappings(&server).await;
    outage(&server).await;
}

/// What `check` says of each mistake, and of what `check --install` mends.
async fn preflight(server: &Server) {
    let own = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    std::fs::write(server.dir.join("other.pem"), own.cert.pem()).unwrap();
    let wrong = json!({"auth": {"scheme": "Basic", "username": "witness",
        "secret": {"file": server.file("wrong")}}});
    let other = json!({"http": {"ca_file": server.file("other.pem")}});
    for (user, more, expected) in [
        ("witness", wrong, "answered 401: Unauthorized; mend the sink's secret or its rights"),
        (
            "stranger",
            json!({}),
            "no permissions for [cluster:monitor/main] and User [name=stranger",
        ),
        ("witness", other, "the certificate is self-signed, or of an authority unknown here"),
        ("witness", json!({"http": {}}), "the certificate is self-signed, or of an authority"),
        ("witness", json!({"url": "https://localhost:1"}), "Connection refused"),
        (
            "admin",
            json!({}),
            "there is no index template \"kubewitness\", no data stream \
             \"logs-kubewitness.audit-default\"; run `kubewitness check --install`",
        ),
    ] {
        let found = server.sink(user, more.clone()).check().await;
        let found = found.err().map(|error| error.to_string()).unwrap_or_default();
        println!("{user} {more}\n    {found}");
        assert!(found.contains(expected), "{user} {more}: {found}");
    }
    let refused = server.sink("witness", json!({})).install().await.unwrap_err().to_string();
    assert!(refused.contains("indices:admin/index_template/put"), "{refused}");
    let done = server.sink("admin", json!({})).install().await.unwrap();
    println!("{done:?}");
    assert!(done[0].contains("the server has no Index State Management"), "{done:?}");
    assert_eq!(done[1], "put _index_template/kubewitness");
    for user in ["admin", "witness"] {
        server.sink(user, json!({})).check().await.unwrap();
    }
}

/// What is sent twice is there once, in a data stream, and can be searched.
async fn copies(server: &Server) {
    let raws: Vec<String> = (0..2_000).map(|n| RAW.replace("AUDIT", &format!("a-{n}"))).collect();
    let items: Vec<Item<'_>> = raws.iter().zip(1..).map(|(raw, seq)| event(seq, raw)).collect();
    let mut sink = server.sink("witness", json!({}));
    for _ in 0..2 {
        assert_eq!(send_all(&mut sink, &items).await, (vec![], 0));
        assert_eq!(server.count(STREAM, json!({"query": {"match_all": {}}})).await, 2_000);
    }
    let streams = server.ask(Method::GET, &format!("_data_stream/{STREAM}"), Value::Null).await;
    assert_eq!(streams["data_streams"][0]["template"], "kubewitness");
    for (field, value) in [
        ("http.request.id", "a-7"),
        ("kubernetes.audit.requestObject.spec.a.b", "1"),
        ("orchestrator.cluster.name", "prod-1"),
    ] {
        let query = json!({"query": {"term": {field: value}}});
        assert!(server.count(STREAM, query).await > 0, "{field}");
    }
}

/// What a mapping refuses is kept as text; what it refuses even so is a dead letter, and keeps
/// nothing else away.
async fn mappings(server: &Server) {
    let odd = r#"{"auditID":"odd","verb":"get","stage":"ResponseComplete","objectRef":"pods"}"#;
    let plain = RAW.replace("AUDIT", "plain");
    let items = [event(90_001, &plain), event(90_002, odd)];
    let mut sink = server.sink("witness", json!({}));
    assert_eq!(send_all(&mut sink, &items).await, (vec![], 0));
    let query = json!({"query": {"term": {"event.id": "odd"}}});
    assert_eq!(server.count(STREAM, query.clone()).await, 1);
    let found = server.ask(Method::POST, &format!("{STREAM}/_search"), query).await;
    let source = &found["hits"]["hits"][0]["_source"];
    assert!(
        source["event"]["original"]
            .as_str()
            .is_some_and(|text| text.contains("\"objectRef\":\"pods\""))
    );

    let strict = json!({"index_patterns": ["logs-kubewitness.strict-*"], "priority": 500,
        "data_stream": {}, "template": {"mappings": {"dynamic": "strict", "properties": {}}}});
    server.ask(Method::PUT, "_index_template/strict", strict).await;
    let streams = json!({"streams": {"events": "logs-kubewitness.strict-default"}});
    let mut sink = server.sink("witness", streams);
    let (reasons, _) = send_all(&mut sink, &items).await;
    assert_eq!(reasons, ["mapping", "mapping"]);
}

/// The server is killed under way and started again: everything is there, once.
async fn outage(server: &Server) {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/servers/opensearch.sh");
    let run = move |command: &str, dir: &Path| {
        Command::new(script).arg(command).arg(dir).output().unwrap().status.success()
    };
    let raws: Vec<String> = (0..12_000).map(|n| RAW.replace("AUDIT", &format!("o-{n}"))).collect();
    let items: Vec<Item<'_>> =
        raws.iter().zip(100_001..).map(|(raw, seq)| event(seq, raw)).collect();
    let mut sink = server.sink("witness", json!({}));
    let (mut waits, mut started) = (0, None);
    for (number, chunk) in items.chunks(2_000).enumerate() {
        if number == 2 {
            assert!(run("kill", &server.dir));
            // It starts while the sink tries.
            let dir = server.dir.clone();
            started = Some(std::thread::spawn(move || run("start", &dir)));
        }
        let (reasons, waited) = send_all(&mut sink, chunk).await;
        assert_eq!(reasons, Vec::<String>::new());
        waits += waited;
    }
    assert!(started.unwrap().join().unwrap(), "not started again");
    println!("waited {waits} times");
    assert!(waits > 0);
    let query = json!({"query": {"prefix": {"http.request.id": "o-"}}});
    assert_eq!(server.count(STREAM, query).await, 12_000);
}

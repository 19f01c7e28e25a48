//! One request after the other: what is answered, and what of it the pipeline gets.

use std::path::{Path, PathBuf};

use kubewitness::ingest::batch::Refused;
use kubewitness::ingest::webhook::config::{Cluster, Config, Firehose, PubSub, Token};
use reqwest::{Client, Method, Response};

use crate::apiserver::{ApiServer, batch, event, event_list};
use crate::webhook::{Mode, Stage, gzip};

const TOKEN: &str = "Bearer a-token-of-some-length";

fn corpus(name: &str) -> Vec<u8> {
    std::fs::read(Path::new("tests/corpus/ingest").join(name)).unwrap()
}

fn secret(dir: &Path, name: &str, text: &str) -> PathBuf {
    let path = dir.join(name);
    std::fs::write(&path, text).unwrap();
    path
}

/// Every door open, behind tokens.
fn config(dir: &Path) -> Config {
    let token = |name: &str, text: &str, cluster: Option<&str>| Token {
        file: secret(dir, name, text),
        cluster: cluster.map(str::to_owned),
    };
    Config {
        tokens: vec![
            token("plain", "a-token-of-some-length\n", None),
            token("blue", "the-token-of-blue", Some("blue")),
        ],
        clusters: vec![Cluster { name: "red".into(), certificate_names: vec!["red".into()] }],
        firehose: Some(Firehose {
            path: "/firehose".into(),
            access_key_file: secret(dir, "key", "firehose-key"),
            cluster: None,
        }),
        pubsub: Some(PubSub {
            path: "/push/gke".into(),
            token_file: secret(dir, "push", "push-token"),
            cluster: Some("gke-1".into()),
        }),
        ..Config::default()
    }
}

/// A request: what is sent and what comes of it.
struct Case {
    name: &'static str,
    path: &'static str,
    headers: Vec<(&'static str, &'static str)>,
    body: Vec<u8>,
    status: u16,
    /// Audit ids of the events that the pipeline got.
    events: Vec<&'static str>,
    rejects: usize,
}

fn case(name: &'static str, path: &'static str, status: u16) -> Case {
    let headers = vec![("authorization", TOKEN)];
    let body = batch("a", 2);
    let events = if status == 200 { vec!["a-0", "a-1"] } else { vec![] };
    Case { name, path, headers, body, status, events, rejects: 0 }
}

fn good(name: &'static str, body: Vec<u8>, events: Vec<&'static str>, rejects: usize) -> Case {
    Case { body, events, rejects, ..case(name, "/audit", 200) }
}

fn with(case: Case, headers: &[(&'static str, &'static str)]) -> Case {
    Case { headers: headers.to_vec(), ..case }
}

async fn send(stage: &Stage, case: &Case) -> Response {
    let client = Client::builder().no_proxy().build().unwrap();
    let mut request = client.request(Method::POST, stage.url(case.path));
    for (name, value) in &case.headers {
        request = request.header(*name, *value);
    }
    request.body(case.body.clone()).send().await.unwrap()
}

async fn check(stage: &Stage, case: Case) {
    let response = send(stage, &case).await;
    let name = case.name;
    assert_eq!(response.status().as_u16(), case.status, "{name}");
    assert_eq!(response.headers()["content-type"], "application/json", "{name}");
    let text = response.text().await.unwrap();
    if case.status == 200 && case.path.starts_with("/audit") {
        assert_eq!(text, "{}", "{name}");
    }
    let taken = stage.taken();
    assert_eq!((taken.ids(), taken.rejects), (owned(&case.events), case.rejects), "{name}");
}

fn owned(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

#[tokio::test]
async fn takes_what_callers_may_post() {
    let dir = tempfile::tempdir().unwrap();
    let stage = Stage::start(config(dir.path())).await;
    let blue = ("authorization", "Bearer the-token-of-blue");
    let own = ["blue/a-0", "blue/a-1"];
    for case in [
        case("an EventList", "/audit", 200),
        case("a path with a slash", "/audit/", 200),
        case("a timeout", "/audit?timeout=30s", 200),
        case("a cluster that is another's", "/audit/red", 403),
        case("a cluster that nobody knows", "/audit/green", 403),
        case("a cluster that is no name", "/audit/..%2f..%2fetc", 403),
        case("an upper-case cluster", "/audit/Blue", 403),
        with(Case { events: own.to_vec(), ..case("a bound token", "/audit", 200) }, &[blue]),
        with(Case { events: own.to_vec(), ..case("its cluster", "/audit/blue", 200) }, &[blue]),
        with(Case { events: own.to_vec(), ..case("with a slash", "/audit/blue/", 200) }, &[blue]),
        with(case("a token bound elsewhere", "/audit/red", 403), &[blue]),
        with(case("no token", "/audit", 401), &[]),
        with(case("a wrong token", "/audit", 401), &[("authorization", "Bearer wrong")]),
        with(case("another scheme", "/audit", 401), &[("authorization", "Basic d2hvOndoYXQ=")]),
        with(
            case("an access key at the wrong door", "/audit", 401),
            &[("x-amz-firehose-access-key", "firehose-key")],
        ),
    ] {
        check(&stage, case).await;
    }
    stage.stop().await;
}

#[tokio::test]
async fn takes_bodies_of_every_kind() {
    let dir = tempfile::tempdir().unwrap();
    let stage = Stage::start(config(dir.path())).await;
    let gz = ("content-encoding", "gzip");
    let plain = ("authorization", TOKEN);
    for case in [
        good("nothing at all", vec![], vec![], 0),
        good("an empty list", event_list::<&str>(&[]), vec![], 0),
        good("garbage", b"hello".to_vec(), vec![], 1),
        good("no audit event", b"{\"kind\":\"Pod\"}".to_vec(), vec![], 1),
        good(
            "a cut list",
            event_list(&[event("a", "b"), event("c", "d")])[..600].to_vec(),
            vec!["a", "c"],
            0,
        ),
        good(
            "a poison item",
            event_list(&[event("a", "b"), "{\"level\":1}".into(), "\"?\"".into(), event("c", "d")]),
            vec!["a", "c"],
            2,
        ),
        good(
            "pretty-printed",
            corpus("webhook/pretty.json"),
            vec![
                "4e69a604-35b1-42ea-a845-1ec9e29f3823",
                "00000000-0000-0000-0000-000000000000",
                "0e0cd983-34e4-49f9-b0e1-cfa23bfa2377",
            ],
            0,
        ),
        with(good("gzip", gzip(&batch("z", 2)), vec!["z-0", "z-1"], 0), &[plain, gz]),
        with(
            good(
                "two gzip members",
                [gzip(&batch("y", 1)), gzip(&batch("z", 1))].concat(),
                vec!["y-0", "z-0"],
                0,
            ),
            &[plain, gz],
        ),
        with(good("gzip that is none", batch("z", 1), vec![], 1), &[plain, gz]),
        with(
            good(
                "cut gzip",
                {
                    let gz = gzip(&batch("z", 3));
                    gz[..gz.len() - 4].to_vec()
                },
                vec!["z-0", "z-1", "z-2"],
                1,
            ),
            &[plain, gz],
        ),
        with(
            case("an encoding that is not read", "/audit", 415),
            &[plain, ("content-encoding", "br")],
        ),
    ] {
        check(&stage, case).await;
    }
    stage.stop().await;
}

#[tokio::test]
async fn speaks_with_firehose_and_pubsub() {
    let dir = tempfile::tempdir().unwrap();
    let stage = Stage::start(config(dir.path())).await;
    let key = ("x-amz-firehose-access-key", "firehose-key");
    let id = ("x-amz-firehose-request-id", "ed4acda5-0000-4000-8000-000000000000");
    let firehose = |name, status, headers: &[_]| {
        let events = if status == 200 {
            vec!["prod/4e69a604-35b1-42ea-a845-1ec9e29f3823", "prod/p", "prod/d"]
        } else {
            vec![]
        };
        let body = corpus("eks/firehose.json");
        with(Case { body, events, ..case(name, "/firehose", status) }, headers)
    };
    for case in [
        firehose("records", 200, &[key, id]),
        firehose("an id in the body alone", 200, &[key]),
        firehose("a wrong key", 401, &[("x-amz-firehose-access-key", "no"), id]),
        firehose("a bearer token", 401, &[("authorization", TOKEN), id]),
    ] {
        let response = send(&stage, &case).await;
        let (name, taken) = (case.name, stage.taken());
        assert_eq!(response.status().as_u16(), case.status, "{name}");
        assert_eq!(taken.events.len(), case.events.len(), "{name}");
        assert!(taken.events.iter().all(|(cluster, _)| cluster.as_deref() == Some("prod")));
        let answer: serde_json::Value =
            serde_json::from_str(&response.text().await.unwrap()).unwrap();
        assert_eq!(answer["requestId"], id.1, "{name}");
        assert!(answer["timestamp"].as_i64().unwrap() > 1_700_000_000_000, "{name}");
        assert_eq!(answer["errorMessage"].is_string(), case.status != 200, "{name}");
    }
    for (name, path, headers, status) in [
        ("a token in the query", "/push/gke?token=push-token", vec![], 200),
        ("a bearer token", "/push/gke/", vec![("authorization", "Bearer push-token")], 200),
        ("a wrong token", "/push/gke?token=push", vec![], 401),
        (
            "a wrong token beside a right one",
            "/push/gke?token=x",
            vec![("authorization", "Bearer push-token")],
            401,
        ),
        ("another door's token", "/push/gke", vec![("authorization", TOKEN)], 401),
        ("no token", "/push/gke", vec![], 401),
    ] {
        let body = corpus("gke/pubsub-push.json");
        let response = send(&stage, &Case { headers, body, ..case(name, path, status) }).await;
        assert_eq!(response.status().as_u16(), status, "{name}");
        let clusters: Vec<_> =
            stage.taken().events.into_iter().map(|(cluster, _)| cluster).collect();
        assert_eq!(clusters, vec![Some("gke-1".to_owned()); usize::from(status == 200)], "{name}");
    }
    stage.stop().await;
}

#[tokio::test]
async fn refuses_other_methods_and_paths() {
    let stage = Stage::start(Config::default()).await;
    let client = Client::builder().no_proxy().build().unwrap();
    for (method, path, status) in [
        (Method::GET, "/audit", 405),
        (Method::HEAD, "/audit", 405),
        (Method::PUT, "/audit/x", 405),
        (Method::DELETE, "/audit/", 405),
        (Method::OPTIONS, "/audit", 405),
        (Method::POST, "/", 404),
        (Method::POST, "/auditor", 404),
        (Method::POST, "/audit/a/b", 404),
        (Method::POST, "/firehose", 404),
        (Method::GET, "/metrics", 404),
    ] {
        let response = client.request(method.clone(), stage.url(path)).send().await.unwrap();
        assert_eq!(response.status().as_u16(), status, "{method} {path}");
        assert_eq!(response.headers().contains_key("allow"), status == 405, "{method} {path}");
    }
    stage.stop().await;
}

#[tokio::test]
async fn answers_when_the_batch_is_durable_and_not_before() {
    let stage = Stage::start(Config::default()).await;
    stage.set(Mode::Hold);
    let apiserver = ApiServer::plain(&stage.url("/audit"));
    let post = tokio::spawn(async move { apiserver.post(batch("a", 3).into()).await });
    stage.held(1).await;
    // A second request that is refused shows that the first one had every chance to be answered.
    let client = Client::builder().no_proxy().build().unwrap();
    client.post(stage.url("/audit/nobody")).body("x").send().await.unwrap();
    assert!(!post.is_finished());
    assert_eq!(stage.taken().batches, 0);
    stage.set(Mode::Accept);
    assert_eq!(post.await.unwrap().unwrap().status().as_u16(), 200);
    assert_eq!(stage.taken().events.len(), 3);
    stage.stop().await;
}

#[tokio::test]
async fn says_when_to_try_again() {
    let stage = Stage::start(Config::default()).await;
    let apiserver = ApiServer::plain(&stage.url("/audit"));
    for (refused, after) in [(Refused::Full, 5), (Refused::Closed, 5)] {
        stage.set(Mode::Refuse(refused));
        let response = apiserver.post(batch("a", 1).into()).await.unwrap();
        assert_eq!(response.status().as_u16(), 503);
        assert_eq!(response.headers()["retry-after"], after.to_string());
        let is_last = response.headers().get("connection").is_some_and(|value| value == "close");
        assert_eq!(is_last, refused == Refused::Closed);
    }
    stage.set(Mode::Hold);
    // Each takes a megabyte and waits; the queue holds four.
    let large = event_list(&[event("large", &"x".repeat(1 << 20))]);
    let mut posts: Vec<_> = (0..8)
        .map(|_| {
            let (apiserver, body) = (apiserver.clone(), large.clone());
            tokio::spawn(async move { apiserver.post(body.into()).await.unwrap() })
        })
        .collect();
    // Those that find no room are answered while the others wait.
    for _ in 0..5 {
        let (response, _, rest) = futures_util::future::select_all(posts).await;
        posts = rest;
        let response = response.unwrap();
        assert_eq!(response.status().as_u16(), 503);
        let after: u64 = response.headers()["retry-after"].to_str().unwrap().parse().unwrap();
        assert!((1..=3).contains(&after));
    }
    stage.set(Mode::Accept);
    for post in posts {
        assert_eq!(post.await.unwrap().status().as_u16(), 200);
    }
    stage.stop().await;
}

#[tokio::test]
async fn drains_and_ends() {
    let stage = Stage::start(Config::default()).await;
    let apiserver = ApiServer::plain(&stage.url("/audit"));
    // This connection stays open, and must not hold up the end.
    assert!(apiserver.post(batch("a", 1).into()).await.unwrap().status().is_success());
    stage.set(Mode::Hold);
    let post = tokio::spawn({
        let apiserver = ApiServer::plain(&stage.url("/audit"));
        async move { apiserver.post(batch("b", 3).into()).await }
    });
    stage.held(2).await;
    stage.cancelled.cancel();
    stage.set(Mode::Accept);
    assert_eq!(post.await.unwrap().unwrap().status().as_u16(), 200);
    let pipeline = stage.pipeline.clone();
    stage.running.await.unwrap();
    assert_eq!(pipeline.taken.lock().unwrap().events.len(), 4);
    assert!(apiserver.post(batch("c", 1).into()).await.is_err());
}

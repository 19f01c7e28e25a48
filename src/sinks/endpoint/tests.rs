//! The decision table, and what a client never does.

use axum::http::Response;

use super::fake::{Fake, answer};
use super::*;

fn client(url: &str) -> Client {
    Client::new(url, &Config::default(), true).unwrap()
}

#[test]
fn every_status_has_its_verdict() {
    for (statuses, expected) in [
        (&[200, 201, 202, 204][..], "ok"),
        (&[408, 425, 429, 500, 502, 503, 504, 507, 529, 418][..], "retry"),
        (&[413][..], "split"),
        (&[400, 422, 409][..], "bisect"),
        (&[301, 302, 307, 308, 401, 403, 404, 405, 410, 411, 415, 501][..], "block"),
    ] {
        for status in statuses {
            let found = match (Answer { status: *status, ..Answer::default() }).judge() {
                Ok(()) => "ok",
                Err(SendError::Retry { .. }) => "retry",
                Err(SendError::TooLarge { .. }) => "split",
                Err(SendError::Reject { .. }) => "bisect",
                Err(SendError::Block { .. }) => "block",
            };
            assert_eq!(found, expected, "{status}");
        }
    }
}

#[tokio::test]
async fn redirects_are_not_followed_and_bodies_are_compressed() {
    let other = Fake::start(|_| answer(200, "")).await;
    let location = format!("{}/elsewhere", other.url);
    let fake = Fake::start(move |_| {
        let response = Response::builder().status(307).header("location", &location);
        response.body("".into()).unwrap()
    })
    .await;
    let body = b"x".repeat(10_000);
    let answer = client(&fake.url).post("a/b?c=1", HeaderMap::new(), body.clone()).await.unwrap();
    let error = answer.judge().unwrap_err().to_string();
    assert!(error.contains("a redirect is never followed"), "{error}");
    let seen = fake.take().remove(0);
    assert_eq!((seen.uri.to_string().as_str(), seen.body), ("/a/b?c=1", body));
    assert_eq!(seen.headers["content-encoding"], "gzip");
    assert!(other.take().is_empty());
}

#[tokio::test]
async fn certificates_that_were_exchanged_are_read_again() {
    let made = || rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let (old, new) = (made(), made());
    let fake = Fake::start_tls(&new).await;
    let dir = tempfile::tempdir().unwrap();
    let ca_file = dir.path().join("ca.pem");
    std::fs::write(&ca_file, old.cert.pem()).unwrap();
    let config = Config { ca_file: Some(ca_file.clone()), ..Config::default() };
    let mut client = Client::new(&fake.url, &config, false).unwrap();
    let refused = client.post("", HeaderMap::new(), vec![]).await.unwrap_err();
    assert!(matches!(refused, SendError::Block { .. }), "{refused}");
    std::fs::write(&ca_file, new.cert.pem()).unwrap();
    // What was delivered is no reason to look.
    client.renew_after(&Ok(Delivered::default()));
    let refused = client.post("", HeaderMap::new(), vec![]).await.unwrap_err();
    client.renew_after(&Err(refused));
    assert_eq!(client.post("", HeaderMap::new(), vec![]).await.unwrap().status, 200);
}

#[tokio::test]
async fn an_answer_says_when_to_come_again() {
    for (value, least, most) in [
        ("7", 7, 7),
        ("Fri, 31 Dec 2100 23:59:59 GMT", 1_000_000, u64::MAX),
        ("Fri, 31 Dec 1999 23:59:59 GMT", 0, 0),
    ] {
        let response = move || {
            Response::builder().status(503).header("retry-after", value).body("".into()).unwrap()
        };
        let fake = Fake::start(move |_| response()).await;
        let answer = client(&fake.url).post("", HeaderMap::new(), vec![]).await.unwrap();
        let Err(SendError::Retry { after: Some(after), .. }) = answer.judge() else {
            panic!("{answer:?}")
        };
        assert!((least..=most).contains(&after.as_secs()), "{value}: {after:?}");
    }
}

#[tokio::test]
async fn what_cannot_be_reached_is_tried_again_and_never_named_in_full() {
    let url = "http://127.0.0.1:1/services/T000/secret-part";
    let error = client(url).post("", HeaderMap::new(), vec![]).await.unwrap_err();
    assert!(matches!(&error, SendError::Retry { .. }), "{error}");
    let error = error.to_string();
    assert!(error.contains("127.0.0.1") && error.contains("refused"), "{error}");
    assert!(!error.contains("secret-part"), "{error}");
}

#[test]
fn a_wrong_endpoint_is_refused() {
    for (url, part) in [
        ("ftp://a/", "must begin with"),
        ("a", "relative URL"),
        ("https://user:pass@a/", "put it under `auth`"),
    ] {
        let error = Client::new(url, &Config::default(), false).err().unwrap();
        assert!(error.contains(part), "{error}");
    }
    let config = Config { cert_file: Some("/c".into()), ..Config::default() };
    assert!(Client::new("https://a", &config, false).is_err());
    let config = Config { ca_file: Some("/none".into()), ..Config::default() };
    assert!(Client::new("https://a", &config, false).err().unwrap().contains("/none"));
}

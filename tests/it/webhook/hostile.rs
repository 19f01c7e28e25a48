//! Callers that mean harm: each gets the status or the close that is due, and an honest caller is
//! served afterwards.

use std::net::{IpAddr, SocketAddr};

use kubewitness::ingest::webhook::config::{Config, Limits, Token};
use kubewitness::units::{Size, Span};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use crate::apiserver::{ApiServer, batch, event, event_list};
use crate::webhook::{Stage, gzip};

const TOKEN: &str = "a-token-of-some-length";

/// Limits so low that every one is met, and that what one caller keeps another one lacks.
fn limits() -> Limits {
    Limits {
        body_bytes_max: Size::mib(3),
        event_bytes_max: Size::mib(1),
        buffer_bytes_max: Size::mib(1),
        header_bytes_max: Size(16 << 10),
        connections_max: 200,
        connections_per_peer_max: 40,
        requests_max: 2,
        header_timeout: Span::from_millis(400),
        idle_timeout: Span::from_millis(800),
        body_grace: Span::from_millis(400),
        ..Limits::default()
    }
}

async fn stage(dir: &std::path::Path, limits: Limits) -> Stage {
    let file = dir.join("token");
    std::fs::write(&file, TOKEN).unwrap();
    let tokens = vec![Token { file, cluster: None }];
    Stage::start(Config { tokens, limits, ..Config::default() }).await
}

async fn honest(stage: &Stage, name: &str) {
    let apiserver = ApiServer::plain(&stage.url("/audit")).token(TOKEN).scale(0.01);
    assert!(apiserver.send(batch("a", 2)).await.is_delivered, "{name}");
    assert_eq!(stage.taken().ids(), ["a-0", "a-1"], "{name}");
}

/// Sends bytes, the last of them again and again when `is_endless`, and reads until the other end
/// closes.
async fn raw(address: SocketAddr, head: &[u8], again: Option<&[u8]>) -> Vec<u8> {
    let stream = TcpStream::connect(address).await.unwrap();
    let (mut reader, mut writer) = stream.into_split();
    let (head, again) = (head.to_vec(), again.map(<[u8]>::to_vec));
    let writing = tokio::spawn(async move {
        let mut is_open = writer.write_all(&head).await.is_ok();
        while let (true, Some(again)) = (is_open, &again) {
            is_open = writer.write_all(again).await.is_ok();
        }
        writer
    });
    let mut answer = Vec::new();
    // A reset is a close as well.
    _ = reader.read_to_end(&mut answer).await;
    drop(writing.await.unwrap());
    answer
}

fn post(headers: &str, body: &[u8]) -> Vec<u8> {
    let head = format!("POST /audit HTTP/1.1\r\nHost: audit\r\n{headers}\r\n");
    [head.as_bytes(), body].concat()
}

/// A request with the right token.
fn known(headers: &str, body: &[u8]) -> Vec<u8> {
    post(&format!("Authorization: Bearer {TOKEN}\r\n{headers}"), body)
}

/// The status of the first answer; 0 for a close without one.
fn status(answer: &[u8]) -> u16 {
    let text = String::from_utf8_lossy(answer);
    text.strip_prefix("HTTP/1.1 ").and_then(|rest| rest[..3].parse().ok()).unwrap_or(0)
}

/// A name, what is sent at first, what is sent again and again, and the status; 0 for a close.
type Hostile<'c> = (&'c str, Vec<u8>, Option<&'c [u8]>, u16);

#[tokio::test]
async fn refuses_each_and_serves_on() {
    let dir = tempfile::tempdir().unwrap();
    let stage = stage(dir.path(), limits()).await;
    let headers = |count: usize| (0..count).map(|n| format!("X-{n}: y\r\n")).collect::<String>();
    let long = format!("X: {}\r\n", "y".repeat(100_000));
    let list = event_list(&[event("a", &"x".repeat(4_000))]);
    let chunk = [format!("{:x}\r\n", list.len()).as_bytes(), &list, b"\r\n"].concat();
    let bomb = gzip(&vec![b' '; 2 << 20]);
    let gz = format!("Content-Encoding: gzip\r\nContent-Length: {}\r\n", bomb.len());
    let close = "Connection: close\r\n";
    let cases: Vec<Hostile<'_>> = vec![
        ("silence", vec![], None, 0),
        ("a slow head", b"POST /audit HTTP/1.1\r\nHost: a\r\n".to_vec(), None, 0),
        ("a head that does not end", post("", b"")[..30].to_vec(), Some(b"X: y\r\n"), 431),
        ("a slow body", known("Content-Length: 1000\r\n", b"{\"kind\""), None, 408),
        ("a slow chunk", known("Transfer-Encoding: chunked\r\n", b"5\r\nhel"), None, 408),
        ("a slow body of nobody", post("Content-Length: 1000\r\n", b"{"), None, 401),
        ("an endless body", known("Transfer-Encoding: chunked\r\n", b""), Some(&chunk), 413),
        (
            "an endless body of nobody",
            post("Transfer-Encoding: chunked\r\n", b""),
            Some(&chunk),
            401,
        ),
        ("a long header", known(&long, b""), None, 431),
        ("many headers", known(&headers(200), b""), None, 431),
        ("a huge length", known("Content-Length: 999999999999\r\n", b"{"), None, 413),
        ("a length that is none", known("Content-Length: -1\r\n", b"{"), None, 400),
        ("two lengths", known("Content-Length: 1\r\nContent-Length: 2\r\n", b"{"), None, 400),
        ("a gzip bomb", known(&gz, &bomb), None, 413),
        ("no token", post(&format!("Content-Length: 2\r\n{close}"), b"{}"), None, 401),
        (
            "garbage",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 hello\r\n\r\n".to_vec(),
            None,
            400,
        ),
        ("another protocol", b"SSH-2.0-OpenSSH_9.9\r\n".to_vec(), None, 400),
        (
            "a tunnel",
            b"CONNECT audit:443 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".to_vec(),
            None,
            404,
        ),
    ];
    for (name, head, again, expected) in cases {
        let answer = raw(stage.address, &head, again).await;
        assert_eq!(status(&answer), expected, "{name}: {}", String::from_utf8_lossy(&answer));
        assert!(!String::from_utf8_lossy(&answer).contains(TOKEN), "{name}");
        // What an endless body brought before it was refused is stored, as it would be of a caller
        // that dies.
        stage.taken();
        honest(&stage, name).await;
    }
    stage.stop().await;
}

/// A frame of HTTP/2.
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let stream = stream.to_be_bytes();
    [&length[1..], &[kind, flags], &stream[..], payload].concat()
}

const HEADERS: u8 = 1;
const RESET: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const CONTINUATION: u8 = 9;
const END_HEADERS: u8 = 4;

/// The code with which an answer over HTTP/2 goes away, if it does.
fn goes_away(answer: &[u8]) -> Option<u8> {
    let (mut rest, mut code) = (answer, None);
    while let Some((head, behind)) = rest.split_at_checked(9) {
        let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
        let (payload, behind) = behind.split_at_checked(length)?;
        if head[3] == GOAWAY {
            code = payload.get(7).copied();
        }
        rest = behind;
    }
    code
}

/// What a connection over HTTP/2 starts with, and a POST that is not authenticated.
fn http2(frames: &[Vec<u8>]) -> Vec<u8> {
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    [&[preface, frame(SETTINGS, 0, 0, b"")], frames].concat().concat()
}

/// `:method POST`, `:scheme http`, `:path /audit`, `:authority a`, in HPACK.
const POST: &[u8] = b"\x83\x86\x04\x06/audit\x01\x01a";

#[tokio::test]
async fn refuses_abuse_of_http2() {
    let dir = tempfile::tempdir().unwrap();
    let stage = stage(dir.path(), limits()).await;
    let opened_and_reset = |number: u32| {
        let stream = 2 * number + 1;
        [frame(HEADERS, END_HEADERS, stream, POST), frame(RESET, 0, stream, &[0, 0, 0, 8])].concat()
    };
    let opened = |number: u32| frame(HEADERS, END_HEADERS, 2 * number + 1, POST);
    let many: Vec<Vec<u8>> = (0..300)
        .map(|n| {
            let name = format!("x{n:03}");
            [b"\x00\x04", name.as_bytes(), b"\x7f\x00", &[b'y'; 127][..]].concat()
        })
        .collect();
    let block = frame(CONTINUATION, 0, 1, &many.concat()[..16_000]);
    for (name, frames, again, expected) in [
        ("resets", (0..5_000).map(opened_and_reset).collect::<Vec<_>>(), None, Some(11)),
        (
            "more streams than allowed, and no bodies",
            (0..1_000).map(opened).collect(),
            None,
            Some(0),
        ),
        (
            "a head that does not end",
            vec![frame(HEADERS, 0, 1, POST)],
            Some(block.as_slice()),
            Some(1),
        ),
        ("a head that stops", vec![frame(HEADERS, 0, 1, POST)], None, None),
        ("nothing", vec![], None, None),
        ("settings again and again", vec![], Some(frame(SETTINGS, 0, 0, b"").as_slice()), None),
        ("a frame too large", vec![frame(HEADERS, 0, 1, &vec![0; 20_000])], None, Some(6)),
    ] {
        let answer = raw(stage.address, &http2(&frames), again).await;
        assert_eq!(goes_away(&answer), expected, "{name}");
        honest(&stage, name).await;
    }
    stage.stop().await;
}

#[tokio::test]
async fn one_address_cannot_take_all_connections() {
    let dir = tempfile::tempdir().unwrap();
    // Time enough for the honest one on a busy machine.
    let limits = Limits { header_timeout: Span::from_secs(3), ..limits() };
    let stage = stage(dir.path(), limits).await;
    let connect = async |address: [u8; 4]| {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::from((address, 0))).unwrap();
        socket.connect(stage.address).await.unwrap()
    };
    let mut held = Vec::new();
    for _ in 0..500 {
        held.push(connect([127, 0, 0, 9]).await);
    }
    let honest = reqwest::Client::builder()
        .no_proxy()
        .local_address(IpAddr::from([127, 0, 0, 2]))
        .build()
        .unwrap();
    let post = honest.post(stage.url("/audit")).bearer_auth(TOKEN).body(batch("a", 1));
    assert_eq!(post.send().await.unwrap().status().as_u16(), 200);
    // All of them are closed: those beyond the limit at once, the others as they say nothing.
    for mut stream in held {
        _ = stream.read(&mut [0; 1]).await;
    }
    stage.stop().await;
}

/// More requests than are served at a time: each is taken or told to come again, none is lost.
#[tokio::test]
async fn a_crowd_is_served_in_turns() {
    let dir = tempfile::tempdir().unwrap();
    let stage = stage(dir.path(), limits()).await;
    let apiserver = ApiServer::plain(&stage.url("/audit")).token(TOKEN).scale(0.01);
    let posts = (0..30).map(|number| {
        let apiserver = apiserver.clone();
        tokio::spawn(async move { apiserver.send(batch(&format!("{number}"), 50)).await })
    });
    for post in posts.collect::<Vec<_>>() {
        assert!(post.await.unwrap().is_delivered);
    }
    assert_eq!(stage.taken().events.len(), 30 * 50);
    stage.stop().await;
}

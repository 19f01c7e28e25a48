//! Peers that take everything, on threads of their own: HTTP, and syslog with and without TLS.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::{ServerConfig, ServerConnection, StreamOwned};

/// Ports on loopback.
pub struct Peer {
    /// Answers every POST as Splunk, Elasticsearch and others do that are content.
    pub http: u16,
    /// Reads to the end, and closes.
    pub syslog: u16,
    /// The same over TLS.
    pub tls: u16,
    /// The certificate to trust there.
    pub ca: PathBuf,
}

/// Starts all of them; they end with the process.
pub fn start(dir: &Path) -> Peer {
    let own = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    let ca = dir.join("ca.pem");
    std::fs::write(&ca, own.cert.pem()).expect("a temporary file can be written");
    let key = rustls_pki_types::PrivateKeyDer::try_from(own.signing_key.serialize_der());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("protocols")
        .with_no_client_auth()
        .with_single_cert(vec![own.cert.der().clone()], key.expect("a key"))
        .expect("a certificate and its key");
    let config = Arc::new(config);
    Peer {
        http: listen(answer),
        syslog: listen(|mut stream| drain(&mut stream)),
        tls: listen(move |stream| {
            let session = ServerConnection::new(Arc::clone(&config)).expect("a session");
            let mut stream = StreamOwned::new(session, stream);
            drain(&mut stream);
            stream.conn.send_close_notify();
            // Whoever is gone needs no farewell.
            let _ = stream.flush();
        }),
        ca,
    }
}

fn listen(serve: impl Fn(TcpStream) + Send + Sync + 'static) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let serve = Arc::new(serve);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let serve = Arc::clone(&serve);
            std::thread::spawn(move || serve(stream));
        }
    });
    port
}

fn drain(stream: &mut impl Read) {
    let mut bytes = vec![0; 256 << 10];
    while stream.read(&mut bytes).is_ok_and(|read| read > 0) {}
}

/// Answers each request when it has read it.
fn answer(mut stream: TcpStream) {
    let mut bytes = Vec::new();
    let mut read = vec![0; 256 << 10];
    loop {
        let head = loop {
            if let Some(at) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
                break at + 4;
            }
            match stream.read(&mut read) {
                Ok(count @ 1..) => bytes.extend_from_slice(&read[..count]),
                _ => return,
            }
        };
        let text = String::from_utf8_lossy(&bytes[..head]).to_lowercase();
        let length = text.split("content-length: ").nth(1).and_then(|rest| rest.lines().next());
        let length: usize = length.map_or(0, |digits| digits.parse().expect("a length"));
        let mut left = (head + length).saturating_sub(bytes.len());
        while left > 0 {
            match stream.read(&mut read) {
                Ok(count @ 1..) => left -= count,
                _ => return,
            }
        }
        bytes.clear();
        let body = match text.contains("/ack?") {
            true => r#"{"acks":{"0":true}}"#,
            false => r#"{"code":0,"ackId":0,"errors":false,"items":[]}"#,
        };
        let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        if stream.write_all(answer.as_bytes()).is_err() {
            return;
        }
    }
}

//! A client that costs little: bodies that are made once and renewed in place, over HTTP/1.1.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use kubewitness::alert::time::EventTime;
use kubewitness::clock::Stopwatch;

/// What an audit id is as text.
const ID_BYTES: usize = 36;

/// The key that a line has and an item of a list has not.
const LINE_HEAD: &[u8] = br#""kind":"Event","apiVersion":"audit.k8s.io/v1","#;

/// How a time is written with microseconds.
const TIME_BYTES: usize = 27;

/// An EventList whose items get other audit ids each time it is sent, and later times.
#[derive(Clone)]
pub struct Body {
    bytes: Vec<u8>,
    ids: Vec<usize>,
    /// Where times stand, and what they were at first; microseconds.
    times: Vec<(usize, i64)>,
    /// How much later the times are each time it is sent.
    span_us: i64,
    sent: i64,
}

impl Body {
    /// Bodies of so many events each, of as many lines as there are. Sent one after the other,
    /// again and again, they are one stream of time.
    pub fn all(lines: &[u8], events: usize) -> Vec<Body> {
        let lines: Vec<&[u8]> =
            lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).collect();
        let mut bodies: Vec<Body> = lines.chunks_exact(events).map(Body::of).collect();
        let times =
            || bodies.iter().flat_map(|body| body.times.iter().map(|(_, time_us)| *time_us));
        let span_us = times().max().unwrap_or(0) - times().min().unwrap_or(0) + 1_000;
        bodies.iter_mut().for_each(|body| body.span_us = span_us);
        bodies
    }

    fn of(lines: &[&[u8]]) -> Body {
        let head = br#"{"kind":"EventList","apiVersion":"audit.k8s.io/v1","metadata":{},"items":["#;
        let mut bytes = head.to_vec();
        for (number, line) in lines.iter().enumerate() {
            if number > 0 {
                bytes.push(b',');
            }
            bytes.push(b'{');
            let rest = &line[1..];
            bytes.extend_from_slice(rest.strip_prefix(LINE_HEAD).unwrap_or(rest));
        }
        bytes.extend_from_slice(b"]}");
        let behind = |key: &[u8]| {
            memchr::memmem::find_iter(&bytes, key).map(|at| at + key.len()).collect::<Vec<_>>()
        };
        let ids = behind(br#""auditID":""#);
        let keys = [&br#""requestReceivedTimestamp":""#[..], br#""stageTimestamp":""#];
        let times = keys.iter().flat_map(|key| behind(key)).filter_map(|at| {
            let text = std::str::from_utf8(bytes.get(at..at + TIME_BYTES)?).ok()?;
            Some((at, text.parse::<EventTime>().ok()?.0))
        });
        let times = times.collect();
        Body { bytes, ids, times, span_us: 0, sent: 0 }
    }

    /// How long it is.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Gives every event an audit id that none had before, and the times of this turn.
    pub fn renew(&mut self, connection: u32, counter: &mut u64) {
        for at in &self.ids {
            *counter += 1;
            let id = format!("{connection:08x}-0000-4000-8000-{counter:012x}");
            self.bytes[*at..*at + ID_BYTES].copy_from_slice(id.as_bytes());
        }
        for (at, time_us) in &self.times {
            let time = EventTime(time_us + self.sent * self.span_us).to_string();
            self.bytes[*at..*at + TIME_BYTES].copy_from_slice(time.as_bytes());
        }
        self.sent += 1;
    }
}

/// One connection, kept open.
pub struct Client {
    stream: BufReader<TcpStream>,
    address: String,
}

impl Client {
    /// Connects.
    pub fn connect(address: &str) -> Client {
        let stream = TcpStream::connect(address).expect("it listens");
        stream.set_nodelay(true).expect("it is a socket");
        Client { stream: BufReader::new(stream), address: address.to_owned() }
    }

    /// Posts and waits for the answer: its status, and the time it took.
    pub fn post(&mut self, body: &Body) -> (u16, Duration) {
        let head = format!(
            "POST /audit HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n",
            body.len()
        );
        let clock = Stopwatch::start();
        let stream = self.stream.get_mut();
        stream.write_all(head.as_bytes()).expect("it reads");
        stream.write_all(&body.bytes).expect("it reads");
        let (status, is_last) = self.answer();
        if is_last {
            *self = Client::connect(&self.address);
        }
        (status, clock.elapsed())
    }

    fn answer(&mut self) -> (u16, bool) {
        let (mut status, mut length, mut is_last) = (0, 0, false);
        loop {
            let mut line = String::new();
            self.stream.read_line(&mut line).expect("it answers");
            let line = line.trim_end().to_ascii_lowercase();
            if let Some(rest) = line.strip_prefix("http/1.1 ") {
                status = rest[..3].parse().expect("a status is a number");
            } else if let Some(text) = line.strip_prefix("content-length: ") {
                length = text.parse().expect("a length is a number");
            } else if line.is_empty() {
                break;
            }
            is_last |= line == "connection: close";
        }
        self.stream.read_exact(&mut vec![0; length]).expect("the body follows");
        (status, is_last)
    }
}

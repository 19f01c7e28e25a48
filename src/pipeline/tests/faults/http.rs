//! A server over HTTP that fails by a seeded schedule: what it answers, and when it breaks off.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;
use std::sync::{Arc, Mutex, MutexGuard};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::pipeline::tests::faults::{Random, Stored, tokens};

/// Whose API it speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Service {
    /// Takes whatever is posted, all of a request or nothing.
    Plain,
    /// OTLP: may take a part, and does not say which.
    Otlp,
    /// Splunk's collector, without acknowledgement.
    Splunk,
    /// Splunk's collector: what no indexer has acknowledged is lost when an indexer dies.
    SplunkAcks,
    /// `_bulk`, with an answer for each document.
    Elasticsearch,
}

/// What befalls one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    None,
    /// Broken off before anything is done.
    Reset,
    /// This and the next requests are broken off.
    Die,
    /// Done, and broken off instead of answered.
    Unanswered,
    /// Done, and broken off in the middle of the answer.
    Cut,
    Status(u16),
    TooLarge,
    /// Some of it is done; with acknowledgements, an indexer dies.
    Partial,
}

/// The server.
pub(crate) struct Far {
    service: Service,
    state: Mutex<State>,
}

struct State {
    random: Random,
    faults_left: usize,
    /// So many more requests are broken off.
    dead: usize,
    requests: usize,
    stored: Vec<Stored>,
    /// Taken and not yet acknowledged, by channel and number.
    pending: BTreeMap<(String, u64), Stored>,
    acks: u64,
    /// `_id`s of documents.
    ids: BTreeSet<String>,
}

enum Reply {
    Whole(Vec<u8>),
    Half(Vec<u8>),
    Reset,
}

struct Request {
    path: String,
    head: BTreeMap<String, String>,
    body: String,
}

impl Far {
    /// Starts one that meets so many faults; returns it with its address.
    pub(crate) async fn start(service: Service, seed: u64, faults: usize) -> (Arc<Far>, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let state = State {
            random: Random(seed),
            faults_left: faults,
            dead: 0,
            requests: 0,
            stored: Vec::new(),
            pending: BTreeMap::new(),
            acks: 0,
            ids: BTreeSet::new(),
        };
        let far = Arc::new(Far { service, state: Mutex::new(state) });
        let own = Arc::clone(&far);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, Arc::clone(&own)));
            }
        });
        (far, address)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Requests so far.
    pub(crate) fn requests(&self) -> usize {
        self.state().requests
    }

    /// What it has for good, in the order in which it came.
    pub(crate) fn stored(&self) -> Vec<Stored> {
        self.state().stored.clone()
    }

    /// From now on it breaks off every request.
    pub(crate) fn break_down(&self) {
        self.state().dead = usize::MAX;
    }

    /// From now on it fails no more.
    pub(crate) fn heal(&self) {
        let mut state = self.state();
        (state.faults_left, state.dead) = (0, 0);
    }

    fn answer(&self, request: &Request) -> Reply {
        let state = &mut *self.state();
        state.requests += 1;
        let fault = state.draw();
        let (status, body) = match fault {
            Fault::Reset | Fault::Die => return Reply::Reset,
            Fault::Status(status) => (status, json!({"text": "not now", "code": 0})),
            Fault::TooLarge if tokens(&request.body).len() > 1 => (413, json!({})),
            _ => state.take(self.service, request, fault == Fault::Partial),
        };
        let body = body.to_string();
        let mut answer = format!("HTTP/1.1 {status} Said\r\ncontent-length: {}\r\n", body.len());
        if status >= 400 {
            answer.push_str("retry-after: 0\r\n");
        }
        answer.push_str(&format!("content-type: application/json\r\n\r\n{body}"));
        match fault {
            Fault::Unanswered => Reply::Reset,
            Fault::Cut => Reply::Half(answer.into_bytes()),
            _ => Reply::Whole(answer.into_bytes()),
        }
    }
}

impl State {
    fn draw(&mut self) -> Fault {
        if self.dead > 0 {
            self.dead -= 1;
            return Fault::Reset;
        }
        if self.faults_left == 0 || self.random.below(10) < 4 {
            return Fault::None;
        }
        self.faults_left -= 1;
        let status = [429, 500, 503, 403, 401, 404, 307][self.random.below(7)];
        let faults = [
            Fault::Reset,
            Fault::Die,
            Fault::Unanswered,
            Fault::Cut,
            Fault::Status(status),
            Fault::TooLarge,
            Fault::Partial,
        ];
        let fault = faults[self.random.below(faults.len())];
        if fault == Fault::Die {
            self.dead = 1 + self.random.below(4);
        }
        fault
    }

    /// Does what is asked, or a part of it.
    fn take(&mut self, service: Service, request: &Request, is_partial: bool) -> (u16, Value) {
        let stored = |text: &str| Stored::of(text, &request.header("idempotency-key"));
        match service {
            Service::Elasticsearch => return self.bulk(&request.body, is_partial),
            Service::SplunkAcks if request.path.contains("/ack") => return self.ack(request),
            Service::Plain if is_partial => return (503, json!({})),
            Service::Splunk if is_partial => return (503, json!({"code": 9})),
            _ => {}
        }
        let is_poison = request.body.contains("-poison");
        match service {
            Service::Plain if is_poison => (400, json!({"error": "poison"})),
            Service::Otlp if is_poison => {
                let sound = tokens(&request.body).into_iter();
                let sound = sound.filter(|n| !request.body.contains(&format!("{n:06}-poison")));
                let part = Stored { tokens: sound.collect(), ..stored(&request.body) };
                self.stored.push(part);
                (200, json!({"partialSuccess": {"rejectedLogRecords": "1", "errorMessage": "p"}}))
            }
            Service::Splunk | Service::SplunkAcks if is_poison => {
                // What stands before the one that cannot be read is taken.
                let sound = request.body.lines().take_while(|line| !line.contains("-poison"));
                let text: Vec<&str> = sound.collect();
                if service == Service::Splunk && !text.is_empty() {
                    self.stored.push(stored(&text.join("\n")));
                }
                (400, json!({"code": 6, "invalid-event-number": text.len()}))
            }
            Service::SplunkAcks => {
                if is_partial {
                    self.pending.clear();
                }
                let (channel, ack) = (request.header("x-splunk-request-channel"), self.acks);
                self.acks += 1;
                self.pending.insert((channel, ack), stored(&request.body));
                (200, json!({"code": 0, "ackId": ack}))
            }
            _ => {
                self.stored.push(stored(&request.body));
                (200, json!({"code": 0}))
            }
        }
    }

    /// An acknowledgement is given once; a lost indexer gives none.
    fn ack(&mut self, request: &Request) -> (u16, Value) {
        let asked: Value = serde_json::from_str(&request.body).unwrap();
        let ack = asked["acks"][0].as_u64().unwrap();
        let key = (request.header("x-splunk-request-channel"), ack);
        let is_slow = self.faults_left > 0 && self.random.below(2) == 0;
        let found = if is_slow { None } else { self.pending.remove(&key) };
        let is_there = found.is_some();
        self.stored.extend(found);
        (200, json!({"acks": {ack.to_string(): is_there}}))
    }

    fn bulk(&mut self, body: &str, is_partial: bool) -> (u16, Value) {
        let lines: Vec<&str> = body.lines().collect();
        let (mut items, mut errors) = (Vec::new(), false);
        for pair in lines.chunks(2) {
            let action: Value = serde_json::from_str(pair[0]).unwrap();
            let document: Value = serde_json::from_str(pair[1]).unwrap();
            let id = action["create"]["_id"].as_str().unwrap();
            let has_tree = !document["kubernetes"]["audit"]["requestObject"].is_null();
            let status = if is_partial && self.random.below(3) == 0 {
                [429, 503][self.random.below(2)]
            } else if pair[1].contains("-poison") || pair[1].contains("-awkward") && has_tree {
                400
            } else if self.ids.insert(id.to_owned()) {
                self.stored.push(Stored::of(&pair.join("\n"), ""));
                201
            } else {
                409
            };
            errors |= status != 201;
            let kind = if status == 400 { "document_parsing_exception" } else { "other" };
            items.push(match status {
                201 => json!({"create": {"status": 201}}),
                _ => json!({"create": {"status": status, "error": {"type": kind}}}),
            });
        }
        (200, json!({"errors": errors, "items": items}))
    }
}

impl Request {
    fn header(&self, name: &str) -> String {
        self.head.get(name).cloned().unwrap_or_default()
    }

    /// The next request of a connection; none when it ends.
    async fn read(stream: &mut TcpStream) -> Option<Request> {
        let mut bytes = Vec::new();
        let end = loop {
            if let Some(at) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
                break at;
            }
            if stream.read_buf(&mut bytes).await.ok()? == 0 {
                return None;
            }
        };
        let text = String::from_utf8(bytes[..end].to_vec()).unwrap();
        let mut lines = text.lines();
        let path = lines.next()?.split(' ').nth(1)?.to_owned();
        let pairs = lines.filter_map(|line| line.split_once(": "));
        let head: BTreeMap<String, String> =
            pairs.map(|(name, value)| (name.to_lowercase(), value.to_owned())).collect();
        let length: usize = head.get("content-length").map_or(0, |text| text.parse().unwrap());
        while bytes.len() < end + 4 + length {
            if stream.read_buf(&mut bytes).await.ok()? == 0 {
                return None;
            }
        }
        let mut body = bytes[end + 4..].to_vec();
        if head.get("content-encoding").is_some_and(|encoding| encoding == "gzip") {
            let mut plain = Vec::new();
            flate2::read::GzDecoder::new(&body[..]).read_to_end(&mut plain).unwrap();
            body = plain;
        }
        Some(Request { path, head, body: String::from_utf8(body).unwrap() })
    }
}

async fn serve(mut stream: TcpStream, far: Arc<Far>) {
    while let Some(request) = Request::read(&mut stream).await {
        match far.answer(&request) {
            Reply::Whole(bytes) => {
                if stream.write_all(&bytes).await.is_err() {
                    return;
                }
            }
            Reply::Half(bytes) => {
                // Whether it still arrives is all the same.
                let _ = stream.write_all(&bytes[..bytes.len() - 3]).await;
                return;
            }
            Reply::Reset => {
                stream.set_zero_linger().unwrap();
                return;
            }
        }
    }
}

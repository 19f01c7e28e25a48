//! Syslog (RFC 5424) over TCP (RFC 6587) or TLS (RFC 5425). Delivered means that the receiver read
//! all of a batch and closed the connection after it; with `confirm: none` only that the bytes were
//! handed to the network.
//!
//! Syslog has no acknowledgement: what lies in a buffer when a connection breaks is lost unnoticed.
//! So each batch has a connection of its own, which is closed on this side when all is written; a
//! receiver that closes it in its turn has read everything before the end. Over TLS it must close
//! with close_notify, as rsyslog and syslog-ng do: one that was killed does not.
//!
//! ```text
//! <PRI>1 TIME CLUSTER kubewitness - alerts [kubewitness@32473 id="…" seq="…"] MESSAGE
//! ```
//! A message that is longer than the receiver takes is replaced by one that says where the whole
//! of it is; nothing is cut.

mod connection;

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::event::time::format_us;
use crate::rule::Level;
use crate::sinks::encode::json::Object;
use crate::sinks::encode::{Format, Subject};
use crate::sinks::syslog::connection::{Connection, Tls};
use crate::sinks::{CheckError, Delivered, Item, RecordKind, SendError, Sink};
use crate::units::{Size, Span};

/// What is configured of a receiver.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Host and port: `siem:6514`.
    pub address: String,
    /// Encryption. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<connection::Config>,
    /// `octet_counting`, or `lf` (a line each). Default: octet_counting.
    #[serde(default)]
    pub framing: Framing,
    /// How a message is written: `native`, `ecs`, `ocsf`, `cef`, `leef`, `falco`. Default: native.
    #[serde(default)]
    pub format: Format,
    /// The facility's number. Default: 13, log audit.
    #[serde(default = "facility")]
    pub facility: u8,
    /// The largest message that the receiver takes, its header included. rsyslog's own limit is
    /// 8KiB, syslog-ng's 64KiB. Default: 8KiB.
    #[serde(default = "message_bytes_max")]
    pub message_bytes_max: Size,
    /// `close`: wait until the receiver has read all of a batch; `none`. Default: close.
    #[serde(default)]
    pub confirm: Confirm,
    /// So long connecting, writing and confirming may take together. Default: 30s.
    #[serde(default = "timeout")]
    pub timeout: Span,
}

/// How messages stand apart (RFC 6587).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Framing {
    /// Each behind its length in bytes.
    #[default]
    OctetCounting,
    /// Each on a line.
    Lf,
}

/// When a batch counts as delivered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Confirm {
    /// When the receiver has closed the connection after reading it to its end.
    #[default]
    Close,
    /// When its bytes were handed to the network: a broken connection may lose some.
    None,
}

fn facility() -> u8 {
    13
}

fn message_bytes_max() -> Size {
    Size(8 << 10)
}

fn timeout() -> Span {
    Span::from_secs(30)
}

/// No receiver takes fewer bytes (RFC 5424, 6.1).
const MESSAGE_BYTES_MIN: u64 = 480;

/// Writes messages.
pub struct Syslog {
    config: Config,
}

impl Syslog {
    /// A sink of this configuration; connects to nothing.
    ///
    /// # Errors
    /// What in the configuration cannot be.
    pub fn new(config: Config) -> Result<Syslog, String> {
        let (_, port) = config.address.rsplit_once(':').unwrap_or_default();
        if port.parse::<u16>().is_err() {
            return Err(format!("`address` {:?} must be host:port", config.address));
        }
        if config.facility > 23 {
            return Err(format!("`facility` {} must be 0 to 23", config.facility));
        }
        if config.message_bytes_max.0 < MESSAGE_BYTES_MIN {
            return Err(format!("`message_bytes_max` must be {MESSAGE_BYTES_MIN} or more"));
        }
        Ok(Syslog { config })
    }

    fn put(&self, item: &Item<'_>, out: &mut Vec<u8>) {
        let subject = Subject::of(item);
        let mut message = self.header(item, &subject);
        let head = message.len();
        self.config.format.encode(item, &mut message);
        if message.len() as u64 > self.config.message_bytes_max.0 {
            let bytes = message.len() - head;
            message.truncate(head);
            self.pointer(item, &subject, bytes, &mut message);
            metrics::counter!("kubewitness_sink_pointers_total").increment(1);
        }
        match self.config.framing {
            Framing::OctetCounting => {
                out.extend_from_slice(format!("{} ", message.len()).as_bytes());
                out.extend_from_slice(&message);
            }
            Framing::Lf => {
                out.extend_from_slice(&message);
                out.push(b'\n');
            }
        }
    }

    /// Everything before the message, a blank included.
    fn header(&self, item: &Item<'_>, subject: &Subject<'_>) -> Vec<u8> {
        let severity = match subject.alert.as_ref().map(|alert| alert.rule.level) {
            Some(Level::Critical) => 2,
            Some(Level::High) => 3,
            Some(Level::Medium) => 4,
            Some(Level::Low) => 5,
            Some(Level::Informational) => 6,
            None if matches!(item.kind(), RecordKind::Notices | RecordKind::Quarantine) => 4,
            None => 6,
        };
        let priority = u32::from(self.config.facility) * 8 + severity;
        let facts = &subject.facts;
        format!(
            "<{priority}>1 {} {} kubewitness - {} [kubewitness@32473 id=\"{}\" seq=\"{}\"] ",
            format_us(facts.time_us),
            name(&facts.cluster),
            item.kind().as_str(),
            subject.id,
            item.seq,
        )
        .into_bytes()
    }

    /// Says where the whole of a record is that is too long.
    fn pointer(&self, item: &Item<'_>, subject: &Subject<'_>, bytes: usize, out: &mut Vec<u8>) {
        let facts = &subject.facts;
        let cut = |text: &str| {
            let calm = |letter: char| if letter.is_ascii_graphic() { letter } else { '_' };
            text.chars().take(40).map(calm).collect::<String>()
        };
        let limit = self.config.message_bytes_max.0;
        let note = "longer than this receiver takes; the archive has it whole";
        if !self.config.format.is_json() {
            let (id, cluster) = (&subject.id, cut(&facts.cluster));
            let text = format!(
                "kubewitness: {} {id} of {cluster:?}: {note} ({bytes} bytes, limit {limit})",
                item.kind().as_str()
            );
            return out.extend_from_slice(text.as_bytes());
        }
        Object::write(out, |o| {
            o.text("note", note);
            o.text("id", &subject.id);
            o.text("kind", item.kind().as_str());
            o.text("cluster", &cut(&facts.cluster));
            o.text_if("audit_id", facts.audit_id.as_deref().map(cut));
            o.number("bytes", i64::try_from(bytes).unwrap_or(i64::MAX));
            o.number("bytes_max", i64::try_from(limit).unwrap_or(i64::MAX));
        });
    }

    async fn connect(&self) -> Result<Connection, SendError> {
        let tls = match &self.config.tls {
            Some(config) => Some(Tls::new(config, &self.config.address)?),
            None => None,
        };
        Connection::open(&self.config.address, tls).await
    }

    async fn deliver(&self, bytes: &[u8]) -> Result<(), SendError> {
        let mut connection = self.connect().await?;
        connection.write(bytes).await?;
        connection.finish(self.config.confirm == Confirm::Close).await
    }

    async fn in_time<T>(
        &self,
        work: impl Future<Output = Result<T, SendError>>,
    ) -> Result<T, SendError> {
        let limit: Duration = self.config.timeout.0;
        let late = || {
            let (address, span) = (&self.config.address, self.config.timeout);
            let hint = match self.config.confirm {
                Confirm::Close => "; a receiver that never closes wants `confirm: none`",
                Confirm::None => "",
            };
            SendError::retry(format!("{address}: not done in {span}{hint}"))
        };
        tokio::time::timeout(limit, work).await.unwrap_or_else(|_| Err(late()))
    }
}

impl Sink for Syslog {
    async fn send(&mut self, batch: &[Item<'_>]) -> Result<Delivered, SendError> {
        let mut bytes = Vec::new();
        batch.iter().for_each(|item| self.put(item, &mut bytes));
        self.in_time(self.deliver(&bytes)).await?;
        Ok(Delivered::default())
    }

    /// Connects, encrypts, says nothing and closes: a receiver that refuses a client's certificate
    /// says so only after that.
    async fn check(&mut self) -> Result<(), CheckError> {
        Ok(self.in_time(self.deliver(b"")).await?)
    }
}

/// A name as a header takes it: printable ASCII without blanks, `-` for nothing.
fn name(text: &str) -> String {
    let sound: String = text.chars().filter(char::is_ascii_graphic).take(255).collect();
    if sound.is_empty() { "-".to_owned() } else { sound }
}

#[cfg(test)]
mod tests;

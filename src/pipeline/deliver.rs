//! The right half: records of the spool to one sink, in order, at least once.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::alert::time::EventTime;
use crate::pipeline::backoff::Backoff;
use crate::pipeline::notice::{Kind, Notice};
use crate::pipeline::{Clock, Failure};
use crate::sinks::frame::{Frame, Load, Unsent};
use crate::sinks::{Position, Sink};
use crate::spool::{self, Cursor, DeadLetter, DeadLetters, Records};
use crate::telemetry::chain;

/// Damages that are told at most in one run; the spool counts all.
pub const DAMAGES_MAX: usize = 1_000;

/// After so long a segment is opened again that was not for want of files.
const FILES_RETRY: Duration = Duration::from_millis(200);

/// One sink with its position.
pub struct Delivery<S> {
    /// The sink, with its filter and limits.
    pub frame: Frame<S>,
    /// Its position.
    pub cursor: Cursor,
    /// Where goes what the far side refuses for good.
    pub dead_letters: DeadLetters,
    /// Told what a person must know.
    pub notify: Box<dyn Fn(Notice) + Send + Sync>,
    /// Damages that were told, by file and offset; shared by all sinks.
    pub damages: Arc<Mutex<BTreeSet<(String, u64)>>>,
    /// How long is waited between two attempts.
    pub backoff: Backoff,
    /// The time of day.
    pub clock: Clock,
    /// Cancelled: nothing more comes, so nothing is waited for.
    pub hurry: CancellationToken,
    /// Cancelled: stop where it stands; the rest is delivered after the next start.
    pub stop: CancellationToken,
}

/// So many bytes of dead letters are kept in one append, or one letter.
const LETTERS_BYTES: usize = 1 << 20;

/// How often a sink turns to which nothing is sent.
const TURN: Duration = Duration::from_secs(5);

/// Delivers until the spool is closed and everything in it is delivered, or until it is stopped.
/// What another sink does makes no difference here.
///
/// # Errors
/// The spool cannot be read, or a position not be stored.
pub async fn run<S: Sink>(mut delivery: Delivery<S>) -> Result<(), Failure> {
    let stop = delivery.stop.clone();
    let mut standing = Standing::new(delivery.frame.name(), delivery.backoff.clone());
    loop {
        // Waits for something durable. What a crash left unacknowledged comes first.
        let Some(records) = stop.run_until_cancelled(delivery.next()).await else { break };
        let records = match records {
            Ok(Some(records)) => records,
            Ok(None) => {
                delivery.turn(&mut standing, false).await;
                continue;
            }
            Err(spool::Error::Closed) => {
                delivery.turn(&mut standing, true).await;
                break;
            }
            Err(error) if error.lacks_files() => {
                delivery.wait_for_files(&error).await;
                continue;
            }
            Err(error) => return Err(Failure::Spool(error)),
        };
        delivery.mourn(&records);
        let position = Position { cursor: delivery.cursor.id(), acked: delivery.cursor.acked() };
        delivery.frame.resume(position);
        // Filtered once; goes on where it stopped however often it is sent.
        let mut load = delivery.frame.load(&records);
        loop {
            let sent = stop.run_until_cancelled(delivery.frame.send(&mut load)).await;
            let unsent = match sent {
                // Nobody waits any longer; what was under way is sent again after the start.
                None => return delivery.end().await,
                Some(Ok(())) => break,
                Some(Err(unsent)) => unsent,
            };
            standing.note(&unsent, &delivery);
            let wait = standing.wait(unsent);
            if stop.run_until_cancelled(tokio::time::sleep(wait)).await.is_none() {
                return delivery.end().await;
            }
        }
        standing.well(&delivery);
        delivery.anchor(load.take_anchor());
        // What was refused for good is durable before the position passes it.
        delivery.keep(&load).await?;
        delivery.ack(records.seq_last).await?;
        delivery.observe(&load);
    }
    delivery.end().await
}

impl<S: Sink> Delivery<S> {
    /// The next records; `None` when none came for a while. Waits a little for a batch to fill.
    async fn next(&mut self) -> Result<Option<Records>, spool::Error> {
        let limits = self.frame.limits();
        let Ok(records) = tokio::time::timeout(TURN, self.cursor.read(&limits)).await else {
            return Ok(None);
        };
        let records = records?;
        let wait = self.frame.wait_max();
        if self.frame.is_full(&records) || wait.is_zero() || records.is_empty() {
            return Ok(Some(records));
        }
        self.hurry.run_until_cancelled(tokio::time::sleep(wait)).await;
        self.cursor.rewind();
        self.cursor.read(&limits).await.map(Some)
    }

    /// Lets the sink do what it does whether anything comes or not.
    async fn turn(&mut self, standing: &mut Standing, is_last: bool) {
        let stop = self.stop.clone();
        let Some(turned) = stop.run_until_cancelled(self.frame.turn(is_last)).await else { return };
        match turned {
            Ok(anchor) => {
                standing.well(self);
                self.anchor(anchor);
            }
            Err(unsent) => standing.note(&unsent, self),
        }
    }

    /// Gives a signed checkpoint to the other sinks.
    fn anchor(&self, note: Option<String>) {
        if let Some(note) = note {
            (self.notify)(Notice::of_anchor(self.frame.name(), note, self.clock.now_us()));
        }
    }

    /// Tells what of the spool cannot be read any more, once for all sinks.
    fn mourn(&self, records: &Records) {
        if records.missing > 0 {
            let sink = self.frame.name().to_owned();
            let name = "kubewitness_sink_missing_records_total";
            metrics::counter!(name, "sink" => sink).increment(records.missing);
        }
        for damage in &records.damages {
            let mut known = spool::guard(&self.damages);
            if known.len() < DAMAGES_MAX && known.insert((damage.file.clone(), damage.offset)) {
                (self.notify)(Notice::of_damage(damage, self.clock.now_us()));
            }
        }
    }

    /// Other parts of the process, or other processes, hold all files; they give some back.
    async fn wait_for_files(&mut self, error: &spool::Error) {
        let sink = self.frame.name();
        tracing::warn!(%sink, %error, "too many open files; raise ulimit -n; trying again");
        let wait = tokio::time::sleep(FILES_RETRY);
        self.stop.run_until_cancelled(wait).await;
    }

    /// Moves the position behind what is delivered.
    async fn ack(&mut self, seq: u64) -> Result<(), Failure> {
        match self.cursor.ack(seq).await {
            // The stored position stands, and a later one takes its place.
            Err(error) if error.lacks_files() || error.lacks_space() => {
                let (sink, error) = (self.frame.name(), chain(&error));
                tracing::warn!(%sink, error, "the position is not stored; a later one will be");
                Ok(())
            }
            result => result.map_err(Failure::Spool),
        }
    }

    /// Keeps what the far side refused for good; where there is no room for it, it is counted.
    async fn keep(&mut self, load: &Load<'_>) -> Result<(), Failure> {
        let mut letters = load.dead_letters(self.frame.name(), self.clock.now_us());
        while !letters.is_empty() {
            // Few at a time: the store takes no more in one append than the spool in a batch.
            let mut bytes = 0;
            let more = letters.iter().position(|letter| {
                let is_first = bytes == 0;
                bytes += letter.head.len() + letter.bytes.len() + 1;
                !is_first && bytes > LETTERS_BYTES
            });
            let later = letters.split_off(more.unwrap_or(letters.len()));
            self.keep_some(std::mem::replace(&mut letters, later)).await?;
        }
        Ok(())
    }

    async fn keep_some(&mut self, letters: Vec<DeadLetter>) -> Result<(), Failure> {
        let number = letters.len() as u64;
        match self.dead_letters.append_patiently(letters).await {
            Ok(()) => Ok(()),
            Err(error @ (spool::Error::Io { .. } | spool::Error::Poisoned { .. })) => {
                Err(Failure::Spool(error))
            }
            Err(error) => {
                let sink = self.frame.name().to_owned();
                tracing::warn!(%sink, number, %error, "dead letters are lost");
                let name = "kubewitness_sink_dead_letters_lost_total";
                metrics::counter!(name, "sink" => sink).increment(number);
                Ok(())
            }
        }
    }

    fn observe(&self, load: &Load<'_>) {
        let lag = self.cursor.lag();
        let behind_us = match (lag.records, load.received_us()) {
            (0, _) | (_, None) => 0,
            (_, Some(received_us)) => self.clock.now_us().saturating_sub(received_us).max(0),
        };
        let behind = Duration::from_micros(behind_us.unsigned_abs()).as_secs_f64();
        let sink = self.frame.name().to_owned();
        metrics::gauge!("kubewitness_sink_lag_seconds", "sink" => sink).set(behind);
    }

    async fn end(self) -> Result<(), Failure> {
        self.cursor.store().await.map_err(Failure::Spool)
    }
}

/// Whether a sink delivers, for the log and the metrics: told once each time it changes.
struct Standing {
    backoff: Backoff,
    is_failing: bool,
    is_blocked: bool,
}

impl Standing {
    fn new(sink: &str, backoff: Backoff) -> Standing {
        let standing = Standing { backoff, is_failing: false, is_blocked: false };
        standing.show(sink);
        standing
    }

    fn note<S: Sink>(&mut self, unsent: &Unsent, delivery: &Delivery<S>) {
        let sink = delivery.frame.name();
        let is_blocked = matches!(unsent, Unsent::Block { .. });
        if !self.is_failing || is_blocked && !self.is_blocked {
            tracing::warn!(%sink, is_blocked, error = %unsent, "not delivered; trying again");
        }
        if is_blocked && !self.is_blocked {
            let text = format!("sink {sink} delivers nothing: {unsent}");
            delivery.notice(Kind::SinkBlocked, text);
        }
        self.is_failing = true;
        self.is_blocked |= is_blocked;
        self.show(sink);
    }

    fn wait(&mut self, unsent: Unsent) -> Duration {
        match unsent {
            Unsent::Retry { after, .. } => self.backoff.next(after),
            Unsent::Block { .. } => self.backoff.next(None),
        }
    }

    fn well<S: Sink>(&mut self, delivery: &Delivery<S>) {
        if !self.is_failing {
            return;
        }
        let sink = delivery.frame.name();
        tracing::info!(%sink, attempts = self.backoff.attempts(), "delivered again");
        if self.is_blocked {
            delivery.notice(Kind::SinkResumed, format!("sink {sink} delivers again"));
        }
        *self = Standing::new(sink, delivery.backoff.clone());
    }

    fn show(&self, sink: &str) {
        let set = |name: &'static str, is_set: bool| {
            metrics::gauge!(name, "sink" => sink.to_owned()).set(f64::from(u8::from(is_set)));
        };
        set("kubewitness_sink_failing", self.is_failing);
        set("kubewitness_sink_blocked", self.is_blocked);
    }
}

impl<S: Sink> Delivery<S> {
    fn notice(&self, kind: Kind, text: String) {
        let sink = self.frame.name().to_owned();
        let time = EventTime(self.clock.now_us());
        let notice =
            Notice { kind, time, subject: sink.clone(), source: sink, text, lost_bytes: None };
        (self.notify)(notice);
    }
}

//! `Frame`: what stands in front of every sink: filters, splits, finds the poison item, counts.
//!
//! ```text
//! loop {                                             // deliver, one a sink
//!     let records = cursor.read(&frame.limits())     // waits
//!     frame.resume(position)                         // of the cursor
//!     let mut load = frame.load(&records)            // filtered and throttled, once
//!     while let Err(unsent) = frame.send(&mut load)  // goes on where it stopped
//!         { wait as `unsent` says }
//!     dead_letters.append(load.dead_letters(..))     // durable first
//!     cursor.ack(records.seq_last)
//! }
//! ```

use std::collections::VecDeque;
use std::time::Duration;

use crate::alert::Alert;
use crate::alert::throttle::Throttle;
use crate::clock::Stopwatch;
use crate::record::StoredEvent;
use crate::sinks::config::{Common, Config, Unusable};
use crate::sinks::{
    AnySink, CheckError, Delivered, Item, Outgoing, Position, RecordKind, Rejection, SendError,
    Sink, throttle,
};
use crate::spool::{DeadLetter, Limits, Records};

/// A sink with what every sink needs around it.
pub struct Frame<S = AnySink> {
    common: Common,
    sink: S,
    throttle: Option<Throttle>,
    /// Items given up since the last one was accepted.
    rejects_in_a_row: usize,
}

/// The items of one read that are still to be sent, and what was refused.
#[derive(Debug, Default)]
pub struct Load<'r> {
    items: Vec<Item<'r>>,
    /// Indices into `items`, in order, of what is sent together.
    parts: VecDeque<Vec<usize>>,
    rejections: Vec<Rejection>,
    attempts: u32,
    anchor: Option<String>,
}

/// Why a load is not all sent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unsent {
    /// Send the rest again, later.
    #[error("{cause}")]
    Retry {
        /// When, where the far side said so.
        after: Option<Duration>,
        /// What happened.
        cause: String,
    },
    /// Nothing can be delivered until a person acts.
    #[error("{cause}; {remedy}")]
    Block {
        /// What is wrong.
        cause: String,
        /// What to do about it.
        remedy: String,
    },
}

impl Frame<AnySink> {
    /// The sink that is configured, unconnected.
    ///
    /// # Errors
    /// What in the configuration cannot be.
    pub fn open(config: &Config) -> Result<Frame, Unusable> {
        Ok(Frame::new(config.common.clone(), config.build()?))
    }
}

impl<S: Sink> Frame<S> {
    /// A frame around a sink.
    pub fn new(common: Common, sink: S) -> Frame<S> {
        let throttle = common.throttle.as_ref().map(throttle::Config::throttle);
        Frame { common, sink, throttle, rejects_in_a_row: 0 }
    }

    /// The sink's name.
    pub fn name(&self) -> &str {
        &self.common.name
    }

    /// How much to read from the spool at a time, and of which kinds: as many batches as the sink
    /// wants at once.
    pub fn limits(&self) -> Limits {
        let kinds = self.common.records.iter().map(|kind| kind.code()).collect();
        let records_max = self.common.batch.records_max.saturating_mul(self.sink.batches());
        Limits { records_max, bytes_max: self.bytes_max(), kinds: Some(kinds) }
    }

    fn bytes_max(&self) -> usize {
        self.common.batch.bytes_max.as_usize().saturating_mul(self.sink.batches())
    }

    /// Whether these are a batch at least, so that there is nothing to wait for.
    pub fn is_full(&self, records: &Records) -> bool {
        let batch = &self.common.batch;
        records.len() >= batch.records_max || records.bytes() >= batch.bytes_max.as_usize()
    }

    /// How long to wait for a batch to fill.
    pub fn wait_max(&self) -> Duration {
        self.common.batch.wait_max.0
    }

    /// Makes at the far side what the sink needs there; returns what it made, in words.
    ///
    /// # Errors
    /// What was refused.
    pub async fn install(&mut self) -> Result<Vec<String>, CheckError> {
        self.sink.install().await
    }

    /// Asks the far side, without changing anything there, whether it would accept.
    ///
    /// # Errors
    /// What is wrong, and the remedy.
    pub async fn check(&mut self) -> Result<(), CheckError> {
        self.sink.check().await
    }

    /// Tells the sink where its cursor stands; before each load.
    pub fn resume(&mut self, position: Position) {
        self.sink.resume(position);
    }

    /// Whether the sink gets records of this kind.
    pub fn takes(&self, kind: RecordKind) -> bool {
        self.common.records.contains(&kind)
    }

    /// What the sink does whether anything is sent or not; see [`Sink::turn`].
    ///
    /// # Errors
    /// [`Unsent`]; call again.
    pub async fn turn(&mut self, is_last: bool) -> Result<Option<String>, Unsent> {
        self.sink.turn(is_last).await.map_err(|error| self.hold(error))
    }

    /// The items of a read that the sink is to get.
    pub fn load<'r>(&mut self, records: &'r Records) -> Load<'r> {
        self.load_items(records.iter().filter_map(|record| Item::of(&record)))
    }

    /// Items that the sink is to get, of those given.
    pub fn load_items<'r>(&mut self, items: impl Iterator<Item = Item<'r>>) -> Load<'r> {
        let items: Vec<Item<'r>> = items.filter(|item| self.wants(item)).collect();
        let mut load = Load { items, ..Load::default() };
        load.parts = load.parts_of(self.bytes_max());
        load
    }

    fn wants(&mut self, item: &Item<'_>) -> bool {
        self.passes(item) && self.shows(item)
    }

    /// Whether the item is no repeat that is hidden; counts those that are.
    fn shows(&mut self, item: &Item<'_>) -> bool {
        let (Some(throttle), Outgoing::Alert(json)) = (&mut self.throttle, item.outgoing) else {
            return true;
        };
        let is_shown = throttle::shows(throttle, json);
        if !is_shown {
            let sink = self.common.name.clone();
            metrics::counter!("kubewitness_sink_throttled_total", "sink" => sink).increment(1);
        }
        is_shown
    }

    /// How many repeats of alerts were hidden from the sink.
    pub fn hidden(&self) -> u64 {
        self.throttle.as_ref().map_or(0, Throttle::hidden)
    }

    fn passes(&self, item: &Item<'_>) -> bool {
        let alert = match item.outgoing {
            Outgoing::Alert(json) if self.common.filter.asks_alerts() => {
                serde_json::from_slice::<Alert>(json).ok()
            }
            _ => None,
        };
        self.common.records.contains(&item.kind())
            && self.common.filter.passes(item, alert.as_ref())
    }

    /// Sends what is left of a load. `Ok`: every item was accepted or is in
    /// [`Load::dead_letters`]. Dropping the future loses nothing: send the load again, or read it
    /// again.
    ///
    /// # Errors
    /// [`Unsent`]; call again with the same load.
    pub async fn send(&mut self, load: &mut Load<'_>) -> Result<(), Unsent> {
        load.attempts = load.attempts.saturating_add(1);
        while let Some(part) = load.parts.front().cloned() {
            let batch: Vec<Item<'_>> = part.iter().map(|index| load.items[*index]).collect();
            let started = Stopwatch::start();
            let sent = self.sink.send(&batch).await;
            self.observe(started.elapsed());
            match sent {
                Ok(delivered) => self.settle(load, &batch, delivered)?,
                Err(SendError::TooLarge { cause }) => self.split(load, "too_large", cause)?,
                Err(SendError::Reject { reason, cause }) => self.split(load, reason, cause)?,
                Err(error) => return Err(self.hold(error)),
            }
        }
        Ok(())
    }

    /// Takes up what the far side said of the first part.
    fn settle(
        &mut self,
        load: &mut Load<'_>,
        batch: &[Item<'_>],
        delivered: Delivered,
    ) -> Result<(), Unsent> {
        let Some(part) = load.parts.pop_front() else { return Ok(()) };
        load.anchor = delivered.anchor.or(load.anchor.take());
        let place = |index: usize| part.get(index).copied();
        let refused = delivered.rejected.len();
        let is_left = |index: &usize| {
            delivered.again.contains(index)
                || delivered.rejected.iter().any(|rejection| rejection.index == *index)
        };
        let accepted = batch.iter().enumerate().filter(|(index, _)| !is_left(index));
        if self.count_sent(accepted.map(|(_, item)| item)) {
            self.rejects_in_a_row = 0;
        }
        for Rejection { index, reason, cause } in delivered.rejected {
            if let Some(index) = place(index) {
                self.reject(load, Rejection { index, reason, cause });
            }
        }
        let again: Vec<usize> = delivered.again.iter().filter_map(|index| place(*index)).collect();
        if !again.is_empty() {
            let busy = || SendError::retry(format!("{} items were not taken", again.len()));
            let why = delivered.why.unwrap_or_else(busy);
            load.parts.push_front(again);
            return match why {
                SendError::TooLarge { cause } => self.split(load, "too_large", cause),
                SendError::Reject { reason, cause } => self.split(load, reason, cause),
                why => Err(self.hold(why)),
            };
        }
        if refused > 0 { self.refuse_all() } else { Ok(()) }
    }

    /// Halves the first part; a single item is given up.
    fn split(
        &mut self,
        load: &mut Load<'_>,
        reason: &'static str,
        cause: String,
    ) -> Result<(), Unsent> {
        self.refuse_all()?;
        let Some(mut part) = load.parts.pop_front() else { return Ok(()) };
        if let [index] = part[..] {
            self.reject(load, Rejection { index, reason, cause });
            return Ok(());
        }
        let second = part.split_off(part.len() / 2);
        load.parts.push_front(second);
        load.parts.push_front(part);
        metrics::counter!("kubewitness_sink_splits_total", "sink" => self.common.name.clone())
            .increment(1);
        Ok(())
    }

    fn reject(&mut self, load: &mut Load<'_>, rejection: Rejection) {
        self.rejects_in_a_row += 1;
        let Rejection { index, reason, ref cause } = rejection;
        let seq = load.items.get(index).map_or(0, |item| item.seq);
        tracing::warn!(sink = %self.common.name, seq, reason, %cause, "refused for good");
        let sink = self.common.name.clone();
        metrics::counter!("kubewitness_sink_rejected_total", "sink" => sink, "reason" => reason)
            .increment(1);
        load.rejections.push(rejection);
    }

    /// Counts and passes on why something is left.
    fn hold(&self, error: SendError) -> Unsent {
        let (outcome, unsent) = match error {
            SendError::Block { cause, remedy } => ("block", Unsent::Block { cause, remedy }),
            SendError::Retry { after, cause } => ("retry", Unsent::Retry { after, cause }),
            SendError::TooLarge { cause } | SendError::Reject { cause, .. } => {
                ("retry", Unsent::Retry { after: None, cause })
            }
        };
        let sink = self.common.name.clone();
        metrics::counter!("kubewitness_sink_retries_total", "sink" => sink, "outcome" => outcome)
            .increment(1);
        unsent
    }

    /// Refusing everything is no fault of an item.
    fn refuse_all(&mut self) -> Result<(), Unsent> {
        let limit = self.common.batch.rejects_in_a_row_max;
        if limit == 0 || self.rejects_in_a_row < limit {
            return Ok(());
        }
        // The next attempt may give up as many again, so that poison alone cannot stop for ever.
        self.rejects_in_a_row = 0;
        Err(Unsent::Block {
            cause: format!("the far side refused {limit} items one after the other"),
            remedy: "see why in the log; the format, the index or its mapping may be wrong".into(),
        })
    }

    /// Counts accepted items; says whether there were any.
    fn count_sent<'i>(&self, items: impl Iterator<Item = &'i Item<'i>>) -> bool {
        use RecordKind::{Alerts, Anchors, Events, Notices, Quarantine};
        let mut counts = [Events, Alerts, Notices, Anchors, Quarantine].map(|kind| (kind, 0));
        let mut bytes = 0;
        for item in items {
            bytes += item.bytes().len() as u64;
            for (kind, count) in &mut counts {
                *count += u64::from(*kind == item.kind());
            }
        }
        let sink = &self.common.name;
        for (kind, count) in counts.into_iter().filter(|(_, count)| *count > 0) {
            metrics::counter!(
                "kubewitness_sink_sent_total", "sink" => sink.clone(), "kind" => kind.as_str()
            )
            .increment(count);
        }
        metrics::counter!("kubewitness_sink_sent_bytes_total", "sink" => sink.clone())
            .increment(bytes);
        counts.iter().any(|(_, count)| *count > 0)
    }

    fn observe(&self, took: Duration) {
        metrics::histogram!("kubewitness_sink_send_seconds", "sink" => self.common.name.clone())
            .record(took.as_secs_f64());
    }
}

impl<'r> Load<'r> {
    /// Whether nothing is left to send.
    pub fn is_sent(&self) -> bool {
        self.parts.is_empty()
    }

    /// The newest signed checkpoint that the sink gave the other sinks to keep.
    pub fn take_anchor(&mut self) -> Option<String> {
        self.anchor.take()
    }

    /// Items that the sink is to get, sent or not.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether the sink gets nothing of the read.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// When the last event among them arrived here, microseconds since the epoch.
    pub fn received_us(&self) -> Option<i64> {
        self.items.iter().rev().find_map(|item| match item.outgoing {
            Outgoing::Event(event) => Some(event.received_us),
            _ => None,
        })
    }

    /// What the far side refused for good, for the store of dead letters.
    pub fn dead_letters(&self, sink: &str, at_us: i64) -> Vec<DeadLetter> {
        let letter = |rejection: &Rejection| {
            let item = self.items.get(rejection.index)?;
            Some(DeadLetter {
                at_us,
                reason: rejection.reason.to_owned(),
                source: sink.to_owned(),
                position: format!("{}:{}", item.kind().as_str(), item.seq),
                attempts: self.attempts,
                is_sealed: false,
                head: head(item),
                bytes: item.bytes().to_vec(),
            })
        };
        self.rejections.iter().filter_map(letter).collect()
    }

    /// All items in order, cut where a part would be larger than `bytes_max`.
    fn parts_of(&self, bytes_max: usize) -> VecDeque<Vec<usize>> {
        let mut parts = VecDeque::new();
        let (mut part, mut bytes) = (Vec::new(), 0);
        for (index, item) in self.items.iter().enumerate() {
            let own = item.bytes().len();
            if !part.is_empty() && bytes + own > bytes_max {
                parts.push_back(std::mem::take(&mut part));
                bytes = 0;
            }
            part.push(index);
            bytes += own;
        }
        parts.extend((!part.is_empty()).then_some(part));
        parts
    }
}

/// What of a record is not in the item's bytes.
fn head(item: &Item<'_>) -> Vec<u8> {
    let mut head = Vec::new();
    if let Outgoing::Event(event) = item.outgoing {
        StoredEvent { raw: b"", ..event }.encode(&mut head);
    }
    head
}

#[cfg(test)]
mod tests;

//! `kubewitness spool dead-letters redrive`: what sinks refused, sent to them once more.

use std::collections::BTreeSet;

use clap::Args;

use crate::cli::check::ConfigArgs;
use crate::cli::spool::failed;
use crate::cli::{Done, Error, say};
use crate::record::StoredEvent;
use crate::report::summary::counted;
use crate::sinks::config::{Config, Kind};
use crate::sinks::frame::Frame;
use crate::sinks::{Item, Outgoing};
use crate::spool::{DeadLetters, Options, Spool, StoredLetter};
use crate::telemetry::chain;

/// Letters sent at a time.
const PAGE: usize = 500;

/// Which letters.
#[derive(Debug, Args)]
pub struct RedriveArgs {
    /// Which configuration
    #[command(flatten)]
    pub config: ConfigArgs,
    /// Only letters of this sink
    #[arg(long, value_name = "NAME")]
    pub sink: Option<String>,
    /// Only letters with these ids
    pub ids: Vec<u64>,
}

/// Sends them, and removes what is accepted; what is refused again stays.
///
/// # Errors
/// A wrong configuration, a spool in use: wrong input. A sink that does not take them now.
pub fn run(args: &RedriveArgs) -> Result<Done, Error> {
    let config = args.config.load()?;
    let known = |name: &String| config.sinks.iter().any(|sink| sink.common.name == *name);
    if let Some(name) = args.sink.as_ref().filter(|name| !known(name)) {
        return Err(Error::Input(format!("no sink is called {name:?} in the configuration")));
    }
    let (spool, _) = Spool::open(&config.spool.dir, Options::default()).map_err(failed)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let letters = spool.dead_letters().clone();
        for sink in &config.sinks {
            let name = &sink.common.name;
            if args.sink.as_ref().is_some_and(|only| only != name) {
                continue;
            }
            let (sent, left) = redrive(&letters, sink, &args.ids).await?;
            if sent + left > 0 {
                let what = counted(sent as u64, "dead letter");
                say(&format!("sink {name}: {what} delivered, {left} refused again"));
            }
        }
        spool.close().await.map_err(failed)
    })?;
    Ok(Done::Fine)
}

/// Sends one sink's letters; returns how many it took, and how many it refused again.
async fn redrive(
    letters: &DeadLetters,
    config: &Config,
    ids: &[u64],
) -> Result<(usize, usize), Error> {
    let name = &config.common.name;
    let mut frame = Frame::open(&once(config)).map_err(|error| Error::Input(chain(&error)))?;
    let (mut behind, mut sent, mut left) = (0, 0, 0);
    loop {
        let page = letters.read(behind, PAGE).await.map_err(failed)?;
        let Some(last) = page.last() else { return Ok((sent, left)) };
        behind = last.id;
        let is_wanted = |stored: &&StoredLetter| {
            stored.letter.source == *name && (ids.is_empty() || ids.contains(&stored.id))
        };
        let records: Vec<Record> = page.iter().filter(is_wanted).filter_map(Record::of).collect();
        let mut load = frame.load_items(records.iter().filter_map(Record::item));
        let given: BTreeSet<u64> = records.iter().map(|record| record.id).collect();
        let unsent = frame.send(&mut load).await;
        unsent.map_err(|unsent| Error::Failed(format!("sink {name}: {unsent}")))?;
        let refused = load.dead_letters(name, 0);
        let refused: BTreeSet<u64> =
            refused.iter().filter_map(|letter| place(&letter.position)).collect();
        let taken: Vec<u64> = given.difference(&refused).copied().collect();
        (sent, left) = (sent + taken.len(), left + refused.len());
        letters.remove(taken).await.map_err(failed)?;
    }
}

/// The sink as a person wants it now: everything he names, and nothing hidden.
fn once(config: &Config) -> Config {
    let mut config = config.clone();
    config.common.filter = Default::default();
    config.common.throttle = None;
    config.common.batch.rejects_in_a_row_max = 0;
    if let Kind::Kafka(kafka) = &mut config.kind {
        // The position that it keeps is of the cursor, which these are behind.
        kafka.transactional_id = None;
    }
    config
}

/// A letter's record as it was in the spool.
struct Record {
    /// The letter's id, in the place of the sequence number.
    id: u64,
    is_event: bool,
    is_alert: bool,
    payload: Vec<u8>,
}

impl Record {
    /// None of a letter that is not one of a sink's records.
    fn of(stored: &StoredLetter) -> Option<Record> {
        let StoredLetter { id, letter } = stored;
        let (kind, _) = letter.position.split_once(':')?;
        let payload = [letter.head.as_slice(), letter.bytes.as_slice()].concat();
        let record =
            Record { id: *id, is_event: kind == "events", is_alert: kind == "alerts", payload };
        record.item().is_some().then_some(record)
    }

    fn item(&self) -> Option<Item<'_>> {
        let outgoing = match (self.is_event, self.is_alert) {
            (true, _) => Outgoing::Event(StoredEvent::decode(&self.payload)?),
            (_, true) => Outgoing::Alert(&self.payload),
            _ => Outgoing::Notice(&self.payload),
        };
        Some(Item { seq: self.id, outgoing })
    }
}

/// The number in a position.
fn place(position: &str) -> Option<u64> {
    position.split_once(':')?.1.parse().ok()
}

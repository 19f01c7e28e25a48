//! `kubewitness prove`: the two small files that prove one event offline.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;

use crate::alert::Alert;
use crate::archive::note::Verifier;
use crate::archive::prove::{self, find_ingest};
use crate::archive::record::{Kind, Record};
use crate::archive::store::Store;
use crate::cli::archive::{is_within, scan};
use crate::cli::verify::{block_on, key_of, open};
use crate::cli::{Done, Error, print};
use crate::telemetry::chain;

/// Arguments of `prove`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  kubewitness prove --audit-id 5e1f… -o evidence s3://audit-archive/prod-eu1/cp-1
  kubewitness prove --ingest 2471 -o evidence /mnt/archive
  kubewitness prove --alert alert.json -o evidence --key audit.pub s3://audit-archive/prod-1
  kubewitness verify --key audit.pub --proof evidence.tlog-proof --event evidence.json")]
pub struct ProveArgs {
    /// The archive: a directory, s3://…, gs://…, az://…
    #[arg(value_name = "ARCHIVE")]
    pub archive: String,
    /// The event's audit id; every stage of it is proven
    #[arg(long, value_name = "ID", required_unless_present_any = ["ingest", "record", "alert"])]
    pub audit_id: Option<String>,
    /// An alert in its native JSON, `-` for standard input: it and the events that it names are
    /// proven
    #[arg(long, value_name = "FILE", conflicts_with_all = ["audit_id", "ingest", "record"])]
    pub alert: Option<PathBuf>,
    /// Its number in the spool
    #[arg(long, value_name = "N", conflicts_with = "audit_id")]
    pub ingest: Option<u64>,
    /// The record that its segment is of
    #[arg(long, value_name = "N", requires = "event", conflicts_with_all = ["audit_id", "ingest"])]
    pub record: Option<u64>,
    /// Its place in the segment, from 0
    #[arg(long, value_name = "N", requires = "record")]
    pub event: Option<u64>,
    /// The log's public key, or a file that holds it
    #[arg(long, value_name = "KEY")]
    pub key: Option<String>,
    /// What the files are called: PREFIX.tlog-proof and PREFIX.json
    #[arg(short, long, value_name = "PREFIX", default_value = "event")]
    pub output: PathBuf,
}

/// Proves.
///
/// # Errors
/// Wrong input; there is no such event; the archive does not prove it.
pub fn run(args: &ProveArgs) -> Result<Done, Error> {
    let store = open(&args.archive)?;
    block_on(async {
        let key = key_of(args.key.as_deref(), &*store, &args.archive).await?;
        let places = places(args, &store, &key).await?;
        if places.is_empty() {
            return Err(Error::Input("no such event in this archive".into()));
        }
        for (index, (seq, event)) in places.iter().enumerate() {
            let proven = prove::prove(&store, &key, *seq, *event).await.map_err(failed)?;
            let suffix = if index == 0 { String::new() } else { format!("-{}", index + 1) };
            let name = |end: &str| format!("{}{suffix}.{end}", args.output.display());
            write(&name("json"), &proven.event)?;
            write(&name("tlog-proof"), proven.proof.encode().as_bytes())?;
            print(&format!(
                "{} {}: line {event} of record {seq}",
                name("json"),
                name("tlog-proof")
            ))?;
        }
        Ok(Done::Fine)
    })
}

fn failed(error: impl std::error::Error) -> Error {
    Error::Failed(chain(&error))
}

fn write(path: &str, bytes: &[u8]) -> Result<(), Error> {
    let written = fs::write(Path::new(path), bytes);
    written.map_err(|error| Error::Failed(format!("{path}: {error}")))
}

async fn places(
    args: &ProveArgs,
    store: &Arc<dyn Store>,
    key: &Verifier,
) -> Result<Vec<(u64, u64)>, Error> {
    if let (Some(record), Some(event)) = (args.record, args.event) {
        return Ok(vec![(record, event)]);
    }
    if let Some(ingest) = args.ingest {
        return Ok(find_ingest(&**store, key, ingest).await.map_err(failed)?.into_iter().collect());
    }
    if let Some(path) = &args.alert {
        return of_alert(path, store, key).await;
    }
    let id = args.audit_id.as_deref().unwrap_or_default();
    let quoted = serde_json::to_string(id).map_err(failed)?;
    let finder = memchr::memmem::Finder::new(&quoted);
    let mut places = Vec::new();
    scan(
        store,
        key,
        Some(Kind::Events),
        |_| true,
        |record, event, line| {
            if finder.find(line).is_some() && is_of(line, id) {
                places.push((record.seq, event));
            }
            Ok(())
        },
    )
    .await?;
    Ok(places)
}

/// Where an alert stands, and the events that it names: by time, audit id and stage.
async fn of_alert(
    path: &Path,
    store: &Arc<dyn Store>,
    key: &Verifier,
) -> Result<Vec<(u64, u64)>, Error> {
    let text = match path.as_os_str() == "-" {
        true => std::io::read_to_string(std::io::stdin()),
        false => fs::read_to_string(path),
    };
    let wrong = |text: String| Error::Input(format!("{}: {text}", path.display()));
    let text = text.map_err(|error| wrong(error.to_string()))?;
    let alert: Alert = serde_json::from_str(&text)
        .map_err(|error| wrong(format!("not an alert in native JSON: {error}")))?;
    let mut times: Vec<i64> = alert.events.iter().map(|event| event.time.0).collect();
    times.push(alert.time.0);
    // Times are cut to microseconds on their way, so the next one is meant too.
    let is_near = |record: &Record| {
        times.iter().any(|time| is_within(record, Some(time - 1), Some(time.saturating_add(2))))
    };
    let mut places = Vec::new();
    scan(store, key, None, is_near, |record, event, line| {
        let is_meant = match record.kind {
            Kind::Alerts => is_alert(line, &alert.id),
            Kind::Events => alert.events.iter().any(|it| {
                !it.audit_id.is_empty() && is_stage(line, &it.stage) && is_of(line, &it.audit_id)
            }),
            _ => false,
        };
        if is_meant {
            places.push((record.seq, event));
        }
        Ok(())
    })
    .await?;
    Ok(places)
}

fn is_alert(line: &[u8], id: &str) -> bool {
    #[derive(serde::Deserialize)]
    struct Named {
        id: String,
    }
    serde_json::from_slice::<Named>(line).is_ok_and(|named| named.id == id)
}

fn is_stage(line: &[u8], stage: &str) -> bool {
    memchr::memmem::find(line, stage.as_bytes()).is_some()
}

fn is_of(line: &[u8], id: &str) -> bool {
    #[derive(serde::Deserialize)]
    struct Named {
        #[serde(rename = "auditID")]
        audit_id: String,
    }
    serde_json::from_slice::<Named>(line).is_ok_and(|named| named.audit_id == id)
}

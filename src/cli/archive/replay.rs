//! An archive as the input of `replay`: its segments of events, each read when its turn comes.

use std::io::{self, Cursor, Read};
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;

use futures_util::StreamExt as _;
use sha2::{Digest as _, Sha256};
use tokio::runtime::Runtime;

use crate::archive::note::text_of_bytes;
use crate::archive::prove::read_segment;
use crate::archive::record::{Kind, Segment};
use crate::archive::records::records;
use crate::archive::recover::find_size;
use crate::archive::store::Store;
use crate::cli::Error;
use crate::cli::archive::{failed, is_within};
use crate::cli::verify::{key_of, open};
use crate::event::time::parse_us;
use crate::ingest::discover::LogFile;
use crate::ingest::marker::Form;
use crate::replay::Bound;

/// What an archive has to replay.
pub(crate) struct Archived {
    /// Segments in the log's order, those of other times left out.
    pub(crate) files: Vec<LogFile>,
    /// The cluster of all of them, where they are of one.
    pub(crate) cluster: Option<String>,
    /// The bounds in time, as times.
    pub(crate) since: Option<Bound>,
    pub(crate) until: Option<Bound>,
}

/// Whether a path names an archive.
pub(crate) fn is_archive(path: &str) -> bool {
    ["s3://", "s3a://", "gs://", "az://", "abfs://", "abfss://", "file://"]
        .iter()
        .any(|scheme| path.starts_with(scheme))
}

/// Finds what to replay: the records are proven now, each segment when it is read.
///
/// # Errors
/// Wrong input, or an archive that cannot be read.
pub(crate) fn find(
    location: &str,
    key: Option<&str>,
    since: Option<Bound>,
    until: Option<Bound>,
) -> Result<Archived, Error> {
    let store = open(location)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let runtime = Arc::new(runtime);
    let found: Result<Vec<_>, Error> = runtime.block_on(async {
        let key = key_of(key, &*store, location).await?;
        let size = find_size(&*store).await.map_err(failed)?;
        let mut records = pin!(records(&*store, &key, 0..size));
        let mut found = Vec::new();
        while let Some(record) = records.next().await {
            let record = record.map_err(failed)?;
            if record.kind == Kind::Events && record.segment.is_some() {
                found.push(record);
            }
        }
        Ok(found)
    });
    let mut found = found?;
    let ends =
        found.iter().filter_map(|record| parse_us(record.segment.as_ref()?.t_max.as_bytes()));
    let newest = ends.max().unwrap_or(i64::MAX);
    let time = |bound: Option<Bound>| match bound? {
        Bound::At(time) => Some(time),
        Bound::BeforeNewest(span) => Some(newest.saturating_sub(span)),
    };
    let (since, until) = (time(since), time(until));
    found.retain(|record| is_within(record, since, until));
    let segments: Vec<Segment> = found.into_iter().filter_map(|record| record.segment).collect();
    let first = segments.first().map(|segment| segment.cluster.clone());
    let cluster = first.filter(|it| !it.is_empty() && segments.iter().all(|s| s.cluster == *it));
    let files = segments.into_iter().map(|segment| {
        let name = format!("{}/{}", location.trim_end_matches('/'), segment.object);
        let (store, runtime) = (Arc::clone(&store), Arc::clone(&runtime));
        let lines = Lines { store, runtime, segment, open: None };
        LogFile::from_stream(PathBuf::from(name), Form::Lines, Box::new(lines))
    });
    let (since, until) = (since.map(Bound::At), until.map(Bound::At));
    Ok(Archived { files: files.collect(), cluster, since, until })
}

/// The lines of a segment, fetched when they are read first.
struct Lines {
    store: Arc<dyn Store>,
    runtime: Arc<Runtime>,
    segment: Segment,
    open: Option<Box<dyn Read + Send>>,
}

impl Lines {
    fn fetch(&self) -> io::Result<Box<dyn Read + Send>> {
        let object = self.runtime.block_on(read_segment(&*self.store, &self.segment));
        let object = object.map_err(io::Error::other)?;
        if text_of_bytes(&Sha256::digest(&object)) != self.segment.sha256 {
            let text = format!("{} is not what was signed", self.segment.object);
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        let decoder = zstd::stream::read::Decoder::new(Cursor::new(object))?;
        Ok(Box::new(decoder.take(self.segment.raw_size)))
    }
}

impl Read for Lines {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut open = match self.open.take() {
            Some(open) => open,
            None => self.fetch()?,
        };
        let read = open.read(buffer)?;
        // The object is given back as soon as it has been read.
        self.open = Some(if read == 0 { Box::new(io::empty()) } else { open });
        Ok(read)
    }
}

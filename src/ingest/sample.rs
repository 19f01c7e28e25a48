//! A sample of real audit logs, with attacks in it, that the binary carries.

use std::io::Cursor;
use std::path::PathBuf;

use crate::ingest::batch::Batch;
use crate::ingest::chunk::Chunk;
use crate::ingest::compress;
use crate::ingest::discover::LogFile;
use crate::ingest::marker::Form;
use crate::ingest::replay::ChunkReader;

/// Recorded from a real kube-apiserver; tests/corpus/README.md says how it was made.
const SAMPLE: &[u8] = include_bytes!("../../tests/corpus/sample.log.gz");

/// The sample as a file.
pub fn file() -> LogFile {
    let plain = compress::open(Box::new(Cursor::new(SAMPLE)));
    LogFile::from_stream(PathBuf::from("sample.log.gz"), Form::Lines, plain)
}

/// The sample as a live source would hand it over.
pub fn batch() -> Batch {
    let mut chunk = Chunk::new();
    ChunkReader::new(vec![file()]).next_chunk(&mut chunk);
    Batch::new("sample", "sample.log.gz", chunk).0
}

#[cfg(test)]
mod tests {
    #[test]
    fn one_batch_is_the_whole_sample() {
        let batch = super::batch();
        assert_eq!(batch.chunk.records().count(), 957);
        assert_eq!(batch.chunk.rejects, []);
    }
}

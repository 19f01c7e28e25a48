//! Where the objects of a log lie under its prefix.

use crate::archive::note::text_of_bytes;
use crate::archive::record::Kind;
use crate::archive::tree::Hash;
use crate::event::time::format_us;

/// The pointer to the newest head.
pub const CHECKPOINT: &str = "checkpoint";
/// Under it lie the commits.
pub const COMMITS: &str = "commit/";
/// Under it lie the segments.
pub const SEGMENTS: &str = "data/";
/// Under it lie checkpoints with the signatures of witnesses.
pub const COSIGNED: &str = "witness/";
/// Under it lie tiles and bundles.
pub const TILES: &str = "tile/";

const COMMIT_SUFFIX: &str = ".tlog-proof";
const COSIGNED_SUFFIX: &str = ".cosigned";
const SEGMENT_SUFFIX: &str = ".ndjson.zst";

/// Key of the commit of a record.
pub fn commit_key(seq: u64) -> String {
    format!("{COMMITS}{seq:012}{COMMIT_SUFFIX}")
}

/// The record that a commit's key is of.
pub fn commit_seq(key: &str) -> Option<u64> {
    let seq = key.strip_prefix(COMMITS)?.strip_suffix(COMMIT_SUFFIX)?.parse().ok()?;
    (commit_key(seq) == key).then_some(seq)
}

/// Key of the checkpoint of a size with the signatures of witnesses.
pub fn cosigned_key(size: u64) -> String {
    format!("{COSIGNED}{size:012}{COSIGNED_SUFFIX}")
}

/// The size that the key of a cosigned checkpoint is of.
pub fn cosigned_size(key: &str) -> Option<u64> {
    let size = key.strip_prefix(COSIGNED)?.strip_suffix(COSIGNED_SUFFIX)?.parse().ok()?;
    (cosigned_key(size) == key).then_some(size)
}

/// Key of a segment, by the hour in which it was sealed.
pub fn segment_key(kind: Kind, seq: u64, sealed_us: i64, sha256: &Hash) -> String {
    let time = format_us(sealed_us);
    let (date, hour) = (time.get(..10).unwrap_or("unknown"), time.get(11..13).unwrap_or("00"));
    let hash = text_of_bytes(&sha256[..8]);
    let kind = kind.name();
    format!("{SEGMENTS}kind={kind}/date={date}/hour={hour}/{seq:012}-{hash}{SEGMENT_SUFFIX}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_sort_as_the_log_and_are_read_back() {
        assert_eq!(commit_key(123), "commit/000000000123.tlog-proof");
        assert_eq!(commit_seq(&commit_key(123)), Some(123));
        for key in
            ["commit/123.tlog-proof", "commit/000000000123", "commit/+00000000123.tlog-proof"]
        {
            assert_eq!(commit_seq(key), None, "{key}");
        }
        assert_eq!(
            segment_key(Kind::Events, 7, 1_763_766_000_000_000, &[0x39; 32]),
            "data/kind=events/date=2025-11-21/hour=23/000000000007-3939393939393939.ndjson.zst"
        );
    }
}

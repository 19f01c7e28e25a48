//! Why input could not be used, or only in part: closed sets, so that counters can carry them.

use std::fmt;

/// Input that became no event; counted, reported with its position, never fatal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reject {
    /// What is wrong.
    pub reason: RejectReason,
    /// Offset of the first byte concerned: inside the record when `decode` says it, inside the
    /// (decompressed) file when the reader of files does.
    pub offset: u64,
    /// How many bytes are concerned.
    pub length: u64,
    /// What a person needs beyond the reason; never a part of the input. May be empty.
    pub detail: &'static str,
}

/// What is wrong with rejected input.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RejectReason {
    /// Text that is no JSON.
    NotJson,
    /// JSON, but no audit event and no envelope of one.
    NotAuditEvent,
    /// JSON with a byte that does not belong there, beyond salvage.
    MalformedJson,
    /// An event cut so early that nothing of it is usable.
    Truncated,
    /// A text line of the log backend's `legacy` format.
    LegacyFormat,
    /// A run of NUL bytes: the hole that copytruncate or a crash leaves.
    NulRun,
    /// A line or list item longer than the limit.
    LineTooLong,
    /// A body that nests too deep; the rest of its event is analysed.
    NestingTooDeep,
    /// Envelopes inside envelopes beyond the limit.
    EnvelopeTooDeep,
    /// An envelope's payload that should be base64 and is not.
    InvalidBase64,
    /// A payload that decompresses to more than the limit.
    DecompressedTooLarge,
    /// Compressed data that ends early.
    TruncatedCompression,
    /// Compressed data that cannot be decompressed from here on.
    CorruptCompression,
    /// Bytes behind the compressed data that are no compressed data.
    TrailingGarbage,
    /// The file could not be opened or read from here on.
    ReadFailed,
}

impl RejectReason {
    /// Every reason, in the order of the enum.
    pub const ALL: [RejectReason; 15] = [
        RejectReason::NotJson,
        RejectReason::NotAuditEvent,
        RejectReason::MalformedJson,
        RejectReason::Truncated,
        RejectReason::LegacyFormat,
        RejectReason::NulRun,
        RejectReason::LineTooLong,
        RejectReason::NestingTooDeep,
        RejectReason::EnvelopeTooDeep,
        RejectReason::InvalidBase64,
        RejectReason::DecompressedTooLarge,
        RejectReason::TruncatedCompression,
        RejectReason::CorruptCompression,
        RejectReason::TrailingGarbage,
        RejectReason::ReadFailed,
    ];

    /// The name in counters and reports.
    pub fn name(self) -> &'static str {
        match self {
            RejectReason::NotJson => "not_json",
            RejectReason::NotAuditEvent => "not_audit_event",
            RejectReason::MalformedJson => "malformed_json",
            RejectReason::Truncated => "truncated",
            RejectReason::LegacyFormat => "legacy_format",
            RejectReason::NulRun => "nul_run",
            RejectReason::LineTooLong => "line_too_long",
            RejectReason::NestingTooDeep => "nesting_too_deep",
            RejectReason::EnvelopeTooDeep => "envelope_too_deep",
            RejectReason::InvalidBase64 => "invalid_base64",
            RejectReason::DecompressedTooLarge => "decompressed_too_large",
            RejectReason::TruncatedCompression => "truncated_compression",
            RejectReason::CorruptCompression => "corrupt_compression",
            RejectReason::TrailingGarbage => "trailing_garbage",
            RejectReason::ReadFailed => "read_failed",
        }
    }
}

impl fmt::Display for RejectReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Why something of an event is missing or stands for something else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PartialReason {
    /// The event was cut: everything from the cut on is missing.
    Truncated,
    /// Bytes that are no UTF-8 were replaced by U+FFFD.
    InvalidUtf8,
    /// A body nested too deep and counts as absent.
    NestingTooDeep,
}

impl PartialReason {
    /// The name in counters and reports.
    pub fn name(self) -> &'static str {
        match self {
            PartialReason::Truncated => "truncated",
            PartialReason::InvalidUtf8 => "invalid_utf8",
            PartialReason::NestingTooDeep => "nesting_too_deep",
        }
    }
}

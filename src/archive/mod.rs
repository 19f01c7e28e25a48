//! The archive: raw events and alerts in object storage, where they cannot be deleted, under a
//! signed Merkle log, which shows any change, so that anyone with two small files and a public key
//! can prove one event offline. docs/archive-format.md is the specification.
//!
//! ```text
//! data/kind=events/date=…/hour=23/000000000123-39dbe30af105ddaf.ndjson.zst   a segment
//! commit/000000000123.tlog-proof   its record, proven in the tree that ends with it: the commit
//! tile/<level>/<index>[.p/<width>]     hashes of the tree      ─┐ derived from the commits, at any
//! tile/entries/<index>[.p/<width>]     records, 256 an object   ├ time again
//! checkpoint                           the newest signed head  ─┘
//! ```
//! One writer owns one log: one prefix, one origin, one key, one state directory. The conditional
//! creation of `commit/N` is at once the append, the lock between writers, and the mark of a crash:
//! what it names was durable before, everything behind it can be made again.

pub mod tree;
pub mod tile;
pub mod note;
pub(crate) mod http;
pub mod kms;
pub mod signatory;
pub mod cosignature;
pub mod policy;
pub mod submission;
pub mod record;
pub mod proof;
pub mod index;
pub mod segment;
pub mod layout;
pub mod store;
pub mod directory;
pub(crate) mod s3;
pub(crate) mod gcs;
pub(crate) mod azure;
pub(crate) mod locking;
pub mod bucket;
#[cfg(test)]
mod sim;
pub mod fringe;
pub mod state;
pub mod seal;
pub mod recover;
pub mod keys;
pub mod witness;
pub mod cosigners;
pub mod writer;
pub mod preflight;
pub mod reader;
pub mod records;
pub mod location;
pub mod regime;
pub mod config;
pub mod verify;
pub mod prove;
#[cfg(test)]
mod tests;

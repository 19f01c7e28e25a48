//! Where audit bytes come from. Sources hand over bytes and positions; what an event is, `event`
//! knows.

pub mod compress;
pub mod marker;
pub mod discover;
pub mod chunk;
pub mod batch;
pub mod intake;
pub mod documents;
pub mod replay;
pub mod sample;
pub mod standing;
pub mod log;
pub mod webhook;
pub mod kafka;

use std::path::PathBuf;

/// How the input is to be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum InputFormat {
    /// Each file tells by itself.
    #[default]
    Auto,
    /// One audit event (or envelope) a line.
    Jsonl,
    /// EventLists, as the webhook backend posts them.
    #[value(name = "eventlist")]
    EventList,
    /// Lines as a container runtime frames them.
    Cri,
    /// What EKS writes to CloudWatch Logs, in any of its wrappings.
    Eks,
    /// Diagnostic records of AKS.
    Aks,
    /// Cloud Logging entries of GKE.
    Gke,
}

/// Input that cannot be what the user meant; the message says what to do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A path that does not exist or cannot be looked at.
    #[error("cannot read {}: {source}; check the path and its permissions", path.display())]
    Read {
        /// What the user named.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A pattern that matches nothing, or is none.
    #[error("pattern {pattern:?} {problem}; quote it, or name a file or directory")]
    Glob {
        /// What the user wrote.
        pattern: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A file that holds no audit log.
    #[error(
        "{} {problem}; name an audit log, or force its form with --input-format", path.display()
    )]
    NoAuditLog {
        /// The file.
        path: PathBuf,
        /// What it is instead.
        problem: &'static str,
    },
    /// Nothing to read in all that was named.
    #[error("no audit log found ({skipped} files hold none, {unreadable} could not be read)")]
    NothingFound {
        /// Files without an audit marker.
        skipped: u64,
        /// Files and directories that could not be read.
        unreadable: u64,
    },
}

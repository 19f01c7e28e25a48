//! Follows audit logs in files, whatever rotates, compresses, truncates or deletes them.
//!
//! What is there is found by reading the directory and asking for each file's state, again and
//! again; being told by the system only makes it faster. What was read is known by position and
//! content: see `matching` for which file is which, `cut` for what a record is, [`checkpoint`]
//! for what is kept, [`name`] for the names of rotated files.
//!
//! - Every line is handed over at least once, in the order of its file, and files of one log in the
//!   order in which they were written. Duplicates come of doubt and are recognised later.
//! - What vanished unread is told, with names and bytes as far as they were seen. A file that is
//!   open cannot vanish: the oldest unread ones are held open.
//! - Nothing is skipped because it cannot be read: it is tried again, counted, told after the third
//!   failure, and from then on no other file waits for it.
//! - A line that a container runtime cut in two parts, of which rotation put the second into the
//!   next file, is handed over as two cut records.

pub mod anchor;
pub mod checkpoint;
pub mod config;
pub mod name;
mod disk;
mod content;
mod cut;
mod findings;
mod segment;
mod probe;
mod family;
mod listing;
mod lost;
mod matching;
mod gauge;
mod tail;
mod watch;

use std::collections::BTreeMap;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use crate::clock::{self, Stopwatch};
use crate::ingest::intake::{Intake, Unpark};
use crate::ingest::log::config::Config;
use crate::ingest::log::disk::{Disk, System};
use crate::ingest::log::tail::{Moment, Step, Tail};
use crate::ingest::log::watch::Watch;
use crate::ingest::standing::Standing;

/// Between two looks at the files at least this passes, however often they change.
const LOOK_MIN: Duration = Duration::from_millis(10);

/// Why a log cannot be followed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configuration makes no sense.
    #[error("log source {name}: {problem}")]
    Config {
        /// The source.
        name: String,
        /// What is wrong, and what to write instead.
        problem: String,
    },
    /// A file cannot be read.
    #[error("cannot read {}: {source}; check the path and its permissions", path.display())]
    Read {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The thread that reads cannot be started, or ended before its time.
    #[error("log source {name}: {problem}")]
    Thread {
        /// The source.
        name: String,
        /// What happened.
        problem: String,
    },
}

/// A source that follows log files.
pub struct LogSource {
    config: Config,
    checkpoints: BTreeMap<String, Vec<u8>>,
    intake: Intake,
    cancellation: CancellationToken,
    standing: Standing,
}

impl LogSource {
    /// A source that goes on where the checkpoints say: all that it sent with batches that became
    /// durable, by key, without those whose value was empty. Touches no file yet.
    ///
    /// # Errors
    /// [`Error::Config`].
    pub fn new(
        config: Config,
        checkpoints: BTreeMap<String, Vec<u8>>,
        intake: Intake,
        cancellation: CancellationToken,
    ) -> Result<LogSource, Error> {
        config.check()?;
        let standing = Standing::default();
        Ok(LogSource { config, checkpoints, intake, cancellation, standing })
    }

    /// How the source stands: whether every log that is named by its path can be followed.
    pub fn standing(&self) -> Standing {
        self.standing.clone()
    }

    /// Follows the logs until it is cancelled or nobody takes batches any more. Reads in a thread
    /// of its own; dropping the future does not end it, cancelling does.
    ///
    /// # Errors
    /// [`Error::Thread`]. What happens to files is no error: it is told by notices and tried again.
    pub async fn run(self) -> Result<(), Error> {
        let name = self.config.name.clone();
        let failed =
            |problem: &str| Error::Thread { name: name.clone(), problem: problem.to_owned() };
        let (over, is_over) = oneshot::channel();
        std::thread::Builder::new()
            .name("log".to_owned())
            .spawn(move || {
                self.follow();
                // Nobody waits where the future was dropped.
                let _unheard = over.send(());
            })
            .map_err(|error| failed(&format!("its thread cannot be started: {error}")))?;
        is_over.await.map_err(|_| failed("its thread ended early"))
    }

    fn follow(self) {
        let LogSource { config, checkpoints, intake, cancellation, standing } = self;
        let poll_interval = config.poll_interval.0;
        let started = Stopwatch::start();
        let moment = || Moment { elapsed: started.elapsed(), wall_us: clock::now_us() };
        let mut tail = Tail::new(config, checkpoints, Arc::new(System), intake, moment());
        let mut watch = Watch::new(std::thread::current());
        let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
        let mut context = Context::from_waker(&waker);
        let mut cancelled = pin!(cancellation.cancelled_owned());
        loop {
            if is_ready(cancelled.as_mut(), &mut context) {
                return;
            }
            let begun = started.elapsed();
            let wait = match tail.step(moment()) {
                Step::Closed => return,
                Step::Busy => continue,
                Step::Waiting if tail.is_answered(&mut context) => continue,
                Step::Waiting => LOOK_MIN,
                Step::Idle => poll_interval,
            };
            standing.set(tail.problem());
            watch.follow(tail.directories());
            pause(&started, begun, wait, &mut || is_ready(cancelled.as_mut(), &mut context));
        }
    }
}

fn is_ready(future: Pin<&mut impl Future<Output = ()>>, context: &mut Context<'_>) -> bool {
    matches!(future.poll(context), Poll::Ready(()))
}

/// Waits until something happens, but for [`LOOK_MIN`] in any case, and no longer than `wait`.
fn pause(
    started: &Stopwatch,
    begun: Duration,
    wait: Duration,
    is_cancelled: &mut dyn FnMut() -> bool,
) {
    let until = begun + wait.max(LOOK_MIN);
    let rest = until.saturating_sub(started.elapsed());
    if rest.is_zero() || is_cancelled() {
        return;
    }
    std::thread::park_timeout(rest);
    // Many small writes wake often; they are read together.
    while started.elapsed() < begun + LOOK_MIN && !is_cancelled() {
        std::thread::park_timeout((begun + LOOK_MIN).saturating_sub(started.elapsed()));
    }
}

/// Looks whether the logs of a configuration can be read, without changing anything: of each path
/// the directory, and the file if it is there.
///
/// # Errors
/// [`Error::Config`], or the first [`Error::Read`].
pub fn preflight(config: &Config) -> Result<(), Error> {
    config.check()?;
    for pattern in config.path.patterns() {
        if pattern.contains(['*', '?', '[']) {
            continue;
        }
        let path = Path::new(pattern);
        let failed = |source| Error::Read { path: path.to_owned(), source };
        let real = System.resolve(path).map_err(failed)?;
        System.names(real.parent().unwrap_or(Path::new("/"))).map_err(failed)?;
        match System.open(&real) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            result => drop(result.map_err(failed)?),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;

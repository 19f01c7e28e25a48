//! Being told of changes by the system, to look sooner. Nothing depends on it: it may be missing,
//! overflow, or say nothing on a network file system.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::thread::Thread;

use notify::{RecommendedWatcher, RecursiveMode, Watcher};

/// Watches directories and wakes a thread when something happens there.
pub(crate) struct Watch {
    watcher: Option<RecommendedWatcher>,
    watched: BTreeSet<PathBuf>,
}

impl Watch {
    /// Wakes this thread.
    pub(crate) fn new(thread: Thread) -> Watch {
        let watcher = notify::recommended_watcher(move |_: notify::Result<notify::Event>| {
            thread.unpark();
        });
        if let Err(error) = &watcher {
            tracing::warn!(%error, "files are looked at by the clock only");
        }
        Watch { watcher: watcher.ok(), watched: BTreeSet::new() }
    }

    /// Watches these directories, and no others. What cannot be watched is tried again.
    pub(crate) fn follow<'p>(&mut self, directories: impl Iterator<Item = &'p Path>) {
        let Some(watcher) = &mut self.watcher else { return };
        let wanted: BTreeSet<PathBuf> = directories.map(Path::to_owned).collect();
        if wanted == self.watched {
            return;
        }
        for directory in self.watched.difference(&wanted) {
            // A directory that is gone has no watch left to remove.
            let _gone = watcher.unwatch(directory);
        }
        self.watched.retain(|directory| wanted.contains(directory));
        for directory in wanted {
            if !self.watched.contains(&directory)
                && watcher.watch(&directory, RecursiveMode::NonRecursive).is_ok()
            {
                self.watched.insert(directory);
            }
        }
    }
}

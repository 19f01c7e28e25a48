//! How far a run is, on the terminal of the person who waits.

use std::io::IsTerminal;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use indicatif::{HumanCount, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};

/// A progress bar on standard error: bytes, events a second, time left. Draws nothing unless
/// standard error is a terminal. Clones share one bar; all methods may be called from any thread.
#[derive(Clone, Debug)]
pub struct Progress {
    bar: ProgressBar,
    events: Arc<AtomicU64>,
}

impl Progress {
    /// Starts a bar. `bytes_total` is what there is to read before decompression; `None` where
    /// nobody knows (standard input).
    pub fn start(bytes_total: Option<u64>) -> Progress {
        let target = if std::io::stderr().is_terminal() {
            ProgressDrawTarget::stderr_with_hz(10)
        } else {
            ProgressDrawTarget::hidden()
        };
        Progress::on(target, bytes_total)
    }

    fn on(target: ProgressDrawTarget, bytes_total: Option<u64>) -> Progress {
        let events = Arc::new(AtomicU64::new(0));
        let bar = ProgressBar::with_draw_target(bytes_total, target);
        let template = match bytes_total {
            Some(_) => "{wide_bar} {bytes}/{total_bytes}  {event_rate}  {eta} left",
            None => "{spinner} {bytes}  {event_rate}  {elapsed}",
        };
        let counted = Arc::clone(&events);
        let rate = move |state: &ProgressState, out: &mut dyn std::fmt::Write| {
            let events = counted.load(Ordering::Relaxed);
            let _ = write!(out, "{} events/s", HumanCount(rate(events, state.elapsed())));
        };
        let style = ProgressStyle::with_template(template)
            .expect("the template is a constant")
            .with_key("event_rate", rate);
        bar.set_style(style);
        Progress { bar, events }
    }

    /// Shows what was read and met in all. Cheap enough for every batch, not for every event.
    pub fn show(&self, bytes: u64, events: u64) {
        self.events.store(events, Ordering::Relaxed);
        self.bar.set_position(bytes);
    }

    /// Hides the bar while `print` writes to the same terminal.
    pub fn suspend<R>(&self, print: impl FnOnce() -> R) -> R {
        self.bar.suspend(print)
    }

    /// Removes the bar.
    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

#[expect(clippy::cast_precision_loss, reason = "shown rounded")]
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "rounded, above zero")]
fn rate(events: u64, elapsed: Duration) -> u64 {
    (events as f64 / elapsed.as_secs_f64().max(0.001)) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_without_a_terminal() {
        for total in [None, Some(100)] {
            let progress = Progress::on(ProgressDrawTarget::hidden(), total);
            progress.clone().show(60, 3);
            progress.show(100, 5);
            assert_eq!(progress.bar.position(), 100);
            assert_eq!(progress.events.load(Ordering::Relaxed), 5);
            assert_eq!(progress.suspend(|| 7), 7);
            progress.finish();
        }
        assert_eq!(rate(90, Duration::from_secs(2)), 45);
    }
}

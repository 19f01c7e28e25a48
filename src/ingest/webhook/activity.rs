//! What a connection is doing, and when it has done nothing useful for too long.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use crate::ingest::webhook::config::Limits;

/// How a connection over HTTP/2 begins.
const HTTP2_PREFACE: &[u8] = b"PRI ";

/// Time for the last bytes of a connection that is being closed.
const LINGER: Duration = Duration::from_secs(2);

/// Why a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Expiry {
    /// A request's head takes too long, or the first request does not come.
    Header,
    /// No request for long.
    Idle,
    /// Old, and due for a new handshake.
    Age,
    /// It was asked to close and does not.
    Linger,
}

/// The activity of one connection; shared by its bytes, its requests and its watch.
#[derive(Debug)]
pub(crate) struct Activity {
    state: Mutex<State>,
    changed: Notify,
    header_timeout: Duration,
    idle_timeout: Duration,
    old_at: Instant,
}

#[derive(Debug)]
struct State {
    requests: usize,
    /// Since when there is no request, or since when the head of one is coming.
    since: Instant,
    is_in_head: bool,
    /// Which protocol the first bytes speak, when there were some.
    is_http2: Option<bool>,
    is_closing: bool,
}

impl Activity {
    pub(crate) fn new(limits: &Limits) -> Arc<Activity> {
        let now = Instant::now();
        let state =
            State { requests: 0, since: now, is_in_head: true, is_http2: None, is_closing: false };
        Arc::new(Activity {
            state: Mutex::new(state),
            changed: Notify::new(),
            header_timeout: limits.header_timeout.0,
            idle_timeout: limits.idle_timeout.0,
            old_at: now + limits.connection_age_max.0,
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bytes have arrived. Between requests over HTTP/1.1 they begin a head; over HTTP/2 they may
    /// be anything.
    fn read(&self, bytes: &[u8]) {
        let mut state = self.state();
        let is_http2 = *state.is_http2.get_or_insert(bytes.starts_with(HTTP2_PREFACE));
        if state.requests == 0 && !state.is_in_head && !is_http2 {
            state.is_in_head = true;
            state.since = Instant::now();
            self.changed.notify_one();
        }
    }

    /// A request has begun; it ends when the guard is dropped.
    pub(crate) fn request(self: &Arc<Activity>) -> RequestGuard {
        let mut state = self.state();
        state.requests += 1;
        state.is_in_head = false;
        RequestGuard(Arc::clone(self))
    }

    /// From now on only what is under way is waited for.
    pub(crate) fn close(&self) {
        let mut state = self.state();
        state.is_closing = true;
        state.since = Instant::now();
        self.changed.notify_one();
    }

    /// Waits until the connection is to end.
    pub(crate) async fn expired(&self) -> Expiry {
        loop {
            let changed = self.changed.notified();
            let (at, expiry) = self.deadline();
            if at <= Instant::now() {
                return expiry;
            }
            tokio::select! {
                () = sleep_until(at) => {}
                () = changed => {}
            }
        }
    }

    fn deadline(&self) -> (Instant, Expiry) {
        let state = self.state();
        let far = Instant::now() + Duration::from_secs(86_400);
        let (at, expiry) = match (&*state, state.requests) {
            (State { is_closing: true, .. }, 0) => return (state.since + LINGER, Expiry::Linger),
            (State { is_closing: true, .. }, _) => return (far, Expiry::Linger),
            (State { is_in_head: true, .. }, _) => {
                (state.since + self.header_timeout, Expiry::Header)
            }
            (_, 0) => (state.since + self.idle_timeout, Expiry::Idle),
            _ => (far, Expiry::Idle),
        };
        if self.old_at < at { (self.old_at, Expiry::Age) } else { (at, expiry) }
    }
}

/// A request under way.
pub(crate) struct RequestGuard(Arc<Activity>);

impl Drop for RequestGuard {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.requests -= 1;
        if state.requests == 0 {
            state.since = Instant::now();
            self.0.changed.notify_one();
        }
    }
}

/// A stream that tells of what it reads.
pub(crate) struct Observed<I> {
    inner: I,
    activity: Arc<Activity>,
}

impl<I> Observed<I> {
    pub(crate) fn new(inner: I, activity: Arc<Activity>) -> Observed<I> {
        Observed { inner, activity }
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for Observed<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let before = buffer.filled().len();
        let result = Pin::new(&mut self.inner).poll_read(context, buffer);
        let read = &buffer.filled()[before..];
        if !read.is_empty() {
            self.activity.read(read);
        }
        result
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Observed<I> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(context, bytes)
    }

    fn poll_flush(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[std::io::IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(context, slices)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What happens after so many seconds; then when and why the connection ends.
    #[tokio::test(start_paused = true)]
    async fn ends_what_does_nothing() {
        for (name, script, after, expected) in [
            ("silence", "", 10, Expiry::Header),
            ("half a head", "2r", 10, Expiry::Header),
            ("one request", "1r 1b 5e", 187, Expiry::Idle),
            ("a head that does not end", "1r 0b 5e 100r", 116, Expiry::Header),
            ("two requests at a time", "1p 0b 1b 5e 5e", 192, Expiry::Idle),
            ("pings between requests", "1p 0b 5e 100p 50p", 186, Expiry::Idle),
            ("a busy one", "1p 0b 3598r", 3600, Expiry::Age),
            ("closed", "1r 0b 5e 100c", 108, Expiry::Linger),
            ("closed when busy", "1r 0b 100c 50e", 153, Expiry::Linger),
        ] {
            let (activity, start) = (Activity::new(&Limits::default()), Instant::now());
            let watch = tokio::spawn({
                let activity = Arc::clone(&activity);
                async move { (activity.expired().await, Instant::now()) }
            });
            let mut requests = Vec::new();
            for step in script.split_whitespace() {
                let (wait, step) = step.split_at(step.len() - 1);
                tokio::time::sleep(Duration::from_secs(wait.parse().unwrap())).await;
                match step {
                    "r" => activity.read(b"POST"),
                    "p" => activity.read(b"PRI * HTTP/2.0"),
                    "b" => requests.push(activity.request()),
                    "c" => activity.close(),
                    _ => drop(requests.pop()),
                }
            }
            let (expiry, end) = watch.await.unwrap();
            assert_eq!((expiry, (end - start).as_secs()), (expected, after), "{name}");
            drop(requests);
        }
    }
}

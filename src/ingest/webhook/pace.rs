//! How long a body may be waited for: a grace, and what its bytes take at the slowest rate allowed.

use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http_body_util::BodyExt;
use tokio::time::{Instant, timeout};

use crate::ingest::webhook::config::Limits;

/// A body being read. Only time spent waiting for the caller counts.
pub(crate) struct PacedBody {
    body: Body,
    waited: Duration,
    received: u64,
    grace: Duration,
    bytes_per_second: u64,
    waited_max: Duration,
}

/// Why there is no more of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Broken {
    /// It comes too slowly.
    Slow,
    /// The caller has gone, or does not speak HTTP.
    Gone,
}

impl PacedBody {
    pub(crate) fn new(body: Body, limits: &Limits) -> PacedBody {
        PacedBody {
            body,
            waited: Duration::ZERO,
            received: 0,
            grace: limits.body_grace.0,
            bytes_per_second: limits.body_bytes_per_second_min.0,
            waited_max: limits.body_timeout.0,
        }
    }

    /// Bytes so far, as they were sent.
    pub(crate) fn received(&self) -> u64 {
        self.received
    }

    /// The next bytes; `None` at the body's end.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, Broken> {
        loop {
            let earned = Duration::from_millis(
                self.received.saturating_mul(1_000) / self.bytes_per_second.max(1),
            );
            let allowed = (self.grace + earned).min(self.waited_max);
            let start = Instant::now();
            let frame = timeout(allowed.saturating_sub(self.waited), self.body.frame()).await;
            self.waited += start.elapsed();
            return match frame {
                Err(_) => Err(Broken::Slow),
                Ok(None) => Ok(None),
                Ok(Some(Err(_))) => Err(Broken::Gone),
                Ok(Some(Ok(frame))) => match frame.into_data() {
                    Ok(bytes) => {
                        self.received += bytes.len() as u64;
                        Ok(Some(bytes))
                    }
                    Err(_) => continue,
                },
            };
        }
    }

    /// Reads and forgets what is left, up to `bytes_max`, so that a caller that writes before it
    /// reads gets his answer; whether the body's end was reached.
    pub(crate) async fn discard(&mut self, bytes_max: u64) -> bool {
        let limit = self.received.saturating_add(bytes_max);
        while self.received <= limit {
            match self.next().await {
                Ok(Some(_)) => {}
                Ok(None) => return true,
                Err(_) => return false,
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::Span;
    use futures_util::stream;

    /// Bodies as (seconds to wait, bytes) pieces; whether they are fast enough.
    #[tokio::test(start_paused = true)]
    async fn tells_slow_bodies_from_large_ones() {
        let kib = 1 << 10;
        for (name, pieces, expected) in [
            ("at once", vec![(0, 10 * kib)], Ok(10 * kib)),
            ("late but in time", vec![(9, 5)], Ok(5)),
            ("never", vec![(3_600, 5)], Err(Broken::Slow)),
            ("a drop a second", vec![(1, 1); 100], Err(Broken::Slow)),
            ("at the rate", vec![(1, 16 * kib); 100], Ok(1_600 * kib)),
            ("fast, then a long pause", vec![(0, 1 << 20), (70, 1)], Ok((1 << 20) + 1)),
            ("fast, then too long a pause", vec![(0, 1 << 20), (80, 1)], Err(Broken::Slow)),
            ("fast enough, but endless", vec![(1, 64 * kib); 400], Err(Broken::Slow)),
        ] {
            let pieces = stream::unfold(pieces.into_iter(), async |mut rest| {
                let (wait, length) = rest.next()?;
                tokio::time::sleep(Duration::from_secs(wait)).await;
                Some((Ok::<_, std::io::Error>(vec![b'x'; length]), rest))
            });
            let limits = Limits { body_timeout: Span::from_secs(180), ..Limits::default() };
            let mut body = PacedBody::new(Body::from_stream(pieces), &limits);
            let end = loop {
                match body.next().await {
                    Ok(Some(_)) => {}
                    Ok(None) => break Ok(body.received() as usize),
                    Err(broken) => break Err(broken),
                }
            };
            assert_eq!(end, expected, "{name}");
        }
    }
}

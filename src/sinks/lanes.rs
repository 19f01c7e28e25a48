//! `Lanes`: how many requests a sink sends side by side, where the far side needs no order.
//!
//! The number is found out as TCP finds out how much a network takes: one more when a load that
//! filled every lane went well; half as many when the far side was busy or did not answer; no more
//! than there are while answers take twice as long as they usually do.

use std::time::Duration;

use futures_util::future::join_all;

use crate::clock::Stopwatch;
use crate::sinks::{Delivered, Item, Rejection, SendError};

/// A request with less than this would cost more than it gains. In unit tests a few events fill
/// several lanes.
const SHARE_BYTES_MIN: usize = if cfg!(test) { 1 << 10 } else { 128 << 10 };

/// How many requests go side by side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Lanes {
    open: usize,
    open_max: usize,
    /// How long the slowest request of a load usually takes.
    usual: Option<Duration>,
}

impl Lanes {
    /// One, and in time so many.
    pub(crate) fn new(open_max: usize) -> Lanes {
        Lanes { open: 1, open_max: open_max.max(1), usual: None }
    }

    /// How many there are now.
    pub(crate) fn open(&self) -> usize {
        self.open
    }

    /// Delivers a load: a share of it in each lane by `deliver`. What failed in one lane is to be
    /// sent again; what the others delivered is not.
    ///
    /// # Errors
    /// As of `deliver`, where all went in one lane.
    pub(crate) async fn send<'b, 'r, F>(
        &mut self,
        batch: &'b [Item<'r>],
        deliver: impl Fn(&'b [Item<'r>]) -> F,
    ) -> Result<Delivered, SendError>
    where
        F: Future<Output = Result<Delivered, SendError>>,
    {
        let shares = shares(batch, self.open);
        let timed = shares.iter().map(async |share| {
            let since = Stopwatch::start();
            (deliver(share).await, since.elapsed())
        });
        let answers = join_all(timed).await;
        let is_busy = answers.iter().any(|(answer, _)| match answer {
            Ok(delivered) => !delivered.again.is_empty(),
            Err(error) => matches!(error, SendError::Retry { .. }),
        });
        let slowest = answers.iter().map(|(_, took)| *took).max().unwrap_or_default();
        self.learn(is_busy, shares.len() >= self.open, slowest);
        let answers: Vec<_> = answers.into_iter().map(|(answer, _)| answer).collect();
        together(&shares, answers)
    }

    fn learn(&mut self, is_busy: bool, is_full: bool, slowest: Duration) {
        if is_busy {
            self.open = (self.open / 2).max(1);
            return;
        }
        let usual = self.usual.unwrap_or(slowest);
        self.usual = Some((usual * 7 + slowest) / 8);
        if is_full && slowest <= usual * 2 {
            self.open = (self.open + 1).min(self.open_max);
        }
    }
}

/// Cuts a batch into at most so many shares of about as many bytes, in order.
fn shares<'b, 'r>(batch: &'b [Item<'r>], shares_max: usize) -> Vec<&'b [Item<'r>]> {
    let bytes: usize = batch.iter().map(|item| item.bytes().len()).sum();
    let share_bytes = bytes.div_ceil(shares_max.max(1)).max(SHARE_BYTES_MIN);
    let (mut shares, mut start, mut held) = (Vec::new(), 0, 0);
    for (index, item) in batch.iter().enumerate() {
        held += item.bytes().len();
        if held >= share_bytes {
            shares.push(&batch[start..=index]);
            (start, held) = (index + 1, 0);
        }
    }
    if start < batch.len() {
        shares.push(&batch[start..]);
    }
    shares
}

/// One answer for all shares.
fn together(
    shares: &[&[Item<'_>]],
    mut answers: Vec<Result<Delivered, SendError>>,
) -> Result<Delivered, SendError> {
    if answers.len() == 1 {
        return answers.remove(0);
    }
    let (mut all, mut start) = (Delivered::default(), 0);
    for (share, answer) in shares.iter().zip(answers) {
        let answer = answer.unwrap_or_else(|why| Delivered {
            again: (0..share.len()).collect(),
            why: Some(why),
            ..Delivered::default()
        });
        all.again.extend(answer.again.iter().map(|index| start + index));
        let place =
            |rejection: Rejection| Rejection { index: start + rejection.index, ..rejection };
        all.rejected.extend(answer.rejected.into_iter().map(place));
        if weight(&answer.why) > weight(&all.why) {
            all.why = answer.why;
        }
        start += share.len();
    }
    Ok(all)
}

/// What is done next about several errors is what the heaviest one asks for.
fn weight(why: &Option<SendError>) -> u8 {
    match why {
        None => 0,
        Some(SendError::TooLarge { .. } | SendError::Reject { .. }) => 1,
        Some(SendError::Retry { .. }) => 2,
        Some(SendError::Block { .. }) => 3,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sinks::Outgoing;

    fn items(payloads: &[Vec<u8>]) -> Vec<Item<'_>> {
        let pairs = payloads.iter().zip(1..);
        pairs.map(|(json, seq)| Item { seq, outgoing: Outgoing::Alert(json) }).collect()
    }

    #[test]
    fn a_load_is_cut_into_shares_of_about_as_many_bytes() {
        for (sizes, open, expected) in [
            (vec![10; 50], 4, vec![50]),
            (vec![128 << 10; 4], 1, vec![4]),
            (vec![128 << 10; 4], 2, vec![2, 2]),
            (vec![128 << 10; 5], 4, vec![2, 2, 1]),
            (vec![1 << 20, 10, 10, 10], 4, vec![1, 3]),
            (vec![], 4, vec![]),
        ] {
            let payloads: Vec<Vec<u8>> = sizes.iter().map(|size| vec![b'x'; *size]).collect();
            let items = items(&payloads);
            let found: Vec<usize> = shares(&items, open).iter().map(|share| share.len()).collect();
            assert_eq!(found, expected, "{open} {}", sizes.len());
        }
    }

    #[test]
    fn lanes_open_one_by_one_and_half_of_them_close_when_the_far_side_is_busy() {
        let mut lanes = Lanes::new(4);
        let ms = Duration::from_millis;
        for (is_busy, is_full, took, open) in [
            (false, true, 10, 2),
            (false, false, 10, 2),
            (false, true, 10, 3),
            (false, true, 100, 3),
            (false, true, 10, 4),
            (false, true, 10, 4),
            (true, true, 1, 2),
            (true, true, 1, 1),
            (true, true, 1, 1),
            (false, true, 10, 2),
        ] {
            lanes.learn(is_busy, is_full, ms(took));
            assert_eq!(lanes.open(), open);
        }
        assert_eq!(Lanes::new(0).open(), 1);
    }

    #[tokio::test]
    async fn what_one_lane_delivered_is_not_sent_again_for_another() {
        let payloads: Vec<Vec<u8>> = (0..6).map(|_| vec![b'x'; SHARE_BYTES_MIN / 2]).collect();
        let items = items(&payloads);
        let mut lanes = Lanes { open: 3, open_max: 3, usual: None };
        let answer = async |share: &[Item<'_>]| match share[0].seq {
            1 => Ok(Delivered {
                rejected: vec![Rejection { index: 1, reason: "mapping", cause: String::new() }],
                ..Delivered::default()
            }),
            3 => Err(SendError::TooLarge { cause: "413".to_owned() }),
            _ => Err(SendError::retry("503")),
        };
        let delivered = lanes.send(&items, answer).await.unwrap();
        assert_eq!(delivered.again, [2, 3, 4, 5]);
        assert_eq!(delivered.rejected[0].index, 1);
        assert_eq!(delivered.why, Some(SendError::retry("503")));
        assert_eq!(lanes.open(), 1);
        let error = lanes.send(&items[2..4], answer).await.unwrap_err();
        assert_eq!(error, SendError::TooLarge { cause: "413".to_owned() });
    }
}

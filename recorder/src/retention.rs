//! Decides which segments a run may drop. It doesn't touch the files.

use std::collections::VecDeque;

use crate::keep::Keep;

/// A segment on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Segment {
    epoch: u64,
    steps: u64,
    bytes: u64,
}

/// Follows the segments of a run and counts the oldest ones that may be dropped.
#[derive(Debug)]
pub(crate) struct Retention {
    keep: Keep,
    /// Sealed segments, oldest first.
    sealed: VecDeque<Segment>,
    /// The open segment.
    open: Option<Segment>,
}

impl Retention {
    pub(crate) fn new(keep: Keep) -> Self {
        Self {
            keep,
            sealed: VecDeque::new(),
            open: None,
        }
    }

    /// Adds a sealed segment that a resumed run found. Oldest first.
    pub(crate) fn found(&mut self, epoch: u64, steps: u64, bytes: u64) {
        self.sealed.push_back(Segment {
            epoch,
            steps,
            bytes,
        });
    }

    /// A step of `epoch` opened a segment. The segment before it is sealed and has `sealed_bytes`. Returns the number
    /// of oldest segments that may be dropped.
    pub(crate) fn opened(&mut self, epoch: u64, sealed_bytes: u64) -> usize {
        if let Some(mut before) = self.open.take() {
            before.bytes = sealed_bytes;
            self.sealed.push_back(before);
        }
        self.open = Some(Segment {
            epoch,
            steps: 0,
            bytes: 0,
        });
        let surplus = match self.keep {
            // The first step of an epoch completes the epoch before it.
            Keep::LastEpoch => self.older_than(epoch.saturating_sub(1)),
            Keep::LastSteps(n) => self.beyond_steps(n),
            Keep::Budget(bytes) => self.beyond_bytes(bytes),
            Keep::All | Keep::EveryNth(_) => 0,
        };
        self.sealed.drain(..surplus);
        surplus
    }

    /// A frame of this many bytes was appended to the open segment.
    pub(crate) fn appended(&mut self, bytes: u64) {
        if let Some(open) = &mut self.open {
            open.steps += 1;
            open.bytes += bytes;
        }
    }

    /// The run was finished. The last epoch counts as complete if it has at least as many steps as the one before it.
    /// Then the one before it may be dropped.
    pub(crate) fn finished(&mut self) -> usize {
        let Some(open) = self.open else { return 0 };
        let steps_of = |epoch: u64| -> u64 {
            self.sealed
                .iter()
                .chain(&self.open)
                .filter(|segment| segment.epoch == epoch)
                .map(|segment| segment.steps)
                .sum()
        };
        let surplus = match self.keep {
            Keep::LastEpoch
                if open.epoch > 0 && steps_of(open.epoch) >= steps_of(open.epoch - 1) =>
            {
                self.older_than(open.epoch)
            }
            _ => 0,
        };
        self.sealed.drain(..surplus);
        surplus
    }

    fn older_than(&self, epoch: u64) -> usize {
        self.sealed
            .iter()
            .take_while(|segment| segment.epoch < epoch)
            .count()
    }

    fn beyond_steps(&self, n: u64) -> usize {
        self.surplus(n, |segment| segment.steps)
    }

    /// The open segment is counted with the size of the last sealed one, which it will reach.
    fn beyond_bytes(&self, budget: u64) -> usize {
        let coming = self.sealed.back().map_or(0, |segment| segment.bytes);
        let mut total: u64 = coming + self.sealed.iter().map(|segment| segment.bytes).sum::<u64>();
        let mut surplus = 0;
        for segment in &self.sealed {
            // One sealed segment always stays. Otherwise a tight budget would keep next to nothing.
            if total <= budget || surplus + 1 >= self.sealed.len() {
                break;
            }
            total -= segment.bytes;
            surplus += 1;
        }
        surplus
    }

    /// The largest number of oldest sealed segments without which at least `n` remain.
    fn surplus(&self, n: u64, measure: impl Fn(&Segment) -> u64) -> usize {
        let mut left: u64 = self.sealed.iter().map(&measure).sum();
        let mut surplus = 0;
        for segment in &self.sealed {
            left -= measure(segment);
            if left < n {
                break;
            }
            surplus += 1;
        }
        surplus
    }
}

/// Largest number of steps per segment. Segments are dropped whole, so they are short where little is kept.
pub(crate) fn steps_per_segment(keep: Keep, frame_bytes: u64, most: u32) -> u32 {
    let wanted = match keep {
        Keep::All | Keep::LastEpoch | Keep::EveryNth(_) => return most,
        Keep::LastSteps(n) => n.div_ceil(4),
        // An eighth of the budget, at two thirds of the raw size, the usual result of the encoding.
        Keep::Budget(bytes) => bytes.saturating_mul(3) / 16 / frame_bytes.max(1),
    };
    u32::try_from(wanted).unwrap_or(most).clamp(1, most)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Simulates a run of steps of ten bytes each. Returns the number of steps on disk after each step.
    fn play(keep: Keep, steps: u64, per_epoch: u64, per_segment: u64) -> (Vec<u64>, Retention) {
        let mut retention = Retention::new(keep);
        let mut on_disk: VecDeque<u64> = VecDeque::new();
        let mut history = Vec::new();
        let mut in_segment = per_segment;
        for step in 0..steps {
            if in_segment == per_segment || step % per_epoch == 0 {
                let sealed = on_disk.back().copied().unwrap_or(0) * 10;
                let surplus = retention.opened(step / per_epoch, sealed);
                on_disk.drain(..surplus);
                on_disk.push_back(0);
                in_segment = 0;
            }
            retention.appended(10);
            *on_disk.back_mut().unwrap() += 1;
            in_segment += 1;
            history.push(on_disk.iter().sum());
        }
        (history, retention)
    }

    #[test]
    fn all_drops_nothing() {
        assert_eq!(play(Keep::All, 100, 10, 4).0.last(), Some(&100));
    }

    #[test]
    fn the_last_complete_epoch_and_the_current_one_are_kept() {
        let (history, mut retention) = play(Keep::LastEpoch, 35, 10, 4);
        for (step, kept) in history.iter().enumerate() {
            let in_epoch = step as u64 % 10 + 1;
            let before = if step >= 10 { 10 } else { 0 };
            assert_eq!(*kept, before + in_epoch, "after step {step}");
        }
        // The fourth epoch is half done, so the third one is the last complete one and stays.
        assert_eq!(retention.finished(), 0);
        let (_, mut retention) = play(Keep::LastEpoch, 40, 10, 4);
        assert_eq!(retention.finished(), 3);
    }

    #[test]
    fn the_last_steps_are_kept_and_at_most_two_segments_more() {
        let n = 20;
        let segment = u64::from(steps_per_segment(Keep::LastSteps(n), 1, 256));
        let (history, _) = play(Keep::LastSteps(n), 300, 1000, segment);
        for (step, kept) in history.iter().enumerate().skip(20) {
            assert!(
                *kept >= n && *kept <= n + 2 * segment,
                "{kept} after step {step}"
            );
        }
    }

    #[test]
    fn the_segments_stay_within_the_budget() {
        let (history, _) = play(Keep::Budget(400), 300, 1000, 5);
        assert!(history.iter().all(|kept| kept * 10 <= 400));
        assert!(*history.last().unwrap() >= 30);
    }

    #[test]
    fn segments_are_short_where_little_is_kept() {
        assert_eq!(steps_per_segment(Keep::All, 1 << 20, 256), 256);
        assert_eq!(steps_per_segment(Keep::LastSteps(20), 1, 256), 5);
        assert_eq!(steps_per_segment(Keep::LastSteps(1), 1, 256), 1);
        assert_eq!(steps_per_segment(Keep::Budget(160), 10, 256), 3);
        assert_eq!(steps_per_segment(Keep::Budget(1), 10, 256), 1);
    }
}

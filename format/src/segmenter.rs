//! Where a segment ends and the next begins.

use crate::meta::StepMeta;

/// How long segments become.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentPolicy {
    /// Most steps of a segment; 256 keeps keyframe and link under 1 % of it.
    pub max_steps: u32,
    /// An epoch's end cuts only segments that have so many steps already, and in which another such epoch would not find room, so that
    /// short epochs don't cost a keyframe and a sync to disk each.
    pub min_steps: u32,
    /// Cut at every epoch's end, however short: what a ring of epochs (keep the last epoch) needs.
    pub cut_every_epoch: bool,
}

impl Default for SegmentPolicy {
    fn default() -> SegmentPolicy {
        SegmentPolicy {
            max_steps: 256,
            min_steps: 128,
            cut_every_epoch: false,
        }
    }
}

/// What the segmenter says about a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placement {
    /// The step opens a segment: record it as a keyframe, after a link that closes the segment before.
    pub cut: bool,
    /// The step before it was the last of its epoch.
    pub epoch_ended: bool,
}

/// Decides step by step; lives with the recording thread, since the decision needs nothing but the metadata.
#[derive(Debug, Clone)]
pub struct Segmenter {
    policy: SegmentPolicy,
    steps: u32,
    epoch: Option<u64>,
    /// Steps of the present epoch that have been placed.
    in_epoch: u32,
}

impl Segmenter {
    /// A segmenter whose first step opens a segment.
    pub fn new(policy: SegmentPolicy) -> Segmenter {
        Segmenter {
            policy,
            steps: 0,
            epoch: None,
            in_epoch: 0,
        }
    }

    /// Places the next recorded step.
    pub fn place(&mut self, meta: &StepMeta) -> Placement {
        let epoch_ended = self.epoch.is_some_and(|epoch| epoch != meta.epoch);
        let max_steps = self.policy.max_steps.max(1);
        let full = self.steps >= self.policy.min_steps
            && self.steps.saturating_add(self.in_epoch) > max_steps;
        let cut = self.epoch.is_none()
            || self.steps >= max_steps
            || epoch_ended && (self.policy.cut_every_epoch || full);
        self.steps = if cut { 1 } else { self.steps + 1 };
        self.in_epoch = if epoch_ended {
            1
        } else {
            self.in_epoch.saturating_add(1)
        };
        self.epoch = Some(meta.epoch);
        Placement { cut, epoch_ended }
    }

    /// Makes the next step open a segment: after a storage failure, a resume, or a step that could not be recorded.
    pub fn cut_next(&mut self) {
        self.steps = self.policy.max_steps.max(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::meta::BatchWeights;

    fn cuts(policy: SegmentPolicy, steps_an_epoch: u64, steps: u64) -> Vec<u64> {
        let mut segmenter = Segmenter::new(policy);
        let meta = |step| StepMeta {
            step,
            epoch: step / steps_an_epoch,
            groups: vec![],
            indices: vec![],
            weights: BatchWeights::Mean,
            micro_batches: vec![],
            loss: None,
            clip_norm: None,
            optimizer_step: step,
            trained: vec![],
            scalars: vec![],
            extensions: vec![],
        };
        (0..steps)
            .filter(|&step| {
                let placement = segmenter.place(&meta(step));
                assert_eq!(
                    placement.epoch_ended,
                    step > 0 && step % steps_an_epoch == 0
                );
                placement.cut
            })
            .collect()
    }

    #[test]
    fn long_epochs_are_cut_at_their_ends_and_at_256_steps() {
        assert_eq!(cuts(SegmentPolicy::default(), 157, 500), [0, 157, 314, 471]);
        assert_eq!(cuts(SegmentPolicy::default(), 300, 700), [0, 256, 512]);
        assert_eq!(
            cuts(SegmentPolicy::default(), 400, 900),
            [0, 256, 400, 656, 800]
        );
    }

    #[test]
    fn short_epochs_share_segments_unless_each_is_to_be_dropped_alone() {
        assert_eq!(cuts(SegmentPolicy::default(), 50, 600), [0, 250, 500]);
        assert_eq!(cuts(SegmentPolicy::default(), 100, 500), [0, 200, 400]);
        assert_eq!(cuts(SegmentPolicy::default(), 128, 600), [0, 256, 512]);
        assert_eq!(
            cuts(
                SegmentPolicy {
                    cut_every_epoch: true,
                    ..SegmentPolicy::default()
                },
                50,
                200
            ),
            [0, 50, 100, 150]
        );
    }
}

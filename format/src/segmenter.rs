//! Decides where a segment ends and the next one begins.

use crate::meta::StepMeta;

/// How long segments become.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentPolicy {
    /// Largest number of steps in a segment. With 256, keyframe and link are under 1 % of its bytes.
    pub max_steps: u32,
    /// The end of an epoch cuts a segment only if it has at least this number of steps and no room for another epoch of the same length.
    /// Short epochs then don't cost a keyframe and a sync each.
    pub min_steps: u32,
    /// Cut at the end of every epoch, however short. A ring of epochs (keep the last epoch) requires it.
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

/// The segmenter's decision about a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placement {
    /// Whether the step opens a segment. If so, record it as a keyframe, after a link that closes the previous segment.
    pub cut: bool,
    /// Whether the previous step was the last of its epoch.
    pub epoch_ended: bool,
}

/// Places steps one by one. Lives on the recording thread, because the decision needs only the metadata.
#[derive(Debug, Clone)]
pub struct Segmenter {
    policy: SegmentPolicy,
    steps: u32,
    epoch: Option<u64>,
    /// Number of steps of the current epoch that have been placed.
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

    /// Makes the next step open a segment. Call it after a storage failure, a resume, or a step that could not be recorded.
    pub fn cut_next(&mut self) {
        self.steps = self.policy.max_steps.max(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::meta::BatchWeights;

    fn cuts(policy: SegmentPolicy, steps_per_epoch: u64, steps: u64) -> Vec<u64> {
        let mut segmenter = Segmenter::new(policy);
        let meta = |step| StepMeta {
            step,
            epoch: step / steps_per_epoch,
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
                    step > 0 && step % steps_per_epoch == 0
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
    fn short_epochs_share_segments_unless_every_epoch_is_cut() {
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

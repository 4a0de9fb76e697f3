//! The optimizer's state before each step, newest step first, which the reverse of Adam and similar rules requires.
//!
//! A keyframe contains the state. Between keyframes it is rebuilt: a walk forward over the steps computes it from the
//! gradients at the recorded parameters, and keeps it at some steps. From a kept state, the sweep goes back step by step:
//! the moments before a step follow from those after it and from the step's gradient, which the sweep computes anyway
//! ([`UpdateRule::rewind`]). Each step back magnifies rounding errors by 1/β, so a state is kept every
//! [`rewindable_steps`] steps. If these states would take too much memory, fewer are kept, and each part between two of
//! them is walked forward a second time.
//!
//! Where states are kept depends only on the run, so a resumed sweep gets the bits of an uninterrupted one.
//!
//! [`UpdateRule::rewind`]: hindcast_model::update::UpdateRule::rewind
//! [`rewindable_steps`]: hindcast_model::update::UpdateRule::rewindable_steps

use std::ops::Range;
use std::time::Duration;

use hindcast_format::meta::StepMeta;
use hindcast_model::update::{Hidden, StepPoint, UpdateRule};

use super::ahead::{Reading, each_step_timed};
use super::step::ReplayStep;
use crate::engine::ReplayEngine;
use crate::error::{AnalysisError, Missing, Result};
use crate::run::anchor::{known_state, steps_of_state};
use crate::run::recorded::RecordedRun;
use crate::run::walk::{Order, WithBuffers};

/// The distances between kept states.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Spacing {
    /// In the part that is being walked back. It divides `coarse`.
    fine: u64,
    /// In the rest.
    coarse: u64,
}

impl Spacing {
    /// For a number of steps without a recorded state, and the bytes of a state. `limit` is the largest number of bytes of
    /// kept states if the steps are walked forward only once.
    fn of(rule: &UpdateRule, steps: u64, state_bytes: u64, limit: u64) -> Self {
        let fine = rule.rewindable_steps().min(steps.max(1));
        let all = steps.div_ceil(fine);
        let coarse = if all <= (limit / state_bytes.max(1)).max(2) {
            steps.max(1).next_multiple_of(fine)
        } else {
            fine * all.isqrt().max(1)
        };
        Spacing { fine, coarse }
    }

    /// The largest number of states in memory at the same time, with the two that a step back uses.
    fn kept(self, steps: u64) -> u64 {
        steps.div_ceil(self.coarse) + self.coarse / self.fine + 2
    }
}

/// Bytes of the states that are kept for a number of steps without a recorded state.
pub(super) fn kept_bytes(run: &RecordedRun<'_>, steps: u64, state_bytes: u64) -> u64 {
    Spacing::of(run.rule(), steps, state_bytes, run.state_bytes()).kept(steps) * state_bytes
}

/// The states before the steps of a sweep.
///
/// A step whose gradient hides parts of the state before it leaves them in `hidden`.
pub(super) struct States<'env> {
    run: &'env RecordedRun<'env>,
    /// The steps whose states follow from one recorded state, and the distances there.
    part: Range<u64>,
    spacing: Spacing,
    /// Kept states with their steps, ascending. All are older than `now`.
    kept: Vec<(u64, Vec<f64>)>,
    /// The state before the step that was reversed last, or the oldest one after steps that were walked forward.
    now: Option<(u64, Vec<f64>)>,
    /// The first step of the part that is being walked back.
    walked: u64,
    /// What the steps of that part hide, ascending.
    hidden: Vec<(u64, Hidden)>,
}

impl<'env> States<'env> {
    pub fn new(run: &'env RecordedRun<'env>) -> Self {
        States {
            run,
            part: 0..0,
            spacing: Spacing { fine: 1, coarse: 1 },
            kept: Vec::new(),
            now: None,
            walked: 0,
            hidden: Vec::new(),
        }
    }

    /// Prepares [`before`](Self::before) for step `t`, which precedes the last one. Walks forward if that is necessary, and
    /// adds the time spent waiting for steps to `waited`.
    ///
    /// # Errors
    /// No state before the step is known, or a step can't be read or replayed.
    pub fn reach(
        &mut self,
        engine: &mut dyn ReplayEngine,
        t: u64,
        waited: &mut Duration,
    ) -> Result<()> {
        if self.arrive(t) {
            return Ok(());
        }
        if self.kept.is_empty() {
            self.open(engine, t, waited)?;
        }
        let Some((from, state)) = self.kept.last().cloned() else {
            return Err(Missing::Step { step: t }.into());
        };
        let fine = Some(self.spacing.fine);
        self.walked = from;
        if self.now.as_ref().is_some_and(|(step, _)| *step == t + 1) {
            // The state at the end is `now`. What the steps hide is what is needed.
            self.walk(engine, from..t + 1, (state, fine), waited)?;
            self.arrive(t);
            return Ok(());
        }
        // The sweep begins here, or is resumed. An uninterrupted one would come from the next kept state, or from the state
        // before the part's last step.
        let next = from + (t - from).next_multiple_of(self.spacing.fine);
        let begin = next.min(self.part.end - 1).max(t);
        let state = self.walk(engine, from..begin, (state, fine), waited)?;
        if begin == from {
            self.kept.pop();
        }
        self.now = Some((begin, state));
        self.return_to(engine, t + 1..begin)?;
        self.arrive(t);
        Ok(())
    }

    /// Whether `now`, or a kept state, is the one that [`before`](Self::before) needs for step `t`.
    fn arrive(&mut self, t: u64) -> bool {
        if self.kept.last().is_some_and(|(step, _)| *step == t) {
            self.now = self.kept.pop();
            return true;
        }
        let Some((now, _)) = &self.now else {
            return false;
        };
        let near = |(step, _): &(u64, Vec<f64>)| *step >= self.walked;
        *now == t || (*now == t + 1 && self.kept.last().is_some_and(near))
    }

    /// Walks forward from the recorded state before `t`, and keeps states far apart.
    fn open(&mut self, engine: &mut dyn ReplayEngine, t: u64, waited: &mut Duration) -> Result<()> {
        let (start, state) = known_state(self.run, t)?;
        self.part = start..steps_of_state(self.run, t)?.end;
        let steps = self.part.end - start;
        let (rule, limit) = (self.run.rule(), self.run.state_bytes());
        self.spacing = Spacing::of(rule, steps, 8 * state.len() as u64, limit);
        self.now = None;
        self.kept = vec![(start, state.clone())];
        let coarse = self.spacing.coarse;
        let (mut from, mut state) = (start, state);
        while from + coarse <= t {
            state = self.walk(engine, from..from + coarse, (state, None), waited)?;
            from += coarse;
            self.kept.push((from, state.clone()));
        }
        Ok(())
    }

    /// Walks forward over `steps`, from the state before them to the one after them. With a distance `fine`, keeps the states
    /// every `fine` steps, those before a step at which an optimizer begins anew, and what other steps hide.
    fn walk(
        &mut self,
        engine: &mut dyn ReplayEngine,
        steps: Range<u64>,
        (mut state, fine): (Vec<f64>, Option<u64>),
        waited: &mut Duration,
    ) -> Result<Vec<f64>> {
        if steps.is_empty() {
            return Ok(state);
        }
        let run = self.run;
        let first = steps.start;
        // Without a distance, the steps are walked again before the sweep goes back over them.
        let (goes_back, fine) = (fine.is_some(), fine.unwrap_or(u64::MAX));
        let mut began = true;
        let mut least = Vec::new();
        let reading = Reading::new(steps, Order::OldestFirst, engine);
        each_step_timed(run, reading, waited, &mut |step| {
            let t = step.meta.step;
            let begins = step.meta.optimizer_step == 0;
            let hides = begins && !began;
            if goes_back && t > first && (hides || (t - first).is_multiple_of(fine)) {
                self.kept.push((t, state.clone()));
                least.clear();
            }
            began = begins;
            let gradient = engine.gradient(&step.input())?.parameters;
            // Only the state is used: the next step's parameters are recorded.
            let mut moved = step.parameters.to_vec::<f64>();
            let settings = run.settings(&step.meta);
            let (rule, blocks) = (run.rule(), run.blocks());
            let failed = |source| AnalysisError::Update { step: t, source };
            if goes_back {
                let at = StepPoint {
                    parameters: &moved,
                    gradient: &gradient,
                    state: &state,
                };
                let hidden = rule.hidden(blocks, &settings, at, &mut least);
                let hidden = hidden.map_err(failed)?;
                if !hidden.is_empty() {
                    self.hidden.push((t, hidden));
                }
            }
            rule.step(blocks, &settings, &mut moved, &gradient, &mut state)
                .map_err(failed)
        })?;
        Ok(state)
    }

    /// Goes back over steps that an interrupted sweep has reversed.
    fn return_to(&mut self, engine: &mut dyn ReplayEngine, steps: Range<u64>) -> Result<()> {
        if steps.is_empty() {
            return Ok(());
        }
        let source = self.run.source();
        for found in WithBuffers::new(source, steps, Order::NewestFirst)? {
            let step = ReplayStep::load(self.run, found?, engine.dtype(), engine.device())?;
            if !self.arrive(step.meta.step) {
                return Err(Missing::Step {
                    step: step.meta.step,
                }
                .into());
            }
            let gradient = engine.gradient(&step.input())?.parameters;
            let parameters = step.parameters.as_slice().to_f64();
            self.before(&step.meta, &parameters, &gradient)?;
        }
        Ok(())
    }

    /// The state before a step that was [`reach`](Self::reach)ed, from θ_t and G_t.
    ///
    /// # Errors
    /// The step wasn't reached, or the update rule's inputs don't fit together.
    pub fn before(
        &mut self,
        meta: &StepMeta,
        parameters: &[f64],
        gradient: &[f64],
    ) -> Result<&[f64]> {
        let t = meta.step;
        let missing = Missing::Step { step: t };
        let (now, state) = self.now.as_mut().ok_or(missing)?;
        if *now == t + 1 {
            let settings = self.run.settings(meta);
            self.run
                .rule()
                .rewind(self.run.blocks(), &settings, parameters, gradient, state)
                .map_err(|source| AnalysisError::Update { step: t, source })?;
            // Those of later steps weren't needed, because a state was kept there.
            while let Some((step, hidden)) = self.hidden.pop_if(|(step, _)| *step >= t) {
                if step == t {
                    hidden.restore(self.run.blocks().values(), state);
                }
            }
            *now = t;
        }
        if *now == t {
            Ok(state)
        } else {
            Err(Missing::Step { step: t }.into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_are_kept_as_far_apart_as_memory_allows() {
        let adam = UpdateRule::adamw();
        let fine = adam.rewindable_steps();
        // 0.9^-87 is just below 1e4.
        assert_eq!(fine, 87);
        let small = Spacing::of(&adam, 256, 1 << 20, 2 << 30);
        assert_eq!((small.coarse, small.kept(256)), (261, 1 + 3 + 2));
        // 115 states of 100 MiB don't fit, so 10 times 11 parts are walked again.
        let large = Spacing::of(&adam, 10_000, 100 << 20, 2 << 30);
        assert_eq!((large.fine, large.coarse), (87, 870));
        assert_eq!(large.kept(10_000), 12 + 10 + 2);
        // A run that is shorter than the distance.
        let short = Spacing::of(&adam, 5, 100 << 20, 2 << 30);
        assert_eq!((short.fine, short.coarse, short.kept(5)), (5, 5, 4));
        assert_eq!(Spacing::of(&adam, 0, 8, 0).kept(0), 3);
    }
}

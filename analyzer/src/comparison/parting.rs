//! The first steps at which two runs differ.

use std::collections::BTreeMap;
use std::ops::Range;

use hindcast_format::meta::StepMeta;
use hindcast_format::{Metas, Trace};
use serde::Serialize;

use super::distance::Distance;
use crate::error::Result;
use crate::run::models::{contains_model, spread};
use crate::sweep::{Observer, Stage, tell};

/// The first step at which two runs differ, for each thing that is recorded of a step. `None` means that it is the same in all
/// compared steps.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Parting {
    /// From the first step that both runs contain to one more than the last.
    pub steps: Range<u64>,
    /// Number of steps whose metadata was compared.
    pub compared: u64,
    /// The batch: its examples, their order, their weights, or the micro-batches.
    pub batch: Option<BatchDifference>,
    /// The learning rate of the first parameter group whose rate differs.
    pub learning_rate: Option<ValueDifference>,
    /// The recorded loss.
    pub loss: Option<ValueDifference>,
    /// The parameters before the step; after the last step if only the ends differ.
    pub parameters: Option<Distance>,
    /// Why the parameters weren't compared.
    pub incomparable: Option<Incomparable>,
    /// Number of steps before which the parameters were compared, up to the first difference.
    pub models: u64,
    /// The steps that both runs contain with their tensors, before which the parameters can be compared.
    #[serde(skip)]
    pub common: Vec<Range<u64>>,
}

/// Batches that differ.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BatchDifference {
    /// The step.
    pub step: u64,
    /// Number of examples in each run's batch.
    pub examples: [usize; 2],
    /// Number of uses of an example in the first run's batch that the second one's doesn't have.
    pub only_first: usize,
    /// The same for the second run.
    pub only_second: usize,
    /// Whether the same examples come in the same order, so that only their weights or the micro-batches differ.
    pub same_order: bool,
}

/// Numbers that differ in a bit.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct ValueDifference {
    /// The step.
    pub step: u64,
    /// The number in the first run; `None` if it wasn't recorded or isn't finite.
    pub first: Option<f64>,
    /// The number in the second run.
    pub second: Option<f64>,
}

/// Why the parameters of two runs can't be compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Incomparable {
    /// Their parameters have other names or shapes.
    OtherTensors,
    /// No step is recorded with its tensors in both.
    NoCommonStep,
}

impl Parting {
    /// Compares the metadata of all steps that both runs contain, and their parameters up to the first step before which they
    /// differ. Parameters of another float type are compared by value. Two states are in memory.
    ///
    /// # Errors
    /// Damage, or `observer` asks to stop.
    pub fn of(a: &Trace, b: &Trace, observer: &mut dyn Observer) -> Result<Parting> {
        let mut parting = Parting {
            steps: 0..0,
            compared: 0,
            batch: None,
            learning_rate: None,
            loss: None,
            parameters: None,
            incomparable: None,
            models: 0,
            common: Vec::new(),
        };
        parting.metadata(a, b)?;
        parting.models(a, b, observer)?;
        Ok(parting)
    }

    /// The first step at which anything differs. A difference of the parameters before step t is due to the update of step t − 1 or an
    /// earlier one, or, at the first compared step, to where the runs began.
    pub fn first_step(&self) -> Option<u64> {
        let steps = [
            self.batch.as_ref().map(|d| d.step),
            self.learning_rate.map(|d| d.step),
            self.loss.map(|d| d.step),
            self.parameters.as_ref().map(|d| d.step),
        ];
        steps.into_iter().flatten().min()
    }

    /// The last step, at most `step`, before which both runs' parameters are recorded and the same. `None` if there is none.
    pub fn last_same(&self, step: u64) -> Option<u64> {
        let first_other = self.parameters.as_ref().map_or(u64::MAX, |d| d.step);
        let end = first_other.min(step.saturating_add(1));
        let before = self.common.iter().filter(|range| range.start < end);
        before.map(|range| range.end.min(end) - 1).max()
    }

    /// Models that both runs contain, before these steps: the first compared one, those at the ends of the first run's epochs, and the
    /// last one; at most `most` of them, at equal distances, with the last one. None if the parameters can't be compared.
    ///
    /// # Errors
    /// The end of a run can't be read.
    pub fn common_models(&self, a: &Trace, b: &Trace, most: usize) -> Result<Vec<u64>> {
        if self.incomparable.is_some() {
            return Ok(Vec::new());
        }
        let (in_a, in_b) = (contains_model(a)?, contains_model(b)?);
        let ends = a.epochs()?.into_iter().map(|(_, steps)| steps.end);
        let mut models: Vec<u64> = std::iter::once(self.steps.start)
            .chain(ends)
            .filter(|&model| in_a(model) && in_b(model))
            .collect();
        models.dedup();
        Ok(spread(&models, most))
    }

    fn metadata(&mut self, a: &Trace, b: &Trace) -> Result<()> {
        let mut first: Metas<'_> = a.metas(0..u64::MAX);
        let mut second: Metas<'_> = b.metas(0..u64::MAX);
        let (mut x, mut y) = (first.next().transpose()?, second.next().transpose()?);
        while let (Some(of_a), Some(of_b)) = (&x, &y) {
            if of_a.step < of_b.step {
                x = first.next().transpose()?;
                continue;
            }
            if of_b.step < of_a.step {
                y = second.next().transpose()?;
                continue;
            }
            self.step(of_a, of_b);
            (x, y) = (first.next().transpose()?, second.next().transpose()?);
        }
        Ok(())
    }

    fn step(&mut self, a: &StepMeta, b: &StepMeta) {
        let step = a.step;
        if self.compared == 0 {
            self.steps.start = step;
        }
        self.steps.end = step + 1;
        self.compared += 1;
        let same =
            a.indices == b.indices && a.weights == b.weights && a.micro_batches == b.micro_batches;
        if !same && self.batch.is_none() {
            self.batch = Some(BatchDifference::of(a, b));
        }
        let difference = |first: Option<f64>, second: Option<f64>| {
            let finite = |x: Option<f64>| x.filter(|x| x.is_finite());
            (first.map(f64::to_bits) != second.map(f64::to_bits)).then(|| ValueDifference {
                step,
                first: finite(first),
                second: finite(second),
            })
        };
        if self.learning_rate.is_none() {
            let mut rates = 0..a.groups.len().max(b.groups.len());
            let rate = |meta: &StepMeta, g: usize| meta.groups.get(g).map(|g| g.learning_rate);
            self.learning_rate = rates.find_map(|g| difference(rate(a, g), rate(b, g)));
        }
        if self.loss.is_none() {
            self.loss = difference(a.loss, b.loss);
        }
    }

    /// Compares the parameters, oldest first.
    fn models(&mut self, a: &Trace, b: &Trace, observer: &mut dyn Observer) -> Result<()> {
        let tensors = a.layout().parameters();
        let others = b.layout().parameters();
        let same = tensors.len() == others.len()
            && tensors
                .iter()
                .zip(others)
                .all(|(x, y)| x.name == y.name && x.shape == y.shape);
        if !same {
            self.incomparable = Some(Incomparable::OtherTensors);
            return Ok(());
        }
        let same_type = tensors.iter().zip(others).all(|(x, y)| x.dtype == y.dtype);
        let common = common(&a.ranges()?, &b.ranges()?);
        self.common.clone_from(&common);
        let mut stage = Stage {
            doing: "comparing",
            unit: "steps",
            done: 0,
            total: common.iter().map(|r| r.end - r.start).sum(),
        };
        observer.begin(stage);
        for range in &common {
            let (mut first, mut second) = (a.forward(range.clone()), b.forward(range.clone()));
            while let (Some(x), Some(y)) = (first.next()?, second.next()?) {
                self.models += 1;
                if !(same_type && x.state.parameters() == y.state.parameters()) {
                    let (mut of_a, mut of_b) = (Vec::new(), Vec::new());
                    x.state.parameters_f64(&mut of_a);
                    y.state.parameters_f64(&mut of_b);
                    let found = Distance::of(x.meta.step, tensors, &of_a, &of_b);
                    if found.different > 0 {
                        self.parameters = Some(found);
                        return Ok(());
                    }
                }
                stage.done += 1;
                tell(observer, stage)?;
            }
        }
        let ends = (a.final_step(), b.final_step());
        if let (Some(end), Some(other)) = ends
            && end == other
            && let (Some((x, _)), Some((y, _))) = (a.final_state()?, b.final_state()?)
        {
            self.models += 1;
            let (mut of_a, mut of_b) = (Vec::new(), Vec::new());
            x.parameters_f64(&mut of_a);
            y.parameters_f64(&mut of_b);
            let found = Distance::of(end, tensors, &of_a, &of_b);
            self.parameters = Some(found).filter(|found| found.different > 0);
        }
        self.incomparable = (self.models == 0).then_some(Incomparable::NoCommonStep);
        Ok(())
    }
}

impl BatchDifference {
    fn of(a: &StepMeta, b: &StepMeta) -> Self {
        let mut uses: BTreeMap<u64, [usize; 2]> = BTreeMap::new();
        for (run, meta) in [a, b].into_iter().enumerate() {
            for index in &meta.indices {
                uses.entry(*index).or_default()[run] += 1;
            }
        }
        let only = |run: usize| {
            let more = uses.values().map(|n| n[run].saturating_sub(n[1 - run]));
            more.sum()
        };
        BatchDifference {
            step: a.step,
            examples: [a.indices.len(), b.indices.len()],
            only_first: only(0),
            only_second: only(1),
            same_order: a.indices == b.indices,
        }
    }
}

/// The steps that are in a range of both lists.
fn common(a: &[Range<u64>], b: &[Range<u64>]) -> Vec<Range<u64>> {
    let mut out = Vec::new();
    let (mut i, mut j) = (0, 0);
    while let (Some(x), Some(y)) = (a.get(i), b.get(j)) {
        let (start, end) = (x.start.max(y.start), x.end.min(y.end));
        if start < end {
            out.push(start..end);
        }
        if x.end < y.end {
            i += 1;
        } else {
            j += 1;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use hindcast_format::layout::{DType, Role, TensorSpec};

    #[test]
    fn common_steps_are_those_in_both_lists() {
        assert_eq!(common(&[0..10, 30..31], &[3..5, 7..20]), [3..5, 7..10]);
        assert_eq!(common(&[0..3, 4..9], &[2..6, 8..9]), [2..3, 4..6, 8..9]);
        assert!(common(&[0..3, 8..9], &[3..5, 5..8]).is_empty());
        assert!(common(&[], &[3..5, 6..7]).is_empty());
    }

    #[test]
    fn parameters_are_the_same_only_where_both_runs_record_them() {
        let mut parting = Parting {
            steps: 0..12,
            compared: 12,
            batch: None,
            learning_rate: None,
            loss: None,
            parameters: None,
            incomparable: None,
            models: 4,
            common: vec![2..4, 8..10],
        };
        let same = |parting: &Parting| [1, 2, 3, 7, 8, 11].map(|step| parting.last_same(step));
        assert_eq!(
            same(&parting),
            [None, Some(2), Some(3), Some(3), Some(8), Some(9)]
        );
        let flat = |x: f64| vec![x; 1];
        let tensors = [TensorSpec {
            name: "w".to_owned(),
            role: Role::Parameter,
            dtype: DType::F64,
            shape: vec![1],
            group: 0,
        }];
        parting.parameters = Some(Distance::of(3, &tensors, &flat(0.0), &flat(1.0)));
        assert_eq!(
            same(&parting),
            [None, Some(2), Some(2), Some(2), Some(2), Some(2)]
        );
    }
}

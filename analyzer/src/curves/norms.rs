//! Norms of the parameters and of the updates, from the decoded steps.

use hindcast_format::meta::StepMeta;
use hindcast_format::{DType, State, Trace};
use hindcast_model::update::{Blocks, UpdateRule};
use hindcast_model::vectors::{norm, norm_of};

use super::history::History;
use crate::error::Result;
use crate::run::trace::rule_of;
use crate::sweep::{Observer, Stage, tell};

/// Parameters before a step, with the step's metadata.
#[derive(Default)]
struct Before {
    meta: Option<StepMeta>,
    parameters: Vec<f64>,
}

/// Fills ‖θ_t‖ and ‖θ_{t+1} − θ_t‖ of the steps whose tensors are recorded. A step has no update norm if the model after it isn't
/// recorded (before a gap, and at the end of an unfinished run), or if it lies behind the history's last step and is damaged. For plain
/// SGD (no momentum, no clipping, parameters of 32 or 64 bits), also fills the norm of the gradient `(θ_t − θ_{t+1})/η − λ θ_t`, which has
/// the rounding of the recorded parameters, where no replayed one is known. Returns whether any step has a gradient norm. Every step is
/// decoded once, in the memory of two steps.
///
/// # Errors
/// A step's tensors can't be read, or `observer` asks to stop.
pub fn add_norms(
    history: &mut History,
    trace: &Trace,
    observer: &mut dyn Observer,
) -> Result<bool> {
    let span = history.span();
    let specs = trace.layout().parameters();
    let blocks = Blocks::of_shapes(
        specs
            .iter()
            .map(|spec| (&spec.shape, usize::from(spec.group))),
    );
    let exact = specs
        .iter()
        .all(|spec| matches!(spec.dtype, DType::F32 | DType::F64));
    let plain = exact && rule_of(trace).is_some_and(|rule| is_plain(&rule));
    let blocks = plain.then_some(&blocks);
    let recorded = history.within(trace.ranges()?).into_iter();
    let mut stage = Stage {
        doing: "decoding",
        unit: "steps",
        done: 0,
        total: recorded.map(|range| range.end - range.start).sum(),
    };
    observer.begin(stage);
    let mut before = Before::default();
    let mut now = Vec::new();
    // The last update needs the model after it.
    let mut steps = trace.forward(span.start..span.end.saturating_add(1));
    loop {
        let step = match steps.next() {
            Ok(Some(step)) => step,
            Ok(None) => break,
            Err(e) if e.is_damage() && stage.done == stage.total => break,
            Err(e) => return Err(e.into()),
        };
        read(step.state, &mut now);
        let t = step.meta.step;
        close(history, &before, &now, t, blocks);
        let Some(row) = history.row_mut(t) else {
            continue;
        };
        row.parameter_norm = Some(norm(&now));
        before.meta = Some(step.meta.clone());
        std::mem::swap(&mut before.parameters, &mut now);
        stage.done += 1;
        tell(observer, stage)?;
    }
    if trace.final_step() == Some(span.end)
        && let Some((state, _)) = trace.final_state()?
    {
        read(&state, &mut now);
        close(history, &before, &now, span.end, blocks);
    }
    Ok(history.rows.iter().any(|row| row.gradient_norm.is_some()))
}

fn read(state: &State, into: &mut Vec<f64>) {
    into.clear();
    state.parameters_f64(into);
}

/// Whether an update is `θ ← θ − η (G + λ θ)`, so that the gradient follows from it.
fn is_plain(rule: &UpdateRule) -> bool {
    matches!(
        rule,
        UpdateRule::Sgd { momentum, clip_norm: None, .. } if *momentum == 0.0
    )
}

/// Fills the update of the step before `step`, whose parameters are `after`. `blocks` are given for plain SGD.
fn close(
    history: &mut History,
    before: &Before,
    after: &[f64],
    step: u64,
    blocks: Option<&Blocks>,
) {
    let Some(meta) = before.meta.as_ref().filter(|meta| meta.step + 1 == step) else {
        return;
    };
    let update = norm_of(before.parameters.iter().zip(after).map(|(a, b)| b - a));
    let gradient = blocks.and_then(|blocks| gradient(blocks, meta, &before.parameters, after));
    if let Some(row) = history.row_mut(meta.step) {
        row.update_norm = Some(update);
        // A replayed norm has no rounding of the parameters.
        row.gradient_norm = row.gradient_norm.or(gradient);
    }
}

/// ‖G‖ of a step of plain SGD, over the trained tensors. `None` if a learning rate is 0 or the step was clipped.
fn gradient(blocks: &Blocks, meta: &StepMeta, before: &[f64], after: &[f64]) -> Option<f64> {
    if meta.clip_norm.is_some() {
        return None;
    }
    let mut sum = 0.0;
    let trained = meta.trained.iter().chain(std::iter::repeat(&true));
    for (block, _) in blocks.iter().zip(trained).filter(|(_, trained)| **trained) {
        let group = meta.groups.get(block.group)?;
        if group.learning_rate == 0.0 {
            return None;
        }
        let (old, new) = (
            before.get(block.range.clone())?,
            after.get(block.range.clone())?,
        );
        for (a, b) in old.iter().zip(new) {
            let g = (a - b) / group.learning_rate - group.weight_decay * a;
            sum += g * g;
        }
    }
    Some(sum.sqrt())
}

#[cfg(test)]
mod tests {
    use super::super::summary::tests::history;
    use super::*;
    use hindcast_format::meta::BatchWeights;

    #[test]
    fn a_replayed_gradient_norm_is_kept() {
        let mut history = history(&[(0, None), (0, None)]);
        history.rows[0].gradient_norm = Some(2.0);
        let meta = StepMeta {
            step: 0,
            epoch: 0,
            groups: Vec::new(),
            indices: vec![0],
            weights: BatchWeights::Mean,
            micro_batches: Vec::new(),
            loss: None,
            clip_norm: None,
            optimizer_step: 0,
            trained: Vec::new(),
            scalars: Vec::new(),
            extensions: Vec::new(),
        };
        let before = Before {
            meta: Some(meta),
            parameters: vec![1.0, 2.0],
        };
        close(&mut history, &before, &[4.0, 6.0], 1, None);
        let row = &history.rows[0];
        assert_eq!((row.update_norm, row.gradient_norm), (Some(5.0), Some(2.0)));
    }
}

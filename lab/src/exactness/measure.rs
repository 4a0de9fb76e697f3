//! Measures one row: compares the sweep of a recorded run with training with changed weights.

use std::ops::{ControlFlow, Range};

use candle_core::{DType, Device};
use hindcast_model::objective::Split;
use hindcast_model::train::{ModelState, evaluate};
use hindcast_model::vectors::norm;

use super::cases::Case;
use super::row::ExactnessRow;
use super::training::{Changed, Pull, Run, TRAIN, window};
use hindcast_analyzer::sweep::{Propagation, Session, SessionOptions, SweepOptions};
use hindcast_analyzer::{AutodiffEngine, KernelEngine, Query, RecordedRun, ReplayEngine, Result};

/// Norm-wise relative error of a row's scores, for the engine with the larger error. The query is the mean validation
/// loss in evaluation mode, so that batch norm uses its running statistics.
pub(super) fn row(case: &Case, device: &Device) -> Result<ExactnessRow> {
    Ok(ExactnessRow {
        kind: case.kind,
        name: case.name.clone(),
        error: error(case, case.step, device)?,
        second: None,
    })
}

/// The error for weights changed by `step`, for a run that is trained on `device`.
fn error(case: &Case, step: f64, device: &Device) -> Result<f64> {
    let run = Run::new(case, device)?;
    let window = window(case.circumstance, run.length());
    let trace = run.record()?;
    let recorded = RecordedRun::from_trace(&trace, run.net.clone(), run.data.as_ref(), None)?;
    let pull = if case.discount < 1.0 {
        Some(Pull {
            discount: case.discount,
            recorded: run.states()?,
        })
    } else {
        None
    };
    let at = case.at.resolve(&trace, window.start)?;
    let model = at.state(&trace)?;
    let swept = swept(case, &run, &recorded, &window)?;
    let value = |example: u64, factor: f64| -> Result<f64> {
        let changed = Changed {
            example,
            factor,
            within: window.clone(),
        };
        let mut theta = vec![0.0; model.parameters.len()];
        let mut buffers = vec![0.0; model.buffers.len()];
        let mut add = |k: u64, state: &ModelState<f64>| {
            let weight = at.of(k);
            let terms = theta.iter_mut().zip(&state.parameters);
            for (sum, x) in terms.chain(buffers.iter_mut().zip(&state.buffers)) {
                *sum += weight * x;
            }
        };
        let end = run.train(Some(&changed), pull.as_ref(), &mut |step| {
            add(step.step, step.before);
            Ok(())
        })?;
        add(run.length(), &end);
        let net = run.net.as_ref();
        let data = run.data.as_ref();
        let found = evaluate(net, &theta, &buffers, data, Split::Validation, device)?;
        Ok(found.loss)
    };
    let mut differences = Vec::new();
    for example in 0..TRAIN {
        // A score is the effect of leaving an example out, that is, of lowering its weight.
        differences
            .push((value(example, 1.0 - step)? - value(example, 1.0 + step)?) / (2.0 * step));
    }
    let errors = swept.iter().map(|scores| {
        let gap: Vec<f64> = scores
            .iter()
            .zip(&differences)
            .map(|(a, b)| a - b)
            .collect();
        norm(&gap) / norm(&differences)
    });
    Ok(errors.fold(0.0, f64::max))
}

/// The scores by each of the two engines: by autodiff on the run's device, and by the kernels on the CPU.
fn swept(
    case: &Case,
    run: &Run,
    recorded: &RecordedRun<'_>,
    window: &Range<u64>,
) -> Result<[Vec<f64>; 2]> {
    let queries = [Query::default()];
    let options = SessionOptions {
        propagation: Propagation {
            discount: case.discount,
            ..Propagation::default()
        },
        ..SessionOptions::new(SweepOptions {
            at: case.at.clone(),
            ..SweepOptions::new(window.clone())
        })
    };
    let scores = |engine: &mut dyn ReplayEngine| -> Result<Vec<f64>> {
        let session = Session::new(recorded, engine, &queries, options.clone())?;
        let mut swept = session.run(engine, &mut |_| ControlFlow::Continue(()))?;
        Ok(swept.state.queries.swap_remove(0).influence)
    };
    let (net, device) = (&run.net, &run.device);
    Ok([
        scores(&mut AutodiffEngine::new(net.clone(), DType::F64, device)?)?,
        scores(&mut KernelEngine::new(net.clone(), DType::F64)?)?,
    ])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exactness::cases;

    /// At a learning rate that is too large for the differences, the remaining error is that of the differences: it
    /// falls with the square of the step. An error of the scores would not.
    #[test]
    fn the_remaining_error_is_that_of_the_differences() {
        let mut case = cases::all()
            .into_iter()
            .find(|c| c.name == "layer conv_transpose2d mean-squared-error mean batch-norm")
            .unwrap();
        case.learning_rate = 0.2;
        let cpu = &Device::Cpu;
        let (coarse, fine) = (
            error(&case, 2e-4, cpu).unwrap(),
            error(&case, 1e-4, cpu).unwrap(),
        );
        assert!((coarse / fine - 4.0).abs() < 0.2, "{coarse:e} and {fine:e}");
    }
}

//! Finds outliers in the trained model's features, with an isolation forest grown from the validation examples.

use candle_core::DType;
use hindcast_model::net::{Net, Node, Op};
use hindcast_model::objective::{Draws, Mode, Pass, Split};
use hindcast_model::train::{EVALUATION_ROWS, tensors};

use super::estimate::Estimate;
use super::estimator::{Choices, Estimator, Method, MethodOption, Question};
use super::isolation::Forest;
use crate::engine::ReplayEngine;
use crate::error::{AnalysisError, Doing, Result, Unsupported};
use crate::sweep::{Observer, Stage, tell};

pub(super) static METHOD: Method = Method {
    name: "isolation-forest",
    about: "Outliers by an isolation forest on the trained model's features; the same for every query",
    needs: "the final state, and validation examples without outliers; a forward pass over all examples",
    source: "Liu, Ting, Zhou: Isolation Forest, ICDM 2008; as a baseline in Hara, Nitanda, Maehara, NeurIPS 2019",
    predicts: false,
    asks: false,
    windowed: false,
    sweeps: false,
    options: &[
        MethodOption {
            key: "sample",
            default: "256",
            about: "validation examples per tree",
        },
        MethodOption {
            key: "seed",
            default: "0",
            about: "seed of the trees",
        },
        MethodOption {
            key: "trees",
            default: "100",
            about: "number of trees",
        },
    ],
    build: |choices: &Choices| {
        let trees = choices.count("trees", 1)?;
        let sample = choices.count("sample", 2)?;
        Ok(Box::new(IsolationForest {
            trees: u32::try_from(trees)
                .map_err(|_| choices.wrong("trees", "a number below 2^32"))?,
            sample: usize::try_from(sample).unwrap_or(usize::MAX),
            seed: choices.count("seed", 0)?,
        }))
    },
};

struct IsolationForest {
    trees: u32,
    sample: usize,
    seed: u64,
}

/// Number of layers that compute the features, and the name of their output.
fn layer(net: Option<&Net>) -> (usize, String) {
    let inputs = (0, "the inputs, without a layer".to_owned());
    let Some(net) = net else {
        return inputs;
    };
    let trained = |node: &Node| {
        matches!(
            node.op,
            Op::Linear { .. }
                | Op::Conv2d { .. }
                | Op::ConvTranspose2d { .. }
                | Op::Residual { .. }
        )
    };
    let nodes = net.nodes();
    let first = nodes.iter().position(trained).unwrap_or(nodes.len());
    // The output of a flatten layer after a trained one, or else the input of the last trained layer.
    let flatten = nodes.iter().rposition(|n| matches!(n.op, Op::Flatten));
    if let Some(at) = flatten.filter(|&at| at > first) {
        return (at + 1, format!("layer {}", nodes[at].path));
    }
    match nodes.iter().rposition(trained).filter(|&at| at > first) {
        Some(at) => (at, format!("layer {}", nodes[at - 1].path)),
        None => inputs,
    }
}

impl Estimator for IsolationForest {
    fn method(&self) -> &'static Method {
        &METHOD
    }

    fn estimate(
        &self,
        question: &Question<'_>,
        engine: &mut dyn ReplayEngine,
        observer: &mut dyn Observer,
    ) -> Result<Estimate> {
        question.without_window(&METHOD)?;
        let gradients = question.gradients(engine)?;
        let (run, data) = (question.run, question.run.data());
        let healthy = data.len(Split::Validation);
        if healthy < 2 {
            return Err(AnalysisError::Unsupported(Unsupported::Validation {
                method: METHOD.name,
                needed: 2,
                found: healthy,
            }));
        }
        let net = question.net.map(|net| net.as_ref());
        let (layers, place) = layer(net);
        let (dtype, device) = (engine.dtype(), engine.device().clone());
        let state = question.state()?;
        let flat = |what: &str, values: &[f64], defs| -> Result<Vec<_>> {
            let whole = tensors(what, values, defs, &device)?.into_iter();
            whole
                .map(|t| t.to_dtype(dtype).doing(|| what.to_owned()))
                .collect()
        };
        let parameters = flat(
            "the parameters",
            &state.parameters,
            run.objective().parameters(),
        )?;
        let buffers = flat("the buffers", &state.buffers, run.objective().buffers())?;
        let features = |split: Split, examples: &[u64]| -> Result<Vec<Vec<f64>>> {
            let batch = data.batch(split, examples, None, dtype, &device)?;
            let out = match net {
                None => Ok(batch.inputs.clone()),
                Some(net) => net.hidden(
                    &Pass {
                        parameters: &parameters,
                        buffers: &buffers,
                        batch: &batch,
                        mode: Mode::Evaluate,
                        draws: Draws { seed: 0, step: 0 },
                    },
                    layers,
                ),
            };
            out.and_then(|out| {
                out.reshape((examples.len(), ()))?
                    .to_dtype(DType::F64)?
                    .to_vec2::<f64>()
            })
            .doing(|| format!("running the model up to {place}"))
        };
        let mut stage = Stage {
            doing: "running the model",
            unit: "examples",
            done: 0,
            total: healthy + run.examples() as u64,
        };
        let mut points = Vec::new();
        for chunk in (0..healthy).collect::<Vec<_>>().chunks(EVALUATION_ROWS) {
            points.extend(features(Split::Validation, chunk)?);
            stage.done += chunk.len() as u64;
            tell(observer, stage)?;
        }
        let forest = Forest::grow(&points, self.trees, self.sample, self.seed);
        let mut scores = Vec::with_capacity(run.examples());
        let examples: Vec<u64> = (0..run.examples() as u64).collect();
        for chunk in examples.chunks(EVALUATION_ROWS) {
            let found = features(Split::Train, chunk)?;
            scores.extend(found.iter().map(|point| -forest.outlierness(point)));
            stage.done += chunk.len() as u64;
            tell(observer, stage)?;
        }
        let notes = vec![format!(
            "features of {place}: {} values per example",
            points.first().map_or(0, Vec::len)
        )];
        question.everyone(&gradients, vec![scores; gradients.len()], notes)
    }
}

//! Finds outliers with an autoencoder trained on the validation images. It reconstructs images worst that differ from them
//! (figure 5 of the paper).

use std::sync::Arc;

use hindcast_model::net::Net;
use hindcast_model::objective::{Batch, Draws, Mode, Objective, Split};
use hindcast_model::random::{Purpose, Stream};
use hindcast_model::task::Task;
use hindcast_model::train::{EVALUATION_ROWS, TrainError};
use hindcast_model::update::{Blocks, Settings, UpdateRule};

use super::estimate::Estimate;
use super::estimator::{Choices, Estimator, Method, MethodOption, Question};
use crate::engine::{KernelEngine, ReplayEngine, StepInput};
use crate::error::{AnalysisError, Diverged, Result, Unsupported};
use crate::run::floats::FloatSlice;
use crate::sweep::{Observer, Stage, tell};
use candle_core::{DType, Device};

pub(super) static METHOD: Method = Method {
    name: "autoencoder",
    about: "Outliers by the reconstruction error of an autoencoder, images only; the same for every query",
    needs: "validation images without outliers; trains its own network, minutes for 10,000 images",
    source: "as a baseline in Hara, Nitanda, Maehara, NeurIPS 2019 (figure 5); Aggarwal: Outlier Analysis, 2016",
    predicts: false,
    asks: false,
    windowed: false,
    sweeps: false,
    options: &[
        MethodOption {
            key: "batch",
            default: "128",
            about: "images per batch",
        },
        MethodOption {
            key: "channels",
            default: "auto",
            about: "m1,m2 of the layers: auto is 24,12 for grey images and 64,32 for colour",
        },
        MethodOption {
            key: "epochs",
            default: "20",
            about: "passes over the validation images, augmented as in training",
        },
        MethodOption {
            key: "lr",
            default: "0.001",
            about: "learning rate of Adam",
        },
        MethodOption {
            key: "seed",
            default: "0",
            about: "seed of the initial values, the order of the images and their augmentation",
        },
    ],
    build: |choices: &Choices| {
        let channels = match choices.text("channels") {
            "auto" => None,
            text => {
                let two = text
                    .split_once(',')
                    .and_then(|(a, b)| Some((a.trim().parse().ok()?, b.trim().parse().ok()?)));
                let two = two.filter(|&(a, b): &(usize, usize)| a > 0 && b > 0);
                Some(two.ok_or_else(|| {
                    choices.wrong("channels", "auto, or two numbers such as 24,12")
                })?)
            }
        };
        Ok(Box::new(Autoencoder {
            batch: choices.count("batch", 1)?,
            channels,
            epochs: choices.count("epochs", 1)?,
            rate: choices.number("lr", "a number above 0", |x| x > 0.0)?,
            seed: choices.count("seed", 0)?,
        }))
    },
};

struct Autoencoder {
    batch: u64,
    channels: Option<(usize, usize)>,
    epochs: u64,
    rate: f64,
    seed: u64,
}

/// Random stream of the order of the images. Crates other than the model's use numbers from 2³¹ up.
const ORDER: u32 = (1 << 31) + 1002;

/// The paper's network: 28 → 26 → 13 → 11 → 10 → 23 → 26 → 28 for 28 pixels, with tanh at its end.
fn network(shape: &[usize], channels: Option<(usize, usize)>) -> Result<Net> {
    let refused = |problem: String| {
        AnalysisError::Unsupported(Unsupported::NotImages {
            method: METHOD.name,
            problem,
        })
    };
    let [colours, height, width] = *shape else {
        return Err(refused(format!(
            "examples have shape {shape:?}, not [channels, height, width]"
        )));
    };
    // An odd side loses a pixel in the first pooling, and no later layer restores it.
    if height % 2 != 0 || width % 2 != 0 || height < 10 || width < 10 {
        return Err(refused(format!(
            "height and width must be even and at least 10 pixels, so that the network's output has its input's size; got {height} × {width}"
        )));
    }
    let (m1, m2) = channels.unwrap_or(if colours == 1 { (24, 12) } else { (64, 32) });
    let text = format!(
        "name = \"autoencoder\"\n[data]\nsource = \"digits\"\n[model]\ninput = [{colours}, {height}, {width}]\nlayers = [\n\
         {{ kind = \"conv2d\", out = {m1}, kernel = 3 }}, {{ kind = \"relu\" }}, {{ kind = \"max_pool2d\", kernel = 2 }},\n\
         {{ kind = \"conv2d\", out = {m2}, kernel = 3 }}, {{ kind = \"relu\" }}, {{ kind = \"max_pool2d\", kernel = 2, stride = 1 }},\n\
         {{ kind = \"conv_transpose2d\", out = {m2}, kernel = 5, stride = 2 }}, {{ kind = \"relu\" }},\n\
         {{ kind = \"conv_transpose2d\", out = {m1}, kernel = 4 }}, {{ kind = \"relu\" }},\n\
         {{ kind = \"conv_transpose2d\", out = {colours}, kernel = 3 }}, {{ kind = \"tanh\" }},\n]\n\
         [loss]\nkind = \"mean-squared-error\"\n[schedule]\nkind = \"constant\"\nlearning_rate = 0.001\n\
         [train]\nepochs = 1\nbatch = 1\n"
    );
    let task: Task = toml::from_str(&text).map_err(AnalysisError::other)?;
    let net = Net::new(&task.model, &task.loss).map_err(|e| refused(e.to_string()))?;
    if net.output_shape() != shape {
        return Err(refused(format!(
            "the network's output has shape {:?} for inputs of shape {shape:?}",
            net.output_shape()
        )));
    }
    Ok(net)
}

impl Autoencoder {
    /// A batch of images whose targets are the images themselves.
    fn images(
        question: &Question<'_>,
        split: Split,
        examples: &[u64],
        draws: Option<Draws>,
    ) -> Result<Batch> {
        let data = question.run.data();
        let batch = data.batch(split, examples, draws, DType::F32, &Device::Cpu)?;
        Ok(Batch {
            targets: batch.inputs.clone(),
            ..batch
        })
    }

    /// Trains on the validation images. Returns the flat parameters and the mean loss of the last epoch.
    fn train(
        &self,
        question: &Question<'_>,
        net: &Net,
        engine: &mut dyn ReplayEngine,
        mut stage: Stage,
        observer: &mut dyn Observer,
    ) -> Result<(Vec<f64>, f64)> {
        let rule = UpdateRule::from_toml("kind = \"adam\"").map_err(TrainError::from)?;
        let blocks = Blocks::of(net.parameters());
        let mut parameters: Vec<f64> = net.initial_parameters(self.seed);
        let mut state = vec![0.0; rule.state_values(parameters.len())];
        let healthy = question.run.data().len(Split::Validation) as usize;
        let size = usize::try_from(self.batch).unwrap_or(healthy).min(healthy);
        let (mut step, mut loss) = (0, 0.0);
        for epoch in 0..self.epochs {
            let purpose = Purpose::Other(ORDER, epoch as u32);
            let order = Stream::of_run(self.seed, purpose).permutation(healthy);
            loss = 0.0;
            for examples in order.chunks(size) {
                let draws = Draws {
                    seed: self.seed,
                    step,
                };
                let batch = Self::images(question, Split::Validation, examples, Some(draws))?;
                let gradient = engine.gradient(&StepInput {
                    parameters: (&parameters).into(),
                    buffers: FloatSlice::default(),
                    micro_batches: std::slice::from_ref(&batch),
                    weights: &vec![1.0 / examples.len() as f64; examples.len()],
                    mode: Mode::Train,
                    draws,
                })?;
                if !gradient.loss.is_finite() {
                    return Err(AnalysisError::Diverged(Diverged::Autoencoder { epoch }));
                }
                loss += gradient.loss * examples.len() as f64 / healthy as f64;
                let settings = Settings::uniform(&rule, step, self.rate, blocks.tensors());
                rule.step(
                    &blocks,
                    &settings,
                    &mut parameters,
                    &gradient.parameters,
                    &mut state,
                )
                .map_err(TrainError::from)?;
                step += 1;
                stage.done += examples.len() as u64;
                tell(observer, stage)?;
            }
        }
        Ok((parameters, loss))
    }
}

impl Estimator for Autoencoder {
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
        let data = question.run.data();
        let net = Arc::new(network(data.shape(), self.channels)?);
        let healthy = data.len(Split::Validation);
        if healthy == 0 {
            return Err(AnalysisError::Unsupported(Unsupported::Validation {
                method: METHOD.name,
                needed: 1,
                found: healthy,
            }));
        }
        let mut engine = KernelEngine::new(Arc::clone(&net), DType::F32)?;
        let n = question.run.examples() as u64;
        let mut stage = Stage {
            doing: "training the autoencoder",
            unit: "images",
            done: 0,
            total: self.epochs.saturating_mul(healthy).saturating_add(n),
        };
        let (parameters, loss) = self.train(question, &net, &mut engine, stage, observer)?;
        stage.done = stage.total - n;
        let values: usize = data.shape().iter().product();
        let mut scores = Vec::with_capacity(question.run.examples());
        for examples in (0..n).collect::<Vec<_>>().chunks(EVALUATION_ROWS) {
            let batch = Self::images(question, Split::Train, examples, None)?;
            let found = engine.gradient(&StepInput {
                parameters: (&parameters).into(),
                buffers: FloatSlice::default(),
                micro_batches: std::slice::from_ref(&batch),
                weights: &vec![1.0; examples.len()],
                mode: Mode::Evaluate,
                draws: Draws { seed: 0, step: 0 },
            })?;
            // The loss is a mean over values, and outlierness is their sum.
            let errors = found.per_example.iter();
            scores.extend(errors.map(|x| -x * values as f64));
            stage.done += examples.len() as u64;
            tell(observer, stage)?;
        }
        let notes = vec![format!(
            "mean squared error per value in the last epoch of training: {loss:.4e}"
        )];
        question.everyone(&gradients, vec![scores; gradients.len()], notes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_network_is_the_papers() {
        let sides = |net: &Net| -> Vec<usize> {
            let all = net.nodes().iter().map(|n| n.output[1]);
            all.fold(Vec::new(), |mut sides, side| {
                if sides.last() != Some(&side) {
                    sides.push(side);
                }
                sides
            })
        };
        let net = network(&[1, 28, 28], None).unwrap();
        assert_eq!(sides(&net), [26, 13, 11, 10, 23, 26, 28]);
        assert_eq!(net.nodes()[0].output[0], 24);
        let net = network(&[3, 32, 32], None).unwrap();
        assert_eq!(net.output_shape(), [3, 32, 32]);
        assert_eq!(net.nodes()[3].output[0], 32);
        for shape in [vec![784], vec![1, 27, 28]] {
            let refused = network(&shape, None).err().unwrap().to_string();
            assert!(refused.contains("is for images"), "{refused}");
        }
    }
}

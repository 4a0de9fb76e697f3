//! A training loop as users write it, with candle's layers (including batch norm) and its SGD. It computes the same
//! bits in every process, so that every bit of its trace can be checked.

use std::ops::Range;

use anyhow::Context as _;
use candle_core::{DType, Device, Tensor};
use candle_nn::{
    BatchNorm, Linear, Module, ModuleT, Optimizer, SGD, VarBuilder, VarMap, batch_norm, linear,
    loss::mse,
};
use hindcast_recorder::Recorder;

use crate::noise::Noise;

/// Steps per epoch.
pub const EPOCH: u64 = 25;
const EXAMPLES: u64 = 64;
const BATCH: u64 = 8;
const INPUTS: usize = 6;
const OUTPUTS: usize = 3;
const RATE: f64 = 0.05;
/// The examples that a run by rows stores for validation.
pub const HELD_OUT: [u64; 3] = [7, 40, 3];

/// Linear, batch norm, ReLU, linear, on generated numbers.
pub struct Training {
    variables: VarMap,
    first: Linear,
    norm: BatchNorm,
    last: Linear,
    x: Tensor,
    y: Tensor,
    by_rows: bool,
}

impl Training {
    /// The net with `hidden` hidden units before its first step.
    ///
    /// # Errors
    /// Those of candle.
    pub fn new(hidden: usize) -> anyhow::Result<Self> {
        let variables = VarMap::new();
        let vb = VarBuilder::from_varmap(&variables, DType::F32, &Device::Cpu);
        let first = linear(INPUTS, hidden, vb.pp("first"))?;
        let norm = batch_norm(hidden, 1e-5, vb.pp("norm"))?;
        let last = linear(hidden, OUTPUTS, vb.pp("last"))?;
        let mut noise = Noise(7);
        for (name, var) in by_name(&variables) {
            // candle draws different initial weights in every process. These are the same in all.
            if name.ends_with("weight") && !name.starts_with("norm") {
                var.set(&random(&mut noise, var.dims(), 0.4)?)?;
            } else if name.ends_with("bias") {
                var.set(&random(&mut noise, var.dims(), 0.1)?)?;
            }
        }
        let x = random(&mut noise, &[EXAMPLES as usize, INPUTS], 1.0)?;
        let y = random(&mut noise, &[EXAMPLES as usize, OUTPUTS], 1.0)?;
        Ok(Self {
            variables,
            first,
            norm,
            last,
            x,
            y,
            by_rows: false,
        })
    }

    /// Announces each batch by its tensors instead of its indices if `by_rows` is set, so that the run stores them. The run
    /// also stores [`HELD_OUT`] examples for validation.
    #[must_use]
    pub fn by_rows(self, by_rows: bool) -> Self {
        Self { by_rows, ..self }
    }

    /// Inputs and targets of these examples.
    fn examples(&self, examples: &[u64]) -> anyhow::Result<(Tensor, Tensor)> {
        let rows: Vec<u32> = examples.iter().map(|&i| i as u32).collect();
        let rows = Tensor::new(rows, &Device::Cpu)?;
        Ok((
            self.x.index_select(&rows, 0)?,
            self.y.index_select(&rows, 0)?,
        ))
    }

    /// The parameters, and the batch norm's statistics.
    pub fn variables(&self) -> &VarMap {
        &self.variables
    }

    /// The examples of a step's batch.
    pub fn indices(step: u64) -> Vec<u64> {
        (0..BATCH).map(|i| (step * 5 + i * 11) % EXAMPLES).collect()
    }

    /// The forward pass of a step. Returns its loss and updates the batch norm's statistics.
    ///
    /// # Errors
    /// Those of candle.
    pub fn loss(&self, step: u64) -> anyhow::Result<Tensor> {
        let (x, y) = self.examples(&Self::indices(step))?;
        let hidden = self.first.forward(&x)?;
        let hidden = self.norm.forward_t(&hidden, true)?.relu()?;
        Ok(mse(&self.last.forward(&hidden)?, &y)?)
    }

    /// The variables as a frame holds them, little-endian: parameters by name, then statistics by name.
    ///
    /// # Errors
    /// Those of candle.
    pub fn bytes(&self) -> anyhow::Result<Vec<u8>> {
        let mut sections = [Vec::new(), Vec::new()];
        for (name, var) in by_name(&self.variables) {
            let values = var.flatten_all()?.to_vec1::<f32>()?;
            let section = &mut sections[usize::from(name.contains("running"))];
            section.extend(values.into_iter().flat_map(f32::to_le_bytes));
        }
        Ok(sections.concat())
    }

    fn sgd(&self) -> anyhow::Result<SGD> {
        Ok(SGD::new(self.variables.all_vars(), RATE)?)
    }

    /// Takes these steps and records them in `run`. Calls `after` after each step.
    ///
    /// # Errors
    /// Those of the recorder, of candle, and of `after`.
    pub fn record(
        &self,
        run: &Recorder,
        steps: Range<u64>,
        mut after: impl FnMut(u64) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let mut sgd = run.wrap(self.sgd()?);
        if self.by_rows {
            let (x, y) = self.examples(&HELD_OUT)?;
            run.validation_of(&[&x, &y])?;
        }
        for step in steps {
            let loss = self.loss(step)?;
            if self.by_rows {
                let (x, y) = self.examples(&Self::indices(step))?;
                run.batch_of(step / EPOCH, &[&x, &y])?;
            } else {
                run.batch(step / EPOCH, &Self::indices(step))?;
            }
            sgd.backward_step(&loss)?;
            after(step)?;
        }
        Ok(())
    }
}

fn by_name(variables: &VarMap) -> Vec<(String, candle_core::Var)> {
    let data = variables
        .data()
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    let mut all: Vec<_> = data
        .iter()
        .map(|(name, var)| (name.clone(), var.clone()))
        .collect();
    all.sort_by(|(a, _), (b, _)| a.cmp(b));
    all
}

fn random(noise: &mut Noise, shape: &[usize], scale: f32) -> anyhow::Result<Tensor> {
    let count = shape.iter().product();
    let values: Vec<f32> = (0..count).map(|_| scale * noise.float()).collect();
    Ok(Tensor::from_vec(values, shape, &Device::Cpu)?)
}

/// What the loop computes without a recorder and without interruption.
pub struct Truth {
    /// The variables before each step, with the statistics after its forward pass.
    states: Vec<Vec<u8>>,
    /// Bytes of the parameters in each state.
    parameters: usize,
    /// The statistics before the first step.
    first_buffers: Vec<u8>,
    /// Bytes of each example: inputs and targets, little-endian.
    rows: Vec<Vec<u8>>,
}

impl Truth {
    /// Takes `steps` steps and one more forward pass.
    ///
    /// # Errors
    /// Those of candle.
    pub fn new(hidden: usize, steps: u64) -> anyhow::Result<Self> {
        let training = Training::new(hidden)?;
        let buffers = 2 * hidden * size_of::<f32>();
        let first = training.bytes()?;
        let parameters = first
            .len()
            .checked_sub(buffers)
            .context("batch norm has two statistics per unit")?;
        let (x, y) = (training.x.to_vec2::<f32>()?, training.y.to_vec2::<f32>()?);
        let rows = x.iter().zip(&y).map(|(x, y)| {
            let values = x.iter().chain(y);
            values.flat_map(|value| value.to_le_bytes()).collect()
        });
        let rows = rows.collect();
        let mut sgd = training.sgd()?;
        let mut states = Vec::new();
        for step in 0..=steps {
            let loss = training.loss(step)?;
            states.push(training.bytes()?);
            sgd.backward_step(&loss)?;
        }
        Ok(Self {
            states,
            parameters,
            first_buffers: first[parameters..].to_vec(),
            rows,
        })
    }

    /// The bytes of an example, as a run by rows stores them.
    pub fn row(&self, example: u64) -> &[u8] {
        &self.rows[example as usize]
    }

    /// Number of known steps.
    pub fn steps(&self) -> u64 {
        self.states.len() as u64 - 1
    }

    /// What the frame of a step holds: θ_t and r_{t+1}.
    pub fn state(&self, step: u64) -> &[u8] {
        &self.states[step as usize]
    }

    /// r_t: the statistics before the forward pass of a step.
    pub fn buffers_before(&self, step: u64) -> &[u8] {
        match step.checked_sub(1) {
            Some(before) => &self.state(before)[self.parameters..],
            None => &self.first_buffers,
        }
    }

    /// The final state if `step` is the first step not taken: θ_T and r_T.
    pub fn end(&self, step: u64) -> Vec<u8> {
        let parameters = &self.state(step)[..self.parameters];
        [parameters, self.buffers_before(step)].concat()
    }
}

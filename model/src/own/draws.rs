//! Random operations inside a forward pass: dropout and noise whose numbers are a function of the run's seed, the step and the
//! example.
//!
//! candle's generator can't be asked again for the numbers of a step, so a run whose forward pass uses it can't be replayed.
//! The operations here take their numbers from [`random`](crate::random). A training loop says which step it is at, with
//! [`with_draws`]; an [`OwnModel`](super::OwnModel) does so in each pass.

use std::cell::RefCell;

use candle_core::{Device, ModuleT, Result, Tensor};

use crate::net::dropout_row;
use crate::objective::Draws;
use crate::random::{Purpose, Stream, occurrences};

thread_local! {
    static OPEN: RefCell<Vec<Drawing>> = const { RefCell::new(Vec::new()) };
}

/// The random numbers of a running pass.
struct Drawing {
    draws: Draws,
    /// Example and occurrence of each row.
    rows: Vec<(u64, u64)>,
    dropouts: u32,
    noises: u32,
}

/// Runs a forward pass whose random operations ([`Dropout`], [`randn_like`]) draw the numbers of one step.
///
/// `draws` is the seed that the recorder was told and the step that is being recorded, and `indices` are the examples of the
/// batch's rows, as they are recorded. Replaying the step then gives the same numbers. With micro-batches, call it once per
/// micro-batch, with the indices of that micro-batch.
///
/// The numbers of a row depend on the seed, the step, the row's example, and how many random operations came before in the
/// pass. They don't depend on the other rows.
///
/// ```
/// use candle_core::{DType, Device, Tensor};
/// use hindcast_model::objective::Draws;
/// use hindcast_model::own::{Dropout, with_draws};
///
/// let dropout = Dropout::new(0.5);
/// let x = Tensor::ones((2, 8), DType::F32, &Device::Cpu)?;
/// let masked = |step, indices: &[u64]| {
///     with_draws(Draws { seed: 7, step }, indices, || dropout.forward(&x, true)?.to_vec2::<f32>())
/// };
/// assert_eq!(masked(3, &[40, 41])?, masked(3, &[40, 41])?);
/// assert_eq!(masked(3, &[40, 41])?[1], masked(3, &[99, 41])?[1]);
/// assert_ne!(masked(3, &[40, 41])?, masked(4, &[40, 41])?);
/// # Ok::<(), candle_core::Error>(())
/// ```
pub fn with_draws<T>(draws: Draws, indices: &[u64], pass: impl FnOnce() -> T) -> T {
    let rows = indices.iter().copied().zip(occurrences(indices)).collect();
    OPEN.with_borrow_mut(|open| {
        open.push(Drawing {
            draws,
            rows,
            dropouts: 0,
            noises: 0,
        });
    });
    let _close = Close;
    pass()
}

/// Ends the innermost pass on drop, also when it panics.
struct Close;

impl Drop for Close {
    fn drop(&mut self) {
        OPEN.with_borrow_mut(|open| {
            open.pop();
        });
    }
}

/// Dropout with candle_nn's interface, a replacement of `candle_nn::Dropout`. In training it must run inside [`with_draws`],
/// which gives it the step.
///
/// It keeps a value with probability 1 − p and multiplies it by 1/(1 − p). The first dimension of its input must be the batch,
/// or a multiple of it with each example's rows together, as after a `reshape` of (B, T, D) to (B T, D).
#[derive(Debug, Clone)]
pub struct Dropout {
    drop_p: f32,
}

impl Dropout {
    /// Dropout with probability `drop_p` in [0, 1).
    pub fn new(drop_p: f32) -> Self {
        Self { drop_p }
    }

    /// The input with a mask in training, the input itself otherwise.
    ///
    /// # Errors
    /// In training: outside [`with_draws`], if the probability isn't in [0, 1), or if the first dimension isn't a multiple of
    /// the batch.
    pub fn forward(&self, x: &Tensor, train: bool) -> Result<Tensor> {
        if train {
            dropout(x, self.drop_p)
        } else {
            Ok(x.clone())
        }
    }
}

impl ModuleT for Dropout {
    fn forward_t(&self, x: &Tensor, train: bool) -> Result<Tensor> {
        self.forward(x, train)
    }
}

/// The input times a dropout mask, as `candle_nn::ops::dropout`. See [`Dropout`].
pub(super) fn dropout(x: &Tensor, drop_p: f32) -> Result<Tensor> {
    if !(0.0..1.0).contains(&drop_p) {
        candle_core::bail!("dropout: the probability must be in [0, 1), got {drop_p}");
    }
    let p = f64::from(drop_p);
    let values = drawn("dropout", x, |drawing| {
        drawing.dropouts += 1;
        let layer = drawing.dropouts - 1;
        Box::new(move |draws, example, occurrence| {
            Box::new(dropout_row::<f64>(draws, example, occurrence, p, layer))
        })
    })?;
    x.mul(&values)
}

/// Normal numbers in the shape and type of `x`, as `x.randn_like(mean, std)`, from the pass's key. It must run inside
/// [`with_draws`]. The first dimension of `x` is as for [`Dropout`].
///
/// # Errors
/// Outside [`with_draws`], or if the first dimension isn't a multiple of the batch.
pub fn randn_like(x: &Tensor, mean: f64, std: f64) -> Result<Tensor> {
    drawn("randn_like", x, |drawing| {
        drawing.noises += 1;
        let number = drawing.noises - 1;
        Box::new(move |draws, example, occurrence| {
            let mut stream = Stream::of_row(draws, example, occurrence, Purpose::Noise(number));
            Box::new(std::iter::repeat_with(move || mean + std * stream.normal()))
        })
    })
}

/// The numbers of a row, from the pass's key, its example and its occurrence.
type Row = Box<dyn Fn(Draws, u64, u64) -> Box<dyn Iterator<Item = f64>>>;

/// Numbers in the shape and type of `x`. `begin` counts the operation and returns the numbers of each row.
fn drawn(op: &str, x: &Tensor, begin: impl FnOnce(&mut Drawing) -> Row) -> Result<Tensor> {
    OPEN.with_borrow_mut(|open| {
        let Some(drawing) = open.last_mut() else {
            candle_core::bail!(
                "{op}: the step is unknown, so the numbers couldn't be drawn again in a replay: run the forward pass inside \
                 hindcast_model::own::with_draws, with the run's seed, the step and the batch's indices"
            );
        };
        let row = begin(drawing);
        let batch = drawing.rows.len();
        let first = x.dims().first().copied().unwrap_or(0);
        if batch == 0 || first % batch != 0 {
            candle_core::bail!(
                "{op}: the first dimension must be the batch of {batch} examples or a multiple of it, got {:?}",
                x.dims()
            );
        }
        let each = x.elem_count() / batch;
        let mut values = Vec::with_capacity(x.elem_count());
        for &(example, occurrence) in &drawing.rows {
            values.extend(row(drawing.draws, example, occurrence).take(each));
        }
        Tensor::from_vec(values, x.dims(), &Device::Cpu)?
            .to_dtype(x.dtype())?
            .to_device(x.device())
    })
}

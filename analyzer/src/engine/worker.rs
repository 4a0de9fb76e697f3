//! The autodiff engine, which differentiates on a separate thread.
//!
//! candle has a switch that lets gradients be differentiated again. Each thread reads it once, at its first backward pass.
//! candle also walks its graph recursively, which needs a large stack. So the engine sets the switch first, and then starts
//! a thread with a large stack. It keeps that thread, because a new thread per step would have to request the memory of its
//! graph from the operating system each time.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use candle_core::{DType, Device, Tensor, Var};
use hindcast_model::objective::{Batch, Draws, Mode, Objective};
use hindcast_model::ops::second_order;
use hindcast_model::own::without_rounding;
use hindcast_model::train::EVALUATION_ROWS;

use super::autodiff::Context;
use super::{
    Directions, ForwardPass, Products, ReplayEngine, StepGradient, StepInput, flat,
    one_after_the_other, slices,
};
use crate::error::{AnalysisError, Doing, Result, Unsupported};
use crate::run::floats::FloatVec;

/// Replays any [`Objective`] by differentiating candle's graph twice.
///
/// Sums over examples and layers run in `dtype`. The directions that go in and the products that come out are float64,
/// scaled by powers of two so that float32 neither overflows nor underflows.
pub struct AutodiffEngine {
    requests: Option<Sender<Request>>,
    thread: Option<JoinHandle<()>>,
    dtype: DType,
    device: Device,
    parameters: usize,
    buffers: usize,
    rows_at_once: usize,
    with_shared: bool,
}

/// An owned copy of a [`StepInput`], in the recorded precision, that can be sent to the thread.
pub(super) struct SentInput {
    pub parameters: Arc<FloatVec>,
    pub buffers: FloatVec,
    pub micro_batches: Vec<Batch>,
    pub weights: Vec<f64>,
    pub mode: Mode,
    pub draws: Draws,
    /// Whether these rows' loss contains the shared part of the step's loss.
    pub with_shared: bool,
}

enum Request {
    Probe(Sender<Result<()>>),
    Forward(Box<SentInput>, Sender<Result<ForwardPass>>),
    Squares(Box<SentInput>, Vec<f64>, Sender<Result<Vec<f64>>>),
    Gradient(Box<SentInput>, Sender<Result<StepGradient>>),
    Products(
        Box<SentInput>,
        Vec<Vec<f64>>,
        Vec<Vec<f64>>,
        Sender<Result<Products>>,
    ),
    ProductsAfter(
        Box<SentInput>,
        Exchange,
        Vec<Vec<f64>>,
        Sender<Result<Products>>,
    ),
}

/// The reply to a request.
pub(super) struct Answer<T>(Receiver<Result<T>>);

impl<T> Answer<T> {
    /// Waits for it.
    pub fn wait(self) -> Result<T> {
        self.0.recv().map_err(|_| AnalysisError::EngineGone)?
    }
}

/// A step whose thread waits for the directions after it gave the gradient.
pub(super) struct Begun {
    gradient: Receiver<Vec<f64>>,
    directions: Sender<Vec<Vec<f64>>>,
    answer: Answer<Products>,
}

impl Begun {
    /// The step's gradient. `None` if the thread met an error, which [`finish`](Self::finish) returns.
    pub fn gradient(&self) -> Option<Vec<f64>> {
        self.gradient.recv().ok()
    }

    /// Gives the directions, which must not wait for the products yet.
    pub fn give(&self, directions: Vec<Vec<f64>>) {
        // A thread that met an error doesn't read them.
        let _ = self.directions.send(directions);
    }

    /// The products. Without directions the thread gives up before the next request.
    pub fn finish(self) -> Result<Products> {
        drop(self.directions);
        self.answer.wait()
    }
}

/// The thread gives a step's gradient, and waits for the directions.
struct Exchange {
    gradient: Sender<Vec<f64>>,
    directions: Receiver<Vec<Vec<f64>>>,
}

impl Exchange {
    /// Fails if the caller has no directions, because it met an error.
    fn give(self, gradient: Vec<f64>) -> Result<Vec<Vec<f64>>> {
        let sent = self.gradient.send(gradient);
        sent.map_err(|_| AnalysisError::EngineGone)?;
        self.directions
            .recv()
            .map_err(|_| AnalysisError::EngineGone)
    }
}

impl AutodiffEngine {
    /// Starts the thread, and differentiates x³ twice to check that second derivatives work on it.
    ///
    /// # Errors
    /// [`AnalysisError::NotTwiceDifferentiable`] if they don't; the message says what to do.
    /// [`AnalysisError::Unsupported`] for a type other than f32 and f64.
    pub fn new(objective: Arc<dyn Objective>, dtype: DType, device: &Device) -> Result<Self> {
        if !matches!(dtype, DType::F32 | DType::F64) {
            return Err(AnalysisError::Unsupported(Unsupported::Dtype {
                engine: "autodiff",
                dtype,
            }));
        }
        let (requests, inbox) = channel();
        let (parameters, buffers) = (
            flat::count(objective.parameters()),
            flat::count(objective.buffers()),
        );
        let on = device.clone();
        second_order::enable();
        let thread = std::thread::Builder::new()
            .name("hindcast-engine".to_owned())
            .stack_size(second_order::STACK_BYTES)
            // Derivatives are those of the unrounded function.
            .spawn(move || without_rounding(|| serve(&inbox, objective.as_ref(), dtype, &on)))
            .map_err(|e| AnalysisError::Threads {
                what: "the replay engine's thread",
                problem: e.to_string(),
            })?;
        let engine = AutodiffEngine {
            requests: Some(requests),
            thread: Some(thread),
            dtype,
            device: device.clone(),
            parameters,
            buffers,
            rows_at_once: EVALUATION_ROWS,
            with_shared: true,
        };
        engine.ask(Request::Probe)?.wait()?;
        Ok(engine)
    }

    /// Sets [`ReplayEngine::rows_at_once`], at least 1.
    #[must_use]
    pub fn with_rows_at_once(mut self, rows: usize) -> Self {
        self.rows_at_once = rows.max(1);
        self
    }

    /// Leaves the shared part out of the steps' losses, because another engine computes it.
    #[must_use]
    pub(super) fn without_shared(mut self) -> Self {
        self.with_shared = false;
        self
    }

    fn sent(&self, input: &StepInput<'_>) -> SentInput {
        SentInput {
            parameters: Arc::new(input.parameters.into()),
            buffers: input.buffers.into(),
            micro_batches: input.micro_batches.to_vec(),
            weights: input.weights.to_vec(),
            mode: input.mode,
            draws: input.draws,
            with_shared: self.with_shared,
        }
    }

    /// Sends a request.
    fn ask<T>(&self, request: impl FnOnce(Sender<Result<T>>) -> Request) -> Result<Answer<T>> {
        let (reply, answer) = channel();
        self.send(request(reply))?;
        Ok(Answer(answer))
    }

    pub(super) fn begin_forward(&self, input: SentInput) -> Result<Answer<ForwardPass>> {
        self.ask(|reply| Request::Forward(Box::new(input), reply))
    }

    pub(super) fn begin_squares(
        &self,
        input: SentInput,
        factors: &[f64],
    ) -> Result<Answer<Vec<f64>>> {
        self.ask(|reply| Request::Squares(Box::new(input), factors.to_vec(), reply))
    }

    pub(super) fn begin_gradient(&self, input: SentInput) -> Result<Answer<StepGradient>> {
        self.ask(|reply| Request::Gradient(Box::new(input), reply))
    }

    pub(super) fn begin_products(
        &self,
        input: SentInput,
        directions: &[&[f64]],
        buffer_adjoints: &[Vec<f64>],
    ) -> Result<Answer<Products>> {
        let s = directions.iter().map(|s| s.to_vec()).collect();
        let rho = buffer_adjoints.to_vec();
        self.ask(|reply| Request::Products(Box::new(input), s, rho, reply))
    }

    pub(super) fn begin_products_after(
        &self,
        input: SentInput,
        buffer_adjoints: &[Vec<f64>],
    ) -> Result<Begun> {
        let (give_gradient, gradient) = channel();
        let (directions, directions_there) = channel();
        let exchange = Exchange {
            gradient: give_gradient,
            directions: directions_there,
        };
        let rho = buffer_adjoints.to_vec();
        let answer =
            self.ask(|reply| Request::ProductsAfter(Box::new(input), exchange, rho, reply))?;
        Ok(Begun {
            gradient,
            directions,
            answer,
        })
    }

    fn send(&self, request: Request) -> Result<()> {
        let requests = self.requests.as_ref().ok_or(AnalysisError::EngineGone)?;
        let sent = requests.send(request);
        sent.map_err(|_| AnalysisError::EngineGone)
    }
}

impl ReplayEngine for AutodiffEngine {
    fn parameter_count(&self) -> usize {
        self.parameters
    }

    fn buffer_count(&self) -> usize {
        self.buffers
    }

    fn dtype(&self) -> DType {
        self.dtype
    }

    fn device(&self) -> &Device {
        &self.device
    }

    fn rows_at_once(&self) -> usize {
        self.rows_at_once
    }

    fn forward(&mut self, input: &StepInput<'_>) -> Result<ForwardPass> {
        self.begin_forward(self.sent(input))?.wait()
    }

    fn gradient_squares(&mut self, input: &StepInput<'_>, factors: &[f64]) -> Result<Vec<f64>> {
        self.begin_squares(self.sent(input), factors)?.wait()
    }

    fn gradient(&mut self, input: &StepInput<'_>) -> Result<StepGradient> {
        self.begin_gradient(self.sent(input))?.wait()
    }

    fn products(
        &mut self,
        input: &StepInput<'_>,
        directions: &[&[f64]],
        buffer_adjoints: &[Vec<f64>],
    ) -> Result<Products> {
        self.begin_products(self.sent(input), directions, buffer_adjoints)?
            .wait()
    }

    fn products_after(
        &mut self,
        input: &StepInput<'_>,
        directions: &mut Directions<'_>,
        buffer_adjoints: &[Vec<f64>],
    ) -> Result<Products> {
        if input.micro_batches.len() != 1 {
            // The directions need the gradients of all micro-batches, whose graphs would be in memory at the same time.
            return one_after_the_other(self, input, directions, buffer_adjoints);
        }
        let begun = self.begin_products_after(self.sent(input), buffer_adjoints)?;
        if let Some(gradient) = begun.gradient() {
            begun.give(directions(&gradient)?);
        }
        begun.finish()
    }
}

impl Drop for AutodiffEngine {
    fn drop(&mut self) {
        // Closing the channel ends the thread's loop. A panic was already reported by the reply to its request.
        self.requests = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Context<'_> {
    /// The context of these rows.
    fn of(&self, input: &SentInput) -> Self {
        Context {
            with_shared: input.with_shared,
            ..*self
        }
    }
}

impl SentInput {
    fn borrow(&self) -> StepInput<'_> {
        StepInput {
            parameters: self.parameters.as_slice(),
            buffers: self.buffers.as_slice(),
            micro_batches: &self.micro_batches,
            weights: &self.weights,
            mode: self.mode,
            draws: self.draws,
        }
    }
}

/// Answers requests until the engine is dropped.
fn serve(inbox: &Receiver<Request>, objective: &dyn Objective, dtype: DType, device: &Device) {
    let context = Context {
        objective,
        dtype,
        device,
        with_shared: true,
    };
    // Sending a reply fails only if its receiver is gone, and then the reply isn't needed.
    while let Ok(request) = inbox.recv() {
        match request {
            Request::Probe(reply) => {
                let _ = reply.send(caught("probing", || probe(dtype, device)));
            }
            Request::Forward(input, reply) => {
                let _ = reply.send(caught("running the model", || {
                    context.of(&input).losses(&input.borrow())
                }));
            }
            Request::Squares(input, factors, reply) => {
                let _ = reply.send(caught("differentiating loss by loss", || {
                    context.of(&input).squares(&input.borrow(), &factors)
                }));
            }
            Request::Gradient(input, reply) => {
                let _ = reply.send(caught("differentiating once", || {
                    context.of(&input).gradient(&input.borrow())
                }));
            }
            Request::Products(input, s, rho, reply) => {
                let _ = reply.send(caught("differentiating twice", || {
                    context
                        .of(&input)
                        .products(&input.borrow(), &slices(&s), &rho)
                }));
            }
            Request::ProductsAfter(input, exchange, rho, reply) => {
                let _ = reply.send(caught("differentiating twice", || {
                    let directions = |gradient| exchange.give(gradient);
                    context
                        .of(&input)
                        .products_after(&input.borrow(), directions, &rho)
                }));
            }
        }
    }
}

/// Turns a panic into an error. candle panics if an operation's backward pass returns no gradient for an argument.
pub(crate) fn caught<T>(doing: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|payload| {
        let message = payload
            .downcast_ref::<&str>()
            .map(|s| (*s).to_owned())
            .or_else(|| payload.downcast_ref::<String>().cloned())
            .unwrap_or_else(|| "no message".to_owned());
        Err(AnalysisError::EnginePanicked {
            doing: doing.to_owned(),
            message,
        })
    })
}

/// Checks that the second derivative of x³ at 2 is 12. If the switch isn't set, candle returns no second derivative.
fn probe(dtype: DType, device: &Device) -> Result<()> {
    let second = (|| {
        let x = Var::from_tensor(&Tensor::new(2.0_f64, device)?.to_dtype(dtype)?)?;
        let cube = (x.as_tensor() * x.as_tensor())?.mul(x.as_tensor())?;
        let Some(first) = cube.backward()?.get(&x).cloned() else {
            return Ok(None);
        };
        match first.backward()?.get(&x) {
            None => Ok(None),
            Some(t) => t.to_dtype(DType::F64)?.to_scalar::<f64>().map(Some),
        }
    })()
    .doing(|| "probing second derivatives with x³".to_owned())?;
    if second == Some(12.0) {
        return Ok(());
    }
    Err(AnalysisError::NotTwiceDifferentiable(format!(
        "d²(x³)/dx² at 2 came out as {} instead of 12: candle detaches gradients on this thread; set CANDLE_GRAD_DO_NOT_DETACH=1 in the environment before the program starts",
        second.map_or("nothing".to_owned(), |x| x.to_string())
    )))
}

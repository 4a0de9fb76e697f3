//! Runs, models and engines for which an analysis isn't defined.

use candle_core::DType;

/// Why an analysis isn't defined for a run.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Unsupported {
    /// The run breaks what the bounds assume.
    #[error(
        "the bounds don't apply to this run, which breaks their assumptions:\n  {}",
        broken.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n  ")
    )]
    Bounds {
        /// Every broken assumption.
        broken: Vec<BrokenAssumption>,
    },
    /// A gradient is larger than the constant G of Theorem 6.
    #[error(
        "Theorem 6 assumes that no gradient is larger than G = {bound}, but a gradient of this run has norm {found}"
    )]
    GradientBound {
        /// G.
        bound: f64,
        /// Norm of the largest gradient.
        found: f64,
    },
    /// The rows of a batch were computed on several threads, and in a later step they influence each other.
    #[error(
        "the gradient of a batch is no longer the sum over its examples, as it was in the first steps: an operation of the model \
         mixes the examples of a batch. Several threads compute different examples, so use one"
    )]
    RowsDepend,
    /// Ranks can't divide the batches of an own model with running statistics.
    #[error(
        "ranks divide the examples of a batch, but the model has running statistics, which need all of them: use one rank, or describe \
         the model as a task, whose batch norms ranks can divide"
    )]
    RanksAndStatistics,
    /// Ranks can't divide the batches of a model that mixes examples.
    #[error(
        "ranks divide the examples of a batch, but the gradient of a batch isn't the sum over its examples: an operation of the model \
         mixes the examples of a batch. Use one rank"
    )]
    RanksAndRows,
    /// Ranks compute on the CPU.
    #[error("ranks compute on the CPU: leave out the device, or use one rank")]
    RanksAndDevice,
    /// The model's losses differ from one forward pass to the next.
    #[error(
        "the model's forward pass gives different losses for the same parameters and batch: it draws random numbers (candle_nn's \
         dropout, rand, randn) that can't be replayed. Use hindcast_model::own::Dropout and own::randn_like, and run the training's \
         forward pass inside own::with_draws; numbers of other kinds must come from the pass's key (hindcast_model::random)"
    )]
    RandomForwardPass,
    /// The model's derivatives can't be checked, because an operation of it doesn't run in float64.
    #[error(
        "the model can't be run in float64, in which its derivatives are compared with differences ({problem})\nit is {operation}: {why}.\ncure: {cure}"
    )]
    NotInFloat64 {
        /// candle's message.
        problem: String,
        /// The operation.
        operation: &'static str,
        /// Why it doesn't run.
        why: &'static str,
        /// What to do.
        cure: &'static str,
    },
    /// The losses have another float type than the parameters.
    #[error("the model computes its losses in {losses:?}, although its parameters are {model:?}")]
    LossesInOtherType {
        /// Type of the losses.
        losses: DType,
        /// Type of the parameters.
        model: DType,
    },
    /// The forward pass replaces a buffer with values that candle can't differentiate.
    #[error(
        "the forward pass overwrites the buffer `{buffer}` outside of candle's graph, as candle_nn's BatchNorm does, so a sweep can't \
         be carried through it: build the model with hindcast_model::own::batch_norm (same names, same arithmetic; runs that were \
         trained with candle_nn's are analysed with it), or keep statistics of your own in a hindcast_model::own::Buffer"
    )]
    OverwrittenBuffer {
        /// The buffer's name.
        buffer: String,
    },
    /// An engine doesn't compute in this type.
    #[error("the {engine} engine runs in f32 or f64, not in {dtype:?}")]
    Dtype {
        /// The engine.
        engine: &'static str,
        /// The type that was asked for.
        dtype: DType,
    },
    /// The tensors of a run have several types.
    #[error(
        "{what} `{}` is {}, `{}` is {}: replaying runs of mixed types is not supported",
        first.0, first.1, other.0, other.1
    )]
    MixedTypes {
        /// Parameters or buffers.
        what: String,
        /// Name and type of the first tensor.
        first: Box<(String, String)>,
        /// Name and type of the first tensor of another type.
        other: Box<(String, String)>,
    },
    /// Scores of tokens were asked of a model that says only the loss of whole examples.
    #[error(
        "the scores of tokens need the model's loss per token, and this model says only the loss of each whole example{}",
        if *examples {
            ": its loss function must return one term per token, (batch, tokens), as hindcast_model::ops::token_cross_entropy does \
             (the models of tasks have no such loss)"
        } else {
            " (the data has no training examples)"
        }
    )]
    LossTerms {
        /// Whether there are training examples.
        examples: bool,
    },
    /// A method for images was used on other data, or on images of a size that its network doesn't take.
    #[error("method {method} is for images: {problem}")]
    NotImages {
        /// The method.
        method: &'static str,
        /// What is wrong with the data.
        problem: String,
    },
    /// A method takes the validation examples as the norm, and there are too few of them.
    #[error(
        "method {method} compares with the validation examples and needs at least {needed}, but the data has {found}"
    )]
    Validation {
        /// The method.
        method: &'static str,
        /// Examples needed.
        needed: u64,
        /// Examples in the validation split.
        found: u64,
    },
    /// A window was given for a method that uses no steps.
    #[error(
        "method {method} doesn't use steps, so a window ({window}) has no meaning: leave it out"
    )]
    Window {
        /// The method.
        method: &'static str,
        /// The window, as the user writes it.
        window: String,
    },
    /// Margins and forgetting are defined for classifiers only.
    #[error(
        "step {step}: a margin is a label's output minus the largest other output, and the examples' labels aren't classes with an output each (a regression, or a model of your own whose targets are floats). The methods mean-loss and self-influence work for every model"
    )]
    Labels {
        /// The step.
        step: u64,
    },
    /// A sweep needs the adjoint of the update rule.
    #[error(
        "this run was trained by {rule}, and a sweep can't go backwards through its steps: {why}. The steps can be replayed, examples can be ranked by other methods, and counterfactual runs measure real changes"
    )]
    Adjoint {
        /// The update rule, in words.
        rule: String,
        /// Why it has no adjoint.
        why: &'static str,
    },
    /// Forward estimates need the Jacobian of a step's gradient, and an engine computes its transpose.
    #[error(
        "accumulative and forward estimates are not defined for a loss with stop-gradients, because the derivative of its gradient isn't symmetric. The sweep and counterfactual runs work"
    )]
    ForwardThroughStop,
    /// Forward estimates are defined for plain SGD only.
    #[error(
        "accumulative and forward estimates are only defined for SGD without momentum and clipping; this run was trained by {rule}: {why}. The sweep and counterfactual runs work for every rule"
    )]
    Rule {
        /// The update rule, in words.
        rule: String,
        /// Why it isn't plain SGD.
        why: String,
    },
    /// Forward estimates are defined for models without running statistics only.
    #[error(
        "accumulative and forward estimates are only defined for models without running statistics; this model has {count} ({first}, …). The sweep and counterfactual runs work for every model"
    )]
    RunningStatistics {
        /// How many buffers the model has.
        count: usize,
        /// Name of the first.
        first: String,
    },
    /// Forward estimates are defined without gradient clipping only.
    #[error(
        "step {step} clipped its gradient at {norm}: accumulative and forward estimates are defined without clipping"
    )]
    Clipping {
        /// The step.
        step: u64,
        /// The largest norm that a gradient may have.
        norm: f64,
    },
    /// The optimizer's decay differs between parameter groups, so that it isn't a penalty.
    #[error(
        "the optimizer's decay is {first} in one parameter group and {other} in another, so it isn't a single penalty"
    )]
    Penalties {
        /// Decay of the first group.
        first: f64,
        /// A decay that differs from it.
        other: f64,
    },
}

/// An assumption of the theory's bounds about a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Assumption {
    /// The update rule is SGD without momentum and clipping.
    PlainSgd,
    /// A step has one learning rate and decay for all tensors.
    OneRate,
    /// The decay is the same in all steps.
    OneDecay,
    /// Every step trains every tensor.
    AllTrained,
    /// A batch's loss is the mean of its examples' losses.
    MeanLoss,
    /// No example is used twice.
    OnePass,
    /// Bounds of the loss's derivatives are known.
    KnownDerivatives,
    /// The smallest eigenvalue of the Hessian is positive.
    StrongConvexity,
    /// No learning rate exceeds 1/Λ.
    SmallRates,
    /// All steps have the same learning rate.
    ConstantRate,
}

impl Assumption {
    fn words(self) -> &'static str {
        match self {
            Assumption::PlainSgd => "plain SGD",
            Assumption::OneRate => "one learning rate and decay for all tensors",
            Assumption::OneDecay => "one decay for all steps",
            Assumption::AllTrained => "that every tensor is trained",
            Assumption::MeanLoss => "a batch's mean loss",
            Assumption::OnePass => "one pass over the data",
            Assumption::KnownDerivatives => "a loss whose derivatives have known bounds",
            Assumption::StrongConvexity => "strong convexity",
            Assumption::SmallRates => "learning rates of at most 1/Λ",
            Assumption::ConstantRate => "a constant learning rate",
        }
    }
}

/// An assumption that a run breaks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BrokenAssumption {
    /// The theorems that need it; `None` if all do.
    pub theorems: Option<&'static str>,
    /// What is assumed.
    pub assumption: Assumption,
    /// How the run breaks it, with the numbers.
    pub evidence: String,
}

impl std::fmt::Display for BrokenAssumption {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Some(theorems) = self.theorems {
            write!(f, "{theorems} ")?;
        }
        write!(f, "{}: {}", self.assumption.words(), self.evidence)
    }
}

impl serde::Serialize for BrokenAssumption {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

/// Why the kernel engine can't replay a run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NoKernels {
    /// It replays models of tasks.
    #[error(
        "the kernel engine replays only models of tasks, and this run has an own model: use the autodiff engine"
    )]
    OwnModel,
    /// It runs on the CPU.
    #[error("the kernel engine runs only on the CPU: use the autodiff engine on other devices")]
    Device,
    /// It has no kernels for a loss.
    #[error("the kernel engine has no kernels for the loss {0}")]
    Loss(&'static str),
    /// It has no kernels for a layer.
    #[error("the kernel engine has no kernels for layer {0}")]
    Layer(String),
}

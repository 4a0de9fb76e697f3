//! Checks a run against the assumptions of the bounds, and derives the constants from the model.

use std::collections::BTreeMap;
use std::ops::Range;

use candle_core::{DType, Device};
use hindcast_format::meta::StepMeta;
use hindcast_model::net::{Net, Op};
use hindcast_model::task::{LossKind, PenaltyIn};
use hindcast_model::vectors::norm;

use crate::error::{Assumption, BrokenAssumption, Damaged, Doing, Missing, Result, Unsupported};
use crate::estimators::plain;
use crate::run::recorded::RecordedRun;
use crate::run::source::weights_of;

/// Largest `|σ''|` of the logistic function, at `σ = (3 ± √3)/6`: `1/(6√3)`.
const LOGISTIC_THIRD: f64 = 0.096_225_044_864_937_63;

/// Bounds of a loss's derivatives, for every example and all parameters.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct Constants {
    /// λ: no Hessian has a smaller eigenvalue. 0 or less if unknown.
    pub lower: f64,
    /// Λ: no Hessian has a larger eigenvalue.
    pub upper: f64,
    /// L: Lipschitz constant of the Hessian.
    pub lipschitz: f64,
    /// G: no gradient during training is larger.
    pub gradient: f64,
    /// Largest norm of an input, including the 1 of the bias.
    pub input: f64,
    /// Whether the constants follow from the model; otherwise the caller gave them.
    pub proven: bool,
}

/// Constants that the caller claims, for Theorem 6 of models whose constants can't be derived.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct GivenConstants {
    /// Λ: no example's Hessian has a larger eigenvalue.
    pub upper: f64,
    /// L: Lipschitz constant of the Hessian.
    pub lipschitz: f64,
    /// G: no gradient is larger.
    pub gradient: f64,
}

/// One step and its learning rate.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Step {
    pub meta: StepMeta,
    pub rate: f64,
}

/// Result of the check.
#[derive(Debug)]
pub(super) struct Assumed {
    pub steps: Vec<Step>,
    pub constants: Constants,
    /// Why Lemma 7 and Theorem 5 don't apply to this run; empty if they do.
    pub against_convex: Vec<BrokenAssumption>,
    /// Why Theorem 6 doesn't apply.
    pub against_smooth: Vec<BrokenAssumption>,
}

/// Checks every assumption, for removal in the steps of `window`.
pub(super) fn assumptions(
    run: &RecordedRun<'_>,
    net: &Net,
    window: &Range<u64>,
    given: Option<&GivenConstants>,
) -> Result<Assumed> {
    let end = run.source().end()?;
    let metas = run.source().metas(window.start..end.step)?;
    let mut broken = Vec::new();
    if let Err(why) = plain(run.rule()) {
        let rule = run.rule().describe();
        let evidence = format!("this run was trained by {rule} ({why})");
        broken.push(breaks(Assumption::PlainSgd, evidence));
    }
    let steps = steps(run, metas, &mut broken)?;
    one_pass(&steps, &mut broken);
    if !broken.is_empty() {
        // What the next call would be refused for is said now.
        if given.is_none()
            && let Err(evidence) = form(net)
        {
            broken.push(breaks(Assumption::KnownDerivatives, evidence));
        }
        return Err(Unsupported::Bounds { broken }.into());
    }
    let decay = steps
        .first()
        .and_then(|s| s.meta.groups.first())
        .map_or(0.0, |g| g.weight_decay);
    let (constants, unknown) = match (given, derived(run, net, &steps, decay)?) {
        (Some(given), _) => (given.constants(), Vec::new()),
        (None, Ok(constants)) => (constants, Vec::new()),
        (None, Err(why)) => (Constants::unknown(), vec![why]),
    };
    let (mut against_convex, mut against_smooth) = (unknown.clone(), unknown);
    if against_convex.is_empty() && constants.lower <= 0.0 {
        let evidence = if constants.proven {
            "the loss has no penalty and the optimizer no decay, so λ = 0 (set loss.penalty)"
        } else {
            "the given constants don't include λ"
        };
        against_convex.push(breaks(Assumption::StrongConvexity, evidence.to_owned()));
    }
    if against_smooth.is_empty() || constants.upper > 0.0 {
        let largest = steps.iter().max_by(|a, b| a.rate.total_cmp(&b.rate));
        if let Some(s) = largest.filter(|s| s.rate * constants.upper > 1.0) {
            let evidence = format!(
                "that of step {} is {}, and 1/Λ is {:.3e} (Λ = {:.4}{})",
                s.meta.step,
                s.rate,
                1.0 / constants.upper,
                constants.upper,
                if constants.proven {
                    format!(", the largest input has the norm {:.2}", constants.input)
                } else {
                    ", as given".to_owned()
                }
            );
            against_convex.push(breaks(Assumption::SmallRates, evidence));
        }
    }
    if let (Some(first), Some(other)) = (
        steps.first(),
        steps.iter().find(|s| s.rate != steps[0].rate),
    ) {
        let evidence = format!(
            "{} in step {}, {} in step {}",
            first.rate, first.meta.step, other.rate, other.meta.step
        );
        against_smooth.push(breaks(Assumption::ConstantRate, evidence));
    }
    if !against_convex.is_empty() && !against_smooth.is_empty() {
        let of = |theorems, broken: Vec<BrokenAssumption>| {
            broken.into_iter().map(move |b| BrokenAssumption {
                theorems: Some(theorems),
                ..b
            })
        };
        let broken = of("Lemma 7 and Theorem 5 assume", against_convex)
            .chain(of("Theorem 6 assumes", against_smooth))
            .collect();
        return Err(Unsupported::Bounds { broken }.into());
    }
    Ok(Assumed {
        steps,
        constants,
        against_convex,
        against_smooth,
    })
}

fn breaks(assumption: Assumption, evidence: String) -> BrokenAssumption {
    BrokenAssumption {
        theorems: None,
        assumption,
        evidence,
    }
}

impl Constants {
    fn unknown() -> Self {
        Constants {
            lower: 0.0,
            upper: 0.0,
            lipschitz: f64::INFINITY,
            gradient: f64::INFINITY,
            input: 0.0,
            proven: false,
        }
    }
}

impl GivenConstants {
    fn constants(&self) -> Constants {
        Constants {
            lower: 0.0,
            upper: self.upper,
            lipschitz: self.lipschitz,
            gradient: self.gradient,
            input: 0.0,
            proven: false,
        }
    }
}

/// Checks that all tensors have one rate and decay, no step clips, and the weights are those of a mean.
fn steps(
    run: &RecordedRun<'_>,
    metas: Vec<StepMeta>,
    broken: &mut Vec<BrokenAssumption>,
) -> Result<Vec<Step>> {
    let mut steps = Vec::with_capacity(metas.len());
    let mut decay = None;
    for meta in metas {
        let t = meta.step;
        let settings = run.settings(&meta);
        let first = settings.groups.first().copied();
        let Some(first) = first else {
            return Err(Damaged::NoRate { step: t }.into());
        };
        if broken.is_empty() {
            let total: f64 = weights_of(&meta)?.iter().sum();
            let negative = weights_of(&meta)?.iter().any(|w| *w < 0.0);
            let found = if let Some(other) = settings.groups.iter().find(|g| **g != first) {
                let evidence = format!(
                    "step {t} has {} and {} (decay {} and {})",
                    first.learning_rate,
                    other.learning_rate,
                    first.weight_decay,
                    other.weight_decay
                );
                Some((Assumption::OneRate, evidence))
            } else if *decay.get_or_insert(first.weight_decay) != first.weight_decay {
                let evidence = format!("that of step {t} is {}", first.weight_decay);
                Some((Assumption::OneDecay, evidence))
            } else if let Some(tensor) = settings.trained.iter().position(|trained| !trained) {
                let tensor = run.source().parameters().get(tensor);
                let name = tensor.map_or("?", |spec| &spec.name);
                Some((
                    Assumption::AllTrained,
                    format!("step {t} left out `{name}`"),
                ))
            } else if let Some(c) = settings.clip_norm {
                let evidence = format!("step {t} clipped its gradient at {c}");
                Some((Assumption::PlainSgd, evidence))
            } else if negative || (total - 1.0).abs() > 1e-6 {
                let evidence = format!("the weights of step {t} add up to {total} instead of 1");
                Some((Assumption::MeanLoss, evidence))
            } else {
                None
            };
            broken.extend(found.map(|(assumption, evidence)| breaks(assumption, evidence)));
        }
        steps.push(Step {
            meta,
            rate: first.learning_rate,
        });
    }
    Ok(steps)
}

/// Checks that no example is used twice between the start of the window and the end of training.
fn one_pass(steps: &[Step], broken: &mut Vec<BrokenAssumption>) {
    let mut seen: BTreeMap<u64, (u64, u64)> = BTreeMap::new();
    for step in steps {
        for &index in &step.meta.indices {
            seen.entry(index).or_insert((0, step.meta.step)).0 += 1;
        }
    }
    let most = seen.iter().max_by_key(|(_, (times, _))| *times);
    if let Some((example, (times, first))) = most.filter(|(_, (times, _))| *times > 1) {
        let evidence = format!("example {example} occurs {times} times from step {first} on");
        broken.push(breaks(Assumption::OnePass, evidence));
    }
}

/// What the constants depend on, of a linear model with a convex loss.
struct Form {
    bias: bool,
    outputs: f64,
    /// Of the loss as a function of the outputs: the largest eigenvalue of the Hessian.
    curvature: f64,
    /// And the Hessian's Lipschitz constant.
    third: f64,
}

/// The form of the model and its loss; for other models, why the constants are unknown.
fn form(net: &Net) -> Result<Form, String> {
    let mut linear = None;
    for node in net.nodes() {
        match &node.op {
            Op::Flatten => {}
            Op::Linear { bias, .. } if linear.is_none() => linear = Some(bias.is_some()),
            _ => {
                return Err(format!(
                    "they are known only for one linear layer, and `{}` isn't part of one",
                    node.path
                ));
            }
        }
    }
    let Some(bias) = linear else {
        return Err("the model has no linear layer".to_owned());
    };
    let outputs = net.output_shape().iter().product::<usize>() as f64;
    // Of the loss as a function of the outputs: the largest eigenvalue of the Hessian and the Hessian's Lipschitz
    // constant. For the softmax, these are a variance and a third central moment on an interval of length √2, the
    // largest that ‖h‖ = 1 allows.
    let (curvature, third) = match net.loss().kind {
        LossKind::BinaryCrossEntropy => (0.25 / outputs, LOGISTIC_THIRD / outputs),
        LossKind::CrossEntropy => (0.5, 2.0_f64.sqrt() * 2.0 * LOGISTIC_THIRD),
        LossKind::MeanSquaredError => (2.0 / outputs, 0.0),
        other => {
            return Err(format!("they aren't known for {}", other.name()));
        }
    };
    Ok(Form {
        bias,
        outputs,
        curvature,
        third,
    })
}

/// λ, Λ, L and G of a linear model with a convex loss; for other models, why they are unknown.
fn derived(
    run: &RecordedRun<'_>,
    net: &Net,
    steps: &[Step],
    decay: f64,
) -> Result<Result<Constants, BrokenAssumption>> {
    let Form {
        bias,
        outputs,
        curvature,
        third,
    } = match form(net) {
        Ok(form) => form,
        Err(evidence) => return Ok(Err(breaks(Assumption::KnownDerivatives, evidence))),
    };
    let (input, target) = extent(run, steps, bias)?;
    let penalty = net.loss().penalty + decay;
    // The weights add up to 1, so the place of the penalty makes no difference to H.
    let _: PenaltyIn = net.loss().penalty_in;
    let start = steps
        .first()
        .map_or(Ok(0.0), |s| start_norm(run, s.meta.step))?;
    let data_gradient = |radius: f64| match net.loss().kind {
        LossKind::BinaryCrossEntropy => input / outputs.sqrt(),
        LossKind::CrossEntropy => 2.0_f64.sqrt() * input,
        _ => 2.0 / outputs * (radius * input + target) * input,
    };
    // ‖θ‖ stays below this on the recorded path and on every counterfactual one.
    let (mut radius, mut widest) = (start, start);
    let mut gradient = data_gradient(radius) + penalty * radius;
    for step in steps {
        radius = (1.0 - step.rate * penalty).abs() * radius + step.rate * data_gradient(radius);
        widest = widest.max(radius);
        gradient = gradient.max(data_gradient(widest) + penalty * widest);
    }
    Ok(Ok(Constants {
        lower: penalty,
        upper: penalty + curvature * input * input,
        lipschitz: third * input.powi(3),
        gradient,
        input,
        proven: true,
    }))
}

/// The largest norms of an input (including the bias's 1) and of a target, as they were used in training.
fn extent(run: &RecordedRun<'_>, steps: &[Step], bias: bool) -> Result<(f64, f64)> {
    let (mut input, mut target) = (0.0_f64, 0.0_f64);
    for step in steps {
        for batch in run.batches(&step.meta, DType::F64, &Device::Cpu)? {
            let rows = |tensor: &candle_core::Tensor| -> Result<Vec<Vec<f64>>> {
                let read = || {
                    tensor
                        .to_dtype(DType::F64)?
                        .reshape((batch.indices.len(), ()))?
                        .to_vec2()
                };
                read().doing(|| format!("reading the batch of step {}", step.meta.step))
            };
            for row in rows(&batch.inputs)? {
                input = input.max(norm(&row).powi(2));
            }
            for row in rows(&batch.targets)? {
                target = target.max(norm(&row));
            }
        }
    }
    Ok(((input + f64::from(u8::from(bias))).sqrt(), target))
}

fn start_norm(run: &RecordedRun<'_>, at: u64) -> Result<f64> {
    let first = run.source().forward(at..at + 1)?.next().transpose()?;
    let first = first.ok_or(Missing::Step { step: at })?;
    Ok(norm(&first.parameters.as_slice().to_f64()))
}

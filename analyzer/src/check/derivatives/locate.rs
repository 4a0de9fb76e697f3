//! Finds the operation that has the wrong derivative.
//!
//! candle hides which operation computed a tensor, but `sorted_nodes` gives every intermediate result of a forward
//! pass, and each can be differentiated and compared with its own differences. Results before a wrong operation pass,
//! and those after it fail. So the first result that fails, in the order of computation, is that of the wrong
//! operation. A sum over the results up to some position fails if one of them does, so bisection over the position
//! finds the first in a few backward passes.
//!
//! A result may fail although a later one that depends on it is right: a softmax may subtract a detached maximum,
//! which cancels. Such a failure is not an error. The results between it and the one that passes are left out, and
//! the search continues.

use std::panic::{AssertUnwindSafe, catch_unwind};

use candle_core::{DType, Device, Result as Candle, Tensor, Var};
use hindcast_model::objective::{Batch, Mode, Objective, Pass};
use hindcast_model::ops::second_order;

use super::differences::{Noise, moved};
use super::evaluate::{Evaluator, holding};
use super::fault::Fault;
use super::known;
use super::point::CheckPoint;
use super::precision::Precision;
use crate::engine::flat;
use crate::error::{Doing, Result, without_backtrace};

/// Second derivatives below this, of results of size 1, prove nothing.
const MOVED: f64 = 1e-8;
/// Independent random directions; a result that is right along all of them is right.
const PROBES: usize = 2;
/// Number of results after a failure that are tested for being right again.
const NEAR: usize = 32;

/// A forward pass with its intermediate results, in the order of computation.
struct Graph {
    parameters: Vec<Var>,
    nodes: Vec<Tensor>,
    losses: Tensor,
}

struct Search<'a> {
    objective: &'a dyn Objective,
    point: &'a CheckPoint<'a>,
    batch: &'a Batch,
    precision: &'static Precision,
    /// Constants of the gradient, which stay the same in all passes.
    constants: &'a [Tensor],
    mode: Mode,
}

impl<'a> Search<'a> {
    fn new(evaluator: &'a Evaluator<'_>, mode: Mode) -> Self {
        Search {
            objective: evaluator.objective,
            point: evaluator.point,
            batch: evaluator.batch(),
            precision: evaluator.precision,
            constants: evaluator.constants(),
            mode,
        }
    }
}

/// The first result whose gradient is wrong.
pub(super) fn first(evaluator: &Evaluator<'_>, mode: Mode) -> Result<Option<Fault>> {
    let search = Search::new(evaluator, mode);
    second_order::with_big_stack(|| search.first()).doing(looking)
}

/// The first result whose Hessian-vector product is wrong.
pub(super) fn second(evaluator: &Evaluator<'_>) -> Result<Option<Fault>> {
    let search = Search::new(evaluator, Mode::Train);
    second_order::with_big_stack(|| search.second()).doing(looking)
}

fn looking() -> String {
    "looking for the operation with the wrong derivative".to_owned()
}

/// The data of a test of first derivatives.
struct Slopes {
    directions: Vec<Tensor>,
    covectors: Vec<Tensor>,
    usable: Vec<bool>,
}

/// The data of a test of second derivatives.
struct Curvatures {
    inner: Vec<Tensor>,
    outer: Vec<Tensor>,
    w: Vec<f64>,
    covectors: Vec<Tensor>,
}

impl Curvatures {
    /// The slope of the sum over these results along the inner direction, as a differentiable function.
    fn slope(&self, graph: &Graph, included: &[bool]) -> Candle<Tensor> {
        let dtype = graph.losses.dtype();
        let mut sum = Tensor::zeros((), dtype, &Device::Cpu)?;
        for i in indices(included) {
            // The square gives linear operations a second derivative, too.
            let n = &graph.nodes[i];
            let curved = n.add(&n.sqr()?.affine(0.5, 0.0)?)?;
            sum = sum.add(&curved.mul(&self.covectors[i])?.sum_all()?)?;
        }
        let grads = sum.backward()?;
        let mut total = Tensor::zeros((), dtype, &Device::Cpu)?;
        for (p, v) in graph.parameters.iter().zip(&self.inner) {
            if let Some(g) = grads.get(p) {
                total = total.add(&g.mul(v)?.sum_all()?)?;
            }
        }
        Ok(total)
    }
}

/// Result of a test.
enum Verdict {
    Right,
    /// Nothing moved, so the test proves nothing.
    Blind,
    Wrong(Option<String>),
}

impl Search<'_> {
    fn graph(&self, parameters: &[f64]) -> Candle<Graph> {
        let defs = self.objective.parameters();
        let parameters = flat::tensors(parameters, defs, 1.0, self.precision.dtype, &Device::Cpu)?
            .iter()
            .map(Var::from_tensor)
            .collect::<Candle<Vec<_>>>()?;
        let buffers = flat::tensors(
            self.point.buffers,
            self.objective.buffers(),
            1.0,
            self.precision.dtype,
            &Device::Cpu,
        )?;
        let inputs: Vec<Tensor> = parameters.iter().map(|v| v.as_tensor().clone()).collect();
        let pass = Pass {
            parameters: &inputs,
            buffers: &buffers,
            batch: self.batch,
            mode: self.mode,
            draws: self.point.draws,
        };
        let losses = holding(self.constants, || self.objective.losses(&pass))?;
        let sorted = losses.per_example.sorted_nodes();
        let nodes = sorted.into_iter().rev();
        let nodes = nodes
            .filter(|t| !t.is_variable() && t.dtype() == self.precision.dtype)
            .cloned()
            .collect();
        Ok(Graph {
            parameters,
            nodes,
            losses: losses.per_example,
        })
    }

    fn first(&self) -> Candle<Option<Fault>> {
        let theta = self.point.parameters;
        let base = self.graph(theta)?;
        if base.nodes.is_empty() {
            return self.unreachable(&base).map(Some);
        }
        let mut probes = Vec::with_capacity(PROBES);
        for seed in 0..PROBES as u64 {
            match self.slopes(&base, theta, seed)? {
                Some(probe) => probes.push(probe),
                None => return Ok(None),
            }
        }
        self.search(1, &base, |included, probe| {
            let Slopes {
                directions,
                covectors,
                usable,
            } = &probes[probe];
            caught(|| {
                let mut sum = Tensor::zeros((), self.precision.dtype, &Device::Cpu)?;
                let mut due = 0.0;
                for i in indices(included).filter(|&i| usable[i]) {
                    sum = sum.add(&base.nodes[i].mul(&covectors[i])?.sum_all()?)?;
                    due += 1.0;
                }
                let slope = along(&sum, &base.parameters, directions)?;
                // The differences' errors add up at random. A NaN is wrong, too.
                let right = (slope - due).abs()
                    <= self.precision.fails * due.max(1.0).powf(self.precision.growth);
                Ok(if right && due == 0.0 {
                    Verdict::Blind
                } else if right {
                    Verdict::Right
                } else {
                    Verdict::Wrong(None)
                })
            })
        })
    }

    /// Random covectors of all results, scaled by differences so that each result's slope along a random direction is
    /// 1. `None` if the forward pass has other operations near the point.
    fn slopes(&self, base: &Graph, theta: &[f64], seed: u64) -> Candle<Option<Slopes>> {
        let mut noise = Noise::new(23 + seed);
        let v = noise.vector(theta.len(), 0.1);
        let mut covectors = base
            .nodes
            .iter()
            .map(|n| self.tensor(noise.vector(n.elem_count(), 1.0), n.dims()))
            .collect::<Candle<Vec<_>>>()?;
        // At two step sizes: if the slopes differ, there is a kink in between, and the result is left out.
        let mut slopes = Vec::new();
        for h in &self.precision.of_results {
            let plus = self.graph(&moved(theta, &v, *h))?;
            let minus = self.graph(&moved(theta, &v, -*h))?;
            if plus.nodes.len() != base.nodes.len() || minus.nodes.len() != base.nodes.len() {
                return Ok(None);
            }
            let mut here = Vec::with_capacity(covectors.len());
            for ((c, a), b) in covectors.iter().zip(&plus.nodes).zip(&minus.nodes) {
                let change = a.detach().sub(&b.detach())?;
                here.push(scalar(&c.mul(&change)?.sum_all()?)? / (2.0 * h));
            }
            slopes.push(here);
        }
        let mut usable = Vec::with_capacity(covectors.len());
        for (i, c) in covectors.iter_mut().enumerate() {
            let (a, b) = (slopes[0][i], slopes[1][i]);
            let size = scalar(&base.nodes[i].detach().sqr()?.sum_all()?)?.sqrt();
            let good = (a - b).abs() <= self.precision.smooth * a.abs()
                && a.abs() > self.precision.steep * size.max(1e-9);
            *c = c.affine(if good { 1.0 / a } else { 0.0 }, 0.0)?;
            usable.push(good);
        }
        Ok(Some(Slopes {
            directions: self.split(&v)?,
            covectors,
            usable,
        }))
    }

    fn second(&self) -> Candle<Option<Fault>> {
        let base = self.graph(self.point.parameters)?;
        let probes = (0..PROBES as u64)
            .map(|seed| self.curvatures(&base, seed))
            .collect::<Candle<Vec<_>>>()?;
        self.search(2, &base, |included, probe| {
            caught(|| self.curvature(&base, included, &probes[probe]))
        })
    }

    fn curvatures(&self, base: &Graph, seed: u64) -> Candle<Curvatures> {
        let mut noise = Noise::new(29 + seed);
        let p = self.point.parameters.len();
        let inner = self.split(&noise.vector(p, 0.1))?;
        let w = noise.vector(p, 0.1);
        let mut covectors = Vec::with_capacity(base.nodes.len());
        for n in &base.nodes {
            let size = scalar(&n.detach().sqr()?.sum_all()?)?.sqrt().max(1e-9);
            let c = noise.vector(n.elem_count(), 1.0 / size);
            covectors.push(self.tensor(c, n.dims())?);
        }
        Ok(Curvatures {
            inner,
            outer: self.split(&w)?,
            w,
            covectors,
        })
    }

    /// Whether the Hessian of the sum over these results, along two directions, agrees with differences of its
    /// gradient.
    fn curvature(&self, base: &Graph, included: &[bool], probe: &Curvatures) -> Candle<Verdict> {
        let exact = along(
            &probe.slope(base, included)?,
            &base.parameters,
            &probe.outer,
        )?;
        for &h in self.precision.of_gradients {
            let plus = self.graph(&moved(self.point.parameters, &probe.w, h))?;
            let minus = self.graph(&moved(self.point.parameters, &probe.w, -h))?;
            if plus.nodes.len() != base.nodes.len() || minus.nodes.len() != base.nodes.len() {
                return Ok(Verdict::Blind);
            }
            let plus = scalar(&probe.slope(&plus, included)?)?;
            let minus = scalar(&probe.slope(&minus, included)?)?;
            let found = (plus - minus) / (2.0 * h);
            let size = exact.abs().max(found.abs()).max(1e-9);
            if (exact - found).abs() <= self.precision.fails * size {
                return Ok(if exact.abs() > MOVED {
                    Verdict::Right
                } else {
                    Verdict::Blind
                });
            }
        }
        Ok(Verdict::Wrong(None))
    }

    /// The first result that fails without a later one being right again.
    fn search(
        &self,
        order: u8,
        base: &Graph,
        test: impl Fn(&[bool], usize) -> Verdict,
    ) -> Candle<Option<Fault>> {
        let n = base.nodes.len();
        let mut skipped = vec![false; n];
        // If a derivative is missing, that is the fault to find, not an inexact number.
        let missing = matches!(test(&vec![true; n], 0), Verdict::Wrong(Some(_)));
        let fails = |verdict| match verdict {
            Verdict::Right | Verdict::Blind => None,
            Verdict::Wrong(None) if missing => None,
            Verdict::Wrong(problem) => Some(problem),
        };
        loop {
            let until = |k: usize, skipped: &[bool]| -> Vec<bool> {
                (0..n).map(|i| i < k && !skipped[i]).collect()
            };
            let (mut right, mut wrong) = (0, n);
            let Some(mut problem) = fails(test(&until(n, &skipped), 0)) else {
                return Ok(None);
            };
            while wrong - right > 1 {
                let middle = right.midpoint(wrong);
                match fails(test(&until(middle, &skipped), 0)) {
                    None => right = middle,
                    Some(text) => (wrong, problem) = (middle, text),
                }
            }
            let at = self.earliest(wrong - 1, &skipped, |alone| fails(test(alone, 0)).is_some());
            let healed = (at + 1..n.min(at + 1 + NEAR)).find(|&later| {
                let alone: Vec<bool> = (0..n).map(|i| i == later).collect();
                follows(&base.nodes[later], &base.nodes[at])
                    && (0..PROBES).all(|probe| matches!(test(&alone, probe), Verdict::Right))
            });
            match healed {
                None => {
                    let only: Vec<bool> = (0..n).map(|i| i == at).collect();
                    let alone = matches!(test(&only, 0), Verdict::Right);
                    return self.fault(order, base, at, problem, alone).map(Some);
                }
                Some(later) => {
                    skipped[at] = true;
                    for (i, skip) in skipped.iter_mut().enumerate().take(later).skip(at) {
                        *skip |= follows(&base.nodes[i], &base.nodes[at]);
                    }
                }
            }
        }
    }

    /// The first result shortly before `at` that fails alone. Only in float32, where the errors of many results hide one.
    fn earliest(&self, at: usize, skipped: &[bool], fails: impl Fn(&[bool]) -> bool) -> usize {
        if self.precision.growth == 0.0 {
            return at;
        }
        (at.saturating_sub(2 * NEAR)..at)
            .filter(|&i| !skipped[i])
            .find(|&i| fails(&(0..skipped.len()).map(|j| j == i).collect::<Vec<_>>()))
            .unwrap_or(at)
    }

    /// The fault of a model whose losses lead to no parameter.
    fn unreachable(&self, base: &Graph) -> Candle<Fault> {
        Ok(Fault {
            order: 1,
            operation: 0,
            operations: 0,
            shape: base.losses.dims().to_vec(),
            after: Vec::new(),
            before: Vec::new(),
            unreached: self.unreached(base, &base.losses, |graph| Some(&graph.losses))?,
            known: Some(known::CUT),
            problem: None,
        })
    }

    /// Names of the parameters that aren't in the graph of `result`, but change it. `of` finds the result in another pass.
    fn unreached(
        &self,
        base: &Graph,
        result: &Tensor,
        of: impl Fn(&Graph) -> Option<&Tensor>,
    ) -> Candle<Vec<String>> {
        let inside: Vec<_> = result.sorted_nodes().iter().map(|n| n.id()).collect();
        let mut noise = Noise::new(31);
        let mut start = 0;
        let mut out = Vec::new();
        for (def, var) in self.objective.parameters().iter().zip(&base.parameters) {
            let end = start + flat::elements(def);
            if !inside.contains(&var.id()) {
                let mut theta = self.point.parameters.to_vec();
                for (value, by) in theta[start..end]
                    .iter_mut()
                    .zip(noise.vector(end - start, 0.1))
                {
                    *value += by;
                }
                let moved = self.graph(&theta)?;
                if let Some(there) = of(&moved)
                    && there.dims() == result.dims()
                    && scalar(&there.detach().sub(&result.detach())?.sqr()?.sum_all()?)? > 0.0
                {
                    out.push(def.name.clone());
                }
            }
            start = end;
        }
        Ok(out)
    }

    /// Describes the fault at a result. `alone`: the result is right if no other is asked for.
    fn fault(
        &self,
        order: u8,
        base: &Graph,
        at: usize,
        problem: Option<String>,
        alone: bool,
    ) -> Candle<Fault> {
        let (result, earlier) = (&base.nodes[at], &base.nodes[..at]);
        let inside = result.sorted_nodes();
        let defs = self.objective.parameters();
        let all: Vec<String> = defs.iter().map(|def| def.name.clone()).collect();
        let (after, before) = all
            .into_iter()
            .zip(&base.parameters)
            .partition::<Vec<_>, _>(|(_, p)| inside.iter().any(|n| n.id() == p.id()));
        let only_names = |list: Vec<(String, &Var)>| list.into_iter().map(|(n, _)| n).collect();
        let mut candidates = earlier.to_vec();
        candidates.push(self.batch.inputs.clone());
        candidates.extend(base.parameters.iter().map(|p| p.as_tensor().clone()));
        let unreached = self.unreached(base, result, |graph| {
            let same = graph.nodes.len() == base.nodes.len();
            graph.nodes.get(at).filter(|_| same)
        })?;
        let known = problem
            .as_deref()
            .and_then(known::by_message)
            .or_else(|| known::by_values(result, &candidates, &self.batch.targets))
            .or_else(|| (!unreached.is_empty()).then_some(known::CUT))
            .or_else(|| alone.then(|| known::by_reuse(earlier)).flatten());
        Ok(Fault {
            order,
            operation: at + 1,
            operations: base.nodes.len(),
            shape: result.dims().to_vec(),
            after: only_names(after),
            before: only_names(before),
            unreached,
            known,
            problem,
        })
    }

    /// Splits a flat vector into tensors of the parameters' shapes.
    fn split(&self, v: &[f64]) -> Candle<Vec<Tensor>> {
        let defs = self.objective.parameters();
        flat::tensors(v, defs, 1.0, self.precision.dtype, &Device::Cpu)
    }

    /// A tensor in the float type of the check.
    fn tensor(&self, values: Vec<f64>, shape: &[usize]) -> Candle<Tensor> {
        Tensor::from_vec(values, shape, &Device::Cpu)?.to_dtype(self.precision.dtype)
    }
}

/// Derivative of a scalar along a direction in the parameters.
fn along(sum: &Tensor, parameters: &[Var], directions: &[Tensor]) -> Candle<f64> {
    let grads = sum.backward()?;
    let mut total = 0.0;
    for (p, v) in parameters.iter().zip(directions) {
        if let Some(g) = grads.get(p) {
            total += scalar(&g.detach().mul(v)?.sum_all()?)?;
        }
    }
    Ok(total)
}

fn indices(included: &[bool]) -> impl Iterator<Item = usize> {
    included
        .iter()
        .enumerate()
        .filter(|(_, included)| **included)
        .map(|(i, _)| i)
}

/// Whether `later` was computed from `earlier`.
fn follows(later: &Tensor, earlier: &Tensor) -> bool {
    later.sorted_nodes().iter().any(|t| t.id() == earlier.id())
}

fn scalar(t: &Tensor) -> Candle<f64> {
    t.to_dtype(DType::F64)?.to_scalar::<f64>()
}

/// Runs a test. A panic counts as wrong, because candle panics if an operation's backward pass leaves out an argument.
fn caught(test: impl FnOnce() -> Candle<Verdict>) -> Verdict {
    match catch_unwind(AssertUnwindSafe(test)) {
        Ok(Ok(verdict)) => verdict,
        Ok(Err(e)) => Verdict::Wrong(Some(without_backtrace(&e.to_string()))),
        Err(_) => Verdict::Wrong(Some("the backward pass panicked".to_owned())),
    }
}

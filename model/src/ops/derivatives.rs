//! Checks the first and second derivatives of each operation against finite differences in float64.
//!
//! For an operation y = f(x_1, ..., x_n), let φ(x) = Σ c ⊙ (y + y²/2) with a fixed random c. Because of y², φ has a
//! second derivative even if f is linear. The gradient of φ is compared with central differences of φ, coordinate by
//! coordinate. The product H v with a random v is compared with central differences of the gradient along v. Both
//! differences are of fourth order, (8 (f(h) − f(−h)) − (f(2h) − f(−2h))) / 12h.

use candle_core::{DType, Device, Result, Tensor, Var};

use super::element::error;
use super::{second_order, *};

/// Step h of the differences. The distance of inputs from a kink must be larger than 2h.
pub const STEP: f64 = 1e-4;

/// Errors of the derivatives of an operation: ‖computed − differences‖ / ‖differences‖ for the worst input.
#[derive(Debug, Clone, PartialEq)]
pub struct DerivativeReport {
    /// The operation and its shapes.
    pub name: String,
    /// Relative error of the gradient.
    pub first: f64,
    /// Relative error of the Hessian times a vector.
    pub second: f64,
}

impl std::fmt::Display for DerivativeReport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{:<52} {:>9.1e} {:>9.1e}",
            self.name, self.first, self.second
        )
    }
}

/// Checks the first and second derivative of `f` at `inputs` (float64, any shapes, all differentiated).
///
/// Runs on the calling thread, which must pass [`second_order::probe`].
///
/// # Errors
/// If an input is not float64, if candle detaches gradients on this thread, or if `f` fails.
pub fn check_derivatives(
    name: &str,
    inputs: &[Tensor],
    f: impl Fn(&[Tensor]) -> Result<Tensor>,
) -> Result<DerivativeReport> {
    second_order::probe()?;
    if let Some(bad) = inputs.iter().find(|t| t.dtype() != DType::F64) {
        return Err(error(
            name,
            format!("differences need float64 inputs, got {:?}", bad.dtype()),
        ));
    }
    let y = f(inputs)?;
    let mut noise = Noise::new(name.len() as u64, y.device());
    let c = noise.tensor(y.dims(), 0.5, 1.5)?;
    let phi = |x: &[Tensor]| -> Result<Tensor> {
        let y = f(x)?;
        y.add(&y.sqr()?.affine(0.5, 0.0)?)?.mul(&c)?.sum_all()
    };
    let gradient = |x: &[Tensor]| -> Result<Vec<Tensor>> {
        let vars = variables(x)?;
        let grads = phi(&tensors(&vars))?.backward()?;
        vars.iter()
            .map(|v| grads.get(v).cloned().map_or_else(|| v.zeros_like(), Ok))
            .map(|g| g.map(|g| g.detach()))
            .collect()
    };

    let computed = gradient(inputs)?;
    let mut differences = Vec::new();
    for (i, x) in inputs.iter().enumerate() {
        let flat = x.flatten_all()?.to_vec1::<f64>()?;
        let mut slope = Vec::with_capacity(flat.len());
        for k in 0..flat.len() {
            let at = |h: f64| -> Result<f64> {
                let mut moved = flat.clone();
                if let Some(value) = moved.get_mut(k) {
                    *value += h;
                }
                let mut all = inputs.to_vec();
                all[i] = Tensor::from_vec(moved, x.shape(), x.device())?;
                phi(&all)?.to_scalar::<f64>()
            };
            let inner = at(STEP)? - at(-STEP)?;
            let outer = at(2.0 * STEP)? - at(-2.0 * STEP)?;
            slope.push((8.0 * inner - outer) / (12.0 * STEP));
        }
        differences.push(Tensor::from_vec(slope, x.shape(), x.device())?);
    }
    let first = worst(&computed, &differences)?;

    let directions = inputs
        .iter()
        .map(|x| noise.tensor(x.dims(), -1.0, 1.0))
        .collect::<Result<Vec<_>>>()?;
    let vars = variables(inputs)?;
    let grads = phi(&tensors(&vars))?.backward()?;
    let mut along = Tensor::zeros((), DType::F64, y.device())?;
    for (x, v) in vars.iter().zip(&directions) {
        if let Some(g) = grads.get(x) {
            along = along.add(&g.mul(v)?.sum_all()?)?;
        }
    }
    let computed = vars
        .iter()
        .map(|x| second_order::gradient(&along, x))
        .collect::<Result<Vec<_>>>()?;
    let at = |h: f64| -> Result<Vec<Tensor>> {
        let moved = inputs
            .iter()
            .zip(&directions)
            .map(|(x, v)| x.add(&v.affine(h, 0.0)?))
            .collect::<Result<Vec<_>>>()?;
        gradient(&moved)
    };
    let (a, b, c2, d) = (at(STEP)?, at(-STEP)?, at(2.0 * STEP)?, at(-2.0 * STEP)?);
    let mut differences = Vec::new();
    for (((a, b), c), d) in a.iter().zip(&b).zip(&c2).zip(&d) {
        let slope = a.sub(b)?.affine(8.0, 0.0)?.sub(&c.sub(d)?)?;
        differences.push(slope.affine(1.0 / (12.0 * STEP), 0.0)?);
    }
    Ok(DerivativeReport {
        name: name.to_owned(),
        first,
        second: worst(&computed, &differences)?,
    })
}

fn variables(x: &[Tensor]) -> Result<Vec<Var>> {
    x.iter().map(Var::from_tensor).collect()
}

fn tensors(vars: &[Var]) -> Vec<Tensor> {
    vars.iter().map(|v| v.as_tensor().clone()).collect()
}

fn norm(t: &Tensor) -> Result<f64> {
    Ok(t.sqr()?.sum_all()?.to_scalar::<f64>()?.sqrt())
}

/// Largest relative error over the inputs. The norm of an input's derivative counts as at least a thousandth of the
/// largest norm, because a smaller norm may consist of rounding errors.
fn worst(computed: &[Tensor], differences: &[Tensor]) -> Result<f64> {
    let norms = differences.iter().map(norm).collect::<Result<Vec<_>>>()?;
    let largest = norms.iter().copied().fold(0.0, f64::max);
    let mut out = 0f64;
    for ((a, b), n) in computed.iter().zip(differences).zip(norms) {
        let error = norm(&a.sub(b)?)? / n.max(1e-3 * largest).max(f64::MIN_POSITIVE);
        // A NaN must not pass for a small error.
        out = if error.is_nan() {
            f64::INFINITY
        } else {
            out.max(error)
        };
    }
    Ok(out)
}

/// Deterministic test points (SplitMix64).
struct Noise {
    state: u64,
    device: Device,
}

impl Noise {
    fn new(seed: u64, device: &Device) -> Self {
        Self {
            state: seed,
            device: device.clone(),
        }
    }

    fn unit(&mut self) -> f64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }

    fn tensor(&mut self, dims: &[usize], low: f64, high: f64) -> Result<Tensor> {
        let n = dims.iter().product();
        let data: Vec<f64> = (0..n).map(|_| low + (high - low) * self.unit()).collect();
        Tensor::from_vec(data, dims, &self.device)
    }

    /// Distinct values with a fixed gap in random order, so that no maximum changes within a step of the differences.
    /// None is near 0, the kink of a ReLU.
    fn spaced(&mut self, dims: &[usize]) -> Result<Tensor> {
        let n: usize = dims.iter().product();
        let mut data: Vec<f64> = (0..n)
            .map(|i| (i as f64 + 0.5 - n as f64 / 2.0) * 0.05)
            .map(|v| if v.abs() < 0.03 { v + 0.01 } else { v })
            .collect();
        for i in (1..n).rev() {
            data.swap(i, (self.unit() * (i + 1) as f64) as usize);
        }
        Tensor::from_vec(data, dims, &self.device)
    }
}

/// Checks each operation of this module at fixed points, on a separate thread. The errors of a correct operation are at
/// most 1e-8, the error of the differences.
///
/// # Errors
/// If an operation fails, or second derivatives can't be computed (see [`second_order`]).
pub fn derivative_check() -> Result<Vec<DerivativeReport>> {
    derivative_check_on(&Device::Cpu)
}

/// As [`derivative_check`], on another device.
///
/// # Errors
/// As for [`derivative_check`].
pub fn derivative_check_on(device: &Device) -> Result<Vec<DerivativeReport>> {
    second_order::with_big_stack(|| {
        let mut rows = Vec::new();
        let n = &mut Noise::new(7, device);
        dense(n, &mut rows)?;
        attention(n, &mut rows)?;
        convolutions(n, &mut rows)?;
        pooling(n, &mut rows)?;
        pointwise(n, &mut rows)?;
        normalisation(n, &mut rows)?;
        losses(n, &mut rows)?;
        Ok(rows)
    })
}

type Reports = Vec<DerivativeReport>;

fn dense(n: &mut Noise, rows: &mut Reports) -> Result<()> {
    let inputs = [
        n.tensor(&[4, 5], -1., 1.)?,
        n.tensor(&[3, 5], -1., 1.)?,
        n.tensor(&[3], -1., 1.)?,
    ];
    rows.push(check_derivatives("linear 5->3", &inputs, |t| {
        linear(&t[0], &t[1], Some(&t[2]))
    })?);
    Ok(())
}

fn attention(n: &mut Noise, rows: &mut Reports) -> Result<()> {
    for (heads, causal) in [(2, true), (3, false)] {
        let qkv = [n.tensor(&[2, 4, 18], -1., 1.)?];
        let name = format!("self_attention {heads} heads, causal {causal}");
        rows.push(check_derivatives(&name, &qkv, |t| {
            self_attention(&t[0], heads, causal)
        })?);
    }
    Ok(())
}

fn convolutions(n: &mut Noise, rows: &mut Reports) -> Result<()> {
    for (stride, padding, kernel) in [
        ((1, 1), (0, 0), [3, 3]),
        ((2, 1), (1, 2), [3, 2]),
        ((1, 1), (0, 0), [1, 1]),
    ] {
        let inputs = [
            n.tensor(&[2, 2, 6, 5], -1., 1.)?,
            n.tensor(&[3, 2, kernel[0], kernel[1]], -1., 1.)?,
            n.tensor(&[3], -1., 1.)?,
        ];
        let name = format!(
            "conv2d {}x{} stride {stride:?} padding {padding:?}",
            kernel[0], kernel[1]
        );
        rows.push(check_derivatives(&name, &inputs, |t| {
            conv2d(&t[0], &t[1], Some(&t[2]), stride, padding)
        })?);
    }
    let inputs = off_the_kinks(n)?;
    rows.push(check_derivatives(
        "conv2d_relu 3x3 padding 1",
        &inputs,
        |t| conv2d_relu(&t[0], &t[1], Some(&t[2]), (1, 1), (1, 1)),
    )?);
    rows.push(check_derivatives(
        "conv2d_relu_max_pool2d 3x3 pool 2",
        &inputs,
        |t| {
            let (one, two, none) = ((1, 1), (2, 2), (0, 0));
            conv2d_relu_max_pool2d(&t[0], &t[1], Some(&t[2]), one, one, two, two, none)
        },
    )?);
    for (stride, padding, extra) in [((1, 1), (0, 0), (0, 0)), ((2, 3), (1, 0), (1, 2))] {
        let inputs = [
            n.tensor(&[2, 3, 3, 4], -1., 1.)?,
            n.tensor(&[3, 2, 3, 2], -1., 1.)?,
            n.tensor(&[2], -1., 1.)?,
        ];
        let name =
            format!("conv_transpose2d 3x2 stride {stride:?} padding {padding:?} extra {extra:?}");
        rows.push(check_derivatives(&name, &inputs, |t| {
            conv_transpose2d(&t[0], &t[1], Some(&t[2]), stride, padding, extra)
        })?);
    }
    Ok(())
}

/// Input, weight and bias of a padded 3x3 convolution without outputs near 0.
fn off_the_kinks(n: &mut Noise) -> Result<[Tensor; 3]> {
    for _ in 0..1000 {
        let t = [
            n.tensor(&[2, 2, 4, 4], -1., 1.)?,
            n.tensor(&[3, 2, 3, 3], -1., 1.)?,
            n.tensor(&[3], -1., 1.)?,
        ];
        let z = conv2d(&t[0], &t[1], Some(&t[2]), (1, 1), (1, 1))?;
        if z.abs()?.min_all()?.to_scalar::<f64>()? > 100.0 * STEP {
            return Ok(t);
        }
    }
    Err(error(
        "conv2d_relu",
        "no test point away from the kinks was found",
    ))
}

fn pooling(n: &mut Noise, rows: &mut Reports) -> Result<()> {
    for (kernel, stride, padding) in [
        ((2, 2), (2, 2), (0, 0)),
        ((3, 2), (1, 2), (1, 0)),
        ((2, 2), (1, 1), (0, 0)),
    ] {
        let x = [n.spaced(&[2, 2, 5, 6])?];
        let shape = format!("{kernel:?} stride {stride:?}");
        let name = format!("max_pool2d {shape} padding {padding:?}");
        rows.push(check_derivatives(&name, &x, |t| {
            max_pool2d(&t[0], kernel, stride, padding)
        })?);
        let name = format!("relu_max_pool2d {shape} padding {padding:?}");
        rows.push(check_derivatives(&name, &x, |t| {
            relu_max_pool2d(&t[0], kernel, stride, padding)
        })?);
        let name = format!("avg_pool2d {shape}");
        rows.push(check_derivatives(&name, &x, |t| {
            avg_pool2d(&t[0], kernel, stride)
        })?);
    }
    Ok(())
}

fn pointwise(n: &mut Noise, rows: &mut Reports) -> Result<()> {
    type Function = fn(&Tensor) -> Result<Tensor>;
    let ops: [(&str, Function); 5] = [
        ("relu", relu),
        ("tanh", tanh),
        ("sigmoid", sigmoid),
        ("softplus", softplus),
        ("gelu", gelu),
    ];
    for (name, op) in ops {
        let x = [n.spaced(&[6, 9])?];
        rows.push(check_derivatives(name, &x, |t| op(&t[0]))?);
    }
    Ok(())
}

fn normalisation(n: &mut Noise, rows: &mut Reports) -> Result<()> {
    for dims in [&[6, 3][..], &[3, 2, 3, 2]] {
        for (mode, train) in [("train", true), ("eval", false)] {
            let c = [dims[1]];
            let inputs = [
                n.tensor(dims, -1., 2.)?,
                n.tensor(&c, 0.5, 1.5)?,
                n.tensor(&c, -1., 1.)?,
                n.tensor(&c, -1., 1.)?,
                n.tensor(&c, 0.5, 2.)?,
            ];
            let name = format!("batch_norm {mode} {dims:?}, running statistics too");
            rows.push(check_derivatives(&name, &inputs, |t| {
                let (y, mean, var) =
                    batch_norm(&t[0], &t[1], &t[2], &t[3], &t[4], 0.1, 1e-5, train)?;
                Tensor::cat(&[y.flatten_all()?, mean, var], 0)
            })?);
        }
    }
    Ok(())
}

fn losses(n: &mut Noise, rows: &mut Reports) -> Result<()> {
    let logits = n.tensor(&[5, 4], -3., 3.)?;
    let classes = Tensor::new(&[0u32, 3, 1, 1, 2], &n.device)?;
    rows.push(check_derivatives(
        "log_softmax",
        std::slice::from_ref(&logits),
        |t| log_softmax(&t[0]),
    )?);
    rows.push(check_derivatives("cross_entropy", &[logits], |t| {
        cross_entropy(&t[0], &classes)
    })?);
    let logits = n.tensor(&[2, 3, 4], -3., 3.)?;
    let tokens = Tensor::new(&[[0i64, 3, -1], [2, -1, -1]], &n.device)?;
    rows.push(check_derivatives(
        "sequence_cross_entropy",
        std::slice::from_ref(&logits),
        |t| sequence_cross_entropy(&t[0], &tokens, Some(-1)),
    )?);
    rows.push(check_derivatives("token_cross_entropy", &[logits], |t| {
        token_cross_entropy(&t[0], &tokens, Some(-1))
    })?);
    let pair = [n.tensor(&[4, 3], -2., 2.)?, n.tensor(&[4, 3], 0.1, 0.9)?];
    rows.push(check_derivatives(
        "binary_cross_entropy_with_logits",
        &pair,
        |t| binary_cross_entropy_with_logits(&t[0], &t[1]),
    )?);
    rows.push(check_derivatives("mean_squared_error", &pair, |t| {
        mean_squared_error(&t[0], &t[1])
    })?);
    Ok(())
}

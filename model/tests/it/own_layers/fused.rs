//! Fused backward passes: the bits of the composed forms in float32, and the same results on any number of threads.

use super::*;

use hindcast_model::ops;

/// GELU composed of candle's operations.
fn composed_gelu(x: &Tensor) -> Result<Tensor> {
    let cdf = x
        .affine(std::f64::consts::FRAC_1_SQRT_2, 0.0)?
        .erf()?
        .affine(0.5, 0.5)?;
    x.mul(&cdf)
}

/// The value, and the gradient of a weighted sum of its values.
fn value_and_gradient(x: &Tensor, f: impl Fn(&Tensor) -> Result<Tensor>) -> Result<[Tensor; 2]> {
    let x = Var::from_tensor(x)?;
    let y = f(x.as_tensor())?;
    let grads = y
        .mul(&noise(9, y.dims(), y.dtype()))?
        .sum_all()?
        .backward()?;
    Ok([y, grads.get(&x).unwrap().clone()])
}

/// Bits of float32 values. All NaN count as equal.
fn bits(t: &Tensor) -> Vec<u32> {
    let flat: Vec<f32> = t.flatten_all().unwrap().to_vec1().unwrap();
    let bits = |x: f32| if x.is_nan() { f32::NAN } else { x + 0.0 }.to_bits();
    flat.into_iter().map(bits).collect()
}

/// Compares every `step`-th float32 from `from`.
fn compare_gelu(from: u64, step: u64) {
    let mut next = from;
    while next < 1 << 32 {
        let mut block = Vec::with_capacity(1 << 20);
        while next < 1 << 32 && block.len() < 1 << 20 {
            block.push(f32::from_bits(next as u32));
            next += step;
        }
        let n = block.len();
        let x = Tensor::from_vec(block, n, &Device::Cpu).unwrap();
        let ours = value_and_gradient(&x, ops::gelu).unwrap();
        let candles = value_and_gradient(&x, composed_gelu).unwrap();
        let xs: Vec<f32> = x.to_vec1().unwrap();
        for (what, (ours, candles)) in ["value", "gradient"].iter().zip(ours.iter().zip(&candles)) {
            for ((x, a), b) in xs.iter().zip(bits(ours)).zip(bits(candles)) {
                let (a, b) = (f32::from_bits(a), f32::from_bits(b));
                assert!(
                    a.to_bits() == b.to_bits(),
                    "{what} at {x:e}: {a:e} against {b:e}"
                );
            }
        }
    }
}

#[test]
fn gelu_has_the_bits_of_its_composed_form() {
    compare_gelu(0, (1 << 13) | 1);
    // Closely around the points where libm changes its formula, and where both signs of x occur.
    for border in [0.843_75f32, 1.25, 1.0 / 0.35, 6.0] {
        let x = border * std::f32::consts::SQRT_2;
        let near: Vec<f32> = (0..4000u32)
            .map(|k| f32::from_bits(x.to_bits() - 2000 + k))
            .flat_map(|x| [x, -x])
            .collect();
        let n = near.len();
        let x = Tensor::from_vec(near, n, &Device::Cpu).unwrap();
        let ours = value_and_gradient(&x, ops::gelu).unwrap();
        let candles = value_and_gradient(&x, composed_gelu).unwrap();
        assert_eq!(ours.each_ref().map(bits), candles.each_ref().map(bits));
    }
}

#[test]
#[ignore = "all float32 values take minutes: cargo test --release -p hindcast-model --test it every_float -- --ignored"]
fn gelu_has_the_bits_of_its_composed_form_at_every_float() {
    compare_gelu(0, 1);
}

#[test]
fn gelu_reads_strided_and_empty_tensors() {
    let x = f32s(1, &[6, 5]).t().unwrap();
    let copied = ops::gelu(&x.contiguous().unwrap()).unwrap();
    same_bits("transposed", &ops::gelu(&x).unwrap(), &copied);
    let empty = Tensor::zeros((0, 3), DType::F32, &Device::Cpu).unwrap();
    assert_eq!(ops::gelu(&empty).unwrap().dims(), [0, 3]);
    derivatives("gelu of a transpose", &[f64s(1, &[4, 3])], |t| {
        ops::gelu(&(t[0].t()? * 2.0)?)
    });
}

/// Large enough for several threads.
fn large() -> [Tensor; 3] {
    [f32s(1, &[40, 64, 96]), f32s(2, &[96]), f32s(3, &[96])]
}

fn layer_norm(t: &[Tensor]) -> Result<Tensor> {
    own::ops::layer_norm(&t[0], &t[1], &t[2], 1e-5)
}

fn rms_norm(t: &[Tensor]) -> Result<Tensor> {
    own::ops::rms_norm(&t[0], &t[1], 1e-5)
}

fn softmax(t: &[Tensor]) -> Result<Tensor> {
    own::ops::softmax_last_dim(&t[0])
}

fn gelu(t: &[Tensor]) -> Result<Tensor> {
    ops::gelu(&t[0])
}

fn linear(t: &[Tensor]) -> Result<Tensor> {
    let (w, b) = (t[1].reshape((1, 96))?, t[2].narrow(0, 0, 1)?);
    own::Linear::new(
        w.broadcast_as((64, 96))?.contiguous()?,
        Some(b.broadcast_as(64)?.contiguous()?),
    )
    .forward(&t[0])
}

/// As the usual forward function with candle's operations.
fn composed_attention(qkv: &Tensor, heads: usize, causal: bool) -> Result<Tensor> {
    let (b, t, packed) = qkv.dims3()?;
    let w = packed / 3;
    let head = |k: usize| {
        qkv.narrow(D::Minus1, k * w, w)?
            .reshape((b, t, heads, w / heads))?
            .transpose(1, 2)?
            .contiguous()
    };
    let scale = ((w / heads) as f64).powf(-0.5);
    let mut scores = (head(0)?.matmul(&head(1)?.t()?.contiguous()?)? * scale)?;
    if causal {
        let mask: Vec<f32> = (0..t * t)
            .map(|i| if i % t > i / t { -1e4 } else { 0.0 })
            .collect();
        let mask = Tensor::from_vec(mask, (t, t), &Device::Cpu)?.to_dtype(qkv.dtype())?;
        scores = scores.broadcast_add(&mask)?;
    }
    own::ops::softmax_last_dim(&scores)?
        .matmul(&head(2)?)?
        .transpose(1, 2)?
        .reshape((b, t, w))
}

#[test]
fn attention_is_its_composed_form() {
    for (dims, heads) in [
        ([3, 16, 96], 4),
        ([1, 64, 384], 4),
        ([2, 1, 6], 2),
        ([2, 7, 15], 1),
    ] {
        for causal in [true, false] {
            let qkv = (f32s(1, &dims) * 2.0).unwrap();
            let ours = values(&ops::self_attention(&qkv, heads, causal).unwrap());
            let candles = values(&composed_attention(&qkv, heads, causal).unwrap());
            assert_eq!(ours.len(), candles.len());
            for (a, b) in ours.iter().zip(&candles) {
                assert!(
                    (a - b).abs() < 2e-6,
                    "{dims:?}, {heads} heads, causal {causal}: {a} {b}"
                );
            }
        }
    }
    let strided = f32s(1, &[16, 3, 96]).transpose(0, 1).unwrap();
    same_bits(
        "transposed",
        &ops::self_attention(&strided, 4, true).unwrap(),
        &ops::self_attention(&strided.contiguous().unwrap(), 4, true).unwrap(),
    );
    for dims in [[0, 4, 6], [2, 0, 6], [2, 4, 0]] {
        let empty = Tensor::zeros(&dims, DType::F32, &Device::Cpu).unwrap();
        let out = ops::self_attention(&empty, 2, true).unwrap();
        assert_eq!(out.dims(), [dims[0], dims[1], dims[2] / 3]);
    }
    let half = f32s(1, &[2, 5, 12]).to_dtype(DType::F16).unwrap();
    let wide = values(&ops::self_attention(&half.to_dtype(DType::F32).unwrap(), 2, true).unwrap());
    for (a, b) in values(&ops::self_attention(&half, 2, true).unwrap())
        .iter()
        .zip(wide)
    {
        assert!((a - b).abs() < 5e-3, "{a} against {b}");
    }
}

#[test]
fn attention_refuses_shapes_that_do_not_fit() {
    for (dims, heads) in [
        (&[2, 4, 7][..], 1),
        (&[2, 4, 12], 3),
        (&[2, 4, 12], 0),
        (&[4, 12], 2),
    ] {
        let said = ops::self_attention(&f32s(1, dims), heads, true)
            .unwrap_err()
            .to_string();
        assert!(said.contains("3 × width"), "{said}");
    }
    let integers = Tensor::zeros((1, 2, 6), DType::U32, &Device::Cpu).unwrap();
    assert!(ops::self_attention(&integers, 2, true).is_err());
}

fn attention(t: &[Tensor]) -> Result<Tensor> {
    ops::self_attention(&t[0], 4, true)
}

#[test]
fn fused_derivatives_have_the_same_bits_on_any_number_of_threads() {
    let cases: [(&str, Function, usize); 6] = [
        ("attention", attention, 1),
        ("layer norm", layer_norm, 3),
        ("rms norm", rms_norm, 2),
        ("softmax", softmax, 1),
        ("gelu", gelu, 1),
        ("linear", linear, 3),
    ];
    for (name, f, count) in cases {
        let on = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new()
                .num_threads(threads)
                .build()
                .unwrap();
            second_order::with_big_stack(|| pool.install(|| twice_here(&large()[..count], f)))
                .unwrap()
        };
        let one = on(1);
        for threads in [2, 3] {
            assert!(one == on(threads), "{name} on {threads} threads");
        }
    }
}

/// The bits of [`twice`] on a thread of a pool.
fn twice_here(inputs: &[Tensor], f: Function) -> Result<Vec<Vec<u32>>> {
    let all = twice(inputs, f)?;
    Ok(all.iter().flatten().map(bits).collect())
}

/// f and its derivatives in float32, against candle's composed forms.
#[test]
fn fused_derivatives_agree_with_composed_ones() {
    let cases: [(&str, Function, Function, usize); 5] = [
        (
            "attention",
            attention,
            |t| composed_attention(&t[0], 4, true),
            1,
        ),
        (
            "layer norm",
            layer_norm,
            |t| candle_nn::ops::layer_norm_slow(&t[0], &t[1], &t[2], 1e-5),
            3,
        ),
        (
            "rms norm",
            rms_norm,
            |t| candle_nn::ops::rms_norm_slow(&t[0], &t[1], 1e-5),
            2,
        ),
        (
            "softmax",
            softmax,
            |t| candle_nn::ops::softmax(&t[0], D::Minus1),
            1,
        ),
        ("gelu", gelu, |t| composed_gelu(&t[0]), 1),
    ];
    for (name, ours, candles, count) in cases {
        for dims in [&[40, 64, 96][..], &[1, 96], &[1, 1, 1]] {
            if name == "attention" && dims[0] == 1 {
                continue; // no packed queries, keys and values
            }
            let size = [*dims.last().unwrap()];
            let inputs = [f32s(1, dims), f32s(2, &size), f32s(3, &size)];
            let run =
                |f: Function| second_order::with_big_stack(|| twice(&inputs[..count], f)).unwrap();
            let (a, b) = (run(ours), run(candles));
            for (order, (a, b)) in a.iter().flatten().zip(b.iter().flatten()).enumerate() {
                let (a, b) = (values(a), values(b));
                let size = b.iter().fold(1e-2_f64, |m, x| m.max(x.abs()));
                for (a, b) in a.iter().zip(&b) {
                    assert!(
                        (a - b).abs() < 1e-4 * size,
                        "{name} {dims:?} {order}: {a} against {b}"
                    );
                }
            }
        }
    }
}

/// A third derivative that doesn't exist is an error, not a zero.
#[test]
fn third_derivatives_of_norms_are_refused() {
    for (f, op) in [
        (layer_norm as Function, "norm of rows, second derivative"),
        (softmax, "softmax second derivative"),
    ] {
        let said = second_order::with_big_stack(|| {
            let x = Var::from_tensor(&f32s(1, &[2, 5]))?;
            let ones = Tensor::ones(5, DType::F32, &Device::Cpu)?;
            let y = f(&[x.as_tensor().clone(), ones.clone(), ones])?;
            let mut scalar = y.powf(3.0)?.sum_all()?;
            for _ in 0..2 {
                let g = second_order::gradient(&scalar, &x)?;
                scalar = g.mul(&f32s(4, g.dims()))?.sqr()?.sum_all()?;
            }
            scalar.backward().map(|_| ())
        })
        .unwrap_err()
        .to_string();
        let refused = format!("backward is not supported for {op}");
        assert!(said.contains(&refused), "{said}");
    }
}

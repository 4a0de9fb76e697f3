//! The fully connected layer.

use super::*;
use candle_nn::Linear as Candles;

/// Value and gradients of a weighted sum of the result.
fn with_gradients(
    inputs: &[Tensor],
    f: impl Fn(&[Tensor]) -> Result<Tensor>,
) -> Result<Vec<Tensor>> {
    let (vars, leaves) = leaves(inputs)?;
    let y = f(&leaves)?;
    let factors = noise(9, y.dims(), y.dtype());
    let grads = y.mul(&factors)?.sum_all()?.backward()?;
    let mut out = vec![y];
    out.extend(vars.iter().map(|v| grads.get(v).unwrap().clone()));
    Ok(out)
}

fn ours(t: &[Tensor]) -> Result<Tensor> {
    own::Linear::new(t[1].clone(), t.get(2).cloned()).forward(&t[0])
}

fn candles(t: &[Tensor]) -> Result<Tensor> {
    Candles::new(t[1].clone(), t.get(2).cloned()).forward(&t[0])
}

#[test]
fn linear_has_candles_bits_and_gradients() {
    let shapes: [(&[usize], usize); 7] = [
        (&[5, 7], 3),
        (&[1, 7], 3),
        (&[4, 6, 32], 48),
        (&[2, 3, 5, 8], 4),
        (&[3, 1], 1),
        // Long sums, which `gemm` cuts, and enough rows for several threads.
        (&[640, 700], 130),
        (&[8, 64, 512], 128),
    ];
    for dtype in [DType::F32, DType::F64] {
        for (dims, out) in shapes {
            let size = *dims.last().unwrap();
            let of = |seed, dims: &[usize]| noise(seed, dims, dtype);
            let inputs = [of(1, dims), of(2, &[out, size]), of(3, &[out])];
            for count in [2, 3] {
                let inputs = &inputs[..count];
                let (a, b) = (
                    with_gradients(inputs, ours).unwrap(),
                    with_gradients(inputs, candles).unwrap(),
                );
                for (what, (a, b)) in ["value", "x", "weight", "bias"]
                    .iter()
                    .zip(a.iter().zip(&b))
                {
                    same_bits(&format!("{what}, {dims:?}, {dtype:?}"), a, b);
                }
            }
        }
    }
}

#[test]
fn linear_has_candles_tensors() {
    let (ours, candles) = (VarMap::new(), VarMap::new());
    own::linear(4, 3, builder(&ours).pp("a")).unwrap();
    own::linear_no_bias(4, 3, builder(&ours).pp("b")).unwrap();
    own::linear_b(4, 3, false, builder(&ours).pp("c")).unwrap();
    candle_nn::linear(4, 3, builder(&candles).pp("a")).unwrap();
    candle_nn::linear_no_bias(4, 3, builder(&candles).pp("b")).unwrap();
    candle_nn::linear_b(4, 3, false, builder(&candles).pp("c")).unwrap();
    let layout = |map: &VarMap| {
        let vars = map.data().lock().unwrap();
        let mut all: Vec<_> = vars
            .iter()
            .map(|(name, var)| (name.clone(), var.dims().to_vec()))
            .collect();
        all.sort();
        all
    };
    assert_eq!(layout(&ours), layout(&candles));
}

#[test]
fn linear_is_differentiable_twice() {
    for dims in [&[4, 5][..], &[2, 3, 5], &[1, 1, 2, 5]] {
        let inputs = [f64s(1, dims), f64s(2, &[3, 5]), f64s(3, &[3])];
        derivatives("linear", &inputs, ours);
        derivatives("linear, no bias", &inputs[..2], ours);
        derivatives("linear of a nonlinearity", &inputs, |t| {
            ours(&[t[0].tanh()?, t[1].tanh()?, t[2].tanh()?])
        });
    }
}

/// candle's layer mixes the examples of a transposed batch.
#[test]
fn a_transposed_batch_is_read_in_order() {
    let (w, b) = (f32s(2, &[4, 5]), f32s(3, &[4]));
    let x = f32s(1, &[3, 5, 6]).transpose(1, 2).unwrap();
    assert!(!x.is_contiguous());
    let copied = candles(&[x.contiguous().unwrap(), w.clone(), b.clone()]).unwrap();
    same_bits("transposed", &ours(&[x, w, b]).unwrap(), &copied);
}

#[test]
fn other_types_and_empty_batches_are_candles() {
    let t = |seed, dims: &[usize], dtype| noise(seed, dims, dtype);
    let f16 = [
        t(1, &[3, 2, 5], DType::F16),
        t(2, &[4, 5], DType::F16),
        t(3, &[4], DType::F16),
    ];
    same_bits("f16", &ours(&f16).unwrap(), &candles(&f16).unwrap());
    let bf16 = f16.map(|t| t.to_dtype(DType::BF16).unwrap());
    // candle's CPU has no product in bf16.
    assert_eq!(ours(&bf16).is_ok(), candles(&bf16).is_ok());
    let empty = [
        Tensor::zeros((0, 5), DType::F32, &Device::Cpu).unwrap(),
        f32s(2, &[4, 5]),
        f32s(3, &[4]),
    ];
    let out = with_gradients(&empty, ours).unwrap();
    assert_eq!(out[0].dims(), [0, 4]);
    assert_eq!(values(&out[2]), [0.0; 20]);
    assert_eq!(values(&out[3]), [0.0; 4]);
}

#[test]
fn wrong_shapes_are_errors() {
    let (w, b) = (f32s(2, &[4, 5]), f32s(3, &[4]));
    let fails = |inputs: &[Tensor]| ours(inputs).unwrap_err().to_string();
    assert!(fails(&[f32s(1, &[3, 6]), w.clone(), b.clone()]).contains("[3, 6]"));
    assert!(fails(&[f32s(1, &[3, 5]), w.clone(), f32s(3, &[3])]).contains("[3]"));
    let said = fails(&[f64s(1, &[3, 5]), w, b]);
    assert!(said.contains("F32") && said.contains("F64"), "{said}");
}

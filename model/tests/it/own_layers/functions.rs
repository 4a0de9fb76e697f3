//! Softmax, rotary embeddings, gathering, scattering and losses.

use super::*;

#[test]
fn softmax_and_selu() {
    for dims in [&[2, 2, 4, 4][..], &[3, 7], &[5]] {
        let x = (f32s(1, dims) * 4.0).unwrap();
        same_bits(
            "softmax",
            &own::ops::softmax_last_dim(&x).unwrap(),
            &candle_nn::ops::softmax_last_dim(&x).unwrap(),
        );
        same_bits(
            "selu",
            &own::ops::selu(&x, 1.67, 1.05).unwrap(),
            &candle_nn::ops::selu(&x, 1.67, 1.05).unwrap(),
        );
        derivatives("softmax", &[f64s(1, dims)], |t| {
            own::ops::softmax_last_dim(&t[0])
        });
        derivatives("selu", &[f64s(1, dims)], |t| {
            own::ops::selu(&t[0], 1.67, 1.05)
        });
    }
    // Where exp(x) is infinite, the gradient is that of the other branch.
    let x = Var::new(&[-1f32, 3.0, 100.0], &Device::Cpu).unwrap();
    let y = own::ops::selu(&x, 1.67, 1.05).unwrap();
    let candles = candle_nn::ops::selu(&x, 1.67, 1.05).unwrap();
    same_bits("selu of large values", &y, &candles);
    let gradients = y.sum_all().unwrap().backward().unwrap();
    let gradient = gradients.get(&x).unwrap().to_vec1::<f32>().unwrap();
    let expected = [1.05 * 1.67 * (-1f32).exp(), 1.05, 1.05];
    for (got, expected) in gradient.iter().zip(expected) {
        assert!((got - expected).abs() < 1e-6, "{gradient:?}");
    }
    // A causal mask, as attention has it.
    let minus = Tensor::new(&[[0f64, f64::NEG_INFINITY], [0.0, 0.0]], &Device::Cpu).unwrap();
    derivatives("masked softmax", &[f64s(1, &[3, 2, 2])], |t| {
        own::ops::softmax_last_dim(&t[0].broadcast_add(&minus)?)
    });
    assert!(own::ops::softmax_last_dim(&Tensor::new(1f32, &Device::Cpu).unwrap()).is_err());
}

#[test]
fn rotary_embeddings() {
    for (t, table) in [(5, &[7, 3][..]), (5, &[2, 5, 3]), (1, &[4, 3])] {
        let x = f32s(1, &[2, 3, t, 6]);
        let (cos, sin) = (f32s(2, table), f32s(3, table));
        let bits = |name, ours: Result<Tensor>, candles: Result<Tensor>| {
            same_bits(name, &ours.unwrap(), &candles.unwrap());
        };
        use candle_nn::rotary_emb as candles;
        bits(
            "rope",
            own::rotary_emb::rope(&x, &cos, &sin),
            candles::rope(&x, &cos, &sin),
        );
        bits(
            "rope_i",
            own::rotary_emb::rope_i(&x, &cos, &sin),
            candles::rope_i(&x, &cos, &sin),
        );
        let thd = x.transpose(1, 2).unwrap().contiguous().unwrap();
        bits(
            "rope_thd",
            own::rotary_emb::rope_thd(&thd, &cos, &sin),
            candles::rope_thd(&thd, &cos, &sin),
        );
        let inputs = [f64s(1, &[2, 3, t, 6]), f64s(2, table), f64s(3, table)];
        derivatives("rope", &inputs, |t| {
            own::rotary_emb::rope(&t[0], &t[1], &t[2])
        });
        derivatives("rope_i", &inputs, |t| {
            own::rotary_emb::rope_i(&t[0], &t[1], &t[2])
        });
        // Tables that stay f32 constants, as the check in float64 meets them.
        derivatives("rope, f32 tables", &inputs[..1], |t| {
            own::rotary_emb::rope(&t[0], &cos, &sin)
        });
    }
    let (x, table) = (f32s(1, &[2, 3, 5, 6]), f32s(2, &[4, 3]));
    let short = own::rotary_emb::rope(&x, &table, &table)
        .unwrap_err()
        .to_string();
    assert!(
        short.contains("T at least 5") && short.contains("[4, 3]"),
        "{short}"
    );
}

#[test]
fn gathering_and_scattering() {
    for (dims, dim, index) in [
        (
            &[4, 3][..],
            1,
            Tensor::new(&[[2u32, 2], [0, 1], [1, 1], [0, 0]], &Device::Cpu).unwrap(),
        ),
        (
            &[4, 3],
            0,
            Tensor::new(&[[3i64, 0, 3]], &Device::Cpu).unwrap(),
        ),
        (
            &[2, 3, 2],
            1,
            Tensor::new(&[[[1u8, 0]], [[2, 2]]], &Device::Cpu).unwrap(),
        ),
    ] {
        let x = f32s(1, dims);
        same_bits(
            "gather",
            &own::gather(&x, &index, dim).unwrap(),
            &x.gather(&index, dim).unwrap(),
        );
        derivatives("gather", &[f64s(1, dims)], |t| {
            own::gather(&t[0], &index, dim)
        });
        let mut source = dims.to_vec();
        source[dim] = index.dims()[dim];
        let source = source.as_slice();
        let add = f32s(2, source);
        same_bits(
            "scatter_add",
            &own::scatter_add(&x, &index, &add, dim).unwrap(),
            &x.scatter_add(&index, &add, dim).unwrap(),
        );
        derivatives("scatter_add", &[f64s(1, dims), f64s(2, source)], |t| {
            own::scatter_add(&t[0], &index, &t[1], dim)
        });
    }
    let (x, index) = (
        f32s(1, &[2, 3]),
        Tensor::new(&[[1u32], [3]], &Device::Cpu).unwrap(),
    );
    let outside = own::gather(&x, &index, 1).unwrap_err().to_string();
    assert!(
        outside.contains("index 3 at [1, 0]") && outside.contains("size 3"),
        "{outside}"
    );
}

#[test]
fn losses() {
    let target = Tensor::new(&[2u32, 0, 1, 1, 2, 0, 0], &Device::Cpu).unwrap();
    let logits = (f32s(1, &[7, 3]) * 4.0).unwrap();
    let log_p = candle_nn::ops::log_softmax(&logits, 1).unwrap();
    same_bits(
        "nll",
        &own::loss::nll(&log_p, &target).unwrap(),
        &candle_nn::loss::nll(&log_p, &target).unwrap(),
    );
    same_bits(
        "cross entropy",
        &own::loss::cross_entropy(&logits, &target).unwrap(),
        &candle_nn::loss::cross_entropy(&logits, &target).unwrap(),
    );
    derivatives("nll", &[f64s(1, &[7, 3])], |t| {
        own::loss::nll(&t[0], &target)
    });
    derivatives("cross entropy", &[f64s(1, &[7, 3])], |t| {
        own::loss::cross_entropy(&t[0], &target)
    });
    // Training with the mean and replaying with the losses of single examples gives the same gradient, bit for bit.
    let var = Var::from_tensor(&logits).unwrap();
    let gradient = |loss: Tensor| loss.backward().unwrap().get(&var).unwrap().clone();
    let mean = gradient(own::loss::cross_entropy(&var, &target).unwrap());
    let each = hindcast_model::ops::cross_entropy(&var, &target).unwrap();
    let shares = Tensor::full(1f32 / 7.0, 7, &Device::Cpu).unwrap();
    same_bits(
        "gradient",
        &mean,
        &gradient(each.mul(&shares).unwrap().sum_all().unwrap()),
    );
    let wrong = own::loss::nll(&log_p, &target.narrow(0, 0, 3).unwrap())
        .unwrap_err()
        .to_string();
    assert!(
        wrong.contains("7 rows") && wrong.contains("3 targets"),
        "{wrong}"
    );
}

//! Dropout and noise, whose numbers belong to a step and an example.

use super::*;

fn step(step: u64) -> Draws {
    Draws { seed: 7, step }
}

#[test]
fn dropout_keeps_and_scales_like_candles() {
    let x = Tensor::ones((20, 500), DType::F32, &Device::Cpu).unwrap();
    let indices: Vec<u64> = (0..20).collect();
    for p in [0.0, 0.1, 0.5, 0.9] {
        let dropout = own::Dropout::new(p);
        let masked = with_draws(step(3), &indices, || dropout.forward(&x, true)).unwrap();
        // candle's own mask has other numbers, but the same two values.
        let candles = candle_nn::ops::dropout(&x, p).unwrap();
        let distinct = |t: &Tensor| {
            let mut all: Vec<u64> = values(t).iter().map(|v| v.to_bits()).collect();
            all.sort_unstable();
            all.dedup();
            all
        };
        assert_eq!(distinct(&masked), distinct(&candles), "p {p}");
        let zeros = values(&masked).iter().filter(|&&v| v == 0.0).count() as f64;
        // Four standard errors of 10,000 draws.
        let p = f64::from(p);
        assert!(
            (zeros / 1e4 - p).abs() <= 0.04 * (p * (1.0 - p)).sqrt(),
            "{zeros}"
        );
        assert_eq!(values(&dropout.forward(&x, false).unwrap()), values(&x));
    }
}

#[test]
fn the_numbers_of_a_row_depend_on_its_own_example_only() {
    let dropout = own::Dropout::new(0.5);
    let drawn = |at: u64, indices: &[u64], rows_each: usize| {
        let x = Tensor::ones((rows_each * indices.len(), 64), DType::F32, &Device::Cpu).unwrap();
        with_draws(step(at), indices, || {
            let masks = dropout.forward(&x, true)?.to_vec2::<f32>()?;
            let again = dropout.forward(&x, true)?.to_vec2::<f32>()?;
            let noise = own::randn_like(&x, 1.0, 2.0)?.to_vec2::<f32>()?;
            Result::Ok((masks, again, noise))
        })
        .unwrap()
    };
    let (masks, again, noise) = drawn(3, &[4, 9, 4], 1);
    // Each use of a layer, and each repetition of an example, has numbers of its own.
    assert_ne!(masks, again);
    assert_ne!(masks[0], masks[2]);
    assert_ne!(noise[0], noise[2]);
    let (fewer, _, fewer_noise) = drawn(3, &[9], 1);
    assert_eq!((&fewer[0], &fewer_noise[0]), (&masks[1], &noise[1]));
    let (_, _, later) = drawn(4, &[9], 1);
    assert_ne!(later[0], noise[1]);
    // Two rows per example: the first half of an example's numbers is its first row.
    let (folded, _, _) = drawn(3, &[4, 9, 4], 2);
    assert_eq!((&folded[0], &folded[2]), (&masks[0], &masks[1]));
    let mean = |rows: &[Vec<f32>]| rows.iter().flatten().sum::<f32>() / (64 * rows.len()) as f32;
    assert!((mean(&noise) - 1.0).abs() < 0.6, "{}", mean(&noise));
}

#[test]
fn dropout_outside_of_a_step_is_refused() {
    let x = f32s(1, &[6, 4]);
    let dropout = own::Dropout::new(0.5);
    let refused = |r: Result<Tensor>| r.unwrap_err().to_string();
    let unknown = refused(dropout.forward(&x, true));
    assert!(unknown.contains("own::with_draws"), "{unknown}");
    assert!(dropout.forward(&x, false).is_ok());
    let wrong = refused(with_draws(step(0), &[1, 2, 3, 4], || {
        dropout.forward(&x, true)
    }));
    assert!(
        wrong.contains("batch of 4") && wrong.contains("[6, 4]"),
        "{wrong}"
    );
    let p = refused(with_draws(step(0), &[1], || own::ops::dropout(&x, 1.0)));
    assert!(p.contains("[0, 1)"), "{p}");
    // A panic in a pass ends its step.
    let panicked = std::panic::catch_unwind(|| with_draws(step(0), &[1], || panic!("on purpose")));
    assert!(panicked.is_err() && dropout.forward(&x, true).is_err());
}

#[test]
fn dropout_is_differentiable_twice() {
    derivatives("dropout", &[f64s(1, &[6, 4])], |t| {
        with_draws(step(2), &[3, 1, 2], || {
            own::Dropout::new(0.3).forward(&t[0].sqr()?, true)
        })
    });
}

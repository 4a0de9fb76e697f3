//! Token sequences: their loss and their data set.

use candle_core::{DType, Device, Tensor};
use hindcast_model::data::{DataSet, Sequences, Vocabulary, from_tensors};
use hindcast_model::objective::Split;
use hindcast_model::ops;

use crate::ops::{noise, values};

fn ids(rows: &[[i64; 3]]) -> Tensor {
    Tensor::from_vec(rows.concat(), (rows.len(), 3), &Device::Cpu).unwrap()
}

/// −ln softmax at the target, in plain arithmetic.
fn surprise(logits: &[f64], target: usize) -> f64 {
    let sum: f64 = logits.iter().map(|x| x.exp()).sum();
    sum.ln() - logits[target]
}

#[test]
fn a_sequence_loss_is_the_mean_over_its_own_tokens() {
    let logits = noise(1, &[3, 3, 4], DType::F64);
    let targets = ids(&[[1, 0, 3], [2, -100, -100], [-100, -100, -100]]);
    let losses = ops::sequence_cross_entropy(&logits, &targets, Some(-100)).unwrap();
    let z = values(&logits);
    let at = |token: usize, target: usize| surprise(&z[4 * token..4 * token + 4], target);
    let expected = [(at(0, 1) + at(1, 0) + at(2, 3)) / 3.0, at(3, 2), 0.0];
    for (got, want) in values(&losses).iter().zip(expected) {
        assert!((got - want).abs() < 1e-14, "{got} against {want}");
    }
    // The other shapes and types of the same tensors.
    let flat = logits.reshape((9, 4)).unwrap();
    let floats = targets.to_dtype(DType::F32).unwrap();
    for other in [
        ops::sequence_cross_entropy(&flat, &targets, Some(-100)),
        ops::sequence_cross_entropy(&logits, &floats, Some(-100)),
    ] {
        assert_eq!(values(&other.unwrap()), values(&losses));
    }
    // Without padding, the mean is candle's mean over all tokens.
    let full = ids(&[[1, 0, 3], [2, 2, 1], [0, 3, 3]]);
    let ours = ops::sequence_cross_entropy(&logits, &full, None).unwrap();
    let classes = full.flatten_all().unwrap().to_dtype(DType::U32).unwrap();
    let candles = candle_nn::loss::cross_entropy(&flat, &classes).unwrap();
    let gap = values(&ours.mean_all().unwrap())[0] - values(&candles)[0];
    assert!(gap.abs() < 1e-14, "{gap}");
}

#[test]
fn a_masked_logit_of_minus_infinity_doesnt_spoil_an_ignored_token() {
    let mut z = values(&noise(2, &[1, 3, 4], DType::F64));
    z[4 * 2] = f64::NEG_INFINITY;
    let logits = Tensor::from_vec(z, (1, 3, 4), &Device::Cpu).unwrap();
    let loss = ops::sequence_cross_entropy(&logits, &ids(&[[1, 2, 0]]), Some(0)).unwrap();
    assert!(values(&loss)[0].is_finite());
}

#[test]
fn a_sequence_loss_refuses_what_doesnt_fit() {
    let logits = noise(1, &[2, 3, 4], DType::F32);
    let refused = |targets: &Tensor, ignore| {
        let error = ops::sequence_cross_entropy(&logits, targets, ignore).unwrap_err();
        error.to_string()
    };
    let large = refused(&ids(&[[1, 2, 3], [0, 4, 1]]), Some(-1));
    assert!(
        large.contains("token 1 of sequence 1") && large.contains("target 4"),
        "{large}"
    );
    let negative = refused(&ids(&[[1, -100, 3], [0, 1, 1]]), None);
    assert!(negative.contains("target -100"), "{negative}");
    let shape = refused(&ids(&[[1, 2, 3]]), None);
    assert!(shape.contains("(3, vocabulary)"), "{shape}");
    let classes = Tensor::zeros(2, DType::U32, &Device::Cpu).unwrap();
    assert!(refused(&classes, None).contains("(batch, tokens)"));
    let half = Tensor::full(0.5f32, (2, 3), &Device::Cpu).unwrap();
    assert!(refused(&half, None).contains("whole numbers, got 0.5"));
}

fn sequences() -> Box<dyn DataSet> {
    let x = ids(&[[5, 6, 7], [0, 1, 2], [9, 9, 0]]);
    let y = ids(&[[6, 7, -100], [1, 2, 3], [9, 0, -100]]);
    let validation = (x.narrow(0, 0, 2).unwrap(), y.narrow(0, 0, 2).unwrap());
    let validation = Some((&validation.0, &validation.1));
    from_tensors((&x, &y), validation, None, &[], None).unwrap()
}

#[test]
fn token_ids_and_targets_stay_integers() {
    let data = sequences();
    assert_eq!(
        (data.len(Split::Train), data.len(Split::Validation)),
        (3, 2)
    );
    assert_eq!(data.len(Split::Test), 0);
    assert_eq!(data.shape(), [3]);
    for dtype in [DType::F32, DType::F64] {
        let batch = data
            .batch(Split::Train, &[2, 0, 2], None, dtype, &Device::Cpu)
            .unwrap();
        assert_eq!(batch.inputs.dtype(), DType::U32);
        assert_eq!(
            batch.inputs.to_vec2::<u32>().unwrap(),
            [[9, 9, 0], [5, 6, 7], [9, 9, 0]]
        );
        assert_eq!(
            batch.targets.to_vec2::<i64>().unwrap(),
            [[9, 0, -100], [6, 7, -100], [9, 0, -100]]
        );
    }
    assert_eq!(data.label(Split::Train, 0), "3 tokens");
    assert_eq!(data.class(Split::Train, 0), None);
    assert!(data.class_names().is_empty());
    let outside = data.batch(Split::Validation, &[2], None, DType::F32, &Device::Cpu);
    let outside = outside.unwrap_err().to_string();
    assert!(
        outside.contains("index 2 is outside the validation split"),
        "{outside}"
    );
}

#[test]
fn a_changed_token_changes_the_fingerprint() {
    let data = sequences();
    assert_eq!(data.fingerprint(), sequences().fingerprint());
    let x = ids(&[[5, 6, 7], [0, 1, 2], [9, 9, 1]]);
    let y = ids(&[[6, 7, -100], [1, 2, 3], [9, 0, -100]]);
    let other = from_tensors((&x, &y), None, None, &[], None).unwrap();
    assert_eq!(data.leaf(Split::Train, 0), other.leaf(Split::Train, 0));
    assert_ne!(data.leaf(Split::Train, 2), other.leaf(Split::Train, 2));
    assert!(data.compare(&other.fingerprint()).is_err());
}

#[test]
fn sequences_with_classes_or_values() {
    let x = ids(&[[5, 6, 7], [0, 1, 2]]).to_dtype(DType::U32).unwrap();
    let classes = Tensor::new(&[1u32, 0], &Device::Cpu).unwrap();
    let data = from_tensors((&x, &classes), None, None, &["ham", "spam"], None).unwrap();
    assert_eq!(data.label(Split::Train, 0), "spam");
    assert_eq!(data.class(Split::Train, 1), Some(0));
    let batch = data
        .batch(Split::Train, &[0, 1], None, DType::F64, &Device::Cpu)
        .unwrap();
    assert_eq!(batch.targets.to_vec1::<u32>().unwrap(), [1, 0]);
    let numbers = Tensor::new(&[0.5f32, 2.0], &Device::Cpu).unwrap();
    let data = from_tensors((&x, &numbers), None, None, &[], None).unwrap();
    let batch = data
        .batch(Split::Train, &[1], None, DType::F64, &Device::Cpu)
        .unwrap();
    assert_eq!(batch.targets.to_vec2::<f64>().unwrap(), [[2.0]]);
    let empty = data.batch(Split::Test, &[], None, DType::F32, &Device::Cpu);
    assert_eq!(empty.unwrap().inputs.dims(), [0, 3]);
}

#[test]
fn token_data_that_doesnt_fit_is_refused() {
    let x = ids(&[[5, 6, 7], [0, 1, 2]]);
    let refused = |x: &Tensor, y: &Tensor, names: &[&str]| {
        from_tensors((x, y), None, None, names, None)
            .err()
            .expect("an error")
            .to_string()
    };
    let short = refused(&x, &ids(&[[1, 2, 3]]), &[]);
    assert!(
        short.contains("the same N") && short.contains("[2, 3]"),
        "{short}"
    );
    let negative = refused(&ids(&[[5, -6, 7], [0, 1, 2]]), &x, &[]);
    assert!(
        negative.contains("token ids must be") && negative.contains("-6"),
        "{negative}"
    );
    let class = Tensor::new(&[1u32, 3], &Device::Cpu).unwrap();
    let class = refused(&x, &class, &["a", "b"]);
    assert!(class.contains("row 1 has label 3"), "{class}");
    let named = refused(&x, &x, &["a"]);
    assert!(named.contains("tokens or values"), "{named}");
    let (vx, vy) = (
        ids(&[[1, 2, 3]]),
        Tensor::new(&[1u32], &Device::Cpu).unwrap(),
    );
    let mixed = from_tensors((&x, &x), Some((&vx, &vy)), None, &[], None);
    let mixed = mixed.err().expect("an error").to_string();
    assert!(
        mixed.contains("validation") && mixed.contains("training examples have"),
        "{mixed}"
    );
}

#[test]
fn terms_of_tokens_add_up_to_the_loss_of_their_sequence() {
    let logits = noise(3, &[2, 3, 4], DType::F64);
    let targets = ids(&[[1, -100, 3], [-100, -100, -100]]);
    let terms = ops::token_cross_entropy(&logits, &targets, Some(-100)).unwrap();
    assert_eq!(terms.dims(), [2, 3]);
    let z = values(&logits);
    let at = |token: usize, target: usize| surprise(&z[4 * token..4 * token + 4], target) / 2.0;
    let expected = [at(0, 1), 0.0, at(2, 3), 0.0, 0.0, 0.0];
    for (got, want) in values(&terms).iter().zip(expected) {
        assert!((got - want).abs() < 1e-15, "{got} against {want}");
    }
    let wrong = ops::token_cross_entropy(&logits, &ids(&[[1, 4, 3], [0, 0, 0]]), None);
    let wrong = wrong.unwrap_err().to_string();
    assert!(
        wrong.contains("token_cross_entropy") && wrong.contains("target 4"),
        "{wrong}"
    );
}

#[test]
fn sequences_with_a_vocabulary_are_shown_as_text() {
    let words = Vocabulary::words(["a", "cat", "sat", "on", "mat"]);
    let x = ids(&[[0, 1, 2], [3, 0, 4]]);
    let y = ids(&[[1, 2, -100], [0, 4, -100]]);
    let data = Sequences::new((&x, &y))
        .validation((&x, &y))
        .vocabulary(words)
        .build()
        .unwrap();
    assert_eq!(data.label(Split::Train, 0), "cat sat");
    assert_eq!(data.text(Split::Validation, 1).as_deref(), Some("on a mat"));
    assert_eq!(data.tokens(Split::Train, 1), Some(vec![0, 4, -100]));
    assert_eq!(data.text(Split::Test, 0), None);
    // A long label is cut; the text isn't.
    let long = Tensor::full(7i64, (1, 200), &Device::Cpu).unwrap();
    let data = Sequences::new((&long, &long)).vocabulary(Vocabulary::chars("01234567".chars()));
    let data = data.build().unwrap();
    assert_eq!(data.label(Split::Train, 0), "7".repeat(60) + "…");
    assert_eq!(data.text(Split::Train, 0), Some("7".repeat(200)));
    // The same examples as without a vocabulary.
    let plain = from_tensors((&x, &y), None, None, &[], None).unwrap();
    let shown = Sequences::new((&x, &y))
        .vocabulary(Vocabulary::bytes())
        .build()
        .unwrap();
    assert_eq!(plain.fingerprint(), shown.fingerprint());
    let floats = x.to_dtype(DType::F32).unwrap();
    let refused = Sequences::new((&floats, &y))
        .build()
        .err()
        .unwrap()
        .to_string();
    assert!(
        refused.contains("train") && refused.contains("got f32"),
        "{refused}"
    );
    let named = Sequences::new((&x, &y))
        .classes(&["a"])
        .build()
        .err()
        .unwrap()
        .to_string();
    assert!(named.contains("tokens or values"), "{named}");
}

#[test]
fn a_mask_travels_with_the_ids() {
    let (x, mask) = (ids(&[[0, 1, 2], [1, 0, 0]]), ids(&[[1, 1, 1], [1, 0, 0]]));
    let inputs = Tensor::stack(&[&x, &mask], 1).unwrap();
    let classes = Tensor::new(&[1u32, 0], &Device::Cpu).unwrap();
    let data = Sequences::new((&inputs, &classes)).vocabulary(Vocabulary::chars("abc".chars()));
    let data = data.classes(&["no", "yes"]).build().unwrap();
    assert_eq!(data.shape(), [2, 3]);
    assert_eq!(data.text(Split::Train, 0).as_deref(), Some("abc"));
    assert_eq!(data.label(Split::Train, 0), "yes");
    let batch = data
        .batch(Split::Train, &[1, 0], None, DType::F64, &Device::Cpu)
        .unwrap();
    let channel = |c: usize| {
        batch
            .inputs
            .get_on_dim(1, c)
            .unwrap()
            .to_vec2::<u32>()
            .unwrap()
    };
    assert_eq!(channel(0), [[1, 0, 0], [0, 1, 2]]);
    assert_eq!(channel(1), [[1, 0, 0], [1, 1, 1]]);
    // A changed mask is another example.
    let other = Tensor::stack(&[&x, &x], 1).unwrap();
    let other = Sequences::new((&other, &classes))
        .classes(&["no", "yes"])
        .build()
        .unwrap();
    assert_ne!(data.leaf(Split::Train, 0), other.leaf(Split::Train, 0));
}

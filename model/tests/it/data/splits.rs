//! The examples of each split, and the content of batches.

use super::{idx, little_mnist, open, refused, says, spec};
use candle_core::{DType, Device};
use hindcast_model::data::{DataError, DataSet, load};
use hindcast_model::objective::Split;
use std::collections::HashSet;

fn origins(set: &dyn DataSet, split: Split) -> Vec<u64> {
    (0..set.len(split)).map(|i| set.origin(split, i)).collect()
}

#[test]
fn validation_examples_are_held_out_of_the_training_files() {
    let dir = little_mnist(100, 20);
    let set = open("source = 'idx'\nvalidation = 30", dir.path()).unwrap();
    assert_eq!(Split::ALL.map(|s| set.len(s)), [70, 30, 20]);
    let (train, validation) = (
        origins(&*set, Split::Train),
        origins(&*set, Split::Validation),
    );
    let all: HashSet<u64> = train.iter().chain(&validation).copied().collect();
    assert_eq!(all.len(), 100);
    assert!(train.is_sorted() && validation.is_sorted());
    assert_eq!(origins(&*set, Split::Test), (0..20).collect::<Vec<_>>());
    // Each label still belongs to its row.
    for split in Split::ALL {
        for i in 0..set.len(split) {
            assert_eq!(
                set.class(split, i),
                Some(set.origin(split, i) as usize % 10)
            );
            assert_eq!(
                set.image(split, i).unwrap().pixels[0],
                set.origin(split, i) as u8
            );
        }
    }
    // The number of training examples doesn't change which examples are held out.
    let capped = open("source = 'idx'\nvalidation = 30\ntrain = 10", dir.path()).unwrap();
    assert_eq!(origins(&*capped, Split::Validation), validation);
    assert!(
        origins(&*capped, Split::Train)
            .iter()
            .all(|o| train.contains(o))
    );
}

#[test]
fn splits_depend_on_their_seed() {
    let dir = little_mnist(100, 20);
    let table = spec("source = 'idx'\nvalidation = 30");
    let by = |seed| {
        origins(
            &*load(&table, None, Some(dir.path()), seed).unwrap(),
            Split::Validation,
        )
    };
    assert_eq!(by(1), by(1));
    assert_ne!(by(1), by(2));
    let fixed = spec("source = 'idx'\nvalidation = 30\nseed = 1");
    assert_eq!(
        origins(
            &*load(&fixed, None, Some(dir.path()), 2).unwrap(),
            Split::Validation
        ),
        by(1)
    );
}

#[test]
fn two_classes_from_one_pool_are_renumbered() {
    let dir = little_mnist(200, 20);
    let text = "source = 'idx'\npool = 'train'\nskip = 50\nclasses = [7, 1]\ntrain = 10\nvalidation = 10\ntest = 10";
    let set = open(text, dir.path()).unwrap();
    assert_eq!(set.class_names(), ["7", "1"]);
    assert_eq!(set.class_count(), Some(2));
    let mut seen = HashSet::new();
    for split in Split::ALL {
        assert_eq!(set.len(split), 10);
        for i in 0..10 {
            let origin = set.origin(split, i);
            assert!(origin >= 50 && seen.insert(origin));
            let digit = if set.class(split, i) == Some(0) { 7 } else { 1 };
            assert_eq!(origin % 10, digit);
            assert_eq!(set.label(split, i), digit.to_string());
            let file = set.origin_file(split, i).unwrap();
            assert_eq!(file, ("train-images-idx3-ubyte".to_string(), origin));
        }
    }
    // 15 rows of each class are left in the pool.
    let message = refused(&text.replace("train = 10", "train = 11"), dir.path());
    says(
        &message,
        &[
            "data.train",
            "11",
            "30",
            "20 go to the other splits",
            "first 50 rows",
        ],
    );
}

#[test]
fn a_joined_pool_names_the_file_of_each_example() {
    let dir = little_mnist(30, 20);
    let set = open(
        "source = 'idx'\npool = 'all'\ntrain = 20\nvalidation = 20\ntest = 10",
        dir.path(),
    )
    .unwrap();
    let mut seen = HashSet::new();
    for split in Split::ALL {
        for i in 0..set.len(split) {
            assert!(seen.insert(set.origin_file(split, i).unwrap()));
            assert_eq!(set.origin_file(split, i).unwrap().1, set.origin(split, i));
        }
    }
    assert_eq!(
        seen.iter()
            .filter(|(file, _)| file.starts_with("t10k"))
            .count(),
        20
    );
    // Rows are counted separately in the training and the test files. With two lists, a row number doesn't identify an
    // example.
    let lists: Vec<Vec<String>> = ["train-images-idx3-ubyte", "t10k-images-idx3-ubyte"]
        .map(|file| vec![file.to_owned()])
        .into();
    assert_eq!(set.files(Split::Train), lists);
    let apart = open("source = 'idx'\ntrain = 20\nvalidation = 10", dir.path()).unwrap();
    assert_eq!(apart.files(Split::Train), lists[..1]);
    assert_eq!(apart.file(Split::Train, 3), "train-images-idx3-ubyte");
    let drawn = open("source = 'digits'\ntrain = 5", dir.path()).unwrap();
    assert_eq!(drawn.file(Split::Train, 3), "digits/train");
}

/// Rows are counted through several training files. Files with the same name in different folders are distinguished.
#[test]
fn files_of_one_list_share_a_numbering_and_same_names_are_told_apart() {
    let dir = tempfile::tempdir().unwrap();
    for (folder, rows) in [("a", 3), ("b", 4), ("c", 2)] {
        std::fs::create_dir(dir.path().join(folder)).unwrap();
        let text: String = (0..rows).map(|i| format!("{i},{}\n", i % 2)).collect();
        std::fs::write(
            dir.path().join(folder).join("d.csv"),
            format!("x,y\n{text}"),
        )
        .unwrap();
    }
    let set = open(
        "source = 'csv'\ntrain_files = ['a/d.csv', 'b/d.csv']\ntest_files = 'c/d.csv'\nlabel = 'y'\npool = 'all'\ntrain = 9",
        dir.path(),
    )
    .unwrap();
    let mut places: Vec<(String, u64)> = (0..9)
        .map(|i| (set.file(Split::Train, i), set.origin(Split::Train, i)))
        .collect();
    places.sort();
    let place = |file: &str, row| (file.to_owned(), row);
    let mut expected = vec![place("c/d.csv", 0), place("c/d.csv", 1)];
    expected.splice(0..0, (3..7).map(|row| place("b/d.csv", row)));
    expected.splice(0..0, (0..3).map(|row| place("a/d.csv", row)));
    assert_eq!(places, expected);
    assert_eq!(
        set.files(Split::Train),
        [
            vec!["a/d.csv".to_owned(), "b/d.csv".to_owned()],
            vec!["c/d.csv".to_owned()]
        ]
    );
}

#[test]
fn pick_first_takes_the_first_rows() {
    let dir = little_mnist(100, 20);
    let set = open(
        "source = 'idx'\npick = 'first'\ntrain = 5\nvalidation = 3\ntest = 2",
        dir.path(),
    )
    .unwrap();
    assert_eq!(origins(&*set, Split::Train), [0, 1, 2, 3, 4]);
    assert_eq!(origins(&*set, Split::Validation), [5, 6, 7]);
    assert_eq!(origins(&*set, Split::Test), [0, 1]);
}

#[test]
fn batches_are_scaled_in_every_float_type() {
    let dir = little_mnist(10, 5);
    let set = open("source = 'idx'\nmean = [0.5]\nsd = [0.25]", dir.path()).unwrap();
    let expected: Vec<f64> = (0..6)
        .map(|p| (f64::from(4 + p) / 255.0 - 0.5) / 0.25)
        .collect();
    for (dtype, tolerance) in [
        (DType::F64, 0.0),
        (DType::F32, 1e-7),
        (DType::F16, 2e-3),
        (DType::BF16, 1e-2),
    ] {
        let batch = set
            .batch(Split::Train, &[9, 4], None, dtype, &Device::Cpu)
            .unwrap();
        assert_eq!(batch.inputs.dims(), [2, 1, 2, 3]);
        assert_eq!(batch.inputs.dtype(), dtype);
        assert_eq!(batch.targets.to_vec1::<u32>().unwrap(), [9, 4]);
        let got: Vec<Vec<f64>> = batch
            .inputs
            .flatten_from(1)
            .unwrap()
            .to_dtype(DType::F64)
            .unwrap()
            .to_vec2()
            .unwrap();
        for (g, e) in got[1].iter().zip(&expected) {
            assert!((g - e).abs() <= tolerance * e.abs().max(1.0), "{g} {e}");
        }
    }
    let empty = set
        .batch(Split::Train, &[], None, DType::F32, &Device::Cpu)
        .unwrap();
    assert_eq!(empty.inputs.dims(), [0, 1, 2, 3]);
}

#[test]
fn standardised_features_have_mean_0_and_deviation_1_over_the_train_split() {
    let dir = little_mnist(60, 5);
    let set = open(
        "source = 'idx'\nstandardise = true\nvalidation = 20",
        dir.path(),
    )
    .unwrap();
    let indices: Vec<u64> = (0..40).collect();
    let batch = set
        .batch(Split::Train, &indices, None, DType::F64, &Device::Cpu)
        .unwrap();
    let rows: Vec<Vec<f64>> = batch.inputs.flatten_from(1).unwrap().to_vec2().unwrap();
    for j in 0..6 {
        let mean = rows.iter().map(|r| r[j]).sum::<f64>() / 40.0;
        let variance = rows.iter().map(|r| (r[j] - mean).powi(2)).sum::<f64>() / 40.0;
        assert!(
            mean.abs() < 1e-14 && (variance - 1.0).abs() < 1e-13,
            "{mean} {variance}"
        );
    }
}

/// A constant feature is only centred, even if its mean isn't exact (three times 0.1 is not 0.3).
#[test]
fn a_constant_feature_stays_finite() {
    let pixels: Vec<u8> = (0..30).flat_map(|i| [26, 0, i]).collect();
    let dir = super::folder(&[("x", &idx(&[30, 3], &pixels)), ("y", &idx(&[30], &[0; 30]))]);
    let table = "source = 'idx'\ntrain_files = { inputs = 'x', labels = 'y' }\nstandardise = true\ntest = 0";
    let set = open(table, dir.path()).unwrap();
    let batch = set
        .batch(Split::Train, &[0, 29], None, DType::F64, &Device::Cpu)
        .unwrap();
    let rows: Vec<Vec<f64>> = batch.inputs.to_vec2().unwrap();
    assert!(
        rows[0][0].abs() < 1e-15 && rows[0][1] == 0.0 && rows[0][2] < -1.0,
        "{rows:?}"
    );
}

#[test]
fn an_index_out_of_range_is_an_error_that_names_split_and_size() {
    let dir = little_mnist(10, 5);
    let set = open("source = 'idx'", dir.path()).unwrap();
    let error = set
        .batch(Split::Test, &[0, 5], None, DType::F32, &Device::Cpu)
        .unwrap_err();
    assert!(
        matches!(
            error,
            DataError::Index {
                split: "test",
                index: 5,
                len: 5
            }
        ),
        "{error}"
    );
    assert_eq!(set.class(Split::Test, 5), None);
    assert_eq!(set.label(Split::Test, u64::MAX), "");
    assert_eq!(set.image(Split::Test, 5), None);
    assert_eq!(set.leaf(Split::Test, 5), None);
}

#[test]
fn labels_can_be_flipped_on_any_source() {
    let dir = little_mnist(100, 20);
    let plain = open("source = 'idx'", dir.path()).unwrap();
    let set = open("source = 'idx'\nflipped = 0.25", dir.path()).unwrap();
    let wrong: Vec<u64> = (0..100)
        .filter(|&i| set.planted(Split::Train, i) == Some(true))
        .collect();
    assert_eq!(wrong.len(), 25);
    assert_eq!(plain.planted(Split::Train, wrong[0]), None);
    assert_eq!(
        set.clean_class(Split::Train, wrong[0]),
        plain.class(Split::Train, wrong[0])
    );
    // The fingerprint covers the labels of training, and tells which rows differ.
    let differing = plain
        .leaves(Split::Train)
        .unwrap()
        .differing(&set.leaves(Split::Train).unwrap());
    assert_eq!(differing, wrong);
    assert_eq!(plain.fingerprint()[2], set.fingerprint()[2]);
}

#[test]
fn targets_can_be_numbers_or_the_inputs_themselves() {
    let dir = little_mnist(10, 5);
    let value = open("source = 'idx'\ntarget = 'value'", dir.path()).unwrap();
    let batch = value
        .batch(Split::Train, &[3], None, DType::F64, &Device::Cpu)
        .unwrap();
    assert_eq!(batch.targets.to_vec2::<f64>().unwrap(), [[3.0]]);
    assert_eq!(value.class(Split::Train, 3), None);
    let input = open("source = 'idx'\ntarget = 'input'", dir.path()).unwrap();
    let batch = input
        .batch(Split::Train, &[3, 4], None, DType::F32, &Device::Cpu)
        .unwrap();
    assert_eq!(batch.targets.dims(), [2, 6]);
    let inputs: Vec<Vec<f32>> = batch.inputs.flatten_from(1).unwrap().to_vec2().unwrap();
    assert_eq!(batch.targets.to_vec2::<f32>().unwrap(), inputs);
    assert_eq!(input.class(Split::Train, 3), Some(3));
}

//! The published data sets, where a copy lies beside the repository. The figures were computed from the files by other code.

use super::open;
use candle_core::{DType, Device};
use hindcast_model::data::{DataSet, SPLITS};
use hindcast_model::objective::Split;
use std::path::PathBuf;

/// The folder of real data, or nothing where there is none.
fn real(name: &str) -> Option<PathBuf> {
    let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../../shared/data")
        .join(name);
    if !dir.is_dir() {
        println!("skipped: no data set at {}", dir.display());
        return None;
    }
    Some(dir)
}

fn pixel_sum(set: &dyn DataSet, split: Split, i: u64) -> u64 {
    set.image(split, i)
        .unwrap()
        .pixels
        .iter()
        .map(|p| u64::from(*p))
        .sum()
}

#[test]
fn mnist_is_read_from_its_packed_files() {
    let Some(dir) = real("mnist") else { return };
    let set = open("source = 'idx'", &dir).unwrap();
    assert_eq!(SPLITS.map(|s| set.len(s)), [60000, 0, 10000]);
    assert_eq!(pixel_sum(&*set, Split::Train, 0), 27525);
    assert_eq!(pixel_sum(&*set, Split::Train, 59999), 20920);
    assert_eq!(
        (0..60000)
            .map(|i| pixel_sum(&*set, Split::Train, i))
            .sum::<u64>(),
        1567298545
    );
    assert_eq!(
        (0..10000)
            .map(|i| pixel_sum(&*set, Split::Test, i))
            .sum::<u64>(),
        264923200
    );
    // By another implementation, written from the description of the bytes.
    let root: String = set.fingerprint()[2]
        .root
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect();
    assert_eq!(
        root,
        "7e60c53cba77ebd072e3950a1cd2b7b1ada37d416c343ba16956129bc0b33b91"
    );
    let mut count = [0; 10];
    (0..60000).for_each(|i| count[set.class(Split::Train, i).unwrap()] += 1);
    assert_eq!(
        count,
        [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    );
    let batch = set
        .batch(Split::Train, &[0], None, DType::F64, &Device::Cpu)
        .unwrap();
    let value: f64 = batch
        .inputs
        .get(0)
        .unwrap()
        .flatten_all()
        .unwrap()
        .get(5 * 28 + 12)
        .unwrap()
        .to_scalar()
        .unwrap();
    assert_eq!(value, 3.0 / 255.0);
}

/// Ones against sevens as in section 7.1 of the paper: 200 each from the training images less the first 5,000.
#[test]
fn ones_against_sevens_are_drawn_from_one_pool() {
    let Some(dir) = real("mnist") else { return };
    let text = "source = 'idx'\npool = 'train'\nskip = 5000\nclasses = [1, 7]\ntrain = 200\nvalidation = 200\ntest = 200\nstandardise = true";
    let set = open(text, &dir).unwrap();
    assert_eq!(SPLITS.map(|s| set.len(s)), [200; 3]);
    assert!((0..200).all(|i| set.origin(Split::Train, i) >= 5000));
    let ones = (0..200)
        .filter(|&i| set.label(Split::Train, i) == "1")
        .count();
    assert!((60..140).contains(&ones), "{ones}");
    let all = open(&text.replace("train = 200\n", ""), &dir).unwrap();
    assert_eq!(all.len(Split::Train), 11894 - 400);
    let batch = set
        .batch(Split::Train, &[0, 1], None, DType::F64, &Device::Cpu)
        .unwrap();
    let finite: Vec<Vec<f64>> = batch.inputs.flatten_from(1).unwrap().to_vec2().unwrap();
    assert!(finite.iter().flatten().all(|x| x.is_finite()));
}

#[test]
fn cifar10_is_read_from_packed_files() {
    let Some(dir) = real("cifar10") else { return };
    // Two of five files: unpacking `.xz` takes a second each.
    let text = "source = 'cifar10'\ntrain_files = ['data_batch_1.bin', 'data_batch_3.bin']\nskip = 14320\n";
    let set = open(text, &dir).unwrap();
    assert_eq!(set.len(Split::Train), 20000 - 14320);
    assert_eq!(set.origin(Split::Train, 1), 14321);
    assert_eq!(
        set.origin_file(Split::Train, 1),
        Some(("data_batch_3.bin.xz".to_string(), 4321))
    );
    assert_eq!(set.label(Split::Train, 1), "frog");
    assert_eq!(pixel_sum(&*set, Split::Train, 1), 207531);
}

#[test]
fn adult_is_read_as_a_table() {
    let Some(dir) = real("adult") else { return };
    let text = "source = 'csv'\ntrain_files = 'adult-training.csv'\nlabel = 'income'\n\
        columns = ['age', 'workclass', 'fnlwgt', 'education', 'education-num', 'marital-status', 'occupation', 'relationship', \
        'race', 'sex', 'capital-gain', 'capital-loss', 'hours-per-week', 'native-country', 'income']\n\
        categorical = ['workclass', 'education', 'marital-status', 'occupation', 'relationship', 'race', 'sex', 'native-country']\n\
        validation = 200\nstandardise = true";
    let set = open(text, &dir).unwrap();
    assert_eq!(set.len(Split::Train), 32561 - 200);
    assert_eq!(set.class_names(), ["<=50K", ">50K"]);
    // 6 numbers and 9 + 16 + 7 + 15 + 6 + 5 + 2 + 42 categories, "?" among them.
    assert_eq!(set.feature_names().len(), 108);
}

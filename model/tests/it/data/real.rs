//! The published data sets, if a copy lies next to the repository. Expected values were computed from the files by other
//! code.

use super::open;
use candle_core::{DType, Device};
use hindcast_model::data::{DataSet, load};
use hindcast_model::objective::Split;
use hindcast_model::task::Task;
use std::path::PathBuf;

/// The folder of real data. `None` if there is none.
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
    assert_eq!(Split::ALL.map(|s| set.len(s)), [60000, 0, 10000]);
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
    // Computed by another implementation, which was written from the description of the bytes.
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

/// Ones and sevens as in section 7.1 of the paper: 200 examples per split from the training images without the first
/// 5,000.
#[test]
fn ones_against_sevens_are_drawn_from_one_pool() {
    let Some(dir) = real("mnist") else { return };
    let text = "source = 'idx'\npool = 'train'\nskip = 5000\nclasses = [1, 7]\ntrain = 200\nvalidation = 200\ntest = 200\nstandardise = true";
    let set = open(text, &dir).unwrap();
    assert_eq!(Split::ALL.map(|s| set.len(s)), [200; 3]);
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
    // Two of five files, because decompressing an `.xz` file takes a second.
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

/// All rows of a split, unscaled.
fn rows(set: &dyn DataSet, split: Split) -> Vec<Vec<f64>> {
    let all: Vec<u64> = (0..set.len(split)).collect();
    let batch = set
        .batch(split, &all, None, DType::F64, &Device::Cpu)
        .unwrap();
    batch.inputs.to_vec2().unwrap()
}

/// The sum of all values, each multiplied by the number of its row, from 1.
fn by_row(rows: &[Vec<f64>]) -> f64 {
    let sums = rows.iter().map(|row| row.iter().sum::<f64>());
    (1u32..).zip(sums).map(|(n, sum)| f64::from(n) * sum).sum()
}

fn near(got: f64, expected: f64) {
    let error = (got - expected).abs() / expected.abs();
    assert!(
        error < 1e-12,
        "expected {expected}, got {got}: relative error {error:e}"
    );
}

/// Expected values are those of pandas and numpy.
#[test]
fn adult_has_the_62_features_of_the_paper() {
    let Some(dir) = real("adult") else { return };
    let mut spec = Task::builtin("adult-dnn").unwrap().data;
    (spec.train, spec.validation, spec.test) = (None, None, None);
    spec.standardise = false;
    let set = load(&spec, None, Some(&dir), 0).unwrap();
    assert_eq!(set.shape(), [62]);
    assert_eq!(set.class_names(), ["<=50K", ">50K"]);
    let rows = rows(set.as_ref(), Split::Train);
    let positive = (0..48842).filter(|&i| set.class(Split::Train, i) == Some(1));
    assert_eq!((rows.len(), positive.count()), (48842, 11687));
    near(rows.iter().flatten().sum(), 62_307_590.645428896);
    near(
        rows.iter().flatten().map(|x| x * x).sum(),
        2_777_626_613_689.981_4,
    );
    near(by_row(&rows), 1_521_216_858_771.080_8);
    let column = |name: &str| {
        let names = set.feature_names();
        let at = names.iter().position(|n| n == name);
        let at = at.unwrap_or_else(|| panic!("no {name} among {names:?}"));
        rows.iter().map(|row| row[at]).sum::<f64>()
    };
    near(column("log(1 + fnlwgt)"), 585_271.6454289);
    assert_eq!(column("native-country=group-1"), 44_827.0);
    assert_eq!(column("marital-status=Married-civ-spouse"), 22_416.0);
    assert_eq!(column("workclass=Never-worked"), 31.0);
}

/// Expected values are those of scikit-learn's vectorizer.
#[test]
fn newsgroup_posts_have_scikit_learns_tfidf() {
    let Some(dir) = real("20news") else { return };
    let mut spec = Task::builtin("news-dnn").unwrap().data;
    (spec.train, spec.validation, spec.test) = (None, None, None);
    spec.pool = Default::default();
    spec.standardise = false;
    let set = load(&spec, None, Some(&dir), 0).unwrap();
    assert_eq!(set.shape(), [4752]);
    let words = set.feature_names();
    assert_eq!(words[..5], ["00", "000", "01", "02", "0200"]);
    assert_eq!(
        (words[2000].as_str(), words[4751].as_str()),
        ("game", "zyxel")
    );
    let (train, test) = (
        rows(set.as_ref(), Split::Train),
        rows(set.as_ref(), Split::Test),
    );
    assert_eq!((train.len(), test.len()), (1168, 777));
    let mac = |split, n| (0..n).filter(|&i| set.class(split, i) == Some(1)).count();
    assert_eq!((mac(Split::Train, 1168), mac(Split::Test, 777)), (578, 385));
    near(train.iter().flatten().sum(), 5705.989364359255);
    near(test.iter().flatten().sum(), 3656.9123217736797);
    near(by_row(&train), 3_275_756.0572406203);
    near(by_row(&test), 1_382_906.9169042432);
    let by_word = train
        .iter()
        .flat_map(|row| (1u32..).zip(row))
        .map(|(n, x)| f64::from(n) * x)
        .sum();
    near(by_word, 14_024_717.571762154);
    near(train[0][2884], 0.50601707198606);
    assert_eq!(words[2884], "mouse");
    let empty = |rows: &[Vec<f64>]| rows.iter().filter(|r| r.iter().all(|x| *x == 0.0)).count();
    assert_eq!((empty(&train), empty(&test)), (35, 21));
}

#[test]
fn the_papers_draws_of_tables_and_posts_are_standardised() {
    for (task, folder) in [("adult-logreg", "adult"), ("news-logreg", "20news")] {
        let Some(dir) = real(folder) else { continue };
        let task = Task::builtin(task).unwrap();
        // The folder of the data set and its parent folder both work.
        let set = task.load_data(Some(&dir)).unwrap();
        let above = task.load_data(dir.parent()).unwrap();
        assert_eq!(set.fingerprint(), above.fingerprint());
        task.check_data(set.as_ref()).unwrap();
        assert_eq!(Split::ALL.map(|s| set.len(s)), [200, 200, 200]);
        let rows = rows(set.as_ref(), Split::Train);
        let mut constant = 0;
        for at in 0..rows[0].len() {
            let mean = rows.iter().map(|r| r[at]).sum::<f64>() / 200.0;
            let variance = rows.iter().map(|r| (r[at] - mean).powi(2)).sum::<f64>() / 200.0;
            assert!(mean.abs() < 1e-9, "feature {at} has mean {mean}");
            constant += usize::from(variance == 0.0);
            let one = (variance - 1.0).abs() < 1e-9;
            assert!(
                one || variance == 0.0,
                "feature {at} has variance {variance}"
            );
        }
        // Half of the words occur in none of the 200 posts.
        assert!(
            constant < rows[0].len() * 3 / 5,
            "{constant} constant features"
        );
        let mut other = task.clone();
        other.set("train.seed", "1").unwrap();
        let other = other.load_data(Some(&dir)).unwrap();
        assert_ne!(set.fingerprint(), other.fingerprint());
    }
}

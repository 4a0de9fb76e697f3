//! Tables with missing values and with columns of free text.

use super::{folder, open, refused, says};
use candle_core::{DType, Device};
use hindcast_model::data::DataSet;
use hindcast_model::objective::Split;

const GAPS: &str =
    "age,town,pay,y\n20,Rome,1,a\n,Oslo,2,b\n40,,NA,a\n30,Rome,?,b\n60,Oslo,4,a\n,Oslo,8,b\n";
const TABLE: &str =
    "source = 'csv'\ntrain_files = 'a.csv'\nlabel = 'y'\ncategorical = ['town']\npick = 'first'";

fn rows(set: &dyn DataSet, split: Split) -> Vec<Vec<f64>> {
    let all: Vec<u64> = (0..set.len(split)).collect();
    let batch = set
        .batch(split, &all, None, DType::F64, &Device::Cpu)
        .unwrap();
    batch.inputs.to_vec2().unwrap()
}

#[test]
fn fills_are_those_of_the_training_split() {
    let dir = folder(&[("a.csv", GAPS.as_bytes())]);
    says(
        &refused(TABLE, dir.path()),
        &[
            "a.csv",
            "row 1 (line 3)",
            "\"age\"",
            "fill = \"mean\"",
            "\"drop\"",
        ],
    );
    let text = format!(
        "{TABLE}\ntrain = 4\nvalidation = 2\nmissing = {{ fill = 'mean', indicator = true }}"
    );
    let set = open(&text, dir.path()).unwrap();
    assert_eq!(
        set.feature_names(),
        [
            "age",
            "age is missing",
            "town=Oslo",
            "town=Rome",
            "town is missing",
            "pay",
            "pay is missing"
        ]
    );
    // Ages 20, 40, 30; Rome twice of three; pays 1 and 2.
    assert_eq!(
        rows(&*set, Split::Train),
        [
            [20.0, 0.0, 0.0, 1.0, 0.0, 1.0, 0.0],
            [30.0, 1.0, 1.0, 0.0, 0.0, 2.0, 0.0],
            [40.0, 0.0, 0.0, 1.0, 1.0, 1.5, 1.0],
            [30.0, 0.0, 0.0, 1.0, 0.0, 1.5, 1.0],
        ]
    );
    assert_eq!(
        rows(&*set, Split::Validation),
        [
            [60.0, 0.0, 1.0, 0.0, 0.0, 4.0, 0.0],
            [30.0, 1.0, 1.0, 0.0, 0.0, 8.0, 0.0],
        ]
    );
    says(
        &set.describe(),
        &[
            "column \"age\": 2 missing values are filled with 30, the mean",
            "Rome",
        ],
    );
    // Another split has other means, and so another fingerprint.
    let other = open(&text.replace("train = 4", "train = 3"), dir.path()).unwrap();
    assert_eq!(rows(&*other, Split::Train)[2][5], 1.5);
    assert_ne!(other.fingerprint(), set.fingerprint());
}

#[test]
fn each_column_can_have_a_fill_of_its_own() {
    let dir = folder(&[("a.csv", GAPS.as_bytes())]);
    let text = format!(
        "{TABLE}\n[missing]\nfill = 'most-frequent'\ncolumns = {{ town = {{ constant = 'nowhere' }}, pay = {{ constant = -1 }} }}"
    );
    let set = open(&text, dir.path()).unwrap();
    assert_eq!(
        set.feature_names(),
        ["age", "town=Oslo", "town=Rome", "town=nowhere", "pay"]
    );
    // All ages occur once: the smallest of them.
    assert_eq!(rows(&*set, Split::Train)[1], [20.0, 1.0, 0.0, 0.0, 2.0]);
    assert_eq!(rows(&*set, Split::Train)[2], [40.0, 0.0, 0.0, 1.0, -1.0]);
    // A run's task keeps all of it.
    let spec = super::spec(&text);
    let written = toml::to_string(&spec).unwrap();
    assert_eq!(super::spec(&written), spec, "{written}");
    let of = |missing: &str| refused(&format!("{TABLE}\n[missing]\n{missing}"), dir.path());
    says(&of("columns = { town = 'mean' }"), &["town", "no mean"]);
    says(
        &of("columns = { pay = { constant = 'x' } }"),
        &["pay", "holds numbers"],
    );
    says(&of("columns = { y = 'mean' }"), &["y", "label"]);
    says(
        &of("columns = { wage = 'mean' }"),
        &["data.missing.columns", "wage", "age, town"],
    );
    says(&of("indicator = true"), &["data.missing", "fill ="]);
    says(&of("fill = { constant = nan }"), &["finite"]);
    says(
        &refused(
            &format!("{TABLE}\nmissing = {{ fill = 'mean' }}\ntrain = 1\nskip = 2"),
            dir.path(),
        ),
        &[
            "\"town\"",
            "no value in any row of the training split",
            "constant",
        ],
    );
}

#[test]
fn rows_that_are_left_out_keep_the_numbers_of_the_others() {
    let dir = folder(&[("a.csv", GAPS.as_bytes())]);
    let text =
        format!("{TABLE}\n[missing]\nfill = 'drop'\ncolumns = {{ pay = {{ constant = 0 }} }}");
    let set = open(&text, dir.path()).unwrap();
    let origins: Vec<u64> = (0..set.len(Split::Train))
        .map(|i| set.origin(Split::Train, i))
        .collect();
    assert_eq!(origins, [0, 3, 4]);
    assert_eq!(rows(&*set, Split::Train)[1], [30.0, 0.0, 1.0, 0.0]);
    says(&set.describe(), &["3 rows of", "left out", "1, 2, 5"]);
    says(
        &refused(
            &format!("{text}\n").replace("pick", "train = 4\npick"),
            dir.path(),
        ),
        &["data.train", "4", "only 3"],
    );
    // A label can be missing, too.
    let dir = folder(&[("a.csv", b"x,y\n1,a\n2,\n3,-\n4,b\n")]);
    let text = "source = 'csv'\ntrain_files = 'a.csv'\nlabel = 'y'";
    says(&refused(text, dir.path()), &["row 1", "\"y\" = \"drop\""]);
    let dropped = format!("{text}\nmissing = {{ columns = {{ y = 'drop' }} }}");
    let set = open(&dropped, dir.path()).unwrap();
    assert_eq!(set.class_names(), ["-", "a", "b"]);
    let dropped = format!("{text}\nmissing = {{ fill = 'drop', texts = ['', '-'] }}");
    let set = open(&dropped, dir.path()).unwrap();
    assert_eq!(
        (set.class_names(), set.len(Split::Train)),
        (&["a".into(), "b".into()][..], 2)
    );
}

#[test]
fn the_texts_that_stand_for_missing_can_be_given() {
    let dir = folder(&[("a.csv", b"x,y\n1,a\n-999,b\n3,b\n")]);
    let text = "source = 'csv'\ntrain_files = 'a.csv'\nlabel = 'y'\nmissing = { fill = 'mean', texts = ['-999'] }\nlog1p = ['x']";
    let set = open(text, dir.path()).unwrap();
    let mean = (2.0f64.ln() + 4.0f64.ln()) / 2.0;
    let got = rows(&*set, Split::Train)[1][0];
    assert!((got - mean).abs() < 1e-15, "{got} {mean}");
}

#[test]
fn text_stands_beside_numbers_and_categories() {
    let table =
        "n,review,kind,y\n1,\"Good, good tea\",x,1\n2,bad tea,y,0\n3,,x,1\n4,new words only,x,0\n";
    let dir = folder(&[("a.csv", table.as_bytes())]);
    let text = "source = 'csv'\ntrain_files = 'a.csv'\nlabel = -1\ncategorical = ['kind']\npick = 'first'\ntrain = 3\nvalidation = 1\n\
                tfidf = { columns = ['review'] }";
    let set = open(text, dir.path()).unwrap();
    assert_eq!(
        set.feature_names(),
        [
            "n",
            "review: bad",
            "review: good",
            "review: tea",
            "kind=x",
            "kind=y"
        ]
    );
    // scikit-learn: ln((1 + n) / (1 + df)) + 1 with n = 3 training texts, then divided by the norm.
    let (good, tea) = (2.0 * ((4.0f64 / 2.0).ln() + 1.0), (4.0f64 / 3.0).ln() + 1.0);
    let norm = good.hypot(tea);
    let got = rows(&*set, Split::Train);
    let expected = [1.0, 0.0, good / norm, tea / norm, 1.0, 0.0];
    for (got, expected) in got[0].iter().zip(expected) {
        assert!((got - expected).abs() < 1e-15, "{got} {expected}");
    }
    assert_eq!(got[2], [3.0, 0.0, 0.0, 0.0, 1.0, 0.0]);
    // Words that no training text has are no features.
    assert_eq!(
        rows(&*set, Split::Validation),
        [[4.0, 0.0, 0.0, 0.0, 1.0, 0.0]]
    );
    assert_eq!(set.text(Split::Train, 0).unwrap(), "Good, good tea");
    assert_eq!(set.text(Split::Validation, 0).unwrap(), "new words only");
    // A table without text has none to show.
    let plain = "source = 'csv'\ntrain_files = 'a.csv'\nlabel = 'y'\nignore = ['review', 'kind']";
    assert_eq!(open(plain, dir.path()).unwrap().text(Split::Train, 0), None);

    let few = text.replace("['review'] }", "['review'], max_features = 1 }");
    assert_eq!(
        open(&few, dir.path()).unwrap().feature_names()[1],
        "review: good"
    );
    for (with, said) in [
        ("['review'], min_df = 2.0 }", "data.tfidf.min_df"),
        ("['review'], max_features = 0 }", "data.tfidf.max_features"),
        ("['reviews'] }", "no column \"reviews\""),
        ("['kind'] }", "data.categorical"),
        ("['y'] }", "label's column"),
        ("[] }", "at least one column"),
        ("['review'], stop_words = 'german' }", "english"),
    ] {
        says(
            &refused(&text.replace("['review'] }", with), dir.path()),
            &[said],
        );
    }
    let advice = refused(
        "source = 'csv'\ntrain_files = 'a.csv'\nlabel = 'y'",
        dir.path(),
    );
    says(
        &advice,
        &[
            "categorical = [\"review\"]",
            "tfidf = { columns = [\"review\"] }",
        ],
    );
}

#[test]
fn texts_of_missing_values_replace_the_usual_ones_and_the_message_says_so() {
    let dir = folder(&[("a.csv", GAPS.as_bytes())]);
    let text = format!("{TABLE}\nmissing = {{ fill = 'mean', texts = ['NA', '?'] }}");
    says(
        &refused(&text, dir.path()),
        &[
            "row 1 (line 3)",
            "doesn't list \"\"",
            "texts = [\"NA\", \"?\", \"\"]",
        ],
    );
    let text = format!("{TABLE}\nmissing = {{ columns = {{ town = 'drop' }} }}");
    says(
        &refused(&text, dir.path()),
        &[
            "\"age\"",
            "says nothing about this column",
            "\"age\" = \"mean\"",
        ],
    );
}

#[test]
fn missing_labels_that_are_numbers_are_left_out() {
    let dir = folder(&[("a.csv", b"x,y\n1,2.5\n2,NA\n3,\n4,1\n")]);
    let text = "source = 'csv'\ntrain_files = 'a.csv'\nlabel = 'y'\ntarget = 'value'";
    says(
        &refused(text, dir.path()),
        &["row 1 (line 3)", "label is missing", "\"y\" = \"drop\""],
    );
    let dropped = format!("{text}\nmissing = {{ columns = {{ y = 'drop' }} }}");
    assert_eq!(open(&dropped, dir.path()).unwrap().len(Split::Train), 2);
}

//! Labels and true labels of the user's own.

use super::{folder, says, spec};
use hindcast_model::data::{DataError, DataSet, Given, load_given};
use hindcast_model::objective::Split;
use std::path::Path;

const TABLE: &str =
    "source = 'csv'\ntrain_files = ['a.csv', 'b.csv']\ntest_files = 't.csv'\nlabel = 'pet'";

fn files() -> tempfile::TempDir {
    folder(&[
        ("a.csv", b"x,pet\n1,cat\n2,dog\n3,cat\n"),
        ("b.csv", b"x,pet\n4,dog\n5,dog\n"),
        ("t.csv", b"x,pet\n6,cat\n"),
    ])
}

fn with(
    text: &str,
    dir: &Path,
    labels: Option<&str>,
    truth: Option<&str>,
) -> Result<Box<dyn DataSet>, DataError> {
    let path = |name: Option<&str>, text: &str| {
        name.map(|text_of| {
            let ending = if text_of.contains(',') { "csv" } else { "txt" };
            let path = dir.join(format!("{text}.{ending}"));
            std::fs::write(&path, text_of).unwrap();
            path
        })
    };
    let (labels, truth) = (path(labels, "labels"), path(truth, "truth"));
    let given = Given {
        folder: Some(dir),
        labels: labels.as_deref(),
        truth: truth.as_deref(),
    };
    load_given(&spec(text), None, given, 0)
}

fn labels(set: &dyn DataSet, split: Split) -> Vec<String> {
    (0..set.len(split)).map(|i| set.label(split, i)).collect()
}

#[test]
fn labels_are_replaced_by_row_by_file_or_one_after_the_other() {
    let dir = files();
    let own = with(TABLE, dir.path(), None, None).unwrap();
    assert_eq!(
        labels(&*own, Split::Train),
        ["cat", "dog", "cat", "dog", "dog"]
    );
    assert_eq!(own.planted(Split::Train, 0), None);
    let some = with(
        TABLE,
        dir.path(),
        Some("row,label\n4,cat\n0,dog\n2,cat\n"),
        None,
    )
    .unwrap();
    assert_eq!(
        labels(&*some, Split::Train),
        ["dog", "dog", "cat", "dog", "cat"]
    );
    says(&some.describe(), &["labels.csv: 3, changed: 2"]);
    assert_ne!(some.fingerprint()[0], own.fingerprint()[0]);
    assert_eq!(some.fingerprint()[2], own.fingerprint()[2]);
    // A table of scores counts rows through the files, and names the file.
    let table = "index,row,file,label,influence\n7,4,b.csv,cat,-1\n9,0,t.csv,dog,2\n";
    let named = with(TABLE, dir.path(), Some(table), None).unwrap();
    assert_eq!(
        labels(&*named, Split::Train),
        ["cat", "dog", "cat", "dog", "cat"]
    );
    assert_eq!(labels(&*named, Split::Test), ["dog"]);
    let all = with(TABLE, dir.path(), Some("dog\ndog\n1\n0\ncat"), None).unwrap();
    assert_eq!(
        labels(&*all, Split::Train),
        ["dog", "dog", "dog", "cat", "cat"]
    );
    // The task can name the file, and a file that is given takes its place.
    std::fs::write(dir.path().join("fixed.csv"), "row,pet\n1,cat\n").unwrap();
    let text = format!("{TABLE}\nlabels_file = 'fixed.csv'");
    let set = with(&text, dir.path(), None, None).unwrap();
    assert_eq!(
        labels(&*set, Split::Train),
        ["cat", "cat", "cat", "dog", "dog"]
    );
    let set = with(&text, dir.path(), Some("row,label\n0,dog\n"), None).unwrap();
    assert_eq!(
        labels(&*set, Split::Train),
        ["dog", "dog", "cat", "dog", "dog"]
    );
}

#[test]
fn known_true_labels_show_which_labels_are_wrong() {
    let dir = files();
    let truth = "row,truth\n0,dog\n1,dog\n3,cat\n";
    let set = with(TABLE, dir.path(), None, Some(truth)).unwrap();
    let planted: Vec<_> = (0..5).map(|i| set.planted(Split::Train, i)).collect();
    assert_eq!(planted, [Some(true), Some(false), None, Some(true), None]);
    assert_eq!(set.clean_class(Split::Train, 0), Some(1));
    assert_eq!(set.true_label(Split::Train, 3).unwrap(), "cat");
    assert_eq!(set.true_label(Split::Train, 2), None);
    assert!(set.truth_is_given());
    says(&set.describe(), &["training labels known to be wrong: 2"]);
    // The truth changes no label, so the data are the same.
    let own = with(TABLE, dir.path(), None, None).unwrap();
    assert_eq!(set.fingerprint(), own.fingerprint());
    // Right labels from one file, judged by the other.
    let both = with(
        TABLE,
        dir.path(),
        Some("row,label\n0,dog\n3,dog\n"),
        Some(truth),
    )
    .unwrap();
    let planted: Vec<_> = (0..5).map(|i| both.planted(Split::Train, i)).collect();
    assert_eq!(planted, [Some(false), Some(false), None, Some(true), None]);
    // Labels that are flipped on purpose are known, too, and those of the file stay so.
    let text = format!("{TABLE}\nflipped = 1.0");
    let flipped = with(&text, dir.path(), None, Some(truth)).unwrap();
    let planted: Vec<_> = (0..5).map(|i| flipped.planted(Split::Train, i)).collect();
    assert_eq!(
        planted,
        [Some(false), Some(true), Some(true), Some(false), Some(true)]
    );
    // Only some classes: a true class that is left out is known, but has no name.
    let text = format!("{TABLE}\nclasses = ['dog']");
    let some = with(&text, dir.path(), None, Some(truth)).unwrap();
    assert_eq!(some.planted(Split::Train, 1), Some(true));
    assert_eq!(some.true_label(Split::Train, 1), None);
}

#[test]
fn drawn_digits_know_their_truth_under_other_labels() {
    let dir = tempfile::tempdir().unwrap();
    let text = "source = 'digits'\ntrain = 20\nvalidation = 5\ntest = 5\nflipped = 0.0";
    let own = with(text, dir.path(), None, None).unwrap();
    let first = own.class(Split::Train, 0).unwrap();
    let other = format!("row,label\n0,{}\n", (first + 1) % 10);
    let set = with(text, dir.path(), Some(&other), None).unwrap();
    assert_eq!(set.planted(Split::Train, 0), Some(true));
    assert_eq!(set.clean_class(Split::Train, 0), Some(first));
    assert_eq!(set.planted(Split::Train, 1), Some(false));
}

#[test]
fn values_can_be_replaced_and_arrays_of_labels_read() {
    let dir = folder(&[("a.csv", b"x,y\n1,0.5\n2,1.5\n")]);
    let text = "source = 'csv'\ntrain_files = 'a.csv'\nlabel = 'y'\ntarget = 'value'";
    let set = with(text, dir.path(), Some("row,y\n1,2.25\n"), Some("0.5\n3")).unwrap();
    assert_eq!(labels(&*set, Split::Train), ["0.5", "2.25"]);
    assert_eq!(set.planted(Split::Train, 1), Some(true));
    assert_eq!(set.true_label(Split::Train, 1).unwrap(), "3");
    says(
        &with(text, dir.path(), Some("row,y\n1,two\n"), None)
            .err()
            .unwrap()
            .to_string(),
        &["labels.csv", "line 2", "a finite number", "\"two\""],
    );
    // Bytes 1, 0, 1, 1, 0 as numpy writes them.
    let dir = files();
    let header = b"{'descr': '|u1', 'fortran_order': False, 'shape': (5,), }\n";
    let length = [header.len() as u8, 0];
    let array = [b"\x93NUMPY\x01\0", &length[..], header, &[1, 0, 1, 1, 0]].concat();
    std::fs::write(dir.path().join("y.npy"), array).unwrap();
    let set = with(
        &format!("{TABLE}\nlabels_file = 'y.npy'"),
        dir.path(),
        None,
        None,
    )
    .unwrap();
    assert_eq!(
        labels(&*set, Split::Train),
        ["dog", "cat", "dog", "dog", "cat"]
    );
}

#[test]
fn a_file_of_labels_that_does_not_fit_is_refused_with_its_line() {
    let dir = files();
    for (labels, said) in [
        (
            "row,label\n5,cat\n",
            &["line 2", "row 5", "5 rows, 0 to 4"][..],
        ),
        (
            "row,label\n1,cat\n1,dog\n",
            &["line 3", "same row as line 2"],
        ),
        (
            "row,label\n1,cow\n",
            &["line 2", "cat, dog", "\"cow\"", "data.class_names"],
        ),
        ("row,label\n1,\n", &["line 2", "\"\""]),
        (
            "row,label\nfirst,cat\n",
            &["line 2", "\"row\"", "\"first\""],
        ),
        (
            "row,a,b\n1,cat,dog\n",
            &["column `label`", "\"pet\"", "row, a, b"],
        ),
        ("index,label\n1,cat\n", &["`index`", "`row`"]),
        (
            "file,label\na.csv,cat\n",
            &["line 2", "3 rows", "a column row"],
        ),
        (
            "file,row,label\nc.csv,0,cat\n",
            &["line 2", "\"c.csv\"", "such as \"a.csv\""],
        ),
        (
            "file,row,label\nb.csv,1,cat\n",
            &["line 2", "row 1 of \"b.csv\"", "3 to 4"],
        ),
        ("cat\ndog\n", &["2 labels", "5 rows"]),
    ] {
        let error = with(TABLE, dir.path(), Some(labels), None).err().unwrap();
        says(&error.to_string(), said);
    }
    for (key, said) in [
        ("labels_file = 'none.csv'", "no data file \"none.csv\""),
        ("truth_file = '../t.csv'", "inside the data folder"),
        ("labels_file = 't.jsonl'", "aren't read from .jsonl"),
    ] {
        std::fs::write(dir.path().join("t.jsonl"), "{}").unwrap();
        let error = with(&format!("{TABLE}\n{key}"), dir.path(), None, None);
        says(&error.err().unwrap().to_string(), &[said]);
    }
}

#[test]
fn labels_of_a_file_are_known_by_their_rows() {
    let dir = files();
    let own = with(TABLE, dir.path(), None, None).unwrap();
    assert!(own.given_labels().is_empty());
    let by_row = "row,label\n4,cat\n0,dog\n";
    let set = with(TABLE, dir.path(), Some(by_row), None).unwrap();
    let given = set.given_labels().into_iter();
    let given: Vec<_> = given.map(|g| (g.file, g.row, g.label)).collect();
    let expected = [("b.csv", 4, "cat"), ("a.csv", 0, "dog")];
    let expected = expected.map(|(file, row, label)| (file.to_owned(), row, label.to_owned()));
    assert_eq!(given, expected);
}

#[test]
fn an_empty_true_label_is_not_known() {
    let dir = files();
    let set = with(TABLE, dir.path(), None, Some("row,truth\n0,\n1,cat\n")).unwrap();
    assert_eq!(set.true_label(Split::Train, 0), None);
    assert_eq!(set.planted(Split::Train, 1), Some(true));
    let output = with(TABLE, dir.path(), Some("row,label\n0,\n"), None);
    assert!(output.is_err(), "a label that replaces another isn't empty");
}

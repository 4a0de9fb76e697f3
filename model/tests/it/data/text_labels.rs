//! Labels that are texts in `.npy` arrays, and names for classes whose labels are numbers.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use hindcast_model::data::cleaned::{RowEdit, cleaned};
use hindcast_model::data::{DataSet, Given, load_given};
use hindcast_model::objective::Split;

use super::formats::npy;
use super::{folder, open, refused, says, spec};

/// The elements of `<UN`, `>UN` and `|SN`.
fn elements(kind: &str, width: usize, texts: &[&str]) -> Vec<u8> {
    let element = |text: &&str| -> Vec<u8> {
        let (mut bytes, unit): (Vec<u8>, usize) = match kind {
            "<U" => (
                text.chars()
                    .flat_map(|c| u32::from(c).to_le_bytes())
                    .collect(),
                4,
            ),
            ">U" => (
                text.chars()
                    .flat_map(|c| u32::from(c).to_be_bytes())
                    .collect(),
                4,
            ),
            _ => (text.bytes().collect(), 1),
        };
        bytes.resize(width * unit, 0);
        bytes
    };
    texts.iter().flat_map(element).collect()
}

fn array(kind: &str, width: usize, shape: &str, texts: &[&str]) -> Vec<u8> {
    let body = elements(kind, width, texts);
    npy(&format!("{kind}{width}"), false, shape, &body)
}

/// Inputs of one feature.
fn inputs(rows: u8) -> Vec<u8> {
    let values: Vec<u8> = (0..rows).collect();
    npy("|u1", false, &format!("({rows}, 1)"), &values)
}

fn labels(set: &dyn DataSet, split: Split) -> Vec<String> {
    (0..set.len(split)).map(|i| set.label(split, i)).collect()
}

const PAIR: &str =
    "source = 'npy'\ntrain_files = { inputs = 'x.npy', labels = 'y.npy' }\npick = 'first'";

#[test]
fn texts_are_classes_in_every_byte_order() {
    let texts = ["fig", "Käse", "fig", "añil"];
    for (kind, width) in [("<U", 4), (">U", 7), ("|S", 5)] {
        for shape in ["(4,)", "(4, 1)"] {
            let dir = folder(&[
                ("x.npy", &inputs(4)),
                ("y.npy", &array(kind, width, shape, &texts)),
            ]);
            let set = open(PAIR, dir.path()).unwrap();
            assert_eq!(set.class_names(), ["Käse", "añil", "fig"], "{kind}");
            assert_eq!(labels(set.as_ref(), Split::Train), texts);
            let named = format!("{PAIR}\nclass_names = ['fig', 'none', 'Käse', 'añil']");
            let set = open(&named, dir.path()).unwrap();
            assert_eq!(set.class_names(), ["fig", "none", "Käse", "añil"]);
            assert_eq!(labels(set.as_ref(), Split::Train), texts);
        }
    }
    // The classes are those of all files, so a class that only the test file has gets a number, too.
    let dir = folder(&[
        ("x.npy", &inputs(2)),
        ("y.npy", &array("<U", 1, "(2,)", &["b", "c"])),
        ("t.npy", &array("<U", 3, "(2,)", &["b", "a"])),
    ]);
    let task = format!("{PAIR}\ntest_files = {{ inputs = 'x.npy', labels = 't.npy' }}");
    let set = open(&task, dir.path()).unwrap();
    assert_eq!(set.class_names(), ["a", "b", "c"]);
    assert_eq!(labels(set.as_ref(), Split::Test), ["b", "a"]);
}

#[test]
fn texts_that_are_no_labels_are_refused() {
    let dir = folder(&[
        ("x.npy", &inputs(3)),
        ("empty.npy", &array("<U", 2, "(3,)", &["a", "", "b"])),
        (
            "wide.npy",
            &array("<U", 1, "(3, 2)", &["a", "b", "c", "d", "e", "f"]),
        ),
        ("none.npy", &array("<U", 0, "(3,)", &["", "", ""])),
        ("nan.npy", &array("<U", 3, "(3,)", &["1", "nan", "2"])),
        ("texts.npy", &array("<U", 1, "(3,)", &["a", "b", "c"])),
        ("numbers.npy", &npy("|u1", false, "(3,)", &[0, 1, 0])),
        (
            "surrogate.npy",
            &npy("<U1", false, "(1,)", &0xd800u32.to_le_bytes()),
        ),
    ]);
    let with = |labels: &str, more: &str| {
        refused(
            &format!("{}\n{more}", PAIR.replace("y.npy", labels)),
            dir.path(),
        )
    };
    for (labels, more, parts) in [
        ("empty.npy", "", ["empty.npy", "row 1 has an empty label"]),
        ("wide.npy", "", ["wide.npy", "one label per row"]),
        ("none.npy", "", ["none.npy", "texts of 0 bytes"]),
        (
            "nan.npy",
            "",
            ["nan.npy", "\"nan\" among labels that are numbers"],
        ),
        (
            "texts.npy",
            "target = 'value'",
            ["texts.npy", "needs numbers"],
        ),
        (
            "texts.npy",
            "class_names = ['a', 'b']",
            ["\"c\"", "not in class_names: a, b"],
        ),
        (
            "texts.npy",
            "test_files = { inputs = 'x.npy', labels = 'numbers.npy' }",
            [
                "numbers.npy holds labels that are numbers",
                "texts.npy are texts",
            ],
        ),
        ("surrogate.npy", "", ["surrogate.npy", "can't be read"]),
    ] {
        let said = with(labels, more);
        let said = said.replace(": holds", " holds");
        says(&said, &parts);
    }
    // A width of zero and many rows take no memory.
    let many = npy("<U0", false, "(1000000000000,)", &[]);
    fs::write(dir.path().join("none.npy"), many).unwrap();
    says(&with("none.npy", ""), &["texts of 0 bytes"]);
    // Inputs are numbers.
    let said = refused(
        &PAIR
            .replace("x.npy", "texts.npy")
            .replace("y.npy", "texts.npy"),
        dir.path(),
    );
    says(&said, &["texts.npy", "only an array of labels", "astype"]);
}

/// A file of labels may hold texts, too.
#[test]
fn labels_of_the_users_own_may_be_an_array_of_texts() {
    let dir = folder(&[
        ("x.npy", &inputs(3)),
        ("y.npy", &array("<U", 1, "(3,)", &["a", "b", "a"])),
        ("other.npy", &array(">U", 2, "(3,)", &["b", "b", "a"])),
    ]);
    let path = dir.path().join("other.npy");
    let given = Given {
        labels: Some(&path),
        ..Given::from(Some(dir.path()))
    };
    let set = load_given(&spec(PAIR), None, given, 0).unwrap();
    assert_eq!(labels(set.as_ref(), Split::Train), ["b", "b", "a"]);
}

/// The labels after the edits, and the file's bytes.
fn edited(dir: &Path, task: &str, edits: &[(u64, Option<usize>)]) -> (Vec<String>, Vec<u8>) {
    let edits: BTreeMap<u64, RowEdit> = edits
        .iter()
        .map(|&(index, class)| (index, class.map_or(RowEdit::Drop, RowEdit::Relabel)))
        .collect();
    let data = open(task, dir).unwrap();
    let files = cleaned(&spec(task), Some(dir), data.as_ref(), &edits).unwrap();
    let bytes = files.labels[0].content().unwrap().into_owned();
    let inputs = files.inputs[0].content().unwrap().into_owned();
    let new = folder(&[("x.npy", &inputs), ("y.npy", &bytes)]);
    let set = open(task, new.path()).unwrap();
    (labels(set.as_ref(), Split::Train), bytes)
}

#[test]
fn texts_are_relabelled_and_widened_only_if_they_must_be() {
    let names = "class_names = ['cat', 'dog', 'ox', 'giraffe']";
    let task = format!("{PAIR}\n{names}");
    for kind in ["<U", ">U", "|S"] {
        let before = array(kind, 3, "(4,)", &["cat", "dog", "ox", "dog"]);
        let dir = folder(&[("x.npy", &inputs(4)), ("y.npy", &before)]);
        let (found, bytes) = edited(dir.path(), &task, &[(0, Some(2)), (3, Some(0))]);
        assert_eq!(found, ["ox", "dog", "ox", "cat"]);
        let expected = array(kind, 3, "(4,)", &["ox", "dog", "ox", "cat"]);
        assert_eq!(bytes, expected, "{kind}");
        let (found, bytes) = edited(dir.path(), &task, &[(0, None), (3, Some(3))]);
        assert_eq!(found, ["dog", "ox", "giraffe"]);
        let body = elements(
            kind,
            7,
            &found.iter().map(String::as_str).collect::<Vec<_>>(),
        );
        assert!(bytes.ends_with(&body), "{kind}");
        let header = String::from_utf8_lossy(&bytes[..bytes.len() - body.len()]).into_owned();
        says(&header, &[&format!("'{kind}7'"), "'shape': (3,"]);
    }
}

/// Classes whose labels are numbers get names from the task, and files keep the numbers.
#[test]
fn numbers_get_the_names_of_the_task() {
    let dir = folder(&[
        ("a.csv", b"x,y\n1,1\n2,0.0\n3,1\n4,0.0\n"),
        ("b.csv", b"x,y\n1,-1\n2,1\n3,-1\n"),
        (
            "c.jsonl",
            b"{\"text\": \"one two\", \"y\": 1}\n{\"text\": \"two one\", \"y\": 0}\n{\"text\": \"one two\", \"y\": 1}\n",
        ),
        (
            "d.jsonl",
            b"{\"text\": \"one two\", \"y\": \"b\"}\n{\"text\": \"two one\", \"y\": \"a\"}\n",
        ),
        ("x.npy", &inputs(3)),
        ("y.npy", &npy("|u1", false, "(3,)", &[1, 0, 1])),
    ]);
    let named = "class_names = ['no', 'yes']\npick = 'first'";
    let csv = format!("source = 'csv'\ntrain_files = 'a.csv'\nlabel = 'y'\n{named}");
    let docs = format!(
        "source = 'documents'\ntrain_files = 'c.jsonl'\nlabel = 'y'\n{named}\n[documents]\nmax_df = 1.0"
    );
    let npy = "source = 'npy'\ntrain_files = { inputs = 'x.npy', labels = 'y.npy' }\nclass_names = ['no', 'yes']";
    let merged = "source = 'csv'\ntrain_files = 'b.csv'\nlabel = 'y'\npick = 'first'\nmerge = { y = { no = ['-1'], yes = ['1'] } }";
    for (task, expected) in [
        (csv.as_str(), &["yes", "no", "yes", "no"][..]),
        (&docs, &["yes", "no", "yes"]),
        (npy, &["yes", "no", "yes"]),
        (merged, &["no", "yes", "no"]),
    ] {
        let set = open(task, dir.path()).unwrap();
        assert_eq!(set.class_names(), ["no", "yes"], "{task}");
        assert_eq!(labels(set.as_ref(), Split::Train), expected, "{task}");
    }
    // Names that are the labels of documents may stand in any order.
    let ordered = docs
        .replace("c.jsonl", "d.jsonl")
        .replace("['no', 'yes']", "['b', 'a']");
    let set = open(&ordered, dir.path()).unwrap();
    assert_eq!(labels(set.as_ref(), Split::Train), ["b", "a"]);
    let wrong = refused(
        &csv.replace("'yes'", "'yes', 'maybe'")
            .replace("a.csv", "b.csv"),
        dir.path(),
    );
    says(
        &wrong,
        &["\"-1\"", "the numbers from 0 to 2: no, yes, maybe"],
    );
    let text = |task: &str, classes: [usize; 2]| {
        let [first, second] = classes.map(RowEdit::Relabel);
        let edits = [(0, first), (1, second)];
        let data = open(task, dir.path()).unwrap();
        let files = cleaned(
            &spec(task),
            Some(dir.path()),
            data.as_ref(),
            &BTreeMap::from(edits),
        );
        let bytes = files.unwrap().labels[0].content().unwrap().into_owned();
        String::from_utf8(bytes).unwrap()
    };
    assert_eq!(text(&csv, [0, 1]), "x,y\n1,0.0\n2,1\n3,1\n4,0.0\n");
    assert_eq!(text(merged, [1, 0]), "x,y\n1,1\n2,-1\n3,-1\n");
}

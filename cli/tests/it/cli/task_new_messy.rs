//! `hindcast task new` with files as people have them: typos, gaps, thousands, compressed files, arrays of other types.

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::Path;

use super::{code, fine, hindcast, stderr};

/// The task that is written for these files, and what is said.
fn task_of(dir: &Path, words: &[&str]) -> (String, String) {
    let new = [&["task", "new"], words, &["--out", "new.toml"]].concat();
    let output = hindcast(dir, &new);
    let said = stderr(&output);
    assert_eq!(code(&output), 0, "{said}");
    let task = fs::read_to_string(dir.join("new.toml")).unwrap();
    fs::remove_file(dir.join("new.toml")).unwrap();
    fs::write(dir.join("last.toml"), &task).unwrap();
    (task, said)
}

fn contains(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part:?} is not in\n{text}");
    }
}

/// A table of 200 rows: a number, a text, and a class.
fn table(cells: impl Fn(usize) -> [String; 3]) -> String {
    let mut text = "size;kind;class\n".to_owned();
    for row in 0..200 {
        let _ = writeln!(text, "{}", cells(row).join(";"));
    }
    text
}

#[test]
fn thousands_are_read_and_named() {
    let dir = tempfile::tempdir().unwrap();
    let text = table(|i| {
        let size = i * 37 % 97;
        let size = if i % 3 == 0 {
            format!("1.{:03},5", size * 9)
        } else {
            format!("{size},25")
        };
        [size, ["a", "b"][i / 2 % 2].into(), ["x", "y"][i % 2].into()]
    });
    fs::write(dir.path().join("t.csv"), text).unwrap();
    let (task, said) = task_of(dir.path(), &["csv", "t.csv"]);
    contains(
        &task,
        &["decimal = \",\"", "thousands = \".\"", "input = [3]"],
    );
    contains(&said, &["Numbers are written as 1.234,5"]);
    fine(dir.path(), &["task", "check", "last.toml", "--data", "."]);
}

#[test]
fn a_typo_in_a_column_of_numbers_is_named_and_refused_by_the_check() {
    let dir = tempfile::tempdir().unwrap();
    let text = table(|i| {
        let size = if i == 150 {
            "12.o".into()
        } else {
            format!("{}.5", i * 37 % 97)
        };
        [size, ["a", "b"][i / 2 % 2].into(), ["x", "y"][i % 2].into()]
    });
    fs::write(dir.path().join("t.csv"), text).unwrap();
    let (task, said) = task_of(dir.path(), &["csv", "t.csv"]);
    contains(
        &said,
        &["\"size\": 1 of 200 cells is not a number: row 150 (line 152) \"12.o\""],
    );
    contains(&task, &["categorical = [\"kind\"]", "input = [3]"]);
    let check = hindcast(dir.path(), &["task", "check", "last.toml", "--data", "."]);
    let problems = String::from_utf8(check.stdout.clone()).unwrap();
    assert_eq!(code(&check), 1, "{problems}");
    contains(&problems, &["row 150 (line 152), column \"size\""]);
}

#[test]
fn missing_texts_of_categories_and_labels_are_listed() {
    let dir = tempfile::tempdir().unwrap();
    let of = |i: usize, label: &str| {
        let size = if i % 20 == 3 {
            "NA".into()
        } else {
            format!("{}.5", i * 37 % 97)
        };
        let kind = if i % 10 == 4 {
            "n/a"
        } else {
            ["a", "b"][i / 2 % 2]
        };
        [size, kind.into(), label.into()]
    };
    let text = table(|i| of(i, ["x", "y"][i % 2]));
    fs::write(dir.path().join("t.csv"), text).unwrap();
    let (task, said) = task_of(dir.path(), &["csv", "t.csv"]);
    contains(
        &task,
        &["texts = [\"\", \"NA\", \"n/a\"]", "fill = \"mean\""],
    );
    contains(
        &said,
        &["\"size\" 10 (\"NA\" 10), \"kind\" 20 (\"n/a\" 20)"],
    );
    let check = fine(dir.path(), &["task", "check", "last.toml", "--data", "."]);
    contains(&check, &["shape [5]"]);

    // A class of this name stays one.
    let text = table(|i| of(i, ["x", "y", "n/a"][i % 3]));
    fs::write(dir.path().join("t.csv"), text).unwrap();
    let (task, said) = task_of(dir.path(), &["csv", "t.csv"]);
    contains(&task, &["merge = { kind = { \"\" = [\"n/a\"] } }"]);
    contains(
        &said,
        &["3 classes", "The label \"n/a\" of 66 rows is a class"],
    );
    let check = fine(dir.path(), &["task", "check", "last.toml", "--data", "."]);
    contains(&check, &["shape [5]", "classes 3"]);
}

#[test]
fn numbers_to_predict_may_have_decimal_commas_and_gaps() {
    let dir = tempfile::tempdir().unwrap();
    let text = table(|i| {
        let size = match i % 20 {
            3 => String::new(),
            4 => "NA".into(),
            _ => format!("{},5", i * 37 % 97),
        };
        [size, ["a", "b"][i / 2 % 2].into(), format!("{},5", i % 7)]
    });
    fs::write(dir.path().join("t.csv"), text).unwrap();
    for words in [
        &["csv", "t.csv", "--label", "size"][..],
        &["csv", "t.csv", "--label", "size", "--target", "value"],
    ] {
        let (task, said) = task_of(dir.path(), words);
        contains(
            &task,
            &[
                "decimal = \",\"",
                "target = \"value\"",
                "columns = { size = \"drop\" }",
            ],
        );
        contains(
            &said,
            &[
                "The labels are the numbers in column \"size\"",
                "\"size\" 20 (10 empty, \"NA\" 10)",
            ],
        );
        fine(dir.path(), &["task", "check", "last.toml", "--data", "."]);
    }
}

#[test]
fn compressed_files_and_lines_of_comments_are_read() {
    let dir = tempfile::tempdir().unwrap();
    let text = table(|i| {
        [
            i.to_string() + ".5",
            ["a", "b"][i / 2 % 2].into(),
            ["x", "y"][i % 2].into(),
        ]
    });
    let text = format!("|1x3 Cross validator\n{text}");
    let file = fs::File::create(dir.path().join("t.csv.gz")).unwrap();
    let mut packed = flate2::write::GzEncoder::new(file, flate2::Compression::fast());
    packed.write_all(text.as_bytes()).unwrap();
    packed.finish().unwrap();
    let (task, _) = task_of(dir.path(), &["csv", "t.csv.gz"]);
    contains(
        &task,
        &[
            "name = \"t\"",
            "train_files = \"t.csv.gz\"",
            "comment = \"|\"",
            "label = \"class\"",
        ],
    );
    fine(dir.path(), &["task", "check", "last.toml", "--data", "."]);
}

fn npy(shape: &str, kind: &str, data: &[u8]) -> Vec<u8> {
    let header = format!("{{'descr': '{kind}', 'fortran_order': False, 'shape': ({shape}), }}\n");
    let length = (header.len() as u16).to_le_bytes();
    [
        b"\x93NUMPY\x01\x00",
        length.as_slice(),
        header.as_bytes(),
        data,
    ]
    .concat()
}

#[test]
fn labels_in_arrays_are_classes_or_values_as_the_task_says() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let floats = |f: &dyn Fn(usize) -> f32, n: usize| -> Vec<u8> {
        (0..n).flat_map(|i| f(i).to_le_bytes()).collect()
    };
    fs::write(
        at("X.npy"),
        npy("60, 2", "<f4", &floats(&|i| (i * 37 % 97) as f32, 120)),
    )
    .unwrap();
    fs::write(
        at("whole.npy"),
        npy("60,", "<f4", &floats(&|i| (i % 3) as f32, 60)),
    )
    .unwrap();
    fs::write(
        at("half.npy"),
        npy("60,", "<f4", &floats(&|i| i as f32 / 2.0, 60)),
    )
    .unwrap();
    let bytes: Vec<u8> = (0..60).map(|i| (i % 3) as u8).collect();
    fs::write(at("bytes.npy"), npy("60,", "|u1", &bytes)).unwrap();
    let texts: Vec<u8> = bytes.iter().map(|b| b"abc"[usize::from(*b)]).collect();
    fs::write(at("texts.npy"), npy("60,", "|S1", &texts)).unwrap();
    fs::write(at("labels.txt"), "a\nb\n").unwrap();
    let names = "# class_names = [\"name of 0\", \"name of 1\", \"name of 2\"]";
    let (task, said) = task_of(
        dir.path(),
        &[
            "npy",
            "X.npy",
            "whole.npy",
            "--validation",
            "X.npy",
            "bytes.npy",
        ],
    );
    contains(&task, &["target = \"class\"", names, "out = 3"]);
    contains(&said, &["3 classes, saved as floats; --target value"]);
    fine(dir.path(), &["task", "check", "last.toml", "--data", "."]);
    for (words, part) in [
        (&["whole.npy", "--target", "class"][..], "out = 3"),
        (&["whole.npy", "--target", "value"], "target = \"value\""),
        (&["half.npy"], "target = \"value\""),
        (&["bytes.npy"], "target = \"class\""),
    ] {
        let (task, _) = task_of(dir.path(), &[&["npy", "X.npy"], words].concat());
        contains(&task, &[part]);
    }
    // Texts are the names of their classes.
    let (task, _) = task_of(dir.path(), &["npy", "X.npy", "texts.npy"]);
    contains(&task, &["out = 3", "a label is the name of its class"]);
    assert!(!task.contains("class_names"), "{task}");
    let said = fine(dir.path(), &["task", "check", "last.toml", "--data", "."]);
    contains(&said, &["classes 3 (a ", "b ", "c "]);
    for (words, exit, parts) in [
        (
            &["half.npy", "--target", "class"][..],
            1,
            &["label 0.5", "--target value"][..],
        ),
        (
            &["texts.npy", "--target", "value"],
            1,
            &["texts.npy", "needs numbers"],
        ),
        (&["labels.txt"], 2, &["np.loadtxt", "data.labels_file"]),
    ] {
        let refused = hindcast(
            dir.path(),
            &[&["task", "new", "npy", "X.npy"], words].concat(),
        );
        let said = stderr(&refused);
        assert_eq!(code(&refused), exit, "{said}");
        contains(&said, parts);
    }
}

#[test]
fn a_task_shows_how_classes_whose_labels_are_numbers_get_names() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, label: &dyn Fn(usize) -> String| {
        let rows = (0..60).map(|i| format!("{},{}\n", i * 37 % 59, label(i)));
        let text = format!("x,y\n{}", rows.collect::<String>());
        fs::write(dir.path().join(name), text).unwrap();
    };
    write("zero.csv", &|i| (i % 2).to_string());
    write("signs.csv", &|i| ["-1", "1"][i % 2].to_owned());
    write("words.csv", &|i| ["no", "yes"][i % 2].to_owned());
    let key = "# class_names = [\"name of 0\", \"name of 1\"]";
    let merge = "# merge = { y = { \"name of -1\" = [\"-1\"], \"name of 1\" = [\"1\"] } }";
    for (file, line) in [("zero.csv", key), ("signs.csv", merge)] {
        let (task, _) = task_of(dir.path(), &["csv", file]);
        contains(&task, &[line]);
        // The line is a part of the task when its comment sign is removed.
        let named = task.replace(line, line.trim_start_matches("# "));
        fs::write(dir.path().join("named.toml"), named).unwrap();
        let said = fine(dir.path(), &["task", "check", "named.toml", "--data", "."]);
        contains(&said, &["classes 2 (name of ", "name of 1 "]);
    }
    let (task, _) = task_of(dir.path(), &["csv", "words.csv"]);
    assert!(!task.contains("name of"), "{task}");
    let texts = ["red apple", "blue sky", "green leaf"];
    let post = |i: usize| {
        let (text, label) = (texts[i % 3], i % 2);
        format!("{{\"text\": \"{text}\", \"label\": {label}}}\n")
    };
    let posts: String = (0..40).map(post).collect();
    fs::write(dir.path().join("posts.jsonl"), posts).unwrap();
    let (task, _) = task_of(dir.path(), &["text", "posts.jsonl"]);
    contains(&task, &[key]);
}

#[test]
fn a_file_that_is_no_text_and_a_missing_one_are_called_so() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    fs::write(dir.join("book.xlsx"), b"PK\x03\x04\x14\0\x06\0").unwrap();
    fs::write(dir.join("noise.csv"), b"\x07\x00\xfe\x01,\x02\n\x03").unwrap();
    for (words, part) in [
        (
            ["csv", "book.xlsx"],
            "book.xlsx: this is an Excel file or a ZIP archive: save the table as CSV",
        ),
        (["csv", "noise.csv"], "noise.csv: this is no text"),
        (["csv", "none.csv"], "none.csv: there is no such file"),
        (["images", "none"], "none: there is no such file or folder"),
        (["npy", "x.npy"], "x.npy: there is no such file"),
    ] {
        let refused = hindcast(dir, &[&["task", "new"][..], &words].concat());
        let said = stderr(&refused);
        assert_eq!(code(&refused), 1, "{words:?}: {said}");
        assert!(said.contains(part), "{words:?}: {said}");
    }
}

#[test]
fn times_and_dates_are_left_out_with_their_own_advice() {
    let dir = tempfile::tempdir().unwrap();
    let mut text = "size,begun,day,both,class\n".to_owned();
    for row in 0..100 {
        let (hour, minute, day) = (row % 24, row * 7 % 60, 1 + row % 28);
        let both = if row % 2 == 0 {
            format!("2026-01-{day:02}")
        } else {
            format!("{hour}:{minute:02}")
        };
        let class = ["x", "y"][row % 2];
        let _ = writeln!(
            text,
            "{}.5,{hour}:{minute:02},2026-01-{day:02},{both},{class}",
            row % 9
        );
    }
    fs::write(dir.path().join("t.csv"), text).unwrap();
    let (task, said) = task_of(dir.path(), &["csv", "t.csv"]);
    contains(
        &said,
        &[
            "Column \"begun\" is left out, because it holds times: write them as numbers",
            "Column \"day\" is left out, because it holds dates: numbers such as a month",
            "Column \"both\" is left out, because it holds dates",
        ],
    );
    contains(&task, &["ignore = [\"day\", \"both\", \"begun\"]"]);
    // As a feature, a time is refused with the same advice.
    let kept = task.replace(
        "ignore = [\"day\", \"both\", \"begun\"]",
        "ignore = [\"day\", \"both\"]",
    );
    fs::write(dir.path().join("kept.toml"), kept).unwrap();
    let checked = hindcast(dir.path(), &["task", "check", "kept.toml", "--data", "."]);
    contains(
        &super::stdout(&checked),
        &["looks like a time", "12.5 or 750"],
    );
}

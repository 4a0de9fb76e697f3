//! The meaning of values in files, and values that are refused before training.

use super::formats::{inputs, npy};
use super::{folder, idx, open, refused, says};
use half::{bf16, f16};
use hindcast_model::objective::Split;
use safetensors::{Dtype, tensor::TensorView};

const NPY: &str = "source = 'npy'\ntrain_files = { inputs = 'x.npy', labels = 'y.npy' }";
const CSV: &str = "source = 'csv'\ntrain_files = 'a.csv'\nlabel = 'y'\n";

fn bytes<const N: usize, T: Copy>(values: &[T], of: impl Fn(T) -> [u8; N]) -> Vec<u8> {
    values.iter().flat_map(|v| of(*v)).collect()
}

/// A safetensors file of inputs (2, 2) of any type and the labels 0 and 1.
fn tensors(dtype: Dtype, data: &[u8]) -> Vec<u8> {
    let inputs = TensorView::new(dtype, vec![2, 2], data).unwrap();
    let labels = TensorView::new(Dtype::U8, vec![2], &[0, 1]).unwrap();
    safetensors::serialize([("inputs", inputs), ("labels", labels)], None).unwrap()
}

#[test]
fn booleans_are_0_and_1_as_features_and_as_labels() {
    let dir = folder(&[
        ("x.npy", &npy("|b1", false, "(2, 2)", &[1, 0, 0, 1])),
        ("y.npy", &npy("|b1", false, "(2,)", &[1, 0])),
        ("x.safetensors", &tensors(Dtype::BOOL, &[1, 0, 0, 1])),
        ("u.npy", &npy("|u1", false, "(2, 2)", &[255, 0, 0, 255])),
    ]);
    let expected = [[1.0, 0.0], [0.0, 1.0]];
    let set = open(NPY, dir.path()).unwrap();
    assert_eq!(inputs(&*set), expected);
    assert_eq!(set.class(Split::Train, 0), Some(1));
    let set = open(
        "source = 'safetensors'\ntrain_files = 'x.safetensors'",
        dir.path(),
    )
    .unwrap();
    assert_eq!(inputs(&*set), expected);
    // Bytes are grey levels, not booleans: 255 becomes 1.
    let set = open(&NPY.replace("x.npy", "u.npy"), dir.path()).unwrap();
    assert_eq!(inputs(&*set), expected);
}

#[test]
fn floats_of_16_bits_are_read() {
    let halves = [0.5f32, -1.0, 2.0, 65504.0];
    let dir = folder(&[
        (
            "x.npy",
            &npy(
                "<f2",
                false,
                "(2, 2)",
                &bytes(&halves, |x| f16::from_f32(x).to_le_bytes()),
            ),
        ),
        (
            "big.npy",
            &npy(
                ">f2",
                false,
                "(2, 2)",
                &bytes(&halves, |x| f16::from_f32(x).to_be_bytes()),
            ),
        ),
        ("y.npy", &npy("|u1", false, "(2,)", &[1, 0])),
        (
            "f.safetensors",
            &tensors(
                Dtype::F16,
                &bytes(&halves, |x| f16::from_f32(x).to_le_bytes()),
            ),
        ),
        (
            "b.safetensors",
            &tensors(
                Dtype::BF16,
                &bytes(&halves, |x| bf16::from_f32(x).to_le_bytes()),
            ),
        ),
    ]);
    let expected = [[0.5, -1.0], [2.0, 65504.0]];
    for text in [
        NPY.to_string(),
        NPY.replace("x.npy", "big.npy"),
        "source = 'safetensors'\ntrain_files = 'f.safetensors'".to_string(),
    ] {
        assert_eq!(inputs(&*open(&text, dir.path()).unwrap()), expected);
    }
    let text = "source = 'safetensors'\ntrain_files = 'b.safetensors'";
    let rounded = [[0.5, -1.0], [2.0, 65536.0]];
    assert_eq!(inputs(&*open(text, dir.path()).unwrap()), rounded);
}

#[test]
fn features_and_targets_that_are_not_finite_are_refused_with_their_place() {
    let floats = |bad: f32| [0.5, 1.0, bad, 3.0];
    let nan = bytes(&floats(f32::NAN), f32::to_le_bytes);
    let infinite = bytes(&floats(f32::INFINITY), f32::to_le_bytes);
    let half = bytes(&floats(f32::NEG_INFINITY), |x| {
        f16::from_f32(x).to_le_bytes()
    });
    let double = bytes(&[0.0, f64::NAN], f64::to_le_bytes);
    let mut big = vec![0, 0, 0x0d, 2, 0, 0, 0, 2, 0, 0, 0, 2];
    big.extend(bytes(&floats(f32::NAN), f32::to_be_bytes));
    let dir = folder(&[
        ("nan.npy", &npy("<f4", false, "(2, 2)", &nan)),
        ("fortran.npy", &npy("<f4", true, "(2, 2)", &nan)),
        ("inf.npy", &npy("<f4", false, "(2, 1, 2)", &infinite)),
        ("half.npy", &npy("<f2", false, "(2, 2)", &half)),
        ("x.npy", &npy("<f4", false, "(2, 2)", &[0; 16])),
        ("y.npy", &npy("|u1", false, "(2,)", &[1, 0])),
        ("targets.npy", &npy("<f8", false, "(2,)", &double)),
        ("x.safetensors", &tensors(Dtype::F32, &nan)),
        ("x.idx", &big),
        ("y.idx", &idx(&[2], &[1, 0])),
    ]);
    let pair = |source: &str, x: &str, y: &str| {
        format!("source = '{source}'\ntrain_files = {{ inputs = '{x}', labels = '{y}' }}")
    };
    for (text, pieces) in [
        (
            pair("npy", "nan.npy", "y.npy"),
            ["nan.npy", "inputs, row 1, column 0", "NaN"],
        ),
        (
            pair("npy", "fortran.npy", "y.npy"),
            ["fortran.npy", "row 0, column 1", "NaN"],
        ),
        (
            pair("npy", "inf.npy", "y.npy"),
            ["inf.npy", "row 1, position [0, 0]", "inf"],
        ),
        (
            pair("npy", "half.npy", "y.npy"),
            ["half.npy", "row 1, column 0", "-inf"],
        ),
        (
            pair("npy", "x.npy", "targets.npy"),
            ["targets.npy", "labels, row 1", "NaN"],
        ),
        (
            "source = 'safetensors'\ntrain_files = 'x.safetensors'".to_string(),
            ["x.safetensors", "inputs, row 1, column 0", "NaN"],
        ),
        (
            pair("idx", "x.idx", "y.idx"),
            ["x.idx", "row 1, column 0", "NaN"],
        ),
    ] {
        says(&refused(&text, dir.path()), &pieces);
    }
    let classes = format!("{}\ntarget = 'class'", pair("npy", "x.npy", "targets.npy"));
    says(
        &refused(&classes, dir.path()),
        &["row 1", "NaN", "0 to 65535"],
    );
}

#[test]
fn a_missing_label_is_refused_with_its_row_and_line() {
    let dir = folder(&[("a.csv", b"x,y\n1,a\n2,b\n3,\n4,b\n")]);
    says(
        &refused(CSV, dir.path()),
        &["a.csv", "row 2", "line 4", "\"y\"", "a label", "merge"],
    );
    let merged = format!("{CSV}merge = {{ y = {{ unknown = [''] }} }}");
    let set = open(&merged, dir.path()).unwrap();
    assert_eq!(set.class_names(), ["a", "b", "unknown"]);
    // Among numbers, a text that programs write for a missing value isn't a class.
    let dir = folder(&[("a.csv", b"x,y\n1,0\n2,1\n3,NaN\n4,1\n")]);
    says(
        &refused(CSV, dir.path()),
        &[
            "row 2",
            "line 4",
            "NaN",
            "a number, as all other labels are",
        ],
    );
    let named = format!("{CSV}class_names = ['0', '1', 'NaN']");
    assert_eq!(
        open(&named, dir.path()).unwrap().class(Split::Train, 2),
        Some(2)
    );
    let dir = folder(&[("a.csv", b"x,y\n1,cat\n2,NA\n")]);
    assert_eq!(open(CSV, dir.path()).unwrap().class_names(), ["NA", "cat"]);
    let lines = b"{\"text\": \"one two\", \"y\": \"a\"}\n\n{\"text\": \"two one\", \"y\": \"\"}\n";
    let dir = folder(&[("a.jsonl", lines)]);
    says(
        &refused(
            "source = 'documents'\ntrain_files = 'a.jsonl'\nlabel = 'y'",
            dir.path(),
        ),
        &["line 3", "\"y\" is empty"],
    );
}

#[test]
fn labels_and_categories_that_are_equal_numbers_are_one() {
    let dir = folder(&[
        ("a.csv", b"x,c,y\n1,1,1\n2,0,0\n"),
        ("t.csv", b"x,c,y\n1,1.0,1.0\n2,0.0,0.0\n"),
    ]);
    let text = format!("{CSV}test_files = 't.csv'\ncategorical = ['c']");
    let set = open(&text, dir.path()).unwrap();
    assert_eq!(set.class_names(), ["0", "1"]);
    assert_eq!(set.feature_names(), ["x", "c=0", "c=1"]);
    assert_eq!(
        [0, 1].map(|i| set.class(Split::Test, i)),
        [Some(1), Some(0)]
    );
    let description = set.describe();
    says(
        &description,
        &[
            "classes: 0, 1\n",
            "column \"y\": \"1\" and \"1.0\" are the same number",
        ],
    );
    assert!(!description.contains("warning"), "{description}");
    // Names and numbers in the Task refer to these classes, too.
    let named = open(&format!("{text}\nclass_names = ['1.0', '0']"), dir.path()).unwrap();
    assert_eq!(named.class(Split::Train, 0), Some(0));
    let dir = folder(&[("a.csv", b"x,y\n1,2.0\n2,1.0\n3,1.0\n")]);
    let kept = open(&format!("{CSV}classes = [2]"), dir.path()).unwrap();
    assert_eq!(
        (kept.len(Split::Train), kept.class_names()),
        (1, &["2.0".to_string()][..])
    );
    // Not the class at this position: 0 would be 1.0.
    says(
        &refused(&format!("{CSV}classes = [0]"), dir.path()),
        &["no class \"0\"", "1.0, 2.0"],
    );
}

#[test]
fn classes_without_training_examples_cause_a_warning() {
    let dir = folder(&[
        ("a.csv", b"x,y\n1,cat\n2,dog\n"),
        ("t.csv", b"x,y\n1,Cat\n2,dog\n3,Cat\n"),
    ]);
    let set = open(&format!("{CSV}test_files = 't.csv'"), dir.path()).unwrap();
    says(
        &set.describe(),
        &[
            "warning: the test split",
            "\"Cat\" (2 examples)",
            "cannot learn",
        ],
    );
    let set = open(&format!("{CSV}test_files = 'a.csv'"), dir.path()).unwrap();
    assert!(!set.describe().contains("warning"));
}

#[test]
fn lines_are_counted_as_an_editor_counts_them() {
    let line_of = |text: &str| {
        let dir = folder(&[("a.csv", text.as_bytes())]);
        let message = refused(&format!("{CSV}comment = '#'"), dir.path());
        let after = message.split("line ").nth(1).expect(&message).to_string();
        after
            .split(|c: char| !c.is_ascii_digit())
            .next()
            .unwrap()
            .parse::<u64>()
            .unwrap()
    };
    for (text, line) in [
        ("x,y\n1,a\nbad,b\n", 3),
        ("x,y\r\n1,a\r\nbad,b\r\n", 3),
        ("x,y\r1,a\rbad,b", 3),
        ("x,y\n\n\n1,a\n\nbad,b\n", 6),
        ("\n# note\nx,y\n# note\r\n\r\nbad,b\n", 6),
        ("x,y\n1,\"a\nb\"\nbad,c\n", 4),
        ("x,y\n1,a\n2,b,c\n", 3),
        ("x,y\r\n\r\n1\r\n", 3),
        ("x,y\n1,a\n\nbad,\"b\nc\n\"\n", 4),
    ] {
        assert_eq!(line_of(text), line, "{text:?}");
    }
}

#[test]
fn byte_order_marks_and_spaces_before_quotes_are_not_part_of_a_cell() {
    let dir = folder(&[
        (
            "a.csv",
            "\u{feff}x,y\r\n1, \"a, b\"\r\n2, \"c\" \r\n".as_bytes(),
        ),
        (
            "a.jsonl",
            "\u{feff}{\"text\": \"one two\", \"y\": \"a\"}\n".as_bytes(),
        ),
        ("latin.csv", b"x,y\n1,a\n\n2,\xe9\n"),
        ("open.csv", b"x,y\n1,a\n2,\"b\n3,c\n"),
    ]);
    let set = open(CSV, dir.path()).unwrap();
    assert_eq!(set.feature_names(), ["x"]);
    assert_eq!(set.class_names(), ["a, b", "c"]);
    let set = open(
        "source = 'documents'\ntrain_files = 'a.jsonl'\nlabel = 'y'",
        dir.path(),
    )
    .unwrap();
    assert_eq!(set.class_names(), ["a"]);
    says(
        &refused(&CSV.replace("a.csv", "latin.csv"), dir.path()),
        &["line 4, cell 2", "UTF-8"],
    );
    says(
        &refused(&CSV.replace("a.csv", "open.csv"), dir.path()),
        &["line 3", "never closed"],
    );
}

#[test]
fn the_time_to_read_a_wide_table_is_linear_in_its_width() {
    let columns = 200_000;
    let mut text: String = (0..columns).map(|i| format!("GENE{i:09},")).collect();
    text.push_str("y\n");
    for row in 0..2 {
        text.push_str(&"0.5,".repeat(columns));
        text.push_str(&format!("{row}\n"));
    }
    let dir = folder(&[("a.csv", text.as_bytes())]);
    let began = std::time::Instant::now();
    let set = open(CSV, dir.path()).unwrap();
    assert_eq!(set.shape(), [columns]);
    // Quadratic time would take a minute on a fast machine.
    assert!(began.elapsed().as_secs() < 15, "{:?}", began.elapsed());
}

#[test]
fn cifar_100_is_distinguished_from_a_truncated_cifar_10() {
    let record = |coarse: u8, fine: u8| [vec![coarse, fine], vec![7; 3072]].concat();
    let dir = folder(&[("train.bin", &[record(3, 40), record(19, 99)].concat())]);
    says(
        &refused("source = 'cifar10'\ntrain_files = 'train.bin'", dir.path()),
        &["train.bin", "CIFAR-100", "2 records", "source = \"npy\""],
    );
}

#[cfg(unix)]
#[test]
fn paths_that_are_not_regular_files_are_refused() {
    let dir = folder(&[("y.npy", &npy("|u1", false, "(2,)", &[1, 0]))]);
    let made = std::process::Command::new("mkfifo")
        .arg(dir.path().join("x.npy"))
        .status()
        .unwrap();
    assert!(made.success());
    std::fs::create_dir(dir.path().join("a.csv")).unwrap();
    std::os::unix::fs::symlink("/dev/zero", dir.path().join("zero.csv")).unwrap();
    std::os::unix::fs::symlink("nowhere", dir.path().join("dangling.csv")).unwrap();
    says(&refused(NPY, dir.path()), &["x.npy", "it is a pipe"]);
    says(&refused(CSV, dir.path()), &["a.csv", "it is a folder"]);
    says(
        &refused(&CSV.replace("a.csv", "zero.csv"), dir.path()),
        &["zero.csv", "it is a device"],
    );
    says(
        &refused(&CSV.replace("a.csv", "dangling.csv"), dir.path()),
        &["dangling.csv", "No such file"],
    );
}

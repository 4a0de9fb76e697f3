//! Data files with some labels changed and some rows left out.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use candle_core::{DType, Device};
use hindcast_model::data::cleaned::{CleanedFiles, RowEdit, cleaned, packed};
use hindcast_model::data::{DataError, DataSet};
use hindcast_model::objective::Split;
use proptest::prelude::*;

use super::{folder, gzip, idx, little_mnist, open, says, spec};

/// The edits by training index: a class to write, or `None` to drop the example.
fn edit(task: &str, dir: &Path, edits: &[(u64, Option<usize>)]) -> Result<CleanedFiles, DataError> {
    let edits: BTreeMap<u64, RowEdit> = edits
        .iter()
        .map(|&(index, class)| (index, class.map_or(RowEdit::Drop, RowEdit::Relabel)))
        .collect();
    let data = open(task, dir).unwrap();
    cleaned(&spec(task), Some(dir), data.as_ref(), &edits)
}

fn only(files: &CleanedFiles) -> Vec<u8> {
    assert_eq!(files.labels.len(), 1);
    files.labels[0].content().unwrap().into_owned()
}

const TABLE: &str = "source = 'csv'\ntrain_files = 'a.csv'\nlabel = 'kind'\ncategorical = ['note']\npick = 'first'\ndelimiter = ';'\ncomment = '#'";

#[test]
fn a_table_keeps_everything_but_the_edited_cells_and_rows() {
    let text = "\u{feff}x;kind ; note\r\n# measured in May\r\n1;\"cat\";\"a \"\"b\"\"\r\nc\"\r\n2; dog ;y\n\r\n3;cat;\"z;z\"\r4;ox;w";
    let dir = folder(&[("a.csv", text.as_bytes())]);
    // Classes in alphabetical order: cat, dog, ox.
    let got = edit(TABLE, dir.path(), &[(0, Some(1)), (1, Some(2)), (2, None)]).unwrap();
    let expected = "\u{feff}x;kind ; note\r\n# measured in May\r\n1;\"dog\";\"a \"\"b\"\"\r\nc\"\r\n2; ox ;y\n\r\n4;ox;w";
    assert_eq!(String::from_utf8(only(&got)).unwrap(), expected);
    // Without edits, the content is the original's, to the byte.
    let same = edit(TABLE, dir.path(), &[]).unwrap();
    assert_eq!(same.labels[0].bytes, None);
    assert_eq!(only(&same), text.as_bytes());
    assert_eq!(fs::read(dir.path().join("a.csv")).unwrap(), text.as_bytes());
    let none: Vec<(u64, Option<usize>)> = (0..4).map(|i| (i, None)).collect();
    let said = edit(TABLE, dir.path(), &none).unwrap_err().to_string();
    says(&said, &["a.csv", "no row would be left"]);
}

#[test]
fn a_label_is_written_as_the_file_spells_it() {
    let text = "x,y\n1,1.0\n2,2.0\n3,1.0\n4,2.0\n5,2.0\n";
    let task = "source = 'csv'\ntrain_files = 'a.csv'\nlabel = 'y'\npick = 'first'\nclass_names = ['2', '1']";
    let dir = folder(&[("a.csv", text.as_bytes())]);
    let got = edit(task, dir.path(), &[(0, Some(0)), (1, Some(1))]).unwrap();
    assert_eq!(
        String::from_utf8(only(&got)).unwrap(),
        "x,y\n1,2.0\n2,1.0\n3,1.0\n4,2.0\n5,2.0\n"
    );
}

#[test]
fn rows_are_those_of_the_file_whatever_the_splits_are() {
    let rows: String = (0..30).map(|i| format!("{i},{}\n", i % 3)).collect();
    let other: String = (30..40).map(|i| format!("{i},{}\n", i % 3)).collect();
    let dir = folder(&[
        ("a.csv", format!("x,y\n{rows}").as_bytes()),
        ("b.csv.gz", &gzip(format!("x,y\n{other}").as_bytes())),
    ]);
    let task = "source = 'csv'\ntrain_files = ['a.csv', 'b.csv']\nlabel = 'y'\nvalidation = 8\nskip = 4\nclasses = [2, 0]";
    let data = open(task, dir.path()).unwrap();
    let of = |index: u64| {
        let batch = data.batch(Split::Train, &[index], None, DType::F64, &Device::Cpu);
        batch.unwrap().inputs.to_vec2::<f64>().unwrap()[0][0] as u64
    };
    let last = data.len(Split::Train) - 1;
    let got = edit(
        task,
        dir.path(),
        &[(0, Some(0)), (1, Some(1)), (last, None)],
    )
    .unwrap();
    let text: Vec<String> = got
        .labels
        .iter()
        .map(|file| String::from_utf8(file.content().unwrap().into_owned()).unwrap())
        .collect();
    let expected = |x: u64| match x {
        x if x == of(0) => Some(2),
        x if x == of(1) => Some(0),
        x if x == of(last) => None,
        x => Some(x % 3),
    };
    let rows = |range: std::ops::Range<u64>| -> String {
        let rows = range.filter_map(|x| Some(format!("{x},{}\n", expected(x)?)));
        format!("x,y\n{}", rows.collect::<String>())
    };
    assert_eq!(text, [rows(0..30), rows(30..40)]);
    assert!(of(last) >= 30 && of(0) < 30, "both files are edited");
}

/// An array with its header padded as numpy pads it: to a multiple of 64 bytes.
fn numpy(kind: &str, fortran: bool, shape: &str, body: &[u8]) -> Vec<u8> {
    let order = if fortran { "True" } else { "False" };
    let dict = format!("{{'descr': '{kind}', 'fortran_order': {order}, 'shape': {shape}, }}");
    let length = (10 + dict.len() + 1).next_multiple_of(64) - 10;
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((length as u16).to_le_bytes());
    bytes.extend(format!("{dict:<0$}\n", length - 1).bytes());
    bytes.extend(body);
    bytes
}

const ARRAYS: &str = "source = 'npy'\ntrain_files = { inputs = 'x.npy', labels = 'y.npy' }\npick = 'first'\ntarget = 'class'";

#[test]
fn labels_in_an_array_keep_their_type() {
    // numpy.save gives these bytes for y = arange(12) % 4, and for y with y[5] = 3 after delete(y, [0, 11]).
    let before: Vec<u8> = (0..12).map(|i| i % 4).collect();
    let after = [1, 2, 3, 0, 3, 2, 3, 0, 1, 2];
    type Write = fn(u8) -> Vec<u8>;
    let kinds: [(&str, Write); 7] = [
        ("<i8", |y| i64::from(y).to_le_bytes().to_vec()),
        (">i4", |y| i32::from(y).to_be_bytes().to_vec()),
        ("<u2", |y| u16::from(y).to_le_bytes().to_vec()),
        ("|u1", |y| vec![y]),
        ("<f2", |y| {
            half::f16::from_f32(y.into()).to_le_bytes().to_vec()
        }),
        (">f4", |y| f32::from(y).to_be_bytes().to_vec()),
        ("<f8", |y| f64::from(y).to_le_bytes().to_vec()),
    ];
    for (kind, write) in kinds {
        let array = |shape: &str, values: &[u8]| {
            let body: Vec<u8> = values.iter().flat_map(|y| write(*y)).collect();
            numpy(kind, false, shape, &body)
        };
        let inputs = |rows: &[u8]| {
            let values = rows
                .iter()
                .flat_map(|i| [*i, 100 + *i])
                .collect::<Vec<u8>>();
            numpy("|u1", false, &format!("({}, 2)", rows.len()), &values)
        };
        let all: Vec<u8> = (0..12).collect();
        let dir = folder(&[
            ("x.npy", &inputs(&all)),
            ("y.npy", &array("(12,)", &before)),
        ]);
        let edits = [(0, None), (5, Some(3)), (11, None)];
        let got = edit(ARRAYS, dir.path(), &edits).unwrap();
        assert_eq!(only(&got), array("(10,)", &after), "{kind}");
        assert_eq!(got.inputs[0].content().unwrap(), inputs(&all[1..11]));
        // A label that changes leaves the inputs alone.
        let got = edit(ARRAYS, dir.path(), &[(5, Some(3))]).unwrap();
        assert_eq!(got.inputs[0].bytes, None);
        assert_eq!(only(&got).len(), array("(12,)", &before).len());
    }
}

#[test]
fn an_array_in_fortran_order_loses_a_row_in_each_column() {
    let columns = |rows: &[u8]| -> Vec<u8> {
        (0..3u8)
            .flat_map(|column| rows.iter().map(move |row| 10 * column + row))
            .collect()
    };
    let dir = folder(&[
        (
            "x.npy",
            &numpy("|u1", true, "(4, 3)", &columns(&[0, 1, 2, 3])),
        ),
        ("y.npy", &numpy("|u1", false, "(4,)", &[0, 1, 0, 1])),
    ]);
    let got = edit(ARRAYS, dir.path(), &[(2, None)]).unwrap();
    let expected = numpy("|u1", true, "(3, 3)", &columns(&[0, 1, 3]));
    assert_eq!(got.inputs[0].content().unwrap(), expected);
}

#[test]
fn a_class_that_the_type_cannot_hold_is_refused() {
    let names: Vec<String> = (0..300).map(|c| format!("'{c}'")).collect();
    let task = format!("{ARRAYS}\nclass_names = [{}]", names.join(", "));
    let dir = folder(&[
        ("x.npy", &numpy("|u1", false, "(4, 1)", &[1, 2, 3, 4])),
        ("y.npy", &numpy("|u1", false, "(4,)", &[0, 1, 0, 1])),
    ]);
    let said = edit(&task, dir.path(), &[(0, Some(299))]).unwrap_err();
    says(&said.to_string(), &["y.npy", "|u1", "299"]);
}

#[test]
fn mnists_files_are_edited() {
    let dir = little_mnist(20, 10);
    let task = "source = 'idx'\npick = 'first'\nclasses = [3, 1, 4]";
    // Rows 1, 3, 4, 11, 13, 14 of the file.
    let got = edit(task, dir.path(), &[(0, Some(0)), (1, None), (5, Some(1))]).unwrap();
    let mut labels: Vec<u8> = (0..20).map(|i| i % 10).collect();
    (labels[1], labels[14]) = (3, 1);
    labels.remove(3);
    assert_eq!(only(&got), idx(&[19], &labels));
    let images: Vec<u8> = (0..20u8)
        .filter(|i| *i != 3)
        .flat_map(|i| (0..6).map(move |p| i + p))
        .collect();
    assert_eq!(got.inputs[0].content().unwrap(), idx(&[19, 2, 3], &images));
    assert_eq!(got.others.len(), 2, "the test files don't change");
}

#[test]
fn records_are_edited_in_the_file_that_holds_them() {
    let record = |label: u8, value: u8| [vec![label], vec![value; 3072]].concat();
    let file = |from: u8| -> Vec<u8> { (0..3).flat_map(|i| record(i, from + i)).collect() };
    let dir = folder(&[("a.bin", &file(10)), ("b.bin", &file(20))]);
    let task = "source = 'cifar10'\ntrain_files = ['a.bin', 'b.bin']\npick = 'first'\ntest = 0";
    let got = edit(task, dir.path(), &[(1, Some(7)), (5, None)]).unwrap();
    let a = [record(0, 10), record(7, 11), record(2, 12)].concat();
    let b = [record(0, 20), record(1, 21)].concat();
    assert_eq!(got.labels[0].content().unwrap(), a);
    assert_eq!(got.labels[1].content().unwrap(), b);
}

#[test]
fn images_move_to_the_folder_of_their_class() {
    let png = |grey: u8| {
        let image = image::GrayImage::from_pixel(2, 2, image::Luma([grey]));
        let mut bytes = std::io::Cursor::new(Vec::new());
        image.write_to(&mut bytes, image::ImageFormat::Png).unwrap();
        bytes.into_inner()
    };
    let dir = folder(&[
        ("train/cat/1.png", &png(1)),
        ("train/cat/2.png", &png(2)),
        ("train/dog/big/1.png", &png(3)),
        ("train/dog/2.png", &png(4)),
        ("test/dog/2.png", &png(5)),
    ]);
    let task = "source = 'images'\ntrain_files = 'train'\ntest_files = 'test'\npick = 'first'";
    let data = open(task, dir.path()).unwrap();
    let index = |name: &str| {
        let found = |i: &u64| data.file(Split::Train, *i) == name;
        (0..data.len(Split::Train)).find(found).unwrap()
    };
    let edits = [
        (index("train/cat/2.png"), Some(1)),
        (index("train/dog/big/1.png"), Some(0)),
        (index("train/cat/1.png"), None),
    ];
    let got = edit(task, dir.path(), &edits).unwrap();
    let placed: Vec<(&str, &str, &str)> = got
        .images
        .iter()
        .map(|image| {
            let text = |path: &'_ Path| path.to_str().unwrap().to_owned().leak() as &str;
            (text(&image.name), text(&image.place), image.class.as_str())
        })
        .collect();
    assert_eq!(
        placed,
        [
            ("train/cat/2.png", "train/dog/cat-2.png", "dog"),
            ("train/dog/2.png", "train/dog/2.png", "dog"),
            ("train/dog/big/1.png", "train/cat/big/1.png", "cat"),
            ("test/dog/2.png", "test/dog/2.png", "dog"),
        ]
    );
}

#[test]
fn generated_examples_have_no_files() {
    let task = "source = 'digits'\ntrain = 10\nvalidation = 10\ntest = 10";
    let dir = tempfile::tempdir().unwrap();
    let said = edit(task, dir.path(), &[(0, None)])
        .unwrap_err()
        .to_string();
    says(&said, &["digits", "csv, npy, idx, cifar10 and images"]);
}

#[test]
fn content_is_packed_as_its_name_says() {
    use std::io::Read as _;
    let text = [b"x,y\n".to_vec(), b"1,2\n".repeat(50)].concat();
    assert_eq!(packed(Path::new("a.csv"), &text).unwrap(), text);
    let gz = packed(Path::new("a.csv.gz"), &text).unwrap();
    let mut back = Vec::new();
    let mut reader = flate2::read::GzDecoder::new(gz.as_slice());
    reader.read_to_end(&mut back).unwrap();
    assert_eq!(back, text);
    let dir = folder(&[("a.csv.xz", &packed(Path::new("a.csv.xz"), &text).unwrap())]);
    let task = "source = 'csv'\ntrain_files = 'a.csv'\nlabel = 'y'";
    assert_eq!(open(task, dir.path()).unwrap().len(Split::Train), 50);
}

proptest! {
    /// Whatever a table looks like: the cleaned one has the same rows with the same inputs, without the dropped ones, and the
    /// labels that were asked for.
    #[test]
    fn a_cleaned_table_loads_with_the_labels_that_were_asked_for(
        rows in proptest::collection::vec(("[ab ,;\"\n\r]{0,4}", 0..3usize, 0..5usize, 0..5usize), 4..12),
        comments in any::<bool>(),
    ) {
        let names = ["one", "t,wo", "\"three\""];
        let quoted = |text: &str| format!("\"{}\"", text.replace('"', "\"\""));
        let ends = ["\n", "\r\n", "\r", "\n\n", "\r\n\r\n"];
        let mut text = "n,note,kind\n".to_owned();
        for (i, (note, class, end, _)) in rows.iter().enumerate() {
            let comment = if comments && i % 3 == 1 { "#, \"\n" } else { "" };
            let name = if *class == 0 { names[0].to_owned() } else { quoted(names[*class]) };
            text.push_str(&format!("{comment}{i}, {} ,{name}{}", quoted(note), ends[*end]));
        }
        // All classes occur, whatever is drawn.
        for name in names {
            text.push_str(&format!("77,x,{}\n", quoted(name)));
        }
        let dir = folder(&[("a.csv", text.as_bytes())]);
        let task = "source = 'csv'\ntrain_files = 'a.csv'\nlabel = 'kind'\nignore = ['note']\npick = 'first'\ncomment = '#'";
        let class = |set: &dyn DataSet, index| set.class_names()[set.class(Split::Train, index).unwrap()].clone();
        let before = open(task, dir.path()).unwrap();
        let place = |name: &str| before.class_names().iter().position(|known| known == name).unwrap();
        let mut edits = Vec::new();
        let mut expected = Vec::new();
        for (index, (_, _, _, action)) in (0u64..).zip(&rows) {
            match action {
                0 => edits.push((index, None)),
                1..=2 => {
                    edits.push((index, Some(place(names[*action]))));
                    expected.push((index as f64, names[*action].to_owned()));
                }
                _ => expected.push((index as f64, class(before.as_ref(), index))),
            }
        }
        let got = only(&edit(task, dir.path(), &edits).unwrap());
        fs::write(dir.path().join("a.csv"), &got).unwrap();
        let after = open(task, dir.path()).unwrap();
        let indices: Vec<u64> = (0..after.len(Split::Train)).collect();
        let batch = after.batch(Split::Train, &indices, None, DType::F64, &Device::Cpu).unwrap();
        let inputs = batch.inputs.to_vec2::<f64>().unwrap();
        let found: Vec<(f64, String)> = indices.iter().zip(&inputs)
            .map(|(&i, row)| (row[0], class(after.as_ref(), i)))
            .collect();
        expected.extend(names.map(|name| (77.0, name.to_owned())));
        prop_assert_eq!(found, expected);
    }
}

//! The same examples from files of all formats.

use super::{folder, gzip, idx, little_mnist, open, refused, says};
use candle_core::{DType, Device, Tensor};
use hindcast_model::data::{DataSet, from_tensors};
use hindcast_model::objective::Split;
use std::collections::HashMap;

pub(super) fn npy(kind: &str, fortran: bool, shape: &str, body: &[u8]) -> Vec<u8> {
    let order = if fortran { "True" } else { "False" };
    let header = format!("{{'descr': '{kind}', 'fortran_order': {order}, 'shape': {shape}, }}\n");
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((header.len() as u16).to_le_bytes());
    bytes.extend(header.as_bytes());
    bytes.extend(body);
    bytes
}

pub(super) fn inputs(set: &dyn DataSet) -> Vec<Vec<f64>> {
    let indices: Vec<u64> = (0..set.len(Split::Train)).collect();
    let batch = set
        .batch(Split::Train, &indices, None, DType::F64, &Device::Cpu)
        .unwrap();
    batch.inputs.flatten_from(1).unwrap().to_vec2().unwrap()
}

/// Bytes 0 to 23 as four images of 2 × 3 pixels.
const PIXELS: [u8; 24] = [
    0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23,
];

#[test]
fn packed_and_plain_files_are_the_same_data() {
    let plain = little_mnist(20, 10);
    let one = open("source = 'idx'", plain.path()).unwrap();
    let packed = tempfile::tempdir().unwrap();
    std::fs::create_dir(packed.path().join("mnist")).unwrap();
    for entry in std::fs::read_dir(plain.path()).unwrap() {
        let path = entry.unwrap().path();
        let name = format!("mnist/{}.gz", path.file_name().unwrap().to_str().unwrap());
        std::fs::write(
            packed.path().join(name),
            gzip(&std::fs::read(path).unwrap()),
        )
        .unwrap();
    }
    // Files in a sub-folder are found, too.
    let two = open("source = 'idx'", packed.path()).unwrap();
    assert_eq!(one.fingerprint(), two.fingerprint());
    assert_eq!(one.fingerprint()[0].examples, 20);
}

#[test]
fn idx_npy_and_safetensors_agree_on_bytes() {
    let labels = [3u8, 0, 1, 2];
    // 'F': the first axis varies fastest.
    let mut fortran = Vec::new();
    for x in 0..3 {
        for y in 0..2 {
            fortran.extend((0..4).map(|n| PIXELS[n * 6 + y * 3 + x]));
        }
    }
    let wide: Vec<u8> = labels
        .iter()
        .flat_map(|l| i64::from(*l).to_be_bytes())
        .collect();
    let tensors = HashMap::from([
        (
            "inputs",
            Tensor::from_slice(&PIXELS, (4, 2, 3), &Device::Cpu).unwrap(),
        ),
        (
            "targets",
            Tensor::from_slice(&labels.map(i64::from), 4, &Device::Cpu).unwrap(),
        ),
    ]);
    let dir = folder(&[
        ("x.idx", &idx(&[4, 2, 3], &PIXELS)),
        ("y.idx", &idx(&[4], &labels)),
        ("x.npy", &npy("|u1", false, "(4, 2, 3)", &PIXELS)),
        ("f.npy", &npy("|u1", true, "(4, 2, 3)", &fortran)),
        ("y.npy", &npy(">i8", false, "(4,)", &wide)),
    ]);
    candle_core::safetensors::save(&tensors, dir.path().join("all.safetensors")).unwrap();
    let sets = [
        "source = 'idx'\ntrain_files = { inputs = 'x.idx', labels = 'y.idx' }",
        "source = 'npy'\ntrain_files = { inputs = 'x.npy', labels = 'y.npy' }",
        "source = 'npy'\ntrain_files = { inputs = 'f.npy', labels = 'y.npy' }",
        "source = 'safetensors'\ntrain_files = 'all.safetensors'\nlabels = 'targets'",
    ]
    .map(|text| open(text, dir.path()).unwrap());
    for set in &sets {
        assert_eq!(set.shape(), [1, 2, 3]);
        assert_eq!(set.fingerprint(), sets[0].fingerprint());
        assert_eq!(
            (0..4)
                .map(|i| set.class(Split::Train, i).unwrap())
                .collect::<Vec<_>>(),
            [3, 0, 1, 2]
        );
        assert_eq!(inputs(&**set), inputs(&*sets[0]));
    }
}

#[test]
fn floats_keep_their_type_and_are_not_divided() {
    let f32s: Vec<u8> = [0.5f32, -1.0, 2.0, 4.0]
        .iter()
        .flat_map(|x| x.to_le_bytes())
        .collect();
    let f64s: Vec<u8> = [0.1f64, 0.2].iter().flat_map(|x| x.to_le_bytes()).collect();
    let be: Vec<u8> = [0.5f32, -1.0, 2.0, 4.0]
        .iter()
        .flat_map(|x| x.to_be_bytes())
        .collect();
    let mut idx_floats = vec![0, 0, 0x0d, 2, 0, 0, 0, 2, 0, 0, 0, 2];
    idx_floats.extend(&be);
    let dir = folder(&[
        ("x.npy", &npy("<f4", false, "(2, 2)", &f32s)),
        ("y.npy", &npy("<f8", false, "(2,)", &f64s)),
        ("x.idx", &idx_floats),
        ("y.idx", &idx(&[2], &[1, 0])),
    ]);
    let set = open(
        "source = 'npy'\ntrain_files = { inputs = 'x.npy', labels = 'y.npy' }",
        dir.path(),
    )
    .unwrap();
    assert_eq!(inputs(&*set), [[0.5, -1.0], [2.0, 4.0]]);
    // Float labels are regression targets.
    let batch = set
        .batch(Split::Train, &[1], None, DType::F64, &Device::Cpu)
        .unwrap();
    assert_eq!(batch.targets.to_vec2::<f64>().unwrap(), [[0.2]]);
    assert_eq!(set.class_count(), None);
    assert_eq!(set.label(Split::Train, 0), "0.1");
    let set = open(
        "source = 'idx'\ntrain_files = { inputs = 'x.idx', labels = 'y.idx' }",
        dir.path(),
    )
    .unwrap();
    assert_eq!(inputs(&*set), [[0.5, -1.0], [2.0, 4.0]]);
}

#[test]
fn channels_last_become_channels_first() {
    let dir = folder(&[
        ("x.npy", &npy("|u1", false, "(2, 2, 2, 3)", &PIXELS)),
        ("y.npy", &npy("|u1", false, "(2,)", &[0, 1])),
    ]);
    let text = "source = 'npy'\ntrain_files = { inputs = 'x.npy', labels = 'y.npy' }\nlayout = 'nhwc'\ndivide_by = 1\nmean = [0, 1, 2]";
    let set = open(text, dir.path()).unwrap();
    assert_eq!(set.shape(), [3, 2, 2]);
    assert_eq!(
        inputs(&*set)[0],
        [0.0, 3.0, 6.0, 9.0, 0.0, 3.0, 6.0, 9.0, 0.0, 3.0, 6.0, 9.0]
    );
    // An image has the colours of a pixel next to each other.
    assert_eq!(set.image(Split::Train, 1).unwrap().pixels, &PIXELS[12..]);
}

#[test]
fn cifar10_records_are_counted_through_the_files() {
    let record = |label: u8, fill: u8| -> Vec<u8> { [vec![label], vec![fill; 3072]].concat() };
    let dir = folder(&[
        ("a.bin", &[record(3, 10), record(9, 11)].concat()),
        ("b.bin.gz", &gzip(&record(0, 12))),
        ("t.bin", &record(1, 13)),
    ]);
    let set = open(
        "source = 'cifar10'\ntrain_files = ['a.bin', 'b.bin']\ntest_files = 't.bin'",
        dir.path(),
    )
    .unwrap();
    assert_eq!(set.shape(), [3, 32, 32]);
    assert_eq!(set.label(Split::Train, 0), "cat");
    assert_eq!(set.origin(Split::Train, 2), 2);
    assert_eq!(
        set.origin_file(Split::Train, 2),
        Some(("b.bin.gz".to_string(), 0))
    );
    assert_eq!(set.label(Split::Test, 0), "automobile");
    let kept = open(
        "source = 'cifar10'\ntrain_files = ['a.bin', 'b.bin']\nclasses = ['truck', 3]",
        dir.path(),
    )
    .unwrap();
    assert_eq!(
        [0, 1].map(|i| kept.label(Split::Train, i)),
        ["cat", "truck"]
    );
    assert_eq!(
        [0, 1].map(|i| kept.class(Split::Train, i)),
        [Some(1), Some(0)]
    );
}

fn xz(bytes: &[u8]) -> Vec<u8> {
    let mut packed = Vec::new();
    std::io::Read::read_to_end(&mut liblzma::read::XzEncoder::new(bytes, 6), &mut packed).unwrap();
    packed
}

#[test]
fn xz_files_are_read_and_truncated_ones_refused() {
    let record = [vec![4], vec![7; 3072]].concat();
    let text = "source = 'cifar10'\ntrain_files = 'a.bin'";
    let packed = xz(&record);
    let set = open(text, folder(&[("a.bin.xz", &packed)]).path()).unwrap();
    assert_eq!(set.label(Split::Train, 0), "deer");
    let cut = folder(&[("a.bin.xz", &packed[..packed.len() - 20])]);
    says(
        &refused(text, cut.path()),
        &["a.bin.xz", "cannot be decompressed"],
    );
}

#[test]
fn validation_can_have_its_own_files() {
    let csv = |n: i32| -> String {
        std::iter::once("x,y\n".into())
            .chain((0..n).map(|i| format!("{i},{}\n", i % 2)))
            .collect()
    };
    let dir = folder(&[("a.csv", csv(9).as_bytes()), ("b.csv", csv(5).as_bytes())]);
    let text = "source = 'csv'\ntrain_files = 'a.csv'\nvalidation_files = 'b.csv'\nlabel = 'y'\nvalidation = 3";
    let set = open(text, dir.path()).unwrap();
    assert_eq!(
        [Split::Train, Split::Validation, Split::Test].map(|s| set.len(s)),
        [9, 3, 0]
    );
    assert!((0..3).all(|i| set.origin_file(Split::Validation, i).unwrap().0 == "b.csv"));
    assert!((0..3).all(|i| set.origin(Split::Validation, i) < 5));
    says(
        &refused(&text.replace("= 3", "= 6"), dir.path()),
        &["data.validation", "6", "only 5 in the validation files"],
    );
}

#[test]
fn a_programs_own_tensors_are_a_data_set_too() {
    let inputs = Tensor::from_slice(&PIXELS, (4, 1, 2, 3), &Device::Cpu).unwrap();
    let labels = Tensor::from_slice(&[3u32, 0, 1, 2], 4, &Device::Cpu).unwrap();
    let set = from_tensors(
        (&inputs, &labels),
        Some((&inputs, &labels)),
        None,
        &["a", "b", "c", "d"],
        None,
    )
    .unwrap();
    assert_eq!(set.label(Split::Train, 0), "d");
    assert_eq!(set.len(Split::Validation), 4);
    assert_eq!(self::inputs(&*set)[1], [6.0, 7.0, 8.0, 9.0, 10.0, 11.0]);
    let files = folder(&[
        ("x", &idx(&[4, 2, 3], &PIXELS)),
        ("y", &idx(&[4], &[3, 0, 1, 2])),
    ]);
    let read = open(
        "source = 'idx'\ntrain_files = { inputs = 'x', labels = 'y' }",
        files.path(),
    )
    .unwrap();
    assert_eq!(read.fingerprint()[0], set.fingerprint()[0]);
    read.compare(&set.fingerprint()[..1]).unwrap();
    let error = read.compare(&set.fingerprint()).unwrap_err().to_string();
    says(
        &error,
        &[
            "validation split",
            "4 examples were recorded, the data has 0",
        ],
    );
    let mut other = set.fingerprint();
    other[0].root[0] ^= 1;
    says(
        &set.compare(&other).unwrap_err().to_string(),
        &["train split", "an example or its label differs"],
    );
    let short = Tensor::from_slice(&[3u32, 0], 2, &Device::Cpu).unwrap();
    assert!(from_tensors((&inputs, &short), None, None, &[], None).is_err());
    assert!(from_tensors((&inputs, &labels), None, None, &["a", "b"], None).is_err());
}

#[test]
fn transposed_images_are_turned_and_classes_named_by_a_file() {
    // As EMNIST stores them: an image of 3 rows of 2 pixels, column by column.
    let images = idx(&[2, 2, 3], &[1, 3, 5, 2, 4, 6, 11, 13, 15, 12, 14, 16]);
    let dir = folder(&[
        ("x", &images),
        ("y", &idx(&[2], &[1, 0])),
        ("names.txt", b"no\n yes \r\n\n"),
        ("empty.txt", b"\n"),
        ("flat", &idx(&[2, 3], &[1, 2, 3, 4, 5, 6])),
    ]);
    let text = "source = 'idx'\ntrain_files = { inputs = 'x', labels = 'y' }";
    let turned = format!("{text}\ntranspose = true\nclass_names_file = 'names.txt'");
    let set = open(&turned, dir.path()).unwrap();
    assert_eq!(set.shape(), [1, 3, 2]);
    let pixels = |i| set.image(Split::Train, i).unwrap().pixels;
    assert_eq!(pixels(0), [1, 2, 3, 4, 5, 6]);
    assert_eq!(pixels(1), [11, 12, 13, 14, 15, 16]);
    assert_eq!(set.class_names(), ["no", "yes"]);
    assert_eq!(set.label(Split::Train, 0), "yes");
    assert_eq!(open(text, dir.path()).unwrap().shape(), [1, 2, 3]);
    says(
        &refused(&turned.replace("'x'", "'flat'"), dir.path()),
        &["flat", "transpose", "[3]"],
    );
    says(
        &refused(&turned.replace("names.txt", "empty.txt"), dir.path()),
        &["empty.txt", "name of a class per line"],
    );
    says(
        &refused(&format!("{turned}\nclass_names = ['a', 'b']"), dir.path()),
        &["data.class_names_file", "class_names"],
    );
}

//! Errors for broken files and invalid tables.

use super::{folder, gzip, idx, little_mnist, open, refused, says, spec};
use hindcast_model::data::{DataError, DataSpec, load};

const PAIR: &str = "source = 'idx'\ntrain_files = { inputs = 'x', labels = 'y' }";

#[test]
fn a_missing_file_is_named_with_every_name_that_was_tried() {
    let dir = folder(&[]);
    let message = refused("source = 'idx'", dir.path());
    let folder_name = dir.path().display().to_string();
    says(
        &message,
        &[
            &folder_name,
            "train-images-idx3-ubyte,",
            "train-images-idx3-ubyte.gz",
            "train-images.idx3-ubyte",
            "mnist/",
        ],
    );
    says(
        &refused("source = 'cifar10'", dir.path()),
        &[
            "data_batch_1.bin",
            "cifar-10-batches-bin/data_batch_1.bin.xz",
        ],
    );
    says(
        &refused("source = 'idx'", &dir.path().join("nowhere")),
        &["There is no folder"],
    );
    let none = load(&spec("source = 'idx'"), None, None, 0).err().unwrap();
    says(&none.to_string(), &["idx", "--data DIR"]);
}

#[test]
fn test_files_are_required_only_if_they_are_used() {
    let dir = little_mnist(20, 10);
    std::fs::remove_file(dir.path().join("t10k-images-idx3-ubyte")).unwrap();
    says(
        &refused("source = 'idx'", dir.path()),
        &["t10k-images-idx3-ubyte"],
    );
    assert!(open("source = 'idx'\ntest = 0", dir.path()).is_ok());
    assert!(open("source = 'idx'\npool = 'train'\ntest = 3", dir.path()).is_ok());
}

/// Each prefix of a valid file is refused, plain and compressed, and so is a file with an extra byte.
#[test]
fn every_prefix_of_an_idx_file_is_refused() {
    let whole = idx(&[3, 2], &[1, 2, 3, 4, 5, 6]);
    let labels = idx(&[3], &[0, 1, 2]);
    assert!(open(PAIR, folder(&[("x", &whole), ("y", &labels)]).path()).is_ok());
    for n in 0..whole.len() {
        let message = refused(PAIR, folder(&[("x", &whole[..n]), ("y", &labels)]).path());
        says(&message, &["truncated"]);
        let packed = gzip(&whole[..n]);
        says(
            &refused(PAIR, folder(&[("x.gz", &packed), ("y", &labels)]).path()),
            &["truncated"],
        );
    }
    let longer = [whole.clone(), vec![0]].concat();
    says(
        &refused(PAIR, folder(&[("x", &longer), ("y", &labels)]).path()),
        &["bytes after its end"],
    );
    let packed = gzip(&whole);
    let cut = &packed[..packed.len() - 6];
    says(
        &refused(PAIR, folder(&[("x.gz", cut), ("y", &labels)]).path()),
        &["cannot be decompressed"],
    );
}

#[test]
fn wrong_sizes_in_idx_headers_are_refused() {
    let labels = idx(&[3], &[0, 1, 2]);
    // 2^96 elements, and 2^32 elements of which the file has three.
    let huge = idx(&[u32::MAX, u32::MAX, u32::MAX], &[1, 2, 3]);
    says(
        &refused(PAIR, folder(&[("x", &huge), ("y", &labels)]).path()),
        &["more than any file can hold"],
    );
    let large = idx(&[u32::MAX, 1], &[1, 2, 3]);
    says(
        &refused(PAIR, folder(&[("x", &large), ("y", &labels)]).path()),
        &["truncated", "4294967295", "3"],
    );
    let png = b"\x89PNG\r\n\x1a\n".to_vec();
    says(
        &refused(PAIR, folder(&[("x", &png), ("y", &labels)]).path()),
        &["89 50 4e 47", "not an IDX file"],
    );
    says(
        &refused(
            PAIR,
            folder(&[("x", &idx(&[0, 4], &[])), ("y", &idx(&[0], &[]))]).path(),
        ),
        &["data.train", "only 0"],
    );
    says(
        &refused(
            PAIR,
            folder(&[("x", &idx(&[3, 0], &[])), ("y", &labels)]).path(),
        ),
        &["has no values"],
    );
    let two = refused(
        PAIR,
        folder(&[("x", &idx(&[2, 1], &[1, 2])), ("y", &labels)]).path(),
    );
    says(&two, &["2 rows", "3 labels", "not a pair"]);
}

#[test]
fn wrong_npy_headers_are_refused() {
    let text = "source = 'npy'\ntrain_files = { inputs = 'x', labels = 'x' }";
    let npy = |header: &str, body: &[u8]| -> Vec<u8> {
        [
            b"\x93NUMPY\x01\x00",
            (header.len() as u16).to_le_bytes().as_slice(),
            header.as_bytes(),
            body,
        ]
        .concat()
    };
    let of = |shape: &str, kind: &str| {
        format!("{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}\n")
    };
    let good = npy(&of("(3,)", "|u1"), &[0, 1, 2]);
    assert!(open(text, folder(&[("x", &good)]).path()).is_ok());
    for n in 0..good.len() {
        refused(text, folder(&[("x", &good[..n])]).path());
    }
    for (bytes, pieces) in [
        (
            npy(&of("(4294967296, 4294967296, 4294967296)", "|u1"), &[0]),
            &["more elements than any file"][..],
        ),
        (
            npy(&of("(1000000000000,)", "<f8"), &[0; 8]),
            &["truncated", "8000000000000"],
        ),
        (
            npy(&of("(3,)", "|S5"), &[0; 15]),
            &["expected booleans, integers", "only an array of labels"],
        ),
        (
            npy(&of("(1,)", "<U1"), &[0; 4]),
            &["expected booleans, integers", "only an array of labels"],
        ),
        (
            npy(&of("(1,)", "|O"), &[0; 4]),
            &["expected booleans, integers", "allow_pickle"],
        ),
        (
            npy(&of("(1,)", "<M8[D]"), &[0; 8]),
            &["expected booleans, integers", "timedelta64"],
        ),
        (
            npy(&of("(3,)", "<c16"), &[0; 48]),
            &["expected booleans, integers"],
        ),
        (
            npy(&of("(99999999999999999999999999,)", "|u1"), &[0]),
            &["more elements than any file"],
        ),
        (npy("not python", &[0]), &[".npy array can't be read"]),
        (
            b"\x93NUMPY\x02\x00\xff\xff\xff\xff{".to_vec(),
            &["truncated", "header"],
        ),
        (b"PK\x03\x04 an npz".to_vec(), &["50 4b 03 04"]),
    ] {
        says(&refused(text, folder(&[("x", &bytes)]).path()), pieces);
    }
}

#[test]
fn files_of_labels_of_two_types_are_named_with_the_remedy() {
    let npy = |kind: &str, body: &[u8]| {
        let header = format!("{{'descr': '{kind}', 'fortran_order': False, 'shape': (1,), }}\n");
        let length = (header.len() as u16).to_le_bytes();
        [
            b"\x93NUMPY\x01\x00",
            length.as_slice(),
            header.as_bytes(),
            body,
        ]
        .concat()
    };
    let dir = folder(&[
        ("x", &npy("|u1", &[1])),
        ("y", &npy("<f4", &1f32.to_le_bytes())),
        ("v", &npy("|u1", &[1])),
    ]);
    let text = "source = 'npy'\ntrain_files = { inputs = 'x', labels = 'y' }\n\
        validation_files = { inputs = 'x', labels = 'v' }";
    says(
        &refused(text, dir.path()),
        &["/v: ", "/y are floats", "target = \"class\""],
    );
    for target in ["class", "value"] {
        let text = format!("{text}\ntarget = '{target}'");
        assert!(open(&text, dir.path()).is_ok(), "{target}");
    }
}

#[test]
fn broken_safetensors_and_cifar_files_are_refused() {
    let text = "source = 'safetensors'\ntrain_files = 'x'";
    let header = br#"{"inputs":{"dtype":"U8","shape":[2,2],"data_offsets":[0,4]}}"#;
    let file = [
        &(header.len() as u64).to_le_bytes()[..],
        header,
        &[1, 2, 3, 4],
    ]
    .concat();
    says(
        &refused(text, folder(&[("x", &file)]).path()),
        &["no tensor \"labels\"", "it has inputs", "data.labels"],
    );
    for n in 0..file.len() {
        says(
            &refused(text, folder(&[("x", &file[..n])]).path()),
            &["safetensors file can't be read"],
        );
    }
    let hostile = [&u64::MAX.to_le_bytes()[..], header].concat();
    says(
        &refused(text, folder(&[("x", &hostile)]).path()),
        &["safetensors file can't be read"],
    );
    let cifar = "source = 'cifar10'\ntrain_files = 'x'";
    says(
        &refused(cifar, folder(&[("x", &[0; 3072])]).path()),
        &["record 0", "3073", "3072"],
    );
    says(&refused(cifar, folder(&[("x", &[])]).path()), &["record 0"]);
    says(
        &refused(cifar, folder(&[("x", &[10; 3073])]).path()),
        &["row 0", "label 10", "0 to 9"],
    );
}

#[test]
fn classes_out_of_range_are_refused() {
    let files =
        |labels: &[u8]| folder(&[("x", &idx(&[3, 1], &[1, 2, 3])), ("y", &idx(&[3], labels))]);
    let message = refused(
        &format!("{PAIR}\nclass_names = ['a', 'b']"),
        files(&[0, 1, 2]).path(),
    );
    says(&message, &["row 2", "label 2", "0 to 1 (a, b)"]);
    says(
        &refused(
            &format!("{PAIR}\nclasses = [1, 5]"),
            files(&[0, 1, 2]).path(),
        ),
        &["no class \"5\"", "0, 1, 2"],
    );
    says(
        &refused(
            &format!("{PAIR}\nclasses = [1, 1]"),
            files(&[0, 1, 2]).path(),
        ),
        &["named twice"],
    );
    says(
        &refused(&format!("{PAIR}\nflipped = 0.5"), files(&[0, 0, 0]).path()),
        &["data.flipped", "two classes"],
    );
    says(
        &refused(&format!("{PAIR}\nmean = [1, 2]"), files(&[0, 0, 0]).path()),
        &["data.mean", "got 2"],
    );
}

#[test]
fn keys_that_do_not_belong_are_named() {
    let dir = folder(&[]);
    for (text, pieces) in [
        (
            "source = 'digits'\nskip = 3",
            &["data.skip", "not of \"digits\""][..],
        ),
        ("source = 'idx'\nlabel = 'y'", &["data.label", "csv"]),
        ("source = 'csv'\ntrain_files = 'a.csv'", &["data.label"]),
        ("source = 'npy'", &["data.train_files"]),
        ("source = 'npy'\ntrain_files = 'a.npy'", &["inputs = "]),
        (
            "source = 'cifar10'\ntrain_files = { inputs = 'a', labels = 'b' }",
            &["same file"],
        ),
        (
            "source = 'csv'\ntrain_files = '../a.csv'\nlabel = 'y'",
            &["inside the data folder"],
        ),
        (
            "source = 'csv'\ntrain_files = '/etc/passwd'\nlabel = 'y'",
            &["inside the data folder"],
        ),
        (
            "source = 'csv'\ntrain_files = []\nlabel = 'y'",
            &["at least one file"],
        ),
        ("source = 'digits'\ntrain = 0", &["data.train"]),
        (
            "source = 'digits'\ntrain = 4000000000",
            &["data.train", "at most"],
        ),
        (
            "source = 'digits'\nflipped = 1.5",
            &["data.flipped", "[0, 1]"],
        ),
        ("source = 'digits'\nsd = [0.0]", &["data.sd"]),
        ("source = 'digits'\ndivide_by = 0", &["data.divide_by"]),
    ] {
        says(&refused(text, dir.path()), pieces);
    }
    for (text, piece) in [
        ("source = 'digits'\ntrian = 3", "trian"),
        ("source = 'digit'", "digits"),
        ("source = 'csv'\ntrain_files = 3", "file name"),
        ("source = 'idx'\nclasses = [1.5]", "number or name"),
    ] {
        says(
            &toml::from_str::<DataSpec>(text).unwrap_err().to_string(),
            &[piece],
        );
    }
}

#[test]
fn a_data_table_round_trips_through_toml() {
    let text = "source = 'idx'\ntrain_files = { inputs = 'x', labels = 'y' }\nclasses = [1, 'seven']\nskip = 5\npool = 'train'\nmean = [0.5]\nstandardise = true";
    let table = spec(text);
    assert_eq!(
        toml::from_str::<DataSpec>(&toml::to_string(&table).unwrap()).unwrap(),
        table
    );
    assert!(!toml::to_string(&table).unwrap().contains("categorical"));
}

/// A reader that panics, loops or allocates memory by a size in the header would fail this test.
#[test]
fn any_changed_byte_is_read_or_refused() {
    let header = br#"{"inputs":{"dtype":"U8","shape":[2,2],"data_offsets":[0,4]},"labels":{"dtype":"U8","shape":[2],"data_offsets":[4,6]}}"#;
    let tensors = [
        &(header.len() as u64).to_le_bytes()[..],
        header,
        &[1, 2, 3, 4, 0, 1],
    ]
    .concat();
    let array = b"{'descr': '<f4', 'fortran_order': True, 'shape': (2, 2), }\n";
    let npy = [
        &b"\x93NUMPY\x01\x00"[..],
        &[array.len() as u8, 0],
        &array[..],
        &[0; 16],
    ]
    .concat();
    let x = idx(&[2, 1, 1, 1], &[1, 2]);
    let packed = gzip(&x);
    let csv = b"x,y,z\n1,a,\"b\"\n2.5e1,c,d\n".to_vec();
    let y = idx(&[2], &[0, 1]);
    let pair = |source: &str| {
        format!(
            "source = '{source}'\ntrain_files = {{ inputs = 'x', labels = 'y' }}\nstandardise = true"
        )
    };
    for (text, name, bytes) in [
        (pair("idx"), "x", x),
        (pair("idx"), "x.gz", packed),
        (
            pair("idx")
                .replace("'x'", "'z'")
                .replace("'y'", "'x'")
                .replace("'z'", "'y'"),
            "x",
            y.clone(),
        ),
        (pair("npy").replace("'y'", "'x'"), "x", npy),
        (
            "source = 'safetensors'\ntrain_files = 'x'".into(),
            "x",
            tensors,
        ),
        (
            "source = 'csv'\ntrain_files = 'x'\nlabel = 'y'\ncategorical = ['z']".into(),
            "x",
            csv,
        ),
    ] {
        let dir = folder(&[(name, &bytes), ("y", &y)]);
        let path = dir.path().join(name);
        let mut refusals = 0;
        for at in 0..bytes.len() {
            for flip in [0x01, 0x10, 0x80, 0xff] {
                let mut changed = bytes.clone();
                changed[at] ^= flip;
                std::fs::write(&path, &changed).unwrap();
                refusals += u32::from(open(&text, dir.path()).is_err());
            }
        }
        assert!(refusals > 0, "{text}");
    }
}

/// Errors can be sent between threads and converted by `?`.
#[test]
fn errors_are_ordinary_errors() {
    fn takes<E: std::error::Error + Send + Sync + 'static>() {}
    takes::<DataError>();
}

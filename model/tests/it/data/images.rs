//! Folders of images.

use super::{folder, open, refused, says};
use candle_core::{DType, Device};
use hindcast_model::data::DataSet;
use hindcast_model::objective::Split;
use image::{DynamicImage, GrayImage, ImageFormat, Luma, Rgb, RgbImage, Rgba, RgbaImage};
use std::io::Cursor;
use tempfile::TempDir;

fn file(image: impl Into<DynamicImage>, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    image.into().write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

fn png(image: impl Into<DynamicImage>) -> Vec<u8> {
    file(image, ImageFormat::Png)
}

/// A square of one colour.
fn plain(side: u32, colour: [u8; 3]) -> RgbImage {
    RgbImage::from_pixel(side, side, Rgb(colour))
}

/// Two cats and a dog to train on, and a dog to test.
fn pets() -> TempDir {
    folder(&[
        ("pets/train/cat/2.png", &png(plain(2, [9, 8, 7]))),
        ("pets/train/cat/10.png", &png(plain(2, [1, 2, 3]))),
        ("pets/train/dog/big/a.PNG", &png(plain(2, [250, 0, 0]))),
        ("pets/train/.hidden/x.png", b"not an image"),
        ("pets/train/cat/notes.txt", b"not an image"),
        ("pets/test/dog/t.png", &png(plain(2, [0, 0, 1]))),
    ])
}

const PETS: &str = "source = 'images'\ntrain_files = 'pets/train'\ntest_files = 'pets/test'";

fn raw(set: &dyn DataSet, split: Split, index: u64) -> Vec<u8> {
    set.image(split, index).unwrap().pixels
}

#[test]
fn a_folder_is_a_class_and_files_are_in_the_order_of_their_paths() {
    let dir = pets();
    let set = open(PETS, dir.path()).unwrap();
    assert_eq!(set.class_names(), ["cat", "dog"]);
    assert_eq!(set.shape(), [3, 2, 2]);
    let files: Vec<_> = (0..3)
        .map(|i| set.origin_file(Split::Train, i).unwrap())
        .collect();
    let expected = [
        "pets/train/cat/10.png",
        "pets/train/cat/2.png",
        "pets/train/dog/big/a.PNG",
    ];
    assert_eq!(files, expected.map(|name| (name.to_owned(), 0)));
    assert_eq!([0, 1, 2].map(|i| set.origin(Split::Train, i)), [0, 1, 2]);
    assert_eq!(
        [0, 1, 2].map(|i| set.label(Split::Train, i)),
        ["cat", "cat", "dog"]
    );
    assert_eq!(raw(&*set, Split::Train, 0), [1, 2, 3].repeat(4));
    assert_eq!(set.label(Split::Test, 0), "dog");
    // Inputs are planes of red, green and blue between 0 and 1.
    let batch = set
        .batch(Split::Train, &[1], None, DType::F64, &Device::Cpu)
        .unwrap();
    let input: Vec<f64> = batch.inputs.flatten_all().unwrap().to_vec1().unwrap();
    let expected: Vec<f64> = [9.0, 8.0, 7.0]
        .iter()
        .flat_map(|v| [v / 255.0; 4])
        .collect();
    assert_eq!(input, expected);
    says(
        &set.describe(),
        &["not read", "pets/train/cat/notes.txt", "read from "],
    );
    assert!(!set.describe().contains(".hidden"));
}

#[test]
fn the_folder_can_be_the_data_folder_and_splits_are_drawn_from_it() {
    let dir = pets();
    let text = "source = 'images'\ntrain_files = '.'\nvalidation = 1\nclasses = ['dog']";
    let few = refused(text, &dir.path().join("pets/train"));
    says(&few, &["data.train", "only 1"]);
    let text = "source = 'images'\ntrain_files = '.'\nvalidation = 1";
    let set = open(text, &dir.path().join("pets/train")).unwrap();
    assert_eq!((set.len(Split::Train), set.len(Split::Validation)), (2, 1));
    let name = set.file(Split::Train, 0);
    assert!(
        name.starts_with("cat/") || name.starts_with("dog/"),
        "{name}"
    );
}

#[test]
fn classes_that_are_numbers_are_sorted_by_value_or_ordered_by_the_task() {
    let grey = png(GrayImage::from_pixel(1, 1, Luma([3])));
    let dir = folder(&[("10/a.png", &grey), ("9/a.png", &grey)]);
    let text = "source = 'images'\ntrain_files = '.'\nimages = { channels = 1 }";
    let set = open(text, dir.path()).unwrap();
    assert_eq!(set.class_names(), ["9", "10"]);
    assert_eq!(set.shape(), [1, 1, 1]);
    assert_eq!(set.label(Split::Train, 0), "10");
    let named = open(
        &format!("{text}\nclass_names = ['10', '9', '8']"),
        dir.path(),
    )
    .unwrap();
    assert_eq!(named.class(Split::Train, 0), Some(0));
    says(
        &refused(&format!("{text}\nclass_names = ['10']"), dir.path()),
        &["data.class_names", "\"9\""],
    );
}

#[test]
fn images_are_resized_as_the_task_says() {
    // Left half black, right half white, twice as wide as high.
    let wide = GrayImage::from_fn(4, 2, |x, _| Luma([if x < 2 { 0 } else { 255 }]));
    let dir = folder(&[
        ("c/a.png", &png(wide)),
        ("c/b.png", &png(plain(7, [40, 50, 60]))),
    ]);
    let text = "source = 'images'\ntrain_files = '.'";
    let sizes = refused(text, dir.path());
    says(
        &sizes,
        &["b.png", "7 × 7", "2 × 4", "size = [height, width]"],
    );
    let small = open(
        &format!("{text}\nimages = {{ size = 2, channels = 1 }}"),
        dir.path(),
    )
    .unwrap();
    // A triangle filter of radius 2 around 1.0: weights 0.75, 0.75, 0.25 for the pixels at 0.5, 1.5 and 2.5.
    let dark = (255.0f64 * 0.25 / 1.75).round() as u8;
    assert_eq!(
        raw(&*small, Split::Train, 0),
        [dark, 255 - dark, dark, 255 - dark]
    );
    let colour = open(&format!("{text}\nimages = {{ size = [3, 5] }}"), dir.path()).unwrap();
    assert_eq!(colour.shape(), [3, 3, 5]);
    assert_eq!(raw(&*colour, Split::Train, 1), [40, 50, 60].repeat(15));
    // Cropped, only the middle remains: columns 1 and 2.
    let crop = format!("{text}\nimages = {{ size = 2, channels = 1, fit = 'crop' }}");
    let crop = open(&crop, dir.path()).unwrap();
    assert_eq!(raw(&*crop, Split::Train, 0), [0, 255, 0, 255]);
}

#[test]
fn photographs_are_turned_upright_and_transparency_is_white() {
    let jpeg = file(plain(16, [200, 100, 50]), ImageFormat::Jpeg);
    let mut tall = RgbImage::from_pixel(8, 16, Rgb([0, 0, 0]));
    for y in 0..8 {
        (0..8).for_each(|x| tall.put_pixel(x, y, Rgb([255, 255, 255])));
    }
    // An Exif tag that says: turn by 90° clockwise.
    let exif = b"\xff\xe1\x00\x22Exif\0\0MM\0\x2a\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0";
    let mut turned = file(tall, ImageFormat::Jpeg);
    turned.splice(2..2, exif.iter().copied());
    let clear = RgbaImage::from_fn(1, 1, |_, _| Rgba([0, 0, 0, 102]));
    let dir = folder(&[
        ("c/a.jpg", &jpeg),
        ("c/b.jpeg", &turned),
        ("c/c.png", &png(clear)),
    ]);
    let text = "source = 'images'\ntrain_files = '.'\nimages = { size = [8, 16] }";
    let set = open(text, dir.path()).unwrap();
    let near = |got: &[u8], expected: [u8; 3]| {
        let close = got.iter().zip(expected).all(|(a, b)| a.abs_diff(b) <= 6);
        assert!(close, "{got:?} {expected:?}");
    };
    near(&raw(&*set, Split::Train, 0)[..3], [200, 100, 50]);
    // The top of the file is now on the right.
    let upright = raw(&*set, Split::Train, 1);
    near(&upright[..3], [0, 0, 0]);
    near(&upright[upright.len() - 3..], [255, 255, 255]);
    // 40 % black over white.
    near(&raw(&*set, Split::Train, 2)[..3], [153, 153, 153]);
}

#[test]
fn what_is_no_folder_of_images_is_named() {
    let dir = pets();
    let read = |text: &str| refused(&format!("source = 'images'\n{text}"), dir.path());
    says(
        &read(""),
        &[
            "data.train_files",
            "one folder of training images per class",
        ],
    );
    says(&read("train_files = 'cats'"), &["cats", "no such folder"]);
    says(
        &read("train_files = 'pets/train/cat/2.png'"),
        &["It is a file"],
    );
    says(
        &read("train_files = 'pets/train/cat'"),
        &["10.png", "2 lie directly", "CLASS/10.png"],
    );
    says(
        &read("train_files = 'pets/train'\nimages = { channels = 4 }"),
        &["data.images.channels", "got 4"],
    );
    says(
        &read("train_files = 'pets/train'\nimages = { size = 0 }"),
        &["data.images.size", "got 0"],
    );
    says(
        &refused(
            "source = 'csv'\nimages = { size = 3 }\ntrain_files = 'x'",
            dir.path(),
        ),
        &["data.images", "images"],
    );
    std::fs::create_dir(dir.path().join("empty")).unwrap();
    std::fs::create_dir(dir.path().join("empty/cat")).unwrap();
    says(&read("train_files = 'empty'"), &["no .png or .jpeg", "cat"]);
    let path = dir.path().join("pets/train/cat/3.png");
    let whole = std::fs::read(dir.path().join("pets/train/cat/2.png")).unwrap();
    std::fs::write(&path, &whole[..whole.len() - 20]).unwrap();
    says(
        &read("train_files = 'pets/train'"),
        &["cat/3.png", "can't be decoded"],
    );
    std::fs::write(&path, b"GIF89a......").unwrap();
    says(
        &read("train_files = 'pets/train'"),
        &["cat/3.png", "PNG or JPEG", "Gif"],
    );
    std::fs::write(&path, b"text").unwrap();
    says(&read("train_files = 'pets/train'"), &["74 65 78 74"]);
    #[cfg(unix)]
    {
        std::fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink("..", dir.path().join("pets/train/dog/again")).unwrap();
        says(&read("train_files = 'pets/train'"), &["deep", "link"]);
    }
}

#[test]
fn a_changed_pixel_changes_the_fingerprint_and_a_copy_does_not() {
    let dir = pets();
    let print = || open(PETS, dir.path()).unwrap().fingerprint();
    let before = print();
    assert_eq!(open(PETS, pets().path()).unwrap().fingerprint(), before);
    let path = dir.path().join("pets/train/cat/2.png");
    std::fs::write(path, png(plain(2, [9, 8, 6]))).unwrap();
    assert_ne!(print(), before);
    let sized = format!("{PETS}\nimages = {{ size = 4 }}");
    assert_ne!(open(&sized, dir.path()).unwrap().fingerprint(), print());
}

#[test]
fn examples_that_are_drawn_from_the_training_folder_are_counted() {
    let dir = pets();
    let set = open(&format!("{PETS}\nvalidation = 1"), dir.path()).unwrap();
    let counts = [Split::Train, Split::Validation, Split::Test]
        .map(|split| (set.len(split), set.drawn_from_training(split)));
    assert_eq!(counts, [(2, 2), (1, 1), (1, 0)]);
}

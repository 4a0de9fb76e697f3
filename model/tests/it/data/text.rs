//! Plain text, cut into windows.

use super::{folder, open, refused, says};
use candle_core::{DType, Device};
use hindcast_model::data::DataSet;
use hindcast_model::objective::Split;

/// The characters of a window by position, from the one-hot input itself; `.` is a blank.
fn window(set: &dyn DataSet, split: Split, index: u64, alphabet: &str) -> String {
    let batch = set.batch(split, &[index], None, DType::F32, &Device::Cpu);
    let input = batch
        .unwrap()
        .inputs
        .squeeze(0)
        .unwrap()
        .squeeze(1)
        .unwrap();
    let channels: Vec<Vec<f32>> = input.to_vec2().unwrap();
    assert_eq!(channels.len(), alphabet.chars().count());
    let at = |position: usize| {
        let column: Vec<f32> = channels.iter().map(|of| of[position]).collect();
        assert!(column.iter().all(|&x| x == 0.0 || x == 1.0), "{column:?}");
        assert!(column.iter().sum::<f32>() <= 1.0);
        let c = column.iter().position(|&x| x == 1.0);
        c.map_or('.', |c| alphabet.chars().nth(c).unwrap())
    };
    (0..channels[0].len()).map(at).collect()
}

#[test]
fn a_text_becomes_windows_with_the_next_character() {
    let dir = folder(&[("a.txt", "abcabd é".as_bytes()), ("b.txt", b"dcba")]);
    let spec = "source = 'text'\ntrain_files = 'a.txt'\nvalidation_files = 'b.txt'\n[text]\nlength = 3\nstride = 2";
    let set = open(spec, dir.path()).unwrap();
    // The characters of all files, sorted.
    let alphabet = " abcdé";
    assert_eq!(set.class_names(), ["space", "a", "b", "c", "d", "é"]);
    assert_eq!(set.shape(), [6, 1, 3]);
    assert_eq!((set.len(Split::Train), set.len(Split::Validation)), (3, 1));
    let expected = [("abc", "a"), ("cab", "d"), ("bd ", "é")];
    for (index, (before, next)) in (0..).zip(expected) {
        assert_eq!(window(set.as_ref(), Split::Train, index, alphabet), before);
        assert_eq!(set.text(Split::Train, index).as_deref(), Some(before));
        assert_eq!(set.label(Split::Train, index), next);
    }
    assert_eq!(set.text(Split::Validation, 0).as_deref(), Some("dcb"));
    assert!(set.image(Split::Train, 0).is_none());
    assert_eq!(set.text(Split::Train, 3), None);
    assert_eq!(
        set.origin_file(Split::Train, 2),
        Some(("a.txt".to_owned(), 2))
    );
}

#[test]
fn each_line_can_be_a_text_of_its_own() {
    let dir = folder(&[("names.txt", b"ann\n\nbo\r\n")]);
    let spec = "source = 'text'\ntrain_files = 'names.txt'\n[text]\nlength = 2\nlines = true";
    let set = open(spec, dir.path()).unwrap();
    assert_eq!(set.class_names(), ["newline", "a", "b", "n", "o"]);
    let expected = [
        ("..", "a"),
        (".a", "n"),
        ("an", "n"),
        ("nn", "newline"),
        ("..", "b"),
        (".b", "o"),
        ("bo", "newline"),
    ];
    assert_eq!(set.len(Split::Train), expected.len() as u64);
    for (index, (before, next)) in (0..).zip(expected) {
        assert_eq!(window(set.as_ref(), Split::Train, index, "\nabno"), before);
        assert_eq!(set.label(Split::Train, index), next);
        let text = before.trim_start_matches('.');
        assert_eq!(set.text(Split::Train, index).as_deref(), Some(text));
    }
}

#[test]
fn text_that_gives_no_windows_is_refused() {
    let many: String = (0..1001u32)
        .filter_map(|i| char::from_u32(0x4e00 + i))
        .collect();
    let dir = folder(&[
        ("a.txt", b"abc".as_slice()),
        ("empty.txt", b""),
        ("many.txt", many.as_bytes()),
        ("binary.txt", b"\xff\xfe\x00"),
    ]);
    let file = |name: &str, rest: &str| {
        let spec = format!("source = 'text'\ntrain_files = '{name}'\n{rest}");
        refused(&spec, dir.path())
    };
    says(&file("a.txt", ""), &["text", "length"]);
    says(
        &file("a.txt", "[text]\nlength = 0"),
        &["text.length", "1 or more"],
    );
    says(
        &file("a.txt", "[text]\nlength = 2\nstride = 0"),
        &["text.stride"],
    );
    says(
        &file("a.txt", "[text]\nlength = 3"),
        &["a.txt", "3 characters"],
    );
    says(
        &file("empty.txt", "[text]\nlength = 1"),
        &["empty.txt", "0 characters"],
    );
    says(&file("many.txt", "[text]\nlength = 1"), &["1001", "1000"]);
    says(&file("binary.txt", "[text]\nlength = 1"), &["binary.txt"]);
    says(
        &refused(
            "source = 'csv'\ntrain_files = 'a.csv'\nlabel = 'y'\n[text]\nlength = 1",
            dir.path(),
        ),
        &["text", "csv"],
    );
}

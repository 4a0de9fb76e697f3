//! Documents in JSON lines.

use super::{folder, open, refused, says};
use candle_core::{DType, Device};
use hindcast_model::objective::Split;

const POSTS: &str = r#"{"split": "train", "group": "pc", "id": 1, "text": "From: a\n\nDisk, disk and card."}
{"split": "test", "group": "mac", "id": 2, "text": "From: b\n\nA mouse and a card"}

{"split": "train", "group": "mac", "id": 3, "text": "From: c\n\n> Which disk?\nThe mouse.\n\n--\nMac"}
"#;
const SPEC: &str = "source = 'documents'\ntrain_files = 'posts.jsonl'\nlabel = 'group'\n\
    [documents]\npart = 'split'\nstrip = ['headers', 'footers', 'quotes']\nstop_words = 'english'";

#[test]
fn texts_become_tfidf_weights_of_the_words_of_training_documents() {
    let dir = folder(&[("posts.jsonl", POSTS.as_bytes())]);
    let set = open(SPEC, dir.path()).unwrap();
    assert_eq!(set.feature_names(), ["card", "disk", "mouse"]);
    assert_eq!(set.class_names(), ["mac", "pc"]);
    assert_eq!((set.len(Split::Train), set.len(Split::Test)), (2, 1));
    let rows = |split, indices: &[u64]| -> Vec<Vec<f64>> {
        let batch = set.batch(split, indices, None, DType::F64, &Device::Cpu);
        batch.unwrap().inputs.to_vec2().unwrap()
    };
    // Each word is in one of the two training documents, so all words have the same weight. A row has norm 1.
    let fifth = 0.2f64.sqrt();
    let train = rows(Split::Train, &[0, 1]);
    let expected = [[fifth, 2.0 * fifth, 0.0], [0.0, 0.0, 1.0]];
    for (got, want) in train.iter().flatten().zip(expected.iter().flatten()) {
        assert!((got - want).abs() < 1e-15, "{train:?}");
    }
    let half = 0.5f64.sqrt();
    let test = rows(Split::Test, &[0]);
    assert!((test[0][0] - half).abs() < 1e-15 && (test[0][2] - half).abs() < 1e-15);
    assert_eq!(set.label(Split::Train, 1), "mac");
    assert_eq!(
        set.origin_file(Split::Train, 1),
        Some(("posts.jsonl (train)".to_string(), 1))
    );
    // The order of the features, and therefore the fingerprint, is the same on each load.
    assert_eq!(
        set.fingerprint(),
        open(SPEC, dir.path()).unwrap().fingerprint()
    );
}

#[test]
fn without_a_part_field_the_file_determines_the_split() {
    let line = |text: &str, label: &str| format!("{{\"text\": \"{text}\", \"y\": {label}}}\n");
    let dir = folder(&[
        ("a.jsonl", line("one two", "0").as_bytes()),
        (
            "b.jsonl",
            (line("two three", "1") + &line("three", "0")).as_bytes(),
        ),
    ]);
    let text = "source = 'documents'\ntrain_files = 'a.jsonl'\ntest_files = 'b.jsonl'\nlabel = 'y'";
    let set = open(text, dir.path()).unwrap();
    assert_eq!(set.feature_names(), ["one", "two"]);
    assert_eq!(set.len(Split::Test), 2);
    assert_eq!(
        set.origin_file(Split::Test, 1),
        Some(("b.jsonl".to_string(), 1))
    );
}

#[test]
fn an_invalid_document_is_named_by_its_line() {
    let dir = folder(&[
        (
            "cut.jsonl",
            b"{\"text\": \"a b\", \"y\": 1}\n{\"text\": \"a",
        ),
        ("list.jsonl", b"[1, 2]\n"),
        ("field.jsonl", b"{\"words\": \"a\", \"y\": 1}\n"),
        ("deep.jsonl", b"{\"text\": [\"a\"], \"y\": 1}\n"),
        (
            "part.jsonl",
            b"{\"text\": \"ab\", \"y\": 1, \"split\": \"dev\"}\n",
        ),
        ("empty.jsonl", b"\n\n"),
        ("short.jsonl", b"{\"text\": \"a b c\", \"y\": 1}\n"),
        (
            "test.jsonl",
            b"{\"text\": \"ab\", \"y\": 1, \"split\": \"test\"}\n",
        ),
        ("latin.jsonl", b"{\"text\": \"\xe9\", \"y\": 1}\n"),
    ]);
    let spec = |file: &str, rest: &str| {
        format!("source = 'documents'\ntrain_files = '{file}'\nlabel = 'y'\n{rest}")
    };
    let part = "[documents]\npart = 'split'";
    for (file, rest, pieces) in [
        (
            "cut.jsonl",
            "",
            ["line 2", "not a JSON object", "one document per line"],
        ),
        (
            "list.jsonl",
            "",
            ["line 1", "not a JSON object", "list.jsonl"],
        ),
        ("field.jsonl", "", ["line 1", "no field \"text\"", "words"]),
        ("deep.jsonl", "", ["line 1", "\"text\"", "not a text"]),
        (
            "part.jsonl",
            part,
            ["line 1", "\"dev\"", "train, validation, test"],
        ),
        ("empty.jsonl", "", ["empty.jsonl", "no document", ""]),
        ("short.jsonl", "", ["no word", "min_df", "data.documents"]),
        (
            "test.jsonl",
            part,
            ["no document", "train split", "test.jsonl"],
        ),
        ("latin.jsonl", "", ["latin.jsonl", "UTF-8", ""]),
        (
            "part.jsonl",
            "[documents]\nmin_df = 2",
            ["data.documents.min_df", "[0, 1]", "2"],
        ),
        (
            "part.jsonl",
            "[documents]\nmin_df = 0.5\nmax_df = 0.2",
            ["min_df", "above", "0.2"],
        ),
        (
            "part.jsonl",
            "[documents]\nstop_words = 'latin'",
            ["stop_words", "english", "latin"],
        ),
        (
            "part.jsonl",
            "[documents]\ntext = 'y'",
            ["data.documents", "different fields", "y"],
        ),
    ] {
        says(&refused(&spec(file, rest), dir.path()), &pieces);
    }
    says(
        &refused("source = 'documents'\ntrain_files = 'a.jsonl'", dir.path()),
        &["data.label", "field"],
    );
}

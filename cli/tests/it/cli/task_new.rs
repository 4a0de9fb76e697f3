//! `hindcast task new`: tasks for files of each kind, which are recorded at once.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use super::{code, fine, hindcast, stderr, stdout};

/// A number from 0 to 999 that looks random.
fn drawn(i: u64) -> u64 {
    let mut x = i.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    x ^= x >> 29;
    x = x.wrapping_mul(0xBF58_476D_1CE4_E5B9);
    (x ^ (x >> 32)) % 1000
}

/// Writes the task, checks it, records it with its own settings, and returns its text.
fn task_of(dir: &Path, words: &[&str]) -> String {
    let new = [&["task", "new"], words, &["--out", "new.toml"]].concat();
    let said = fine(dir, &new);
    let next = said.split("next: hindcast ").nth(1).unwrap();
    let check: Vec<&str> = next.split_whitespace().collect();
    fine(dir, &check);
    fine(
        dir,
        &["record", "new.toml", "--data", check[4], "--out", "run"],
    );
    fs::read_to_string(dir.join("new.toml")).unwrap()
}

/// The share of test examples whose class is wrong, by the final losses: more than log 2 means less than half of the probability.
fn validation_loss(dir: &Path, data: &str) -> f64 {
    let said = fine(
        dir,
        &[
            "influence",
            "run",
            "--data",
            data,
            "--out",
            "scores.csv",
            "--at",
            "final",
            "--json",
        ],
    );
    let json: serde_json::Value = serde_json::from_str(&said).unwrap();
    json["queries"][0]["value"].as_f64().unwrap()
}

pub(super) fn npy(shape: &str, kind: &str, data: &[u8]) -> Vec<u8> {
    let header = format!("{{'descr': '{kind}', 'fortran_order': False, 'shape': ({shape}), }}");
    let padded = header.len() + (64 - (header.len() + 11) % 64) % 64;
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend(u16::try_from(padded + 1).unwrap().to_le_bytes());
    bytes.extend(format!("{header:<padded$}\n").into_bytes());
    bytes.extend(data);
    bytes
}

#[test]
fn a_table_of_mixed_columns_becomes_a_task_that_learns() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("files")).unwrap();
    let mut text = "id;city;age;visits;joined;bought\n".to_owned();
    for i in 0..400 {
        let (age, visits, city) = (
            20 + drawn(i) % 50,
            drawn(i + 1000) % 30,
            drawn(i + 2000) % 3,
        );
        let buys = age + 2 * visits + 15 * city > 90;
        let names = ["Rome", "Oslo", "Bonn"];
        let _ = writeln!(
            text,
            "{};{};{age};{visits};2024-01-{:02};{}",
            i + 1,
            names[city as usize],
            i % 28 + 1,
            if buys { "yes" } else { "no" }
        );
    }
    fs::write(dir.path().join("files/customers.csv"), text).unwrap();
    let task = task_of(dir.path(), &["csv", "files/customers.csv"]);
    for part in [
        "name = \"customers\"",
        "train_files = \"customers.csv\"",
        "delimiter = \";\"",
        "label = \"bought\"",
        "categorical = [\"city\"]",
        "ignore = [\"id\", \"joined\"]",
        "input = [5]",
        "out = 2 }",
        "# Column \"id\" is left out, because it names the rows.",
    ] {
        assert!(task.contains(part), "{part:?} is not in\n{task}");
    }
    let loss = validation_loss(dir.path(), "files");
    assert!(loss < 0.3, "{loss}: a guess has 0.69");
    let again = hindcast(
        dir.path(),
        &[
            "task",
            "new",
            "csv",
            "files/customers.csv",
            "--out",
            "new.toml",
        ],
    );
    assert_eq!(code(&again), 1, "a task is never overwritten");
}

#[test]
fn a_table_with_gaps_decimal_commas_and_free_text_becomes_a_task_that_learns() {
    let dir = tempfile::tempdir().unwrap();
    let mut text = "price;size;review;class\n".to_owned();
    for i in 0..300 {
        let good = drawn(i).is_multiple_of(2);
        let word = if good {
            "delicious and fresh"
        } else {
            "stale and too dry"
        };
        let price = if drawn(i + 50).is_multiple_of(8) {
            String::new()
        } else {
            format!("{},{}", drawn(i + 100) % 9, drawn(i + 200) % 10)
        };
        let size = ["small", "large", "NA"][(drawn(i + 300) % 3) as usize];
        let class = if good { "good" } else { "bad" };
        let _ = writeln!(text, "{price};{size};the bread was {word} {i};{class}");
    }
    // As a spreadsheet in western Europe saves it.
    let bytes: Vec<u8> = text
        .replace("bread", "pâté")
        .chars()
        .map(|c| c as u8)
        .collect();
    fs::write(dir.path().join("bread.csv"), bytes).unwrap();
    let task = task_of(dir.path(), &["csv", "bread.csv"]);
    for part in [
        "encoding = \"windows-1252\"",
        "decimal = \",\"",
        "label = \"class\"",
        "[data.missing]\n",
        "columns = [\"review\"]",
    ] {
        assert!(task.contains(part), "{part:?} is not in\n{task}");
    }
    let loss = validation_loss(dir.path(), ".");
    assert!(loss < 0.3, "{loss}: a guess has 0.69");
}

#[test]
fn folders_of_images_become_a_task_that_learns() {
    let dir = tempfile::tempdir().unwrap();
    for i in 0..120u64 {
        let class = ["round", "square"][(i % 2) as usize];
        let folder = dir.path().join("shapes").join(class);
        fs::create_dir_all(&folder).unwrap();
        let side = 40 + (drawn(i) % 20) as u32;
        let middle = f64::from(side) / 2.0;
        let image = image::RgbImage::from_fn(side, side, |x, y| {
            let (dx, dy) = (f64::from(x) + 0.5 - middle, f64::from(y) + 0.5 - middle);
            let inside = if i.is_multiple_of(2) {
                dx.hypot(dy) < middle * 0.6
            } else {
                dx.abs().max(dy.abs()) < middle * 0.6
            };
            let noise = (drawn(i * 4096 + u64::from(y * 64 + x)) % 60) as u8;
            image::Rgb([if inside { 180 + noise } else { noise }; 3])
        });
        image.save(folder.join(format!("{i}.png"))).unwrap();
    }
    let task = task_of(dir.path(), &["images", "shapes"]);
    for part in [
        "source = \"images\"",
        "train_files = \"shapes\"",
        "size = 32",
        "input = [3, 32, 32]",
    ] {
        assert!(task.contains(part), "{part:?} is not in\n{task}");
    }
    let loss = validation_loss(dir.path(), ".");
    assert!(loss < 0.4, "{loss}: a guess has 0.69");
}

#[test]
fn a_column_of_numbers_is_predicted() {
    let dir = tempfile::tempdir().unwrap();
    let mut text = "rooms,size,price\n".to_owned();
    for i in 0..300 {
        let (rooms, size) = (1 + drawn(i) % 6, 30 + drawn(i + 500) % 120);
        let _ = writeln!(
            text,
            "{rooms},{size},{}",
            10_000 * rooms + 1_500 * size + drawn(i + 900)
        );
    }
    fs::write(dir.path().join("homes.csv"), text).unwrap();
    let task = task_of(dir.path(), &["csv", "homes.csv", "--label", "-1"]);
    assert!(task.contains("target = \"value\""), "{task}");
    assert!(task.contains("kind = \"mean-squared-error\""), "{task}");
    assert!(task.contains("standardise_target = true"), "{task}");
    // The loss is that of the standardised prices.
    let loss = validation_loss(dir.path(), ".");
    assert!(loss < 0.003, "{loss}: a guess has 1");
}

#[test]
fn arrays_and_idx_images_become_tasks_that_learn() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let (mut vectors, mut labels, mut pixels) = (Vec::new(), Vec::new(), Vec::new());
    for i in 0..300u64 {
        let class = drawn(i) % 3;
        labels.push(class as u8);
        for j in 0..40 {
            let x = drawn(i * 40 + j) as f32 / 1000.0 + if j % 3 == class { 0.5 } else { 0.0 };
            vectors.extend(x.to_le_bytes());
        }
        for p in 0..144 {
            let lit = p / 48 == class;
            pixels.push((drawn(i * 144 + p) / 8) as u8 + if lit { 120 } else { 0 });
        }
    }
    let whole: Vec<u8> = labels
        .iter()
        .flat_map(|l| i64::from(*l).to_le_bytes())
        .collect();
    fs::write(at("X.npy"), npy("300, 40", "<f4", &vectors)).unwrap();
    fs::write(at("y.npy"), npy("300,", "<i8", &whole)).unwrap();
    let task = task_of(dir.path(), &["npy", "X.npy", "y.npy"]);
    assert!(
        task.contains("train_files = { inputs = \"X.npy\", labels = \"y.npy\" }"),
        "{task}"
    );
    assert!(
        task.contains("input = [40]") && task.contains("out = 3"),
        "{task}"
    );
    let loss = validation_loss(dir.path(), ".");
    assert!(loss < 0.4, "{loss}: a guess has 1.1");
    fs::remove_dir_all(at("run")).unwrap();
    fs::remove_file(at("new.toml")).unwrap();
    fs::remove_file(at("scores.csv")).unwrap();
    let mut images = vec![0, 0, 8, 3, 0, 0, 1, 44, 0, 0, 0, 12, 0, 0, 0, 12];
    images.extend(&pixels);
    let mut classes = vec![0, 0, 8, 1, 0, 0, 1, 44];
    classes.extend(&labels);
    fs::write(at("images.idx"), images).unwrap();
    fs::write(at("labels.idx"), classes).unwrap();
    let task = task_of(dir.path(), &["images", "images.idx", "labels.idx"]);
    assert!(
        task.contains("source = \"idx\"") && task.contains("kind = \"conv2d\""),
        "{task}"
    );
    let loss = validation_loss(dir.path(), ".");
    assert!(loss < 0.3, "{loss}: a guess has 1.1");
}

#[test]
fn documents_and_plain_text_become_tasks_that_learn() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let words = [
        ["ship", "sea", "sail", "wave"],
        ["bread", "oven", "salt", "flour"],
    ];
    let mut lines = String::new();
    let mut names = String::new();
    for i in 0..200u64 {
        let topic = (drawn(i) % 2) as usize;
        let said: Vec<&str> = (0..6)
            .map(|j| words[topic][(drawn(i * 6 + j) % 4) as usize])
            .collect();
        let label = ["boats", "food"][topic];
        let _ = writeln!(
            lines,
            "{{\"topic\": \"{label}\", \"body\": \"{} word{}\"}}",
            said.join(" "),
            drawn(i + 7) % 20
        );
        let _ = writeln!(names, "{}{}", words[topic][(drawn(i) % 4) as usize], i % 7);
    }
    fs::write(at("posts.jsonl"), lines).unwrap();
    let task = task_of(dir.path(), &["text", "posts.jsonl"]);
    assert!(
        task.contains("source = \"documents\"") && task.contains("text = \"body\""),
        "{task}"
    );
    let loss = validation_loss(dir.path(), ".");
    assert!(loss < 0.3, "{loss}: a guess has 0.69");
    fs::remove_dir_all(at("run")).unwrap();
    fs::remove_file(at("new.toml")).unwrap();
    fs::remove_file(at("scores.csv")).unwrap();
    fs::write(at("names.txt"), names).unwrap();
    let task = task_of(dir.path(), &["text", "names.txt"]);
    assert!(
        task.contains("source = \"text\"") && task.contains("lines = true"),
        "{task}"
    );
    let loss = validation_loss(dir.path(), ".");
    assert!(loss < 1.5, "{loss}: a guess among 20 characters has 3.0");
}

#[test]
fn files_that_make_no_task_are_refused_with_the_reason() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("one.csv"), "a,b\n1,2\n4,5\n").unwrap();
    fs::write(dir.path().join("head.csv"), "a,b\n").unwrap();
    let rows: String = (0..30).map(|i| format!("{i},x{}\n", i % 2)).collect();
    fs::write(dir.path().join("small.csv"), format!("a,b\n{rows}")).unwrap();
    fs::write(dir.path().join("one.npy"), "").unwrap();
    for (words, exit, reason) in [
        (&["csv", "one.csv"][..], 1, "2 examples are too few"),
        (&["csv", "head.csv"], 1, "the table has no row of data"),
        (&["csv", "none.csv"], 1, "none.csv"),
        (
            &["csv", "small.csv", "--label", "c"],
            2,
            "has no such column; it has a, b",
        ),
        (&["npy", "one.npy"], 2, "expected two files"),
        (
            &["csv", "small.csv", "--label", "A"],
            2,
            "did you mean \"a\"?",
        ),
        (
            &["images", "small.csv", "--label", "a"],
            2,
            "--label names a column",
        ),
        (&["csv", "small.csv", "--out", "task.txt"], 2, ".toml"),
    ] {
        let refused = hindcast(dir.path(), &[&["task", "new"], words].concat());
        let said = stderr(&refused);
        assert_eq!(code(&refused), exit, "{words:?}: {said}");
        assert!(said.contains(reason), "{words:?}: {said}");
    }
}

/// A grey image of 8 × 8 pixels, brighter on the left or on the right, with a wrong side for each fifteenth.
fn save_half(path: &Path, i: u64, left: bool) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let left = left != (i % 15 == 4);
    let image = image::GrayImage::from_fn(8, 8, |x, y| {
        let noise = (drawn(i * 64 + u64::from(y * 8 + x)) % 50) as u8;
        image::Luma([noise + if (x < 4) == left { 180 } else { 20 }])
    });
    image.save(path).unwrap();
}

#[test]
fn the_splits_in_a_folder_of_images_are_found() {
    let dir = tempfile::tempdir().unwrap();
    for (split, count) in [("train", 60), ("val", 20), ("test", 24)] {
        for i in 0..count {
            let class = ["left", "right"][(i % 2) as usize];
            let path = dir.path().join(format!("sides/{split}/{class}/{i}.png"));
            save_half(&path, i, i % 2 == 0);
        }
    }
    fs::create_dir_all(dir.path().join("sides/raw/more")).unwrap();
    let task = task_of(dir.path(), &["images", "sides"]);
    for part in [
        "train_files = \"train\"",
        "validation_files = \"val\"",
        "test_files = \"test\"",
        "# Folders that belong to no split are left out: \"raw\".",
        "2 folders of classes (left, right)",
        "name = \"sides\"",
    ] {
        assert!(task.contains(part), "{part:?} is not in\n{task}");
    }
    let said = fine(dir.path(), &["info", "run", "--json"]);
    assert!(said.contains("\"examples\": 24"), "{said}");
}

#[test]
fn broken_images_are_named_all_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join("sides").join(name);
    for i in 0..40u64 {
        let class = ["left", "right"][(i % 2) as usize];
        save_half(&at(&format!("{class}/{i}.png")), i, i % 2 == 0);
    }
    let new = ["task", "new", "images", "sides", "--out", "sides.toml"];
    fine(dir.path(), &new);
    // An empty file, a damaged one, and a photograph of which the second half is missing.
    fs::write(at("left/a.png"), "").unwrap();
    fs::write(
        at("left/b.png"),
        b"\x89PNG\r\n\x1a\n\xaf\x56\x69\x6a\xaf\x56\x69\x6a",
    )
    .unwrap();
    let photo = image::RgbImage::from_fn(8, 8, |x, y| image::Rgb([(x * y * 4) as u8; 3]));
    photo.save(at("left/c.jpg")).unwrap();
    let whole = fs::read(at("left/c.jpg")).unwrap();
    fs::write(at("left/c.jpg"), &whole[..whole.len() - 20]).unwrap();
    let told = [
        "left/a.png: expected a PNG or JPEG image, but the file is empty",
        "left/b.png: the image can't be decoded, because it is damaged or cut off",
        "left/c.jpg: the JPEG image is cut off",
    ];
    let new = ["task", "new", "images", "sides", "--out", "again.toml"];
    let check = ["task", "check", "sides.toml", "--data", "."];
    for words in [&new[..], &check] {
        let output = hindcast(dir.path(), words);
        assert_eq!(code(&output), 1);
        let said = stdout(&output) + &stderr(&output);
        for part in told {
            let lines = said.lines().filter(|line| line.contains(part));
            assert_eq!(lines.count(), 1, "{part}: {said}");
        }
        assert!(said.is_ascii() && !said.contains("ChunkType"), "{said}");
    }
    let record = ["record", "sides.toml", "--data", ".", "--out", "run"];
    let output = hindcast(dir.path(), &record);
    assert!(
        stderr(&output).contains("left/a.png"),
        "{}",
        stderr(&output)
    );
    // Complete again.
    fs::write(at("left/c.jpg"), whole).unwrap();
    fs::remove_file(at("left/a.png")).unwrap();
    fs::remove_file(at("left/b.png")).unwrap();
    fine(dir.path(), &new);
}

#[test]
fn letters_in_two_unicode_forms_are_one_class_from_new_to_clean() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    // Composed as on Linux, and with the accent apart as on a Mac. Some file systems take them for one name.
    let (linux, mac) = ("K\u{e4}se", "Ka\u{308}se");
    for i in 0..90 {
        let class = [linux, "Brot", mac, "brot"][(i % 4) as usize];
        let name = format!("food/{class}/{i}.png");
        save_half(&at(&name), i, class != "Brot" && class != "brot");
    }
    if fs::read_dir(at("food")).unwrap().count() != 4 {
        eprintln!("skipped: this file system doesn't tell these names apart");
        return;
    }
    let task = task_of(dir.path(), &["images", "food", "--train-on-all"]);
    for part in [
        "\"Käse\" and \"Ka\\u{308}se\" are the same letters in two Unicode forms",
        "\"Brot\" and \"brot\" differ only in upper and lower case",
        "3 folders of classes (Brot, Käse, brot)",
        "All 90 examples are trained on",
        "--query train",
    ] {
        assert!(task.contains(part), "{part:?} is not in\n{task}");
    }
    let words = [
        "clean",
        "run",
        "--data",
        ".",
        "--out-data",
        "cleaned",
        "--json",
    ];
    fine(dir.path(), &words);
    // An image that is already in one of the two folders of its class stays there.
    let moved = at("cleaned/food");
    for (class, files) in [(linux, 23), (mac, 22)] {
        let there = fs::read_dir(moved.join(class)).unwrap().count();
        assert!(there > files / 2, "{class}: {there}");
    }
}

#[test]
fn a_task_without_held_out_examples_goes_all_the_way_to_a_report() {
    let dir = tempfile::tempdir().unwrap();
    let mut text = "wide,high,kind\n".to_owned();
    for i in 0..100 {
        let (x, y) = (drawn(i), drawn(i + 500));
        let above = (x > y) != (i % 20 == 3);
        let _ = writeln!(text, "{x},{y},{}", if above { "above" } else { "below" });
    }
    fs::write(dir.path().join("points.csv"), text).unwrap();
    let task = task_of(dir.path(), &["csv", "points.csv", "--train-on-all"]);
    assert!(
        task.contains("No examples are left to measure the model by"),
        "{task}"
    );
    assert!(
        !task.contains("\nvalidation = ") && !task.contains("\npool"),
        "{task}"
    );
    let clean = [
        "clean",
        "run",
        "--data",
        ".",
        "--out",
        "cleaned.csv",
        "--json",
    ];
    let said: serde_json::Value = serde_json::from_str(&fine(dir.path(), &clean)).unwrap();
    assert_eq!(said["examples"], 100, "{said}");
    for words in [
        &["influence", "run", "--out", "s.csv"][..],
        &[
            "influence",
            "run",
            "--query",
            "per-class:test",
            "--out",
            "s.csv",
        ],
        &["counterfactual", "run", "--without", "points.csv"],
        &["predict", "run"],
    ] {
        let refused = hindcast(dir.path(), &[words, &["--data", "."]].concat());
        let said = stderr(&refused);
        assert_eq!(code(&refused), 1, "{said}");
        if words[0] != "counterfactual" {
            assert!(said.contains("examples, only train examples"), "{said}");
            assert!(said.contains("write train in place of"), "{said}");
        }
    }
    for method in ["sgd", "margin"] {
        let table = format!("{method}.csv");
        let words = ["influence", "run", "--query", "train", "--method", method];
        fine(
            dir.path(),
            &[&words[..], &["--data", ".", "--out", &table]].concat(),
        );
    }
    let report = [
        "report",
        "run",
        "sgd.csv",
        "margin.csv",
        "--data",
        ".",
        "--out",
        "r.html",
    ];
    fine(dir.path(), &report);
    let page = fs::read_to_string(dir.path().join("r.html")).unwrap();
    assert!(page.contains("The mean loss of the <em>train</em> split"));
    // Test examples that are named are kept, and the advice names their split.
    let tested = [
        "task",
        "new",
        "csv",
        "points.csv",
        "--train-on-all",
        "--test",
        "points.csv",
    ];
    let said = stderr(&hindcast(dir.path(), &tested));
    assert!(
        said.contains("There are no validation examples: name the test split"),
        "{said}"
    );
}

//! `predict --rows`: rows that the run's data doesn't have are read as its own. Held-out rows in a file of their own get the
//! predictions that they get as a split.

use std::fs;

use super::predictions::json;
use super::*;

/// A row of a table of predictions, as text.
type Cells = Vec<String>;

fn table(path: &Path) -> Vec<Cells> {
    let mut csv = csv::Reader::from_path(path).unwrap();
    csv.records()
        .map(|row| row.unwrap().iter().map(str::to_owned).collect())
        .collect()
}

/// Records the task and predicts its validation rows. Returns their table.
fn validation_of(dir: &Path, task: &str) -> Vec<Cells> {
    fs::write(dir.join("task.toml"), task).unwrap();
    fine(
        dir,
        &["record", "task.toml", "--data", "data", "--out", "run"],
    );
    fine(
        dir,
        &["predict", "run", "--data", "data", "--out", "held.csv"],
    );
    let held = table(&dir.join("held.csv"));
    assert!(held.len() > 8);
    held
}

/// The table of `predict --rows`.
fn predicted(dir: &Path, files: &[&str]) -> Vec<Cells> {
    let words = [
        "predict", "run", "--data", "data", "--out", "new.csv", "--rows",
    ];
    fine(dir, &[&words[..], files].concat());
    table(&dir.join("new.csv"))
}

/// Checks the predictions for rows of a file that has the held-out rows `of` in this order.
fn same(held: &[Cells], of: &[usize], new: &[Cells], labelled: bool) {
    assert_eq!(new.len(), of.len());
    for (k, (&at, new)) in of.iter().zip(new).enumerate() {
        let held = &held[at];
        assert_eq!(
            (new[0].as_str(), new[1].as_str()),
            (k.to_string().as_str(), k.to_string().as_str())
        );
        assert!(
            ["new rows.csv", "bare.csv", "new.jsonl", "new-x.npy"].contains(&new[2].as_str()),
            "{new:?}"
        );
        assert_eq!(new[4..6], held[4..6], "row {k}: {new:?} {held:?}");
        if labelled {
            assert_eq!((&new[3], &new[6..]), (&held[3], &held[6..]));
        } else {
            let empty = [&new[3], &new[6], &new[7]];
            assert!(empty.iter().all(|cell| cell.is_empty()), "{new:?}");
        }
    }
}

/// The rows of the original file of some held-out examples.
fn origins(held: &[Cells], of: &[usize]) -> Vec<usize> {
    of.iter().map(|&at| held[at][1].parse().unwrap()).collect()
}

const MODEL: &str = "[loss]\nkind = 'cross-entropy'\n[optimizer]\nkind = 'sgd'\n[schedule]\nkind = 'constant'\nlearning_rate = 0.1\n[train]\nepochs = 3\nbatch = 8\n";

/// A table with numbers, a category, free text, gaps and classes.
fn shop(rows: u64) -> Vec<String> {
    (0..rows)
        .map(|i| {
            let city = ["Rome", "Oslo", "Bonn"][(i * 7 % 3) as usize];
            let age = if i % 9 == 4 {
                String::new()
            } else {
                format!("{}.5", i * 37 % 50)
            };
            let words = ["good bread", "stale bread", "fresh fish"][(i * 5 % 7 % 3) as usize];
            format!(
                "{city},{age},{},{words}",
                if i * 13 % 5 > 1 { "yes" } else { "no" }
            )
        })
        .collect()
}

fn shop_task(dir: &Path) -> (Vec<String>, String) {
    let rows = shop(120);
    fs::create_dir(dir.join("data")).unwrap();
    fs::write(
        dir.join("data/shop.csv"),
        format!("city,age,bought,said\n{}\n", rows.join("\n")),
    )
    .unwrap();
    // Three cities, the age with an indicator of gaps, and four words.
    let task = format!(
        "name = 'shop'\n[data]\nsource = 'csv'\ntrain_files = 'shop.csv'\nlabel = 'bought'\ncategorical = ['city']\nstandardise = true\npool = 'train'\nvalidation = 30\ntest = 20\nseed = 4\n\
         [data.missing]\nfill = 'mean'\nindicator = true\n[data.tfidf]\ncolumns = ['said']\n[model]\ninput = [10]\nlayers = [{{ kind = 'linear', out = 2 }}]\n{MODEL}"
    );
    (rows, task)
}

/// The run of the table, with its data in `data`.
pub(super) fn shop_run(dir: &Path) {
    let (_, task) = shop_task(dir);
    validation_of(dir, &task);
}

#[test]
fn new_rows_of_a_table_are_read_as_the_tables_own() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let (rows, task) = shop_task(dir);
    let held = validation_of(dir, &task);
    let of = [7, 3, 11, 0];
    let chosen: Vec<&str> = origins(&held, &of)
        .iter()
        .map(|&row| rows[row].as_str())
        .collect();
    fs::write(
        dir.join("new rows.csv"),
        format!("city,age,bought,said\n{}\n", chosen.join("\n")),
    )
    .unwrap();
    same(&held, &of, &predicted(dir, &["new rows.csv"]), true);
    let without: Vec<String> = chosen
        .iter()
        .map(|row| {
            let cells: Vec<&str> = row.split(',').collect();
            [cells[0], cells[1], cells[3]].join(",")
        })
        .collect();
    fs::write(
        dir.join("bare.csv"),
        format!("city,age,said\n{}\n", without.join("\n")),
    )
    .unwrap();
    same(&held, &of, &predicted(dir, &["bare.csv"]), false);
    let said = fine(
        dir,
        &[
            "predict", "run", "--data", "data", "--rows", "bare.csv", "--top", "2",
        ],
    );
    assert!(
        said.contains("4 rows of bare.csv") && said.contains("no labels"),
        "{said}"
    );
    assert!(
        said.contains(&format!("{:>8} {:<9} {:>11}", 0, held[7][4], "0.")[..20]),
        "{said}"
    );
    let said = json(
        dir,
        &[
            "predict", "run", "--data", "data", "--rows", "bare.csv", "--json",
        ],
    );
    assert_eq!(said["labelled"], false);
    assert!(said["mean_loss"].is_null() && said["wrong"].is_null() && said["split"].is_null());
    assert_eq!(said["rows"], serde_json::json!(["bare.csv"]));
    // Printed rows end with the names that the user has for them.
    fs::write(dir.join("names.txt"), "Ann\nBob\nCem\nDan\n").unwrap();
    let named = fine(
        dir,
        &[
            "predict",
            "run",
            "--data",
            "data",
            "--rows",
            "bare.csv",
            "--names",
            "names.txt",
            "--out",
            "named.csv",
        ],
    );
    let ends = |name: &str| named.lines().any(|line| line.ends_with(name));
    assert!(
        ["Ann", "Bob", "Cem", "Dan"].into_iter().all(ends),
        "{named}"
    );
    let written = fs::read_to_string(dir.join("named.csv")).unwrap();
    assert!(written.contains("\n2,2,bare.csv,Cem,,"), "{written}");
    // The file that the run was trained on can be predicted, too.
    assert_eq!(predicted(dir, &["data/shop.csv"]).len(), 120);
}

#[test]
fn new_rows_that_dont_fit_are_refused_with_the_reason() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let (_, task) = shop_task(dir);
    validation_of(dir, &task);
    for (text, words, exit, said) in [
        (
            "city,age,said\nWien,3,good bread\n",
            &[][..],
            1,
            "no input for them: city=Wien",
        ),
        (
            "city,age,bought,said\nRome,3,maybe,good bread\n",
            &[],
            1,
            "row 0 (line 2), column \"bought\": expected one of the model's classes: no, yes, got \"maybe\"",
        ),
        (
            "city,age\nRome,3\n",
            &[],
            1,
            "has the columns city, age, expected those of the task's data, in the same order: city, age, said",
        ),
        (
            "city;age;said\nRome;3;good bread\n",
            &[],
            1,
            "The cells seem to be separated by ';'",
        ),
        (
            "city,age,said\nRome,3\n",
            &[],
            1,
            "line 2 has 2 cells, expected 3 (city, age, said)",
        ),
        (
            "city,age,said\nRome,old,good bread\n",
            &[],
            1,
            "row 0 (line 2), column \"age\": expected a finite number",
        ),
        ("city,age,said\n", &[], 1, "holds no row"),
        (
            "city,age,said\nRome,3,good bread\n",
            &["--wrong"],
            2,
            "the rows have no labels",
        ),
        (
            "city,age,said\nRome,3,good bread\n",
            &["--split", "test"],
            2,
            "cannot be used with",
        ),
    ] {
        fs::write(dir.join("new.csv"), text).unwrap();
        let all = ["predict", "run", "--data", "data", "--rows", "new.csv"];
        let refused = hindcast(dir, &[&all[..], words].concat());
        let error = stderr(&refused);
        assert_eq!(code(&refused), exit, "{text}: {error}");
        assert!(error.contains(said), "{text}: {error}");
    }
    let missing = ["predict", "run", "--data", "data", "--rows", "none.csv"];
    let missing = hindcast(dir, &missing);
    assert_eq!(code(&missing), 2);
    let said = stderr(&missing);
    assert!(
        said.contains("--rows none.csv: there is no such file"),
        "{said}"
    );
    for name in ["a.csv", "b.csv"] {
        fs::write(dir.join(name), "").unwrap();
    }
    let digits = hindcast(
        dir,
        &[
            "predict", "run", "--data", "data", "--rows", "a.csv", "b.csv",
        ],
    );
    assert!(
        stderr(&digits).contains("expected one file or folder, got 2"),
        "{}",
        stderr(&digits)
    );
}

#[test]
fn new_documents_are_weighed_by_the_words_of_the_training_documents() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let words = [
        "ship sea",
        "bread oven",
        "sea sail wave",
        "flour salt bread",
    ];
    let line = |i: usize, label: bool| {
        let text = words[i * 7 % 4];
        let kind = if label {
            format!(", \"kind\": \"{}\"", ["boats", "food"][i * 7 % 4 % 2])
        } else {
            String::new()
        };
        format!("{{\"text\": \"{text} {}\"{kind}}}\n", words[i % 4])
    };
    fs::create_dir(dir.join("data")).unwrap();
    let all: String = (0..80).map(|i| line(i, true)).collect();
    fs::write(dir.join("data/posts.jsonl"), all).unwrap();
    let task = format!(
        "name = 'posts'\n[data]\nsource = 'documents'\ntrain_files = 'posts.jsonl'\nlabel = 'kind'\nvalidation = 20\n[data.documents]\ntext = 'text'\nmin_df = 0.01\nmax_df = 1.0\n\
         [model]\ninput = [8]\nlayers = [{{ kind = 'linear', out = 2 }}]\n{MODEL}"
    );
    let held = validation_of(dir, &task);
    let of = [2, 9, 4];
    for labelled in [true, false] {
        let some = origins(&held, &of)
            .into_iter()
            .map(|row| line(row, labelled));
        fs::write(dir.join("new.jsonl"), some.collect::<String>()).unwrap();
        same(&held, &of, &predicted(dir, &["new.jsonl"]), labelled);
    }
    fs::write(
        dir.join("new.jsonl"),
        "{\"text\": \"sea\", \"kind\": \"cars\"}\n",
    )
    .unwrap();
    let refused = hindcast(
        dir,
        &["predict", "run", "--data", "data", "--rows", "new.jsonl"],
    );
    let said = stderr(&refused);
    assert!(said.contains("none of the model's classes: cars"), "{said}");
}

#[test]
fn new_arrays_need_no_file_of_labels() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    fs::create_dir(dir.join("data")).unwrap();
    let npy = super::task_new::npy;
    let row = |i: u64| -> Vec<u8> {
        let values = (0..3).map(|j| ((i * 31 + j * 17) % 23) as f32 / 7.0);
        values.flat_map(f32::to_le_bytes).collect()
    };
    let label = |i: u64| (i * 31 % 23 > 9) as i64;
    let written = |name: &str, of: &[u64]| {
        let n = of.len();
        let x: Vec<u8> = of.iter().flat_map(|&i| row(i)).collect();
        let y: Vec<u8> = of.iter().flat_map(|&i| label(i).to_le_bytes()).collect();
        fs::write(
            dir.join(format!("{name}-x.npy")),
            npy(&format!("{n}, 3"), "<f4", &x),
        )
        .unwrap();
        fs::write(
            dir.join(format!("{name}-y.npy")),
            npy(&format!("{n},"), "<i8", &y),
        )
        .unwrap();
    };
    written("data/all", &(0..60).collect::<Vec<_>>());
    let task = format!(
        "name = 'arrays'\n[data]\nsource = 'npy'\ntrain_files = {{ inputs = 'all-x.npy', labels = 'all-y.npy' }}\nstandardise = true\nvalidation = 20\n\
         [model]\ninput = [3]\nlayers = [{{ kind = 'linear', out = 2 }}]\n{MODEL}"
    );
    let held = validation_of(dir, &task);
    let of = [5, 1, 8];
    let rows: Vec<u64> = origins(&held, &of)
        .into_iter()
        .map(|row| row as u64)
        .collect();
    written("new", &rows);
    same(
        &held,
        &of,
        &predicted(dir, &["new-x.npy", "new-y.npy"]),
        true,
    );
    same(&held, &of, &predicted(dir, &["new-x.npy"]), false);
}

#[test]
fn new_images_lie_in_folders_of_classes_or_in_one() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let save = |path: &Path, i: u64| {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        image::GrayImage::from_fn(6, 6, |x, y| {
            let noise = (i * 37 + u64::from(x * 5 + y * 11)) % 60;
            image::Luma([(noise
                + if (x < 3) == i.is_multiple_of(2) {
                    150
                } else {
                    0
                }) as u8])
        })
        .save(path)
        .unwrap();
    };
    let class = |i: u64| ["left", "right"][(i % 2) as usize];
    for i in 0..60 {
        save(&dir.join(format!("data/all/{}/{i:03}.png", class(i))), i);
    }
    let task = format!(
        "name = 'halves'\n[data]\nsource = 'images'\ntrain_files = 'all'\nvalidation = 16\n[data.images]\nchannels = 1\n\
         [model]\ninput = [1, 6, 6]\nlayers = [{{ kind = 'flatten' }}, {{ kind = 'linear', out = 2 }}]\n{MODEL}"
    );
    let held = validation_of(dir, &task);
    let of = [4, 9, 12];
    for (k, at) in of.iter().enumerate() {
        let from = dir.join("data").join(&held[*at][2]);
        let number: u64 = from.file_stem().unwrap().to_str().unwrap().parse().unwrap();
        save(&dir.join(format!("loose/{k}.png")), number);
        save(
            &dir.join(format!("sorted/{}/{k}.png", class(number))),
            number,
        );
    }
    let loose = predicted(dir, &["loose"]);
    for (at, row) in of.iter().zip(&loose) {
        assert_eq!(row[4..6], held[*at][4..6], "{row:?}");
        assert!(row[3].is_empty(), "{row:?}");
        assert_eq!(row[2], format!("loose/{}.png", row[0]));
        assert_eq!(row[1], row[0], "images are counted through their folder");
    }
    let sorted = predicted(dir, &["sorted"]);
    assert_eq!(sorted.len(), 3);
    for row in &sorted {
        let k: usize = Path::new(&row[2])
            .file_stem()
            .unwrap()
            .to_str()
            .unwrap()
            .parse()
            .unwrap();
        assert_eq!(row[3..], held[of[k]][3..], "{row:?}");
    }
}

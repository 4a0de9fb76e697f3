//! Tables of scores: joining names, sorting and selecting rows.

use std::fs;

use super::*;

/// A swept run of 120 digits.
fn swept() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    small_run(dir.path());
    fine(dir.path(), &["influence", "run", "--top", "0"]);
    dir
}

/// Cells of a CSV table's column.
fn column(dir: &Path, table: &str, name: &str) -> Vec<String> {
    let mut csv = csv::Reader::from_path(dir.join(table)).unwrap();
    let at = csv.headers().unwrap().iter().position(|c| c == name);
    let at = at.unwrap_or_else(|| panic!("{table} has no column {name}"));
    csv.records().map(|r| r.unwrap()[at].to_owned()).collect()
}

fn numbers(dir: &Path, table: &str, name: &str) -> Vec<f64> {
    let cells = column(dir, table, name);
    cells.iter().map(|c| c.parse().unwrap()).collect()
}

#[test]
fn rows_are_sorted_chosen_printed_and_written() {
    let dir = swept();
    let dir = dir.path();
    let said = fine(dir, &["scores", "scores.csv", "--top", "4"]);
    assert_eq!(said.lines().count(), 5, "{said}");
    let all = numbers(dir, "scores.csv", "influence");
    let mut sorted = all.clone();
    sorted.sort_by(f64::total_cmp);

    fine(
        dir,
        &["scores", "scores.csv", "--top", "4", "--out", "worst.csv"],
    );
    assert_eq!(numbers(dir, "worst.csv", "influence"), sorted[..4]);
    fine(
        dir,
        &[
            "scores",
            "scores.csv",
            "--bottom",
            "3",
            "--out",
            "best.jsonl",
        ],
    );
    let best = fs::read_to_string(dir.join("best.jsonl")).unwrap();
    let best: Vec<f64> = best
        .lines()
        .map(|l| serde_json::from_str::<serde_json::Value>(l).unwrap())
        .map(|row| row["influence"].as_f64().unwrap())
        .collect();
    let mut largest = sorted[117..].to_vec();
    largest.reverse();
    assert_eq!(best, largest);

    // The label of the most harmful example: at least one row meets both conditions.
    let labels = column(dir, "scores.csv", "label");
    let worst = (0..120).min_by(|&a, &b| all[a].total_cmp(&all[b])).unwrap();
    let label = &labels[worst];
    fine(
        dir,
        &[
            "scores",
            "scores.csv",
            "--where",
            &format!("label={label}"),
            "--where",
            "influence<0",
            "--sort",
            "index",
            "--descending",
            "--out",
            "some.csv",
        ],
    );
    let mut wanted: Vec<f64> = (0..120)
        .filter(|&i| labels[i] == *label && all[i] < 0.0)
        .map(|i| i as f64)
        .collect();
    wanted.reverse();
    assert!(!wanted.is_empty() && wanted.len() < 60);
    assert_eq!(numbers(dir, "some.csv", "index"), wanted);

    // A part of a table is a table with metadata, and other verbs accept it.
    fine(dir, &["scores", "some.csv", "--json"]);
    let said = fine(dir, &["counterfactual", "run", "--top", "2", "some.csv"]);
    assert!(said.contains("predicted (by the table)"), "{said}");
}

#[test]
fn unknown_columns_and_conditions_are_wrong_usage() {
    let dir = swept();
    let dir = dir.path();
    for (words, hint) in [
        (&["--where", "labels=3"][..], "no column `labels`"),
        (&["--where", "influence~0"], "COLUMN=VALUE"),
        (&["--where", "occurrences=many"], "contains numbers"),
        (&["--sort", "size"], "there are: index, row, label"),
        (&["--out", "rows.xls"], ".csv"),
        (&["--top", "1", "--bottom", "1"], "cannot be used with"),
        (&["--names-by", "row"], "--names"),
    ] {
        let words: Vec<&str> = ["scores", "scores.csv"]
            .iter()
            .chain(words)
            .copied()
            .collect();
        let output = hindcast(dir, &words);
        assert_eq!(code(&output), 2, "{words:?}: {}", stderr(&output));
        assert!(
            stderr(&output).contains(hint),
            "{words:?}: {}",
            stderr(&output)
        );
    }
    let output = hindcast(dir, &["scores", "nowhere.csv"]);
    assert_eq!(code(&output), 1);
    assert!(stderr(&output).contains("nowhere.csv"));
}

#[test]
fn names_are_joined_by_row_or_index_from_any_file() {
    let dir = swept();
    let dir = dir.path();
    let rows = numbers(dir, "scores.csv", "row");
    let last = rows.iter().fold(0.0_f64, |m, r| m.max(*r)) as u64;
    let by_row: Vec<String> = (0..=last).map(|r| format!("{r}.png")).collect();
    let by_index: Vec<String> = (0..120).map(|i| format!("\"id, {i}\"")).collect();
    let write = |name: &str, text: String| fs::write(dir.join(name), text).unwrap();
    write("rows.txt", by_row.join("\r\n"));
    write(
        "rows.csv",
        (0..=last)
            .rev()
            .fold("row,file\n".to_owned(), |t, r| format!("{t}{r},{r}.png\n")),
    );
    write(
        "rows.jsonl",
        (0..=last).fold(String::new(), |t, r| {
            format!("{t}{{\"row\": {r}, \"size\": 9, \"name\": \"{r}.png\"}}\n")
        }),
    );
    write("ids.csv", format!("key\n{}\n", by_index.join("\n")));
    // Upper case and spaces don't make a different column.
    for (file, like) in [
        ("capitals.csv", "rows.csv"),
        ("capitals.jsonl", "rows.jsonl"),
    ] {
        let text = fs::read_to_string(dir.join(like)).unwrap();
        let text = match file {
            "capitals.csv" => text.replace("row,file", " ROW ,File"),
            _ => text
                .replace("\"row\"", "\"Row\"")
                .replace("\"name\"", "\"Name\""),
        };
        write(file, text);
    }
    for file in [
        "rows.txt",
        "rows.csv",
        "rows.jsonl",
        "capitals.csv",
        "capitals.jsonl",
    ] {
        fine(
            dir,
            &[
                "scores",
                "scores.csv",
                "--names",
                file,
                "--out",
                "named.csv",
            ],
        );
        let wanted: Vec<String> = numbers(dir, "named.csv", "row")
            .iter()
            .map(|r| format!("{r}.png"))
            .collect();
        assert_eq!(column(dir, "named.csv", "name"), wanted, "{file}");
    }
    let said = fine(
        dir,
        &[
            "influence",
            "run",
            "--names",
            "ids.csv",
            "--names-by",
            "index",
            "--out",
            "ids_out.csv",
            "--top",
            "1",
        ],
    );
    assert!(said.contains("  id, "), "{said}");
    let wanted: Vec<String> = (0..120).map(|i| format!("id, {i}")).collect();
    assert_eq!(column(dir, "ids_out.csv", "name"), wanted);
    // The names are kept in the table, can be used in conditions, and change no score.
    let said = fine(dir, &["scores", "ids_out.csv", "--where", "name=id, 7"]);
    assert_eq!(said.lines().count(), 2, "{said}");
    assert_eq!(
        column(dir, "ids_out.csv", "influence"),
        column(dir, "scores.csv", "influence")
    );
}

#[test]
fn names_that_do_not_fit_are_refused_before_the_sweep() {
    let dir = swept();
    let dir = dir.path();
    let write = |name: &str, text: &str| fs::write(dir.join(name), text).unwrap();
    let lines = |n: u64| (0..n).map(|i| format!("{i}\n")).collect::<String>();
    write("short.txt", &lines(10));
    write("long.txt", &lines(121));
    write("twice.csv", "index,name\n0,a\n1,b\n1,c\n");
    write("some.csv", "index,name\n0,a\n1,b\n");
    write("words.csv", "index,name\nzero,a\n");
    write(
        "spread.csv",
        "\u{feff}index,name\r\n\r\n0, \"a, b\"\r\nzero,b\r\n",
    );
    write("which.csv", "id,file\na,b\n");
    write("empty.txt", "");
    write("numbers.csv", "Row-Number,name\n1,a\n0,b\n");
    write("numbers.tsv", "row\tname\n1\ta\n0\tb\n");
    write(
        "later.jsonl",
        "{\"name\": \"a\"}\n{\"row\": 0, \"name\": \"b\"}\n",
    );
    write("half.jsonl", "{\"index\": 0, \"name\": \"a\"}\n\"b\"\n");
    for (words, hint) in [
        (&["short.txt"][..], "the file has 10 lines"),
        (
            &["long.txt", "--names-by", "index"],
            "a name for index 120, but the training split has 120 examples",
        ),
        (
            &["twice.csv"],
            "line 4: index 1 was already named in line 3",
        ),
        (&["some.csv"], "no name for index 2 (118 of 120"),
        (&["words.csv"], "line 2: `zero` is not a whole number"),
        (&["spread.csv"], "line 4: `zero` is not a whole number"),
        (&["which.csv"], "--name-column"),
        (&["which.csv", "--name-column", "text"], "no column `text`"),
        (
            &["numbers.csv"],
            "the column `Row-Number` seems to identify",
        ),
        (&["numbers.tsv"], "names aren't read from .tsv"),
        (&["later.jsonl"], "line 2: `row` is not in the first object"),
        (&["empty.txt"], "no names"),
        (&["half.jsonl"], "some lines"),
        (&["missing.txt"], "missing.txt"),
    ] {
        for verb in [
            &["influence", "run", "--out", "new.csv"][..],
            &["scores", "scores.csv"],
        ] {
            let words: Vec<&str> = verb
                .iter()
                .chain(&["--names"])
                .chain(words)
                .copied()
                .collect();
            let output = hindcast(dir, &words);
            assert_eq!(code(&output), 1, "{words:?}: {}", stdout(&output));
            assert!(
                stderr(&output).contains(hint),
                "{words:?} does not say {hint:?}: {}",
                stderr(&output)
            );
        }
        assert!(!dir.join("new.csv").exists());
    }
}

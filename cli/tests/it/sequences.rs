//! A program whose model predicts the next character: its sequences are shown as text, with the influence of each token.

use std::path::Path;
use std::process::Output;

use candle_core::{DType, Device, Result, Tensor};
use candle_nn::{Embedding, Linear, Module, Optimizer, SGD, VarBuilder, VarMap, embedding, linear};
use hindcast::OwnProgram;
use hindcast_analyzer::ScoreTable;
use hindcast_model::data::{DataSet, Sequences, Vocabulary};
use hindcast_model::objective::Split;
use hindcast_model::ops;
use hindcast_model::own::OwnModel;
use hindcast_recorder::{Recorder, UpdateRule};

use crate::own_process;

/// The variable with the kind of loss, for the process that runs the program.
const LOSS: &str = "HINDCAST_SEQUENCES_LOSS";

const TEXT: [&str; 6] = [
    "the cat sat on the mat",
    "the dog sat on the log",
    "a bird sang in the tree",
    "qzqzqzqzqzqzqzqzqzqzqz",
    "the cow ate the grass",
    "é = \"a, b\" – the end",
];
const TOKENS: usize = 26;
const PADDING: i64 = -100;

struct Net {
    embed: Embedding,
    out: Linear,
}

impl Net {
    fn new(vb: VarBuilder) -> Result<Self> {
        Ok(Self {
            embed: embedding(256, 8, vb.pp("embed"))?,
            out: linear(8, 256, vb.pp("out"))?,
        })
    }

    fn forward(&self, ids: &Tensor, _: bool) -> Result<Tensor> {
        self.out.forward(&self.embed.forward(ids)?)
    }
}

fn by_sequence(logits: &Tensor, targets: &Tensor) -> Result<Tensor> {
    ops::sequence_cross_entropy(logits, targets, Some(PADDING))
}

fn by_token(logits: &Tensor, targets: &Tensor) -> Result<Tensor> {
    ops::token_cross_entropy(logits, targets, Some(PADDING))
}

/// Each line's bytes, and the bytes that come next.
fn data() -> Box<dyn DataSet> {
    let pair = |lines: &[&str]| {
        let (mut inputs, mut targets) = (Vec::new(), Vec::new());
        for line in lines {
            let bytes: Vec<i64> = line.bytes().map(i64::from).collect();
            inputs.extend((0..TOKENS).map(|at| bytes.get(at).copied().unwrap_or(0)));
            targets.extend((1..=TOKENS).map(|at| bytes.get(at).copied().unwrap_or(PADDING)));
        }
        let tensor = |ids| Tensor::from_vec(ids, (lines.len(), TOKENS), &Device::Cpu).unwrap();
        (tensor(inputs), tensor(targets))
    };
    let (train, validation) = (pair(&TEXT), pair(&["the cat sang", "a dog ate the mat"]));
    Sequences::new((&train.0, &train.1))
        .validation((&validation.0, &validation.1))
        .vocabulary(Vocabulary::bytes())
        .build()
        .unwrap()
}

fn record(path: &Path) {
    let data = data();
    let variables = VarMap::new();
    let net = Net::new(VarBuilder::from_varmap(
        &variables,
        DType::F32,
        &Device::Cpu,
    ))
    .unwrap();
    // The same values in every run of the tests.
    for (name, var) in variables.data().lock().unwrap().iter() {
        let value = |at: usize| 0.5 * ((at + 7 * name.len()) as f32 * 0.7).sin();
        let values = (0..var.elem_count()).map(value).collect::<Vec<_>>();
        let values = Tensor::from_vec(values, var.dims(), &Device::Cpu).unwrap();
        var.set(&values).unwrap();
    }
    let run = Recorder::builder(path)
        .rule(UpdateRule::sgd())
        .fingerprint(data.fingerprint())
        .create(&variables)
        .unwrap();
    let mut sgd = run.wrap(SGD::new(variables.all_vars(), 0.5).unwrap());
    for step in 0..12u64 {
        let indices: Vec<u64> = (0..3).map(|k| (step * 3 + k * 2) % 6).collect();
        let batch = data
            .batch(Split::Train, &indices, None, DType::F32, &Device::Cpu)
            .unwrap();
        let logits = net.forward(&batch.inputs, true).unwrap();
        let loss = by_sequence(&logits, &batch.targets).unwrap();
        run.batch(0, &indices).unwrap();
        sgd.backward_step(&loss.mean_all().unwrap()).unwrap();
    }
    run.finish().unwrap();
}

/// Not a test: the process of the program, which the tests below start.
#[test]
#[ignore = "started by the other tests of this module"]
fn process() {
    let Some(words) = own_process::words("chars") else {
        return;
    };
    let loss = match std::env::var(LOSS).as_deref() {
        Ok("sequence") => by_sequence,
        _ => by_token,
    };
    let model = OwnModel::new(Net::new, Net::forward, loss).unwrap();
    own_process::exit(OwnProgram::new(model, |_| Ok(data())).run_args(words));
}

fn chars(dir: &Path, loss: &str, words: &[&str]) -> Output {
    let mut command = own_process::command("sequences", dir, words);
    command.env(LOSS, loss).output().unwrap()
}

fn fine(dir: &Path, words: &[&str]) -> String {
    let output = chars(dir, "token", words);
    let out = String::from_utf8_lossy(&output.stdout).into_owned();
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "chars {words:?}\n{out}{err}");
    out
}

/// The exit code and the messages.
fn refused(dir: &Path, loss: &str, words: &[&str]) -> (Option<i32>, String) {
    let output = chars(dir, loss, words);
    let err = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.code(), err)
}

/// A sequence has no single label, so only losses are known; its loss is explained like any other.
#[test]
fn sequences_have_losses_but_no_predicted_label_and_say_so() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    record(&dir.join("run"));
    let text = fine(
        dir,
        &["predict", "run", "--split", "train", "--out", "p.csv"],
    );
    assert!(
        text.contains("6 train examples")
            && text.contains("no predictions: an example has several targets"),
        "{text}"
    );
    fine(dir, &["influence", "run", "--query", "each:train"]);
    let table = ScoreTable::read(&dir.join("scores.csv")).unwrap();
    let mut csv = csv::Reader::from_path(dir.join("p.csv")).unwrap();
    assert_eq!(table.metadata.queries.len(), 6);
    for (row, query) in csv.records().zip(&table.metadata.queries) {
        let row = row.unwrap();
        assert_eq!((&row[4], &row[5], &row[6]), ("", "", ""));
        let (loss, value) = (row[7].parse::<f64>().unwrap(), query.value);
        assert!((loss - value).abs() < 1e-5 * value, "{loss} {value}");
    }
    let (code, said) = refused(dir, "token", &["predict", "run", "--wrong"]);
    assert_eq!(code, Some(2), "{said}");
    assert!(
        said.contains("--wrong: an example has several targets"),
        "{said}"
    );
    let text = fine(dir, &["explain", "run", "validation:0"]);
    assert!(
        text.contains("pushed away from the label") && !text.contains("predicted"),
        "{text}"
    );
}

#[test]
fn the_influence_of_tokens_is_written_printed_and_shown() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    record(&dir.join("run"));
    let asked = [
        "influence",
        "run",
        "--query",
        "validation",
        "--query",
        "train:0",
        "--top",
        "2",
    ];
    let out = fine(
        dir,
        &[asked.as_slice(), &["--tokens", "tokens.csv"]].concat(),
    );
    // Labels are text. The gibberish harms, and marks are around parts of it.
    assert!(out.contains(" zqzqzqzqzqzqzqzqzqzqz "), "{out}");
    assert!(out.contains("where in these sequences"), "{out}");
    assert!(out.contains("{+") && out.contains("[-"), "{out}");
    let table = ScoreTable::read(&dir.join("scores.csv")).unwrap();
    // The first byte of é is the first input, so its second byte alone is the first target.
    assert_eq!(table.rows[5].label, "\u{fffd} = \"a, b\" – the end");

    // Each row by hand: the bytes in order, and sums that are the scores.
    let mut csv = csv::Reader::from_path(dir.join("tokens.csv")).unwrap();
    let heads: Vec<String> = csv.headers().unwrap().iter().map(String::from).collect();
    let expected = [
        "index",
        "position",
        "token",
        "text",
        "influence[validation]",
        "influence[train:0]",
    ];
    assert_eq!(heads, expected);
    let mut sums = [[0.0; 2]; 6];
    let mut texts = vec![String::new(); 6];
    let mut bytes = vec![Vec::new(); 6];
    for row in csv.records() {
        let row = row.unwrap();
        let index: usize = row[0].parse().unwrap();
        assert_eq!(row[1].parse::<usize>().unwrap(), bytes[index].len());
        bytes[index].push(row[2].parse::<u8>().unwrap());
        texts[index] += row[3]
            .strip_prefix('\'')
            .filter(|rest| !rest.is_empty())
            .unwrap_or(&row[3]);
        for q in 0..2 {
            sums[index][q] += row[4 + q].parse::<f64>().unwrap();
        }
    }
    for (index, line) in TEXT.iter().enumerate() {
        assert_eq!(bytes[index], line.as_bytes()[1..]);
        if index < 5 {
            assert_eq!(texts[index], line[1..]);
        }
        for (q, sum) in sums[index].iter().enumerate() {
            let whole = table.rows[index].influence[q].unwrap();
            assert!(
                (sum - whole).abs() < 1e-12 * whole.abs().max(1e-3),
                "{sum} {whole}"
            );
        }
    }

    // The page has the text in pieces; their sum is the sequence's text. JSON lines hold the same.
    fine(
        dir,
        &[
            asked.as_slice(),
            &["--tokens", "t.jsonl", "--out", "again.csv"],
        ]
        .concat(),
    );
    for tokens in ["tokens.csv", "t.jsonl"] {
        fine(
            dir,
            &[
                "report",
                "run",
                "scores.csv",
                "--tokens",
                tokens,
                "--out",
                "r.html",
            ],
        );
        let page = std::fs::read_to_string(dir.join("r.html")).unwrap();
        let cells: Vec<&str> = page.split("<td class=\"tokens\">").skip(1).collect();
        assert!(!cells.is_empty());
        let texts: Vec<String> = cells.iter().map(|cell| plain(cell)).collect();
        assert!(texts.iter().any(|text| *text == TEXT[3][1..]), "{texts:?}");
        assert!(page.contains("class=\"harm w3\"") && page.contains("class=\"help w"));
    }
}

/// The text of a cell, without tags.
fn plain(cell: &str) -> String {
    let cell = cell.split("</td>").next().unwrap();
    let parts = cell
        .split('<')
        .map(|part| part.split_once('>').map_or(part, |(_, text)| text));
    let text: String = parts.collect();
    text.replace("&quot;", "\"")
}

#[test]
fn tokens_are_refused_where_they_are_not_defined() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    record(&dir.join("run"));
    let tokens = ["influence", "run", "--tokens", "t.csv"];
    let (code, said) = refused(dir, "sequence", &tokens);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("ops::token_cross_entropy"), "{said}");
    assert!(!dir.join("t.csv").exists() && !dir.join("scores.csv").exists());
    for (more, about) in [
        (["--method", "tracin"], "tracin is not a sweep"),
        (["--tokens", "t.txt"], ".csv or .jsonl"),
        (["--out", "t.csv"], "the table (--out)"),
    ] {
        let words: Vec<&str> = if more[0] == "--tokens" {
            vec!["influence", "run", more[0], more[1]]
        } else {
            [tokens.as_slice(), &more].concat()
        };
        let (code, said) = refused(dir, "token", &words);
        assert!(code == Some(2) || about.starts_with("the table"), "{said}");
        assert!(said.contains(about), "{said}");
    }
    // A table of tokens of another question doesn't fit a page.
    fine(
        dir,
        &["influence", "run", "--tokens", "t.csv", "--at", "final"],
    );
    fine(dir, &["influence", "run", "--out", "mean.csv"]);
    let page = ["report", "run", "mean.csv", "--tokens", "t.csv"];
    let (code, said) = refused(dir, "token", &page);
    assert_eq!(code, Some(1), "{said}");
    assert!(
        said.contains("add up to") && said.contains("t.csv"),
        "{said}"
    );
    // A file of another kind isn't replaced, nor read as such a table.
    std::fs::write(dir.join("notes.csv"), "my notes\n").unwrap();
    let (_, said) = refused(dir, "token", &["influence", "run", "--tokens", "notes.csv"]);
    assert!(said.contains("isn't a table of tokens"), "{said}");
    let page = ["report", "run", "mean.csv", "--tokens", "notes.csv"];
    let (_, said) = refused(dir, "token", &page);
    assert!(said.contains("no column `index`"), "{said}");
}

//! `hindcast task new`: a task for the user's own files.

mod arrays;
mod beside;
mod csv;
mod draft;
mod folders;
mod look;
mod model;
mod names;
mod places;
mod text;
mod trial;

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use hindcast_analyzer::output::{self, Kind};
use hindcast_model::data::DataSet;
use hindcast_model::objective::Split;
use hindcast_model::task::Task;
use toml::Value;

use crate::args::{NewKind, TaskNew};
use crate::commands::{Outcome, Usage, ends_in};
use crate::terminal::{self, field, say};
use crate::words::{plural, quoted};
use draft::{Draft, Inputs, line, one_line, texts};
use model::Facts;
use places::Places;
use trial::{trial, written};

/// Share of the examples in each of the other splits.
const SHARE: u64 = 5;
/// Number of features above which a table gets a linear model.
const WIDE: usize = 200;
/// Largest number of examples that are drawn for another split.
const LARGEST: u64 = 10_000;

pub(super) fn run(args: &TaskNew) -> anyhow::Result<Outcome> {
    let (args, of_folders) = &with_folders(args.clone());
    if let Some(out) = &args.out {
        ends_in("--out", out, "toml")?;
        output::replaceable(out, Kind::New)
            .with_context(|| format!("cannot write {}", out.display()))?;
    }
    let others = args.validation.iter().chain(&args.test);
    for path in args.files.iter().chain(others.clone()) {
        there(path)?;
    }
    let places = Places::of(args.files.iter().chain(others))?;
    let mut draft = drafted(args, &places)?;
    draft.found.extend(of_folders.iter().cloned());
    splits(&mut draft, args, &places)?;
    let data = trial(&draft.data, &draft.tables, &places)?;
    let described = data.describe();
    let notes = described.lines().filter_map(|l| l.strip_prefix("note: "));
    draft.found.extend(notes.map(str::to_owned));
    let text = whole(args, &draft, &places, data.as_ref())?;
    let task = Task::from_toml(&text).context("the new task")?;
    let misfits = task.misfits(data.as_ref(), 10);
    if !misfits.is_empty() {
        let list: Vec<String> = misfits.iter().map(ToString::to_string).collect();
        bail!("no task for this data can be trained: {}", list.join("; "));
    }
    for sentence in &draft.found {
        say!("{}", field(sentence));
    }
    match &args.out {
        None => write!(terminal::stdout(), "{text}")?,
        Some(out) => {
            output::replace(out, Kind::New, |to| std::fs::write(to, &text))
                .with_context(|| format!("cannot write {}", out.display()))?;
            writeln!(
                terminal::stdout(),
                "wrote {}; next: {}",
                field(out.display()),
                check_line(out, &places)
            )?;
        }
    }
    Ok(Outcome::Fine)
}

/// Refuses a file or folder that doesn't exist.
fn there(path: &Path) -> anyhow::Result<()> {
    if path.exists() {
        return Ok(());
    }
    // A name with an extension is one of a file.
    let what = match path.extension() {
        Some(_) => "file",
        None => "file or folder",
    };
    bail!("{}: there is no such {what}", path.display());
}

/// The arguments with the folders of the splits in the place of one folder that holds them, and what to say about it.
fn with_folders(mut args: TaskNew) -> (TaskNew, Vec<String>) {
    let (NewKind::Images, [folder]) = (args.kind, args.files.as_slice()) else {
        return (args, Vec::new());
    };
    let Some(found) = folders::splits(folder) else {
        return (args, Vec::new());
    };
    let name = |path: &Path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        format!("{name:?}")
    };
    let mut splits = vec![format!("{} is the train split", name(&found.train))];
    let others = [
        ("validation", found.validation, &mut args.validation),
        ("test", found.test, &mut args.test),
    ];
    for (split, path, given) in others {
        if let (Some(path), true) = (path, given.is_empty()) {
            splits.push(format!("{} is the {split} split", name(&path)));
            given.push(path);
        }
    }
    let mut said = vec![format!(
        "{}: by the names of its folders, {}.",
        folder.display(),
        splits.join(", ")
    )];
    if !found.others.is_empty() {
        let others: Vec<String> = found.others.iter().map(|path| name(path)).collect();
        said.push(format!(
            "Folders that belong to no split are left out: {}.",
            others.join(", ")
        ));
    }
    args.files = vec![found.train];
    (args, said)
}

fn drafted(args: &TaskNew, places: &Places) -> anyhow::Result<Draft> {
    let extension = |wanted: &str| {
        let first = args.files.first().and_then(|f| f.extension());
        first
            .and_then(|e| e.to_str())
            .is_some_and(|e| e.eq_ignore_ascii_case(wanted))
    };
    let asked = csv::Asked {
        label: args.label.as_deref(),
        target: args.target,
    };
    let kind = match args.kind {
        NewKind::Csv => "csv",
        NewKind::Npy => "npy",
        NewKind::Images => "images",
        NewKind::Text => "text",
    };
    let table = args.kind == NewKind::Csv || args.kind == NewKind::Text && extension("csv");
    let documents = args.kind == NewKind::Text && (extension("jsonl") || extension("json"));
    if args.label.is_some() && !table && !documents {
        return Err(Usage(format!(
            "--label names a column of a table or a field of documents; {kind} files have none"
        ))
        .into());
    }
    if args.target.is_some() && !table && args.kind != NewKind::Npy {
        return Err(Usage(format!(
            "--target is for csv and npy; {kind} files have classes"
        ))
        .into());
    }
    if table {
        csv::draft(&args.files, places, &asked)
    } else if documents {
        text::documents(&args.files, places, args.label.as_deref())
    } else {
        match args.kind {
            NewKind::Npy => arrays::npy(&args.files, places, args.target),
            NewKind::Images => arrays::images(&args.files, places),
            _ => text::characters(&args.files, places),
        }
    }
}

/// Adds the files of the other splits, or their numbers of examples.
fn splits(draft: &mut Draft, args: &TaskNew, places: &Places) -> anyhow::Result<()> {
    let all = trial(&draft.data, &draft.tables, places)?.len(Split::Train);
    let given = (&args.validation, &args.test);
    let validation = of_split(draft, args, places, given.0, Split::Validation)?;
    let test = of_split(draft, args, places, given.1, Split::Test)?;
    if args.train_on_all {
        draft.found.extend(not_held_out(all, validation, test));
        return Ok(());
    }
    let drawn = (all / SHARE).min(LARGEST);
    if drawn == 0 {
        bail!(
            "{all} examples are too few: {SHARE} are the fewest of which validation examples can be drawn (--train-on-all draws none)"
        );
    }
    if !test && !validation {
        draft.set("pool", "train", "the splits are drawn from these files");
    }
    if !validation {
        draft.set(
            "validation",
            to_i64(drawn),
            "examples to ask about, not trained on",
        );
    }
    if !test && !validation {
        draft.set("test", to_i64(drawn), "examples for a last comparison");
    }
    Ok(())
}

/// What a task without examples of the other splits can't do, in sentences.
fn not_held_out(all: u64, validation: bool, test: bool) -> Vec<String> {
    let of_all =
        format!("All {all} examples are trained on, so `clean` judges all of their labels");
    match (validation, test) {
        (true, _) => Vec::new(),
        (false, true) => vec![
            format!("{of_all}."),
            "There are no validation examples: name the test split where a command takes a split or a query (influence --query test, predict --split test)."
                .to_owned(),
        ],
        (false, false) => vec![
            format!("{of_all}. It needs no other examples."),
            "No examples are left to measure the model by: influence, counterfactual, explain and predict can take training examples only \
             (--query train, explain RUN train:0, --split train), and clean --retrain measures nothing. --validation FILE or --test FILE names some."
                .to_owned(),
        ],
    }
}

/// Adds the files of a split: those that the user names, or those that lie beside the training files. Returns whether there
/// are any.
fn of_split(
    draft: &mut Draft,
    args: &TaskNew,
    places: &Places,
    given: &[PathBuf],
    split: Split,
) -> anyhow::Result<bool> {
    let key = format!("{}_files", split.name());
    if !given.is_empty() {
        let value = files_of(draft, given, places)?;
        draft.set(&key, value, "");
        return Ok(true);
    }
    let words: &[&str] = match split {
        Split::Test => &beside::TEST,
        _ => &beside::VALIDATION,
    };
    let Some(files) = beside::beside(&args.files, words) else {
        return Ok(false);
    };
    let mut with = draft.clone();
    with.set(&key, files_of(draft, &files, places)?, "");
    let names: Vec<String> = files
        .iter()
        .map(|f| places.name(f))
        .collect::<Result<_, _>>()?;
    let names = names.join(" and ");
    match trial(&with.data, &with.tables, places) {
        Ok(data) => {
            with.found.push(format!(
                "{names}: {} {} {}, by the name.",
                data.len(split),
                split.name(),
                plural(data.len(split), "example", "examples")
            ));
            *draft = with;
            Ok(true)
        }
        Err(e) => {
            draft.found.push(format!(
                "{names} can't be used as {} examples: {e:#}",
                split.name()
            ));
            Ok(false)
        }
    }
}

/// The value of `validation_files` or `test_files`.
fn files_of(draft: &Draft, files: &[PathBuf], places: &Places) -> anyhow::Result<Value> {
    let names: Vec<String> = files
        .iter()
        .map(|f| places.name(f))
        .collect::<Result<_, _>>()?;
    let pairs = draft
        .data
        .iter()
        .any(|line| line.text.starts_with("train_files = {"));
    Ok(match (names.as_slice(), pairs) {
        ([inputs, labels], true) => arrays::pair_of(inputs, labels),
        (_, true) => bail!(Usage(format!(
            "--validation and --test: expected two files, first the inputs and then the labels, got {}",
            files.len()
        ))),
        ([one], false) => Value::String(one.clone()),
        (many, false) => texts(many),
    })
}

/// The text of the task.
fn whole(
    args: &TaskNew,
    draft: &Draft,
    places: &Places,
    data: &dyn DataSet,
) -> anyhow::Result<String> {
    let inputs = match draft.inputs {
        // Columns of words make a table as wide as vectors are.
        Inputs::Columns if data.shape().iter().product::<usize>() > WIDE => Inputs::Vectors,
        inputs => inputs,
    };
    let model = model::tables(&Facts {
        inputs,
        shape: data.shape(),
        classes: data.class_count().filter(|_| !draft.values),
        values: width_of_label(data)?,
        train: data.len(Split::Train),
    });
    let out = args
        .out
        .clone()
        .unwrap_or_else(|| PathBuf::from(format!("{}.toml", draft.name)));
    let mut head = vec![
        "Written by `hindcast task new`, which looked at the files. Every key is explained by `hindcast task keys`.".to_owned(),
        String::new(),
    ];
    head.extend(draft.found.iter().cloned());
    head.extend([
        String::new(),
        check_line(&out, places),
        record_line(&out, places, &draft.name),
    ]);
    let head: String = head
        .iter()
        .map(|line| format!("# {}", one_line(line)).trim_end().to_owned() + "\n")
        .collect();
    let name = line("name", draft.name.as_str(), "").text;
    let tables = written(&draft.data, &draft.tables);
    Ok(format!("{head}{name}\n\n{tables}\n{model}"))
}

/// Number of values of a label.
fn width_of_label(data: &dyn DataSet) -> anyhow::Result<usize> {
    let device = candle_core::Device::Cpu;
    let batch = data.batch(Split::Train, &[0], None, candle_core::DType::F64, &device)?;
    Ok(batch.targets.elem_count())
}

fn check_line(task: &Path, places: &Places) -> String {
    format!(
        "hindcast task check {} --data {}",
        word(task),
        word(&places.folder)
    )
}

fn record_line(task: &Path, places: &Places, name: &str) -> String {
    format!(
        "hindcast record {} --data {} --out {}",
        word(task),
        word(&places.folder),
        word(&Path::new("runs").join(name))
    )
}

/// A path as a word for a shell.
fn word(path: &Path) -> String {
    quoted(&path.display().to_string())
}

fn to_i64(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

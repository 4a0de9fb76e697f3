//! The facts about a run that a page shows.

use hindcast_format::{DataIdentity, FormatError, Trace, hex, lineage, made};

use crate::contents::{
    Contents, NO_HEAD, about_never_trained, in_a_line, never_trained, status, training_examples,
};
use crate::words::{bytes, grouped, plural};
use hindcast_analyzer::run::user_notes;

/// The name of the fact about the update rule.
const RULE: &str = "Update rule";

/// A run in words and numbers.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Facts {
    pub task: String,
    pub head: String,
    /// The numbers at the top: value, description.
    pub headline: Vec<(String, String)>,
    /// All other facts: name, value.
    pub list: Vec<(String, String)>,
    /// Descriptions of what is damaged or missing.
    pub problems: Vec<String>,
}

impl Facts {
    /// Reads the facts from a trace.
    pub fn of(trace: &Trace) -> Facts {
        let contents = Contents::of(trace);
        let mut problems: Vec<String> = trace.problems().iter().map(ToString::to_string).collect();
        let mut noted = |e: FormatError| problems.push(e.to_string());
        let epochs = trace.epochs().map_err(&mut noted).ok();
        if !problems.is_empty() {
            // The listed steps of a damaged run may not be readable, so they are counted by reading.
            match trace.readable(0..u64::MAX) {
                Ok(readable) if readable.steps < contents.steps => problems.push(format!(
                    "{} of the {} recorded steps can be read",
                    readable.steps, contents.steps
                )),
                Ok(_) => {}
                Err(e) => problems.push(e.to_string()),
            }
        }
        Facts {
            headline: headline(trace, &contents, epochs.map(|epochs| epochs.len() as u64)),
            list: list(trace, &contents),
            task: contents.task,
            head: contents.head.unwrap_or_default(),
            problems,
        }
    }
}

impl Facts {
    /// Adds facts about the training after the update rule.
    pub fn insert(&mut self, trained: Vec<(String, String)>) {
        let rule = self.list.iter().position(|(name, _)| name == RULE);
        let at = rule.map_or(self.list.len(), |at| at + 1);
        self.list.splice(at..at, trained);
    }
}

/// `epochs` is `None` if damage hides how many there are.
fn headline(trace: &Trace, contents: &Contents, epochs: Option<u64>) -> Vec<(String, String)> {
    let mut out = vec![
        (grouped(contents.steps), "steps recorded".to_owned()),
        match epochs {
            Some(n) => (grouped(n), plural(n, "epoch", "epochs").to_owned()),
            None => ("unknown".to_owned(), "number of epochs".to_owned()),
        },
        (grouped(contents.parameters), "parameters".to_owned()),
    ];
    if let Some(examples) = training_examples(trace.info()) {
        out.push((grouped(examples), "training examples".to_owned()));
    }
    out.push((
        // No line breaks before a unit.
        bytes(contents.stored_bytes).replace(' ', "\u{a0}"),
        format!(
            "in segments, {:.0}\u{a0}% of the raw bytes",
            100.0 * contents.ratio()
        ),
    ));
    out
}

fn list(trace: &Trace, contents: &Contents) -> Vec<(String, String)> {
    let (info, layout, span) = (trace.info(), trace.layout(), trace.span());
    let holds = match contents.gaps {
        0 => format!("steps {} to {}", span.start, span.end),
        n => format!(
            "{} of the steps {} to {}, {} more without their tensors",
            grouped(contents.steps),
            span.start,
            span.end,
            grouped(n)
        ),
    };
    let tensors = format!(
        "{} of parameters, {} of buffers, {} of optimizer state",
        layout.parameters().len(),
        layout.buffers().len(),
        layout.optimizer_state().len()
    );
    let rule = info
        .rule
        .as_deref()
        .map_or("not recorded".to_owned(), in_a_line);
    let mut out: Vec<(String, String)> = [
        ("Recorded", format!("{} by {}", info.created, info.writer)),
        ("Status", status(trace.status()).to_owned()),
        ("Holds", holds),
        ("Kept", info.keep.clone()),
        ("Tensors", tensors),
        (RULE, rule),
        ("Seed", info.seed.to_string()),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into();
    let untrained = about_never_trained(&never_trained(trace), layout.parameters().len());
    out.extend(untrained.map(|text| ("Never trained".to_owned(), text)));
    match &info.data {
        DataIdentity::None => {
            out.push(("Data".to_owned(), "no fingerprint was recorded".to_owned()));
        }
        DataIdentity::Fingerprint { splits } => {
            out.extend(splits.iter().filter(|s| s.examples > 0).map(|split| {
                let examples = grouped(split.examples);
                (
                    format!("Data, {}", split.name),
                    format!("{examples} examples, fingerprint {}", hex(&split.root)),
                )
            }));
        }
    }
    let derived = lineage(info);
    out.extend(derived.iter().map(|a| ("Derived".to_owned(), a.in_words())));
    out.extend(user_notes(info).map(|(key, text)| (format!("Note, {key}"), text.clone())));
    out.extend(made(&info.notes).map(|(key, text)| (made_heading(key), text.to_owned())));
    let head = contents.head.as_deref().unwrap_or(NO_HEAD);
    out.push(("Head digest".to_owned(), head.to_owned()));
    out
}

/// The heading of a note about how the run was made.
fn made_heading(key: &str) -> String {
    let heading = match key {
        "arch" => "Architecture",
        "command" => "Command line",
        "commit" => "Commit",
        "cores" => "Cores",
        "features" => "Built with",
        "gpu" => "GPU",
        "os" => "Operating system",
        "processor" => "Processor",
        "program" => "Program",
        "vectors" => "Widest vectors",
        other => return format!("Made, {other}"),
    };
    heading.to_owned()
}

//! What two runs say about themselves.

use std::collections::{BTreeMap, BTreeSet};

use hindcast_format::{DataIdentity, FrozenTensor, RunInfo, Trace, hex, made};
use hindcast_model::objective::Split;
use hindcast_model::task::Task;
use serde::Serialize;

use crate::run::user_notes;

/// Number of hexadecimal digits of a digest that are shown.
const DIGITS: usize = 16;

/// A setting in which two runs differ.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SettingDifference {
    /// Its name: a key of the task such as `train.seed`, or one of rule.KEY, seed, objective, data.SPLIT.examples, data.SPLIT.fingerprint,
    /// tensor.NAME, frozen.NAME, note.KEY, made.KEY, kept, written_by.
    pub setting: String,
    /// Its value in the first run; `None` if that run has none.
    pub first: Option<String>,
    /// Its value in the second run.
    pub second: Option<String>,
}

/// The settings in which two runs differ: first the keys of their tasks, then everything else that they say about themselves. Times
/// and names of runs aren't settings.
pub fn settings(a: &Trace, b: &Trace) -> Vec<SettingDifference> {
    let mut out = Vec::new();
    for of in [of_task, of_rest] {
        let (first, second) = (of(a.info()), of(b.info()));
        let names: BTreeSet<&String> = first.keys().chain(second.keys()).collect();
        for name in names {
            let (x, y) = (first.get(name), second.get(name));
            if x != y {
                out.push(SettingDifference {
                    setting: name.clone(),
                    first: x.cloned(),
                    second: y.cloned(),
                });
            }
        }
    }
    out
}

/// Whether the runs were trained on the same examples, by the recorded fingerprints of the training split. `None` if a run has none.
pub fn same_training_data(a: &Trace, b: &Trace) -> Option<bool> {
    let root = |trace: &Trace| match &trace.info().data {
        DataIdentity::None => None,
        DataIdentity::Fingerprint { splits } => {
            let train = splits
                .iter()
                .find(|split| split.name == Split::Train.name());
            train.map(|split| split.root)
        }
    };
    Some(root(a)? == root(b)?)
}

type Settings = BTreeMap<String, String>;

/// The keys of a run's task, with the defaults of those that its text leaves out.
fn of_task(info: &RunInfo) -> Settings {
    let mut out = Settings::new();
    let Some(text) = &info.task else {
        return out;
    };
    // A task of another version is compared as it was written.
    let table = Task::from_toml(text)
        .ok()
        .and_then(|task| toml::Value::try_from(&task).ok())
        .or_else(|| toml::from_str(text).ok().map(toml::Value::Table));
    if let Some(table) = table {
        flatten("", &table, &mut out);
    }
    out
}

/// Adds the values of a TOML value under their dotted keys. The elements of a list of tables get a number: `model.layers[0].kind`.
fn flatten(key: &str, value: &toml::Value, out: &mut Settings) {
    match value {
        toml::Value::Table(table) => {
            for (name, value) in table {
                let dot = if key.is_empty() { "" } else { "." };
                flatten(&format!("{key}{dot}{name}"), value, out);
            }
        }
        toml::Value::Array(list) if list.iter().any(toml::Value::is_table) => {
            for (at, value) in list.iter().enumerate() {
                flatten(&format!("{key}[{at}]"), value, out);
            }
        }
        toml::Value::String(text) => drop(out.insert(key.to_owned(), text.clone())),
        other => drop(out.insert(key.to_owned(), other.to_string())),
    }
}

/// Everything else that identifies a run.
fn of_rest(info: &RunInfo) -> Settings {
    let mut out = Settings::new();
    if info.task.is_none() {
        // A task contains its rule and its seed.
        let rule = info.rule.as_deref().map(toml::from_str);
        match rule {
            Some(Ok(table)) => flatten("rule", &toml::Value::Table(table), &mut out),
            Some(Err(_)) => {
                drop(out.insert("rule".to_owned(), info.rule.clone().unwrap_or_default()))
            }
            None => {}
        }
        out.insert("seed".to_owned(), info.seed.to_string());
    }
    if let Some(objective) = &info.objective {
        out.insert("objective".to_owned(), objective.clone());
    }
    if let DataIdentity::Fingerprint { splits } = &info.data {
        for split in splits {
            let key = |what: &str| format!("data.{}.{what}", split.name);
            out.insert(key("examples"), split.examples.to_string());
            out.insert(key("fingerprint"), hex(&split.root)[..DIGITS].to_owned());
        }
    }
    for tensor in info.layout.tensors() {
        let role = serde_json::to_value(tensor.role).map_or(String::new(), |role| {
            format!(", {}", role.as_str().unwrap_or_default())
        });
        out.insert(
            format!("tensor.{}", tensor.name),
            format!("{} {:?}{role}", tensor.dtype, tensor.shape),
        );
    }
    for tensor in FrozenTensor::of_notes(&info.notes) {
        let digest = hex(&tensor.digest)[..DIGITS].to_owned();
        out.insert(format!("frozen.{}", tensor.name), digest);
    }
    for (key, text) in user_notes(info) {
        out.insert(format!("note.{key}"), text.clone());
    }
    // The command line always differs: it names the run.
    for (key, text) in made(&info.notes).filter(|(key, _)| *key != "command") {
        out.insert(format!("made.{key}"), text.to_owned());
    }
    out.insert("kept".to_owned(), info.keep.clone());
    out.insert("written_by".to_owned(), info.writer.clone());
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nested_keys_are_flattened() {
        let text = "a = 1\n[b]\nc = \"x\"\nlist = [1, 2]\n[[b.layers]]\nkind = \"k\"\n[[b.layers]]\nout = 3\n";
        let mut out = Settings::new();
        flatten("", &toml::from_str(text).unwrap(), &mut out);
        let found: Vec<(&str, &str)> = out.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        assert_eq!(
            found,
            [
                ("a", "1"),
                ("b.c", "x"),
                ("b.layers[0].kind", "k"),
                ("b.layers[1].out", "3"),
                ("b.list", "[1, 2]"),
            ]
        );
    }
}

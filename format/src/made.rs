//! Where and with what a run was made, in notes of its description.

use std::collections::BTreeMap;
use std::fmt;

use crate::meta::{Extension, StepMeta};

/// Prefix of the keys of these notes.
const PREFIX: &str = "made.";

/// The machine on which a run was recorded, as far as its arithmetic depends on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Processor {
    /// The model's name, as the processor tells it.
    pub model: String,
    /// The widest vectors that it computes with: `avx512`, `avx2`, `neon` or `none`.
    pub vectors: String,
}

impl fmt::Display for Processor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.model, self.vectors)
    }
}

impl Processor {
    /// The processor of this machine.
    #[cfg(feature = "machine")]
    pub fn here() -> Processor {
        use sysinfo::{CpuRefreshKind, RefreshKind, System};
        let kind = RefreshKind::nothing().with_cpu(CpuRefreshKind::nothing());
        let system = System::new_with_specifics(kind);
        let model = system.cpus().first().map(|cpu| cpu.brand().trim());
        let model = model.filter(|model| !model.is_empty());
        Processor {
            model: model.unwrap_or(std::env::consts::ARCH).to_owned(),
            vectors: vectors().to_owned(),
        }
    }

    /// The processor on which a run was recorded. `None` if the run doesn't say it.
    pub fn of(notes: &BTreeMap<String, String>) -> Option<Processor> {
        let note = |key: &str| notes.get(&format!("{PREFIX}{key}")).cloned();
        Some(Processor {
            model: note("processor")?,
            vectors: note("vectors")?,
        })
    }
}

/// The widest vectors for which matrix products have kernels.
#[cfg(feature = "machine")]
fn vectors() -> &'static str {
    #[cfg(target_arch = "x86_64")]
    {
        if is_x86_feature_detected!("avx512f") {
            return "avx512";
        }
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            return "avx2";
        }
    }
    if cfg!(target_arch = "aarch64") {
        "neon"
    } else {
        "none"
    }
}

/// What a run says about how it was made, in the order in which it is shown: words and texts.
pub fn made(notes: &BTreeMap<String, String>) -> impl Iterator<Item = (&str, &str)> {
    let made = notes.iter();
    made.filter_map(|(key, text)| Some((key.strip_prefix(PREFIX)?, text.as_str())))
}

/// Id of the extension record of a step's metadata that says how the steps of a resumed session were made.
pub const SESSION: u32 = 3;

impl Extension {
    /// The record of a resumed session: the notes that a new run would have about how it is made.
    pub fn of_session(notes: &BTreeMap<String, String>) -> Extension {
        let made: BTreeMap<&str, &str> = made(notes).collect();
        // A map of texts can always be written as JSON.
        let bytes = serde_json::to_vec(&made).unwrap_or_default();
        Extension { id: SESSION, bytes }
    }
}

impl StepMeta {
    /// The metadata without the record of a resumed session, as a run has it that was recorded in one session.
    pub fn without_session(mut self) -> StepMeta {
        self.extensions.retain(|record| record.id != SESSION);
        self
    }
}

/// How the resumed session was made that recorded this step: the notes that a new run would have. `None` if the step isn't the first of a
/// segment, if it is of the run's first session, or if nothing was recorded.
pub fn session_of(meta: &StepMeta) -> Option<BTreeMap<String, String>> {
    let record = meta.extensions.iter().find(|record| record.id == SESSION)?;
    let made: BTreeMap<String, String> = serde_json::from_slice(&record.bytes).ok()?;
    let notes = made.into_iter().map(|(what, text)| made_note(&what, text));
    Some(notes.collect())
}

/// Whether a note with this key says how a run was made.
pub fn is_made_key(key: &str) -> bool {
    key.starts_with(PREFIX)
}

/// The note that says this about how a run was made.
pub fn made_note(what: &str, text: impl Into<String>) -> (String, String) {
    (format!("{PREFIX}{what}"), text.into())
}

/// Notes about this machine: its processor, the number of its cores, and its operating system.
#[cfg(feature = "machine")]
pub fn made_here() -> Vec<(String, String)> {
    let Processor { model, vectors } = Processor::here();
    let mut notes = vec![
        made_note("processor", model),
        made_note("vectors", vectors),
        made_note("arch", std::env::consts::ARCH),
    ];
    if let Ok(cores) = std::thread::available_parallelism() {
        notes.push(made_note("cores", cores.to_string()));
    }
    let system = sysinfo::System::long_os_version();
    let kernel = sysinfo::System::kernel_version();
    let os = [system, kernel].into_iter().flatten().collect::<Vec<_>>();
    if !os.is_empty() {
        notes.push(made_note("os", os.join(", kernel ")));
    }
    notes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_processor_comes_back_from_its_notes() {
        let notes = BTreeMap::from([
            made_note("processor", "Model 9"),
            made_note("vectors", "avx2"),
            ("by".to_owned(), "anna".to_owned()),
        ]);
        let processor = Processor::of(&notes).unwrap();
        assert_eq!(processor.to_string(), "Model 9 (avx2)");
        let all: Vec<_> = made(&notes).collect();
        assert_eq!(all, [("processor", "Model 9"), ("vectors", "avx2")]);
        assert!(is_made_key("made.os") && !is_made_key("by"));
        assert!(Processor::of(&BTreeMap::new()).is_none());
        // The user's own note isn't part of a session's record.
        let record = Extension::of_session(&notes);
        assert_eq!(record.bytes, br#"{"processor":"Model 9","vectors":"avx2"}"#);
    }

    #[cfg(feature = "machine")]
    #[test]
    fn this_machine_is_described() {
        let notes: BTreeMap<_, _> = made_here().into_iter().collect();
        assert_eq!(Processor::of(&notes), Some(Processor::here()));
        assert!(notes.values().all(|text| !text.is_empty()), "{notes:?}");
        assert!(notes.contains_key("made.cores"));
    }
}

//! A checkpoint: the state of a stopped sweep in a file. A sweep that resumes from it gives the same bits as one that was
//! never stopped.
//!
//! The file is a safetensors file. Its metadata contains `hindcast-sweep` (JSON: version, writer, the sweep's identity,
//! the next step) and `blake3` (hexadecimal, over that JSON and each tensor's name, length and bytes, in the order of
//! the names). The tensors `at.steps` and `at.weights` are the averaged models k and their weights a_k; version 2 has no
//! averages. The tensor `occurrences` has shape (N,). Query number q has the tensors `q.value` (1,), `q.parameters`
//! (p,), `q.optimizer`, `q.buffers` (b,), `q.influence` and `q.renormalised` (N,), `q.growth.steps` and
//! `q.growth.norms`. If the sweep keeps each epoch's share, there is also `q.epoch.E` (N,) for each epoch E that it has
//! reached. If it keeps the scores of loss terms, `q.terms` are those of all examples, one after the other, and
//! `q.terms.counts` (N,) is the number of each example's terms. Counts and steps are U64, all other values F64.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::path::Path;

use hindcast_model::files;
use safetensors::{Dtype, SafeTensors, View};
use serde::{Deserialize, Serialize};

use super::{QuerySweep, SweepOptions, SweepState};
use crate::error::{AnalysisError, Result};
use crate::output::places::Kind;
use crate::output::{WRITER, replace};
use crate::query::average::StateWeights;
use crate::query::one::Query;
use crate::query::point::QueryPoint;
use crate::run::recorded::RecordedRun;

/// Version of the file format; newer ones are refused.
const VERSION: u32 = 3;
const HEADER: &str = "hindcast-sweep";
const DIGEST: &str = "blake3";
const AT_STEPS: &str = "at.steps";
const AT_WEIGHTS: &str = "at.weights";

/// Identifies a sweep. Two sweeps with the same identity give the same bits on one machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SweepIdentity {
    /// Head digest of the run, hexadecimal; empty if it has none.
    pub run_digest: String,
    /// BLAKE3 of T, θ_T and r_T, hexadecimal. It identifies the run even if there is no head digest.
    pub end_digest: String,
    /// Steps [A, B) that are scored.
    pub window: Range<u64>,
    /// The model at which the queries are evaluated, in words, with a digest of its weights; empty at the end of training.
    #[serde(default)]
    pub at: (String, String),
    /// Each query as the user wrote it, with the digest of its file; the digest is empty if it reads no file.
    pub queries: Vec<(String, String)>,
    /// Whether each epoch's share is kept.
    pub per_epoch: bool,
    /// Whether the scores of the terms of each loss are kept.
    #[serde(default)]
    pub per_term: bool,
    /// Text that names the engine, its precision and its device.
    pub engine: String,
    /// Update rule as text.
    pub rule: String,
    /// N, the number of training examples.
    pub examples: u64,
}

impl SweepIdentity {
    /// The identity of a sweep before its first step. `run_digest` and `engine` are those of the sweep's table.
    ///
    /// # Errors
    /// If the run's end or a query's file can't be read.
    pub fn of(
        run: &RecordedRun<'_>,
        queries: &[Query],
        options: &SweepOptions,
        run_digest: &str,
        engine: &str,
    ) -> Result<Self> {
        let end = run.source().end()?;
        let mut hasher = blake3::Hasher::new();
        hasher.update(&end.step.to_le_bytes());
        for x in end.parameters.iter().chain(&end.buffers) {
            hasher.update(&x.to_le_bytes());
        }
        Ok(SweepIdentity {
            run_digest: run_digest.to_owned(),
            end_digest: hasher.finalize().to_hex().to_string(),
            window: options.window.clone(),
            at: match &options.at {
                QueryPoint::Final => Default::default(),
                at => {
                    let weights = at.resolve(run.source(), options.window.start)?;
                    (weights.point().to_owned(), weights.digest())
                }
            },
            queries: queries
                .iter()
                .map(|q| Ok((q.to_string(), q.file_digest()?)))
                .collect::<Result<_>>()?,
            per_epoch: options.per_epoch,
            per_term: options.per_term,
            engine: engine.to_owned(),
            rule: run.rule().to_toml().unwrap_or_default(),
            examples: run.examples() as u64,
        })
    }
}

/// A stopped sweep with its identity.
#[derive(Debug, Clone, PartialEq)]
pub struct SweepCheckpoint {
    /// Identifies the sweep.
    pub identity: SweepIdentity,
    /// Program and version that wrote it. Another version may round differently.
    pub writer: String,
    /// Queries that earlier passes have answered.
    pub finished: Vec<QuerySweep>,
    /// State of the stopped pass, with that pass's queries.
    pub state: SweepState,
}

#[derive(Serialize, Deserialize)]
struct Header {
    version: u32,
    writer: String,
    identity: SweepIdentity,
    end: u64,
    next: u64,
    /// Number of queries that earlier passes answered; version 1 has no passes.
    #[serde(default)]
    finished: usize,
    /// Number of queries of this pass; absent in version 1, where it is all of them.
    #[serde(default)]
    pass: Option<usize>,
}

impl SweepCheckpoint {
    /// Writes a sweep's state to `path`, completely or not at all, and replaces what was there.
    ///
    /// # Errors
    /// If the file can't be written.
    pub fn write(path: &Path, identity: &SweepIdentity, state: &SweepState) -> Result<()> {
        Self::write_pass(path, identity, &[], state)
    }

    /// As [`write`](Self::write), for a sweep of several passes. `finished` are the queries of earlier passes.
    ///
    /// # Errors
    /// If the file can't be written.
    pub fn write_pass(
        path: &Path,
        identity: &SweepIdentity,
        finished: &[QuerySweep],
        state: &SweepState,
    ) -> Result<()> {
        let header = Header {
            version: VERSION,
            writer: WRITER.to_owned(),
            identity: identity.clone(),
            end: state.end,
            next: state.next,
            finished: finished.len(),
            pass: Some(state.queries.len()),
        };
        let header =
            serde_json::to_string(&header).map_err(|e| problem(path, &format!("header: {e}")))?;
        let tensors = tensors(finished, state);
        let mut digest = Digest::new(&header);
        for (name, values) in &tensors {
            digest.add(name, &values.data());
        }
        let metadata = HashMap::from([
            (HEADER.to_owned(), header),
            (DIGEST.to_owned(), digest.finish()),
        ]);
        replace::replace(path, Kind::Sweep, |temporary| {
            safetensors::serialize_to_file(tensors, Some(metadata), temporary)
                .map_err(std::io::Error::other)
        })
        .map_err(|e| problem(path, &e.to_string()))
    }

    /// Whether another version of this crate wrote the checkpoint. It may round differently.
    pub fn is_foreign(&self) -> bool {
        self.writer != WRITER
    }

    /// Reads a checkpoint.
    ///
    /// # Errors
    /// If the file can't be read, isn't a checkpoint, is damaged, or has a newer version.
    pub fn read(path: &Path) -> Result<SweepCheckpoint> {
        let bytes = files::read(path, files::CHECKPOINT)?;
        parse(&bytes).map_err(|e| problem(path, &e))
    }

    /// The state, if the checkpoint belongs to this sweep. For sweeps of a single pass.
    ///
    /// # Errors
    /// As [`is_of`](Self::is_of). The sweep has several passes: the state would hold only some of its queries.
    pub fn state_of(self, path: &Path, wanted: &SweepIdentity) -> Result<SweepState> {
        self.is_of(path, wanted)?;
        let (here, all) = (self.state.queries.len(), self.identity.queries.len());
        if here != all {
            return Err(problem(
                path,
                &format!(
                    "the sweep has several passes, and the state of the stopped one has {here} of its {all} queries: resume it with a `Session`"
                ),
            ));
        }
        Ok(self.state)
    }

    /// Checks that the checkpoint belongs to this sweep.
    ///
    /// # Errors
    /// [`AnalysisError::OtherSweep`] naming the first thing that differs.
    pub fn is_of(&self, path: &Path, wanted: &SweepIdentity) -> Result<()> {
        let here = &self.identity;
        let names = |q: &[(String, String)]| {
            let names: Vec<&str> = q.iter().map(|(name, _)| name.as_str()).collect();
            names.join(", ")
        };
        let steps = |w: &Range<u64>| format!("{}..{}", w.start, w.end);
        let point = |(name, digest): &(String, String)| match name.as_str() {
            "" => "final".to_owned(),
            name => format!(
                "{name} (weights {}…)",
                digest.chars().take(8).collect::<String>()
            ),
        };
        let pairs = [
            ("run", wanted.run_digest.clone(), here.run_digest.clone()),
            (
                "end of the run",
                wanted.end_digest.clone(),
                here.end_digest.clone(),
            ),
            ("query", names(&wanted.queries), names(&here.queries)),
            ("window", steps(&wanted.window), steps(&here.window)),
            ("query point", point(&wanted.at), point(&here.at)),
            ("engine", wanted.engine.clone(), here.engine.clone()),
            ("update rule", wanted.rule.clone(), here.rule.clone()),
            (
                "choice of one column per epoch",
                wanted.per_epoch.to_string(),
                here.per_epoch.to_string(),
            ),
            (
                "choice of scores per token",
                wanted.per_term.to_string(),
                here.per_term.to_string(),
            ),
            (
                "number of training examples",
                wanted.examples.to_string(),
                here.examples.to_string(),
            ),
            (
                "content of a query's file",
                format!("{:?}", wanted.queries),
                format!("{:?}", here.queries),
            ),
        ];
        for (what, expected, got) in pairs {
            if expected != got {
                return Err(AnalysisError::OtherSweep {
                    path: path.to_path_buf(),
                    what,
                    expected,
                    got,
                });
            }
        }
        Ok(())
    }
}

fn problem(path: &Path, problem: &str) -> AnalysisError {
    AnalysisError::File {
        path: path.to_path_buf(),
        problem: problem.to_owned(),
    }
}

/// The values of one tensor to write. They are converted to bytes when the tensor is written, to save memory.
enum Values<'a> {
    Counts(Cow<'a, [u64]>, [usize; 1]),
    Floats(Cow<'a, [f64]>, [usize; 1]),
}

impl View for Values<'_> {
    fn dtype(&self) -> Dtype {
        match self {
            Values::Counts(..) => Dtype::U64,
            Values::Floats(..) => Dtype::F64,
        }
    }

    fn shape(&self) -> &[usize] {
        match self {
            Values::Counts(_, shape) | Values::Floats(_, shape) => shape,
        }
    }

    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Owned(match self {
            Values::Counts(x, _) => x.iter().flat_map(|x| x.to_le_bytes()).collect(),
            Values::Floats(x, _) => x.iter().flat_map(|x| x.to_le_bytes()).collect(),
        })
    }

    fn data_len(&self) -> usize {
        8 * self.shape()[0]
    }
}

fn floats<'a>(x: impl Into<Cow<'a, [f64]>>) -> Values<'a> {
    let x = x.into();
    let shape = [x.len()];
    Values::Floats(x, shape)
}

fn counts<'a>(x: impl Into<Cow<'a, [u64]>>) -> Values<'a> {
    let x = x.into();
    let shape = [x.len()];
    Values::Counts(x, shape)
}

fn tensors<'a>(finished: &'a [QuerySweep], state: &'a SweepState) -> BTreeMap<String, Values<'a>> {
    let mut out = BTreeMap::new();
    out.insert("occurrences".to_owned(), counts(&state.occurrences));
    let (averaged, weights): (Vec<u64>, Vec<f64>) = state.at.weights().iter().copied().unzip();
    out.insert(AT_STEPS.to_owned(), counts(averaged));
    out.insert(AT_WEIGHTS.to_owned(), floats(weights));
    for (q, query) in finished.iter().chain(&state.queries).enumerate() {
        let mut put = |name: &str, values| out.insert(format!("{q}.{name}"), values);
        put("value", floats(vec![query.value]));
        put("parameters", floats(&query.parameters));
        put("optimizer", floats(&query.optimizer));
        put("buffers", floats(&query.buffers));
        put("gradient", floats(&query.gradient));
        put("gradient.buffers", floats(&query.buffer_gradient));
        put("influence", floats(&query.influence));
        put("renormalised", floats(&query.renormalised));
        let (steps, norms): (Vec<u64>, Vec<f64>) = query.growth.iter().copied().unzip();
        put("growth.steps", counts(steps));
        put("growth.norms", floats(norms));
        for (epoch, share) in &query.epochs {
            put(&format!("epoch.{epoch}"), floats(share));
        }
        if !query.terms.is_empty() {
            let lengths: Vec<u64> = query.terms.iter().map(|of| of.len() as u64).collect();
            put("terms.counts", counts(lengths));
            put("terms", floats(query.terms.concat()));
        }
    }
    out
}

struct Digest(blake3::Hasher);

impl Digest {
    fn new(header: &str) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&(header.len() as u64).to_le_bytes());
        hasher.update(header.as_bytes());
        Digest(hasher)
    }

    fn add(&mut self, name: &str, data: &[u8]) {
        for part in [name.as_bytes(), data] {
            self.0.update(&(part.len() as u64).to_le_bytes());
            self.0.update(part);
        }
    }

    fn finish(&self) -> String {
        self.0.finalize().to_hex().to_string()
    }
}

fn parse(bytes: &[u8]) -> Result<SweepCheckpoint, String> {
    let damaged = |what: &str| {
        format!("the checkpoint is damaged ({what}): remove it and sweep from the beginning")
    };
    let strange = |e| format!("not a sweep's checkpoint: {e}");
    let (_, metadata) = SafeTensors::read_metadata(bytes).map_err(strange)?;
    let file = SafeTensors::deserialize(bytes).map_err(strange)?;
    let entries = metadata.metadata().clone().unwrap_or_default();
    let (Some(header), Some(digest)) = (entries.get(HEADER), entries.get(DIGEST)) else {
        return Err(format!(
            "not a sweep's checkpoint: the safetensors file has no metadata `{HEADER}` and `{DIGEST}`"
        ));
    };
    // The version first: the rest of a newer file may have another form.
    let version = serde_json::from_str::<serde_json::Value>(header)
        .ok()
        .and_then(|v| v.get("version")?.as_u64())
        .unwrap_or_default();
    if version > u64::from(VERSION) {
        return Err(format!(
            "the checkpoint has version {version}, this program reads versions up to {VERSION}: resume with the program that wrote it"
        ));
    }
    let mut names: Vec<&str> = file.names();
    names.sort_unstable();
    let mut check = Digest::new(header);
    for name in &names {
        check.add(name, file.tensor(name).map_err(strange)?.data());
    }
    if check.finish() != *digest {
        return Err(damaged("its content doesn't match its digest"));
    }
    let header: Header = serde_json::from_str(header).map_err(|e| damaged(&e.to_string()))?;
    let floats = |name: &str| numbers(&file, name, Dtype::F64, f64::from_le_bytes);
    let counts = |name: &str| numbers(&file, name, Dtype::U64, u64::from_le_bytes);
    let all = header.identity.queries.len();
    let stored = match header.pass {
        None => all,
        Some(pass) => header.finished.saturating_add(pass),
    };
    if stored > all || header.finished > stored {
        return Err(damaged("it contains more queries than its header lists"));
    }
    let read = || -> Result<(Vec<QuerySweep>, SweepState), String> {
        let mut finished = Vec::new();
        let named = header.identity.queries.iter().take(stored);
        for (q, (name, _)) in named.enumerate() {
            let of = |part: &str| floats(&format!("{q}.{part}"));
            let steps = counts(&format!("{q}.growth.steps"))?;
            // Version 2 has no averages, and so no gradient to keep.
            let gradient = |part: &str| {
                if version < 3 {
                    Ok(Vec::new())
                } else {
                    of(part)
                }
            };
            let prefix = format!("{q}.epoch.");
            let mut epochs = BTreeMap::new();
            for tensor in names.iter().filter(|n| n.starts_with(&prefix)) {
                let epoch = tensor[prefix.len()..]
                    .parse()
                    .map_err(|_| format!("tensor `{tensor}`"))?;
                epochs.insert(epoch, floats(tensor)?);
            }
            finished.push(QuerySweep {
                terms: terms(&file, q, header.identity.per_term)?,
                name: name.clone(),
                value: of("value")?.first().copied().ok_or("no value")?,
                parameters: of("parameters")?,
                optimizer: of("optimizer")?,
                buffers: of("buffers")?,
                gradient: gradient("gradient")?,
                buffer_gradient: gradient("gradient.buffers")?,
                influence: of("influence")?,
                renormalised: of("renormalised")?,
                epochs,
                growth: steps.into_iter().zip(of("growth.norms")?).collect(),
            });
        }
        let queries = finished.split_off(header.finished);
        let state = SweepState {
            window: header.identity.window.clone(),
            at: if version < 3 {
                StateWeights::at_end(header.end)
            } else {
                let averaged = counts(AT_STEPS)?.into_iter().zip(floats(AT_WEIGHTS)?);
                StateWeights::saved(&header.identity.at.0, averaged.collect(), header.end)
            },
            end: header.end,
            next: header.next,
            occurrences: counts("occurrences")?,
            queries,
        };
        Ok((finished, state))
    };
    let (finished, state) = read().map_err(|e| damaged(&e))?;
    Ok(SweepCheckpoint {
        finished,
        state,
        identity: header.identity,
        writer: header.writer,
    })
}

/// The scores of query number q's loss terms; none if the sweep doesn't keep them.
fn terms(file: &SafeTensors<'_>, q: usize, kept: bool) -> Result<Vec<Vec<f64>>, String> {
    if !kept {
        return Ok(Vec::new());
    }
    let values = numbers(file, &format!("{q}.terms"), Dtype::F64, f64::from_le_bytes)?;
    let name = format!("{q}.terms.counts");
    split(
        &values,
        &numbers(file, &name, Dtype::U64, u64::from_le_bytes)?,
    )
}

/// Cuts a list into lists of these lengths.
fn split(mut values: &[f64], lengths: &[u64]) -> Result<Vec<Vec<f64>>, String> {
    let mut take = |&length: &u64| {
        let length = usize::try_from(length).ok()?;
        let (list, rest) = values.split_at_checked(length)?;
        values = rest;
        Some(list.to_vec())
    };
    let lists: Option<Vec<_>> = lengths.iter().map(&mut take).collect();
    match lists {
        Some(lists) if values.is_empty() => Ok(lists),
        _ => Err("the numbers of terms don't add up".to_owned()),
    }
}

fn numbers<T>(
    file: &SafeTensors<'_>,
    name: &str,
    dtype: Dtype,
    read: fn([u8; 8]) -> T,
) -> Result<Vec<T>, String> {
    let view = file.tensor(name).map_err(|e| e.to_string())?;
    if view.dtype() != dtype {
        return Err(format!(
            "tensor `{name}` is {:?}, expected {dtype:?}",
            view.dtype()
        ));
    }
    Ok(view
        .data()
        .as_chunks::<8>()
        .0
        .iter()
        .map(|b| read(*b))
        .collect())
}

//! Files that an experiment keeps next to its rows: each seed's recorded run and scores, so that a restart doesn't
//! train again.

use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use candle_core::Device;
use hindcast_format::Trace;
use hindcast_model::data::DataSet;
use hindcast_model::files;
use hindcast_model::objective::Split;
use hindcast_model::task::Task;
use hindcast_recorder::Recorder;
use serde::{Deserialize, Serialize};

use super::ranking::Ranking;
use crate::record::record_watched;
use hindcast_analyzer::estimators::Question;
use hindcast_analyzer::output::Kind;
use hindcast_analyzer::sweep::Stage;
use hindcast_analyzer::{Query, QueryPoint, RecordedRun, ScoreTable, answer, output};

/// A callback for progress, which may stop the work.
pub type Watcher<'a> = dyn Fn(Stage) -> ControlFlow<()> + Sync + 'a;

/// The folder of one seed. It is temporary if the experiment writes no rows.
pub struct Kept {
    folder: PathBuf,
    _temporary: Option<tempfile::TempDir>,
}

impl Kept {
    /// The folder `ROWS.work/TASK-SEED`, created if missing.
    ///
    /// # Errors
    /// If it can't be created, the task's name can't name a folder, or the folder has a run of another task or other
    /// settings.
    pub fn beside(rows: Option<&Path>, task: &Task) -> anyhow::Result<Self> {
        let name = folder_name(task)?;
        let (folder, temporary) = match rows {
            Some(rows) => {
                let mut work = rows.as_os_str().to_owned();
                work.push(".work");
                (Path::new(&work).join(name), None)
            }
            None => {
                let temporary = tempfile::tempdir().context("cannot make a temporary folder")?;
                (temporary.path().join(name), Some(temporary))
            }
        };
        fs::create_dir_all(folder.join("scores"))
            .with_context(|| format!("cannot make {}", folder.display()))?;
        let kept = Kept {
            folder,
            _temporary: temporary,
        };
        kept.check(task)?;
        Ok(kept)
    }

    /// Refuses a kept run of another task or other settings.
    fn check(&self, task: &Task) -> anyhow::Result<()> {
        let path = self.folder.join("run");
        if !path.exists() {
            return Ok(());
        }
        let recorded = Trace::open(&path)?;
        let text = recorded.info().task.as_deref();
        if text.map(Task::from_toml).transpose()?.as_ref() != Some(task) {
            bail!(
                "{} is a run of another task or other settings: name another --out",
                path.display()
            );
        }
        Ok(())
    }

    /// Opens the seed's kept run. If there is none, trains and records `task` on `data`.
    ///
    /// # Errors
    /// If training fails or is stopped, or the kept run can't be opened.
    pub fn run(
        &self,
        task: &Task,
        data: Box<dyn DataSet>,
        watcher: &Watcher<'_>,
    ) -> anyhow::Result<RecordedRun<'static>> {
        let path = self.folder.join("run");
        if !path.exists() {
            // Renamed when it is complete, so that a folder of this name is always complete.
            let part = self.folder.join("run.part");
            if part.exists() {
                fs::remove_dir_all(&part)
                    .with_context(|| format!("cannot remove {}", part.display()))?;
            }
            record_watched(
                task,
                data.as_ref(),
                &Device::Cpu,
                Recorder::builder(&part),
                &mut |_| {},
                &mut |done, total, _| {
                    watcher(Stage {
                        doing: "training",
                        unit: "steps",
                        done,
                        total,
                    })
                },
            )?;
            fs::rename(&part, &path).with_context(|| format!("cannot make {}", path.display()))?;
        }
        Ok(RecordedRun::with_data(&path, data)?)
    }

    /// The scores of `query` by this ranking's method, without the ranking's sign. Reads the kept table; if there is
    /// none, computes the scores and keeps them as a table that `hindcast scores` can read.
    ///
    /// # Errors
    /// If the kept table belongs to another run, or the method fails or is stopped.
    pub fn scores(
        &self,
        subject: &RecordedRun<'_>,
        ranking: &Ranking,
        query: &Query,
        watcher: &Watcher<'_>,
    ) -> anyhow::Result<Vec<Option<f64>>> {
        let path = self
            .folder
            .join("scores")
            .join(format!("{}.csv", ranking.scores_name()));
        let table = if path.exists() {
            let table = ScoreTable::read(&path)?;
            let of = &table.metadata;
            let asked = of.queries.first().map(|q| q.name.as_str());
            if of.run_digest != subject.head() || asked != Some(query.to_string().as_str()) {
                bail!(
                    "{} has the scores of another run or query: remove it, or name another --out",
                    path.display()
                );
            }
            // A truncated table would leave examples without scores.
            let data = subject.data();
            table
                .check_data(data)
                .and_then(|()| {
                    if table.rows.len() as u64 == data.len(Split::Train) {
                        Ok(())
                    } else {
                        Err(format!(
                            "it has {} rows, expected one for each of {} examples",
                            table.rows.len(),
                            data.len(Split::Train)
                        ))
                    }
                })
                .map_err(|e| {
                    anyhow::anyhow!(
                        "{}: {e}; remove the file to compute it again",
                        path.display()
                    )
                })?;
            table
        } else {
            let queries = std::slice::from_ref(query);
            let table = estimate(subject, ranking, &ranking.at(), queries, watcher)?;
            table.write(&path)?;
            table
        };
        let mut scores = vec![None; subject.examples()];
        for row in &table.rows {
            if let Some(slot) = scores.get_mut(row.index as usize) {
                *slot = row.influence.first().copied().flatten();
            }
        }
        Ok(scores)
    }

    /// The numbers kept under `name` for this run and `protocol`. If there are none, computes and keeps them.
    ///
    /// # Errors
    /// If the file can't be read or written or has numbers of another run, or `compute` fails.
    pub fn numbers(
        &self,
        subject: &RecordedRun<'_>,
        name: &str,
        protocol: &str,
        compute: impl FnOnce() -> anyhow::Result<Vec<Vec<f64>>>,
    ) -> anyhow::Result<Vec<Vec<f64>>> {
        let path = self.folder.join(format!("{name}.json"));
        if path.exists() {
            let text = files::read_text(&path, files::RESULTS)?;
            let numbers: Numbers = serde_json::from_str(&text)
                .with_context(|| format!("{} isn't a file of this experiment", path.display()))?;
            if numbers.run != subject.head() || numbers.protocol != protocol {
                bail!(
                    "{} has the numbers of another run or protocol ({}): remove it, or name another --out",
                    path.display(),
                    numbers.protocol
                );
            }
            return Ok(numbers.values);
        }
        let numbers = Numbers {
            run: subject.head(),
            protocol: protocol.to_owned(),
            values: compute()?,
        };
        let text = serde_json::to_string(&numbers)?;
        output::replace(&path, Kind::New, |to| fs::write(to, &text))
            .with_context(|| format!("cannot write {}", path.display()))?;
        Ok(numbers.values)
    }
}

/// The name of a seed's folder. The task may come from an untrusted file, so its name must not lead to another folder.
fn folder_name(task: &Task) -> anyhow::Result<String> {
    const LONGEST: usize = 100;
    let name = &task.name;
    let strange = |c: char| matches!(c, '/' | '\\' | ':') || c.is_control();
    if name.starts_with('.') || name.contains(strange) || name.len() > LONGEST {
        bail!(
            "the task's name {name:?} can't name a folder, and an experiment keeps its runs in a folder of that name: change the \
             `name` in the task (at most {LONGEST} bytes, no slash, backslash or colon, no dot at its start)"
        );
    }
    Ok(format!("{name}-{}", task.train.seed))
}

/// The content of a file of [`Kept::numbers`].
#[derive(Serialize, Deserialize)]
struct Numbers {
    run: String,
    protocol: String,
    values: Vec<Vec<f64>>,
}

/// Computes the table of a ranking's method for these queries.
pub(super) fn estimate(
    subject: &RecordedRun<'_>,
    ranking: &Ranking,
    at: &QueryPoint,
    queries: &[Query],
    watcher: &Watcher<'_>,
) -> anyhow::Result<ScoreTable> {
    let run = subject;
    let (task, seed) = match subject.task() {
        Some(task) => (task.name.as_str(), task.train.seed),
        None => ("", 0),
    };
    let chosen = ranking.chosen(task, seed)?;
    let kind = subject.engine_kind(None, &Device::Cpu)?;
    let mut engine = subject.engine(Some(kind), None, Device::Cpu)?;
    let question = Question {
        engine: &format!("{}, recorded precision, cpu", kind.name()),
        at,
        ..Question::new(run, queries, ranking.window())
    };
    let mut observer = |stage: Stage| watcher(stage);
    let found = answer(&question, &chosen, engine.as_mut(), &mut observer)
        .with_context(|| format!("scores by {ranking}"))?;
    Ok(found.scores.table(run))
}

//! `experiment --shard`: some of the seeds, in a folder that the processes of all shards share.

use std::path::PathBuf;

use hindcast_model::task::Task;

use super::{agreement, cleansing, quality};
use crate::args::{Agreement, Cleansing, LabelArgs, Quality, ShardArgs};
use crate::commands::recording::seeds::parse_seeds;
use crate::commands::sharding::{EXPERIMENT, begin, file_name, part_name, shard};
use crate::commands::{Outcome, Usage, ends_in};
use hindcast_analyzer::shards::{Request, digest};

/// An experiment over seeds whose rows are in a file.
pub(super) trait OverSeeds: Clone + std::fmt::Debug {
    /// The measurement's name on the command line.
    const NAME: &str;
    fn shard(&self) -> &ShardArgs;
    fn out(&self) -> Option<&PathBuf>;
    fn seeds(&self) -> &str;
    /// The same experiment on other seeds, with its rows in another file.
    fn of(self, seeds: String, out: PathBuf) -> Self;
    /// The same experiment without the options that no row depends on.
    fn question(self) -> Self;
    /// The tasks that are trained.
    fn tasks(&self) -> anyhow::Result<Vec<Task>>;
    /// Files of labels of the user's own.
    fn labels(&self) -> LabelArgs;
}

macro_rules! over_seeds {
    ($args:ty, $name:literal, $tasks:path, $labels:expr, [$($unrelated:ident),*]) => {
        impl OverSeeds for $args {
            const NAME: &str = $name;
            fn shard(&self) -> &ShardArgs {
                &self.shard
            }
            fn out(&self) -> Option<&PathBuf> {
                self.out.as_ref()
            }
            fn seeds(&self) -> &str {
                &self.seeds
            }
            fn of(self, seeds: String, out: PathBuf) -> Self {
                Self { seeds, out: Some(out), shard: ShardArgs::default(), ..self }
            }
            fn question(mut self) -> Self {
                $(self.$unrelated = Default::default();)*
                self
            }
            fn tasks(&self) -> anyhow::Result<Vec<Task>> {
                $tasks(self)
            }
            fn labels(&self) -> LabelArgs {
                let labels: fn(&$args) -> LabelArgs = $labels;
                labels(self)
            }
        }
    };
}

over_seeds!(
    Agreement,
    "agreement",
    agreement::tasks,
    |_| LabelArgs::default(),
    [data, seeds, out, figures, threads, shard]
);
over_seeds!(
    Cleansing,
    "cleansing",
    cleansing::tasks,
    |args| args.own.clone(),
    [data, own, seeds, out, figures, shard]
);
over_seeds!(
    Quality,
    "quality",
    quality::tasks,
    |args| args.own.clone(),
    [data, own, seeds, out, shard]
);

/// Runs an experiment, or the shard of it that the command line asks for.
pub(super) fn run<A: OverSeeds>(
    args: &A,
    experiment: impl Fn(&A) -> anyhow::Result<Outcome>,
) -> anyhow::Result<Outcome> {
    let Some(shard) = shard(args.shard())? else {
        return experiment(args);
    };
    let out = args.out().ok_or_else(|| {
        Usage("--shard writes a part of the rows of --out: give --out FILE.csv".to_owned())
    })?;
    let seeds: Vec<u64> = parse_seeds(args.seeds())?.collect();
    ends_in("--out", out, "csv")?;
    let name = file_name(out)?;
    let units = seeds.iter().map(u64::to_string).collect();
    let labels = args.labels();
    let digest_of = |path: &Option<PathBuf>| path.as_deref().map(digest).transpose();
    // One option per line, so that a message can name the one that differs.
    let options = format!("{:#?}", args.clone().question());
    let options: Vec<&str> = options.lines().map(str::trim).collect();
    let tasks = args.tasks()?;
    let tasks = tasks
        .iter()
        .map(Task::to_toml)
        .collect::<Result<Vec<_>, _>>()?;
    let tasks: Vec<Vec<&str>> = tasks.iter().map(|task| task.lines().collect()).collect();
    let request = Request::new(EXPERIMENT, name, shard.of, "seeds", units)
        .with("experiment", A::NAME)
        .with("options", options)
        .with("tasks", tasks)
        .with("labels (--labels)", digest_of(&labels.labels)?)
        .with("known true labels (--truth)", digest_of(&labels.truth)?);
    let Some(work) = begin(out, shard, request, false)? else {
        return Ok(Outcome::Fine);
    };
    let mut outcome = Outcome::Fine;
    let part = &seeds[work.units()];
    if let (Some(first), Some(last)) = (part.first(), part.last()) {
        let part = work.file(&part_name(out));
        let seeds = format!("{first}..{}", last.saturating_add(1));
        outcome = experiment(&args.clone().of(seeds, part))?;
    }
    work.end(false)?;
    Ok(outcome)
}

//! `experiment --shard`: some of the seeds, in a folder that the processes of all shards share.

use std::path::PathBuf;

use crate::args::{Agreement, Cleansing, Quality, ShardArgs};
use crate::commands::recording::seeds::parse_seeds;
use crate::commands::sharding::{EXPERIMENT, begin, part_name, shard};
use crate::commands::{Outcome, Usage};
use hindcast_analyzer::shards::Request;

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
}

macro_rules! over_seeds {
    ($args:ty, $name:literal, $($unrelated:ident),*) => {
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
        }
    };
}

over_seeds!(
    Agreement,
    "agreement",
    data,
    seeds,
    out,
    figures,
    threads,
    shard
);
over_seeds!(Cleansing, "cleansing", data, seeds, out, figures, shard);
over_seeds!(Quality, "quality", data, seeds, out, shard);

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
    let name = out.file_name().unwrap_or_default().to_string_lossy();
    let units = seeds.iter().map(u64::to_string).collect();
    let question = format!("{:?}", args.clone().question());
    let request = Request::new(EXPERIMENT, &name, shard.of, "seeds", units)
        .with("experiment", A::NAME)
        .with("command line", question);
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

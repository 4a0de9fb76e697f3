//! How much memory and time a large table of scores needs: it is written in parts, merged, sorted and searched.
//! `cargo run --release -p hindcast-analyzer --features parquet --example large_table -- EXAMPLES QUERIES DIR [csv|parquet]`
//!
//! The scores are pseudo-random. Each step is a process of its own, which prints its time and the largest memory that it held.
//! DIR needs about five times the size of the table, which is `16 EXAMPLES QUERIES` bytes as Parquet.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context as _, bail, ensure};
use hindcast_analyzer::output::sidecar_path;
use hindcast_analyzer::scores::{
    Choice, Cut, QueryMetadata, SortKey, TableFile, over_queries, write_rows,
};
use hindcast_analyzer::{ScoreMetadata, ScoreRow};

/// Number of parts, as of a command in so many shards.
const PARTS: u64 = 4;

fn main() -> anyhow::Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let (examples, queries, folder, ending, step) = match words.as_slice() {
        [n, q, folder] => (n, q, folder, "parquet", None),
        [n, q, folder, ending] => (n, q, folder, ending.as_str(), None),
        [n, q, folder, ending, step] => (n, q, folder, ending.as_str(), Some(step.as_str())),
        _ => bail!("usage: large_table EXAMPLES QUERIES DIR [csv|jsonl|parquet]"),
    };
    let table = Large {
        examples: examples.parse().context("EXAMPLES: expected a number")?,
        queries: queries.parse().context("QUERIES: expected a number")?,
        folder: PathBuf::from(folder),
        ending,
    };
    ensure!(
        table.queries.is_multiple_of(PARTS),
        "QUERIES: expected a multiple of {PARTS}"
    );
    match step {
        Some(step) => table.step(step),
        None => {
            println!(
                "{:>12} {:>10} {:>14} {:>14}",
                "step", "seconds", "peak (MiB)", "result (MiB)"
            );
            for step in ["write", "part-0", "part-1", "part-2", "part-3", "merge"] {
                alone(&words, ending, step)?;
            }
            // The metadata has the digest of the table.
            let read = |name| std::fs::read(sidecar_path(&table.path(name)));
            ensure!(
                read("whole")? == read("merge")?,
                "the merged table differs from the one that was written whole"
            );
            ["sort", "top"]
                .iter()
                .try_for_each(|step| alone(&words, ending, step))
        }
    }
}

/// Runs a step in a process of its own.
fn alone(words: &[String], ending: &str, step: &str) -> anyhow::Result<()> {
    let mut command = Command::new(std::env::current_exe()?);
    let status = command.args(&words[..3]).args([ending, step]).status()?;
    ensure!(status.success(), "the step {step} failed");
    Ok(())
}

/// A table of pseudo-random scores.
struct Large<'a> {
    examples: u64,
    queries: u64,
    folder: PathBuf,
    ending: &'a str,
}

impl Large<'_> {
    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}.{}", self.ending))
    }

    fn step(&self, step: &str) -> anyhow::Result<()> {
        let begun = Instant::now();
        let out = match (step, step.strip_prefix("part-")) {
            ("write", _) => {
                let out = self.path("whole");
                self.write(&out, 0, self.queries)?;
                out
            }
            (_, Some(part)) => {
                let (each, part) = (self.queries / PARTS, part.parse::<u64>()?);
                let out = self.path(step);
                self.write(&out, part * each, each)?;
                out
            }
            ("merge", _) => {
                let parts = (0..PARTS).map(|part| self.path(&format!("part-{part}")));
                let parts = parts.map(|path| TableFile::open(&path));
                let joined = over_queries(parts.collect::<Result<_, _>>()?);
                let out = self.path("merge");
                joined.map_err(anyhow::Error::msg)?.write(&out)?;
                out
            }
            ("sort", _) => self.select(Cut::All, "sorted")?,
            ("top", _) => self.select(Cut::Top(100), "top")?,
            _ => bail!("there is no step {step}"),
        };
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        println!(
            "{step:>12} {:>10.1} {:>14.0} {:>14.1}",
            begun.elapsed().as_secs_f64(),
            mib(peak()?),
            mib(std::fs::metadata(out)?.len())
        );
        Ok(())
    }

    /// Writes the table of some of the queries.
    fn write(&self, out: &Path, first: u64, queries: u64) -> anyhow::Result<()> {
        let names = (first..first + queries).map(|query| QueryMetadata {
            name: format!("validation:{query}"),
            value: 0.5,
            digest: None,
            growth: None,
        });
        let metadata = ScoreMetadata {
            version: 1,
            method: "sgd".to_owned(),
            queries: names.collect(),
            files: vec![vec!["train.csv".to_owned()]],
            ..ScoreMetadata::default()
        };
        let row = |index: u64| ScoreRow {
            index,
            row: index,
            file: "train.csv".to_owned(),
            label: (index % 10).to_string(),
            occurrences: 1,
            influence: (first..first + queries)
                .map(|q| score(index, q, 0))
                .collect(),
            renormalised: (first..first + queries)
                .map(|q| score(index, q, 1))
                .collect(),
            ..ScoreRow::default()
        };
        write_rows(out, &metadata, (0..self.examples).map(row))?;
        Ok(())
    }

    /// Sorts the merged table by its last query.
    fn select(&self, cut: Cut, name: &str) -> anyhow::Result<PathBuf> {
        let table = TableFile::open(&self.path("merge"))?;
        let column = format!("influence[validation:{}]", self.queries - 1);
        let key: SortKey = table
            .layout()
            .sort_key(&column)
            .map_err(anyhow::Error::msg)?;
        let choice = Choice {
            conditions: Vec::new(),
            key,
            descending: false,
            cut,
        };
        let out = self.path(name);
        table.select(&choice, &self.folder)?.write(&out)?;
        Ok(out)
    }
}

/// A number with all of its digits, from -1 to 1: the finaliser of SplitMix64. Every hundredth example has no score.
fn score(index: u64, query: u64, kind: u64) -> Option<f64> {
    if index % 100 == 99 {
        return None;
    }
    let mut z = (index << 20 | query << 1 | kind).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^= z >> 31;
    Some((z >> 11) as f64 / (1_u64 << 52) as f64 - 1.0)
}

/// The largest memory that this process held, in bytes.
fn peak() -> anyhow::Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB"));
    let kib: u64 = kib
        .context("the kernel doesn't say the peak")?
        .trim()
        .parse()?;
    Ok(kib << 10)
}

//! The commands that reproduce a page's numbers.

use std::path::Path;

use hindcast_analyzer::counterfactual::RemovalResults;
use hindcast_analyzer::{ScoreMetadata, ScoreTable};

use crate::words::quoted;

/// A command line, quoted for a shell.
pub(crate) struct Words(String);

impl Words {
    pub fn new(program: &str, verb: &str, run: &Path, data: Option<&Path>) -> Words {
        let words = Words(quoted(program))
            .word(verb)
            .word(&run.display().to_string());
        match data {
            Some(data) => words.word("--data").word(&data.display().to_string()),
            None => words,
        }
    }

    pub fn word(mut self, word: &str) -> Words {
        self.0.push(' ');
        self.0.push_str(&quoted(word));
        self
    }

    pub fn option(self, name: &str, value: &str) -> Words {
        self.word(name).word(value)
    }

    pub fn text(self) -> String {
        self.0
    }
}

/// The command that computed a table, as far as its metadata records it.
pub(crate) fn influence(words: Words, meta: &ScoreMetadata, table: &str) -> String {
    let mut words = words;
    if !["", "sgd", "reverse-sweep"].contains(&meta.method.as_str()) {
        words = words.option("--method", &meta.method);
    }
    for (key, value) in &meta.settings {
        words = words.option("--method-set", &format!("{key}={value}"));
    }
    for query in &meta.queries {
        words = words.option("--query", &query.name);
    }
    words = words.option("--at", meta.point());
    if meta.window != (0..meta.run_steps) {
        words = words.option(
            "--window",
            &format!("{}..{}", meta.window.start, meta.window.end),
        );
    }
    let mut parts = meta.engine.split(", ");
    if let Some(engine @ ("kernels" | "autodiff")) = parts.next() {
        words = words.option("--engine", engine);
    }
    for part in parts {
        match part.strip_suffix(" precision") {
            Some("recorded") => {}
            Some(precision) => words = words.option("--precision", precision),
            None if part.starts_with("cuda") => words = words.option("--device", part),
            None => {}
        }
    }
    if !meta.epochs.is_empty() {
        words = words.word("--per-epoch");
    }
    words.option("--out", table).text()
}

/// The commands that compute the scores of one query of a table that has several. `shown` are the files and the queries of the
/// page's views; each command has the position of its view.
pub(crate) fn each_query<'a>(
    words: &dyn Fn() -> Words,
    shown: impl Iterator<Item = (&'a str, &'a str)>,
    tables: &[(String, ScoreTable)],
) -> Vec<(usize, String, String)> {
    let command = |file: &str, query: &str| {
        let (_, table) = tables.iter().find(|(name, _)| name == file)?;
        let mut meta = table.metadata.clone();
        if meta.version == 0 || meta.queries.len() < 2 {
            return None;
        }
        meta.queries.retain(|asked| asked.name == query);
        Some(influence(words(), &meta, "one-query.csv"))
    };
    shown
        .enumerate()
        .filter_map(|(k, (file, query))| {
            let purpose = format!("Compute the scores of {query} alone:");
            Some((k, purpose, command(file, query)?))
        })
        .collect()
}

/// The file of the examples that a command leaves out.
const WITHOUT: &str = "without.txt";

/// The command that writes the examples of a file of retrainings into the file that [`counterfactual`] reads.
pub(crate) fn without(results: &RemovalResults) -> String {
    let indices: Vec<String> = left_out(results).map(|index| index.to_string()).collect();
    format!("printf '%s\\n' {} > {WITHOUT}", indices.join(" "))
}

/// Whether a file's examples are the most harmful ones of a table, which `--top` chooses.
pub(crate) fn are_most_harmful(results: &RemovalResults, table: &ScoreTable) -> bool {
    let mut queries = table.metadata.queries.iter();
    let query = queries.position(|query| query.name == results.query);
    let count = left_out(results).count();
    let (Some(query), true) = (query, count > 0) else {
        return false;
    };
    let worst = table.worst(query, count);
    let mut worst: Vec<u64> = worst.iter().map(|row| row.index).collect();
    let mut asked: Vec<u64> = left_out(results).collect();
    // The order only counts if each is left out on its own.
    if results.sets.len() == 1 {
        worst.sort_unstable();
        asked.sort_unstable();
    }
    worst == asked
}

/// All examples that a file's retrainings leave out.
fn left_out(results: &RemovalResults) -> impl Iterator<Item = u64> {
    results
        .sets
        .iter()
        .flat_map(|set| set.without.iter().copied())
}

/// The command that wrote a file of retrainings. It chose the examples from `table`; without one, they are in the file that
/// [`without`] writes.
pub(crate) fn counterfactual(
    words: Words,
    results: &RemovalResults,
    table: Option<&str>,
    file: &str,
) -> String {
    let sizes: Vec<String> = results
        .sets
        .iter()
        .map(|set| set.without.len().to_string())
        .collect();
    let words = if results.is_scan() {
        words
            .option("--scan", &sizes.join(","))
            .word(table.unwrap_or("SCORES"))
    } else if let Some(table) = table {
        let count = left_out(results).count();
        words.option("--top", &count.to_string()).word(table)
    } else {
        words.option("--without", WITHOUT)
    };
    let mut words = words
        .option("--query", &results.query)
        .option("--at", results.point())
        .option(
            "--window",
            &format!("{}..{}", results.window.start, results.window.end),
        )
        .option("--removal", &results.removal.to_string())
        .option("--denominators", &results.denominators.to_string());
    if results.sets.len() > 1 && !results.is_scan() {
        words = words.word("--each");
    }
    words.option("--out", file).text()
}

#[cfg(test)]
mod tests {
    use super::super::view::tests::table;
    use super::*;

    #[test]
    fn the_command_of_a_table_follows_from_its_metadata() {
        let mut meta = table(&[Some(1.0)]).metadata;
        let words = || {
            Words::new(
                "hindcast",
                "influence",
                Path::new("my runs/a"),
                Some(Path::new("data")),
            )
        };
        assert_eq!(
            influence(words(), &meta, "scores.csv"),
            "hindcast influence 'my runs/a' --data data --query validation --at final --engine kernels --per-epoch --out scores.csv"
        );
        meta.epochs.clear();
        meta.window = 10..20;
        meta.at = "mean:5-epochs".to_owned();
        meta.method = "hessian-free".to_owned();
        meta.engine = "autodiff, f64 precision, cuda:1".to_owned();
        meta.queries[0].name = "vector:it's.safetensors".to_owned();
        assert_eq!(
            influence(words(), &meta, "s.csv"),
            "hindcast influence 'my runs/a' --data data --method hessian-free --query 'vector:it'\\''s.safetensors' --at mean:5-epochs --window 10..20 --engine autodiff --precision f64 --device cuda:1 --out s.csv"
        );
    }

    #[test]
    fn a_query_of_a_table_with_several_has_a_command_of_its_own() {
        let mut scores = table(&[Some(1.0)]);
        let words = || Words::new("hindcast", "influence", Path::new("run"), None);
        let views = |query| [("s.csv", "validation"), ("s.csv", query)].into_iter();
        let one = [("s.csv".to_owned(), scores.clone())];
        assert_eq!(each_query(&words, views("test"), &one), []);
        let mut second = scores.metadata.queries[0].clone();
        second.name = "test:3".to_owned();
        scores.metadata.queries.push(second);
        let found = each_query(&words, views("test:3"), &[("s.csv".to_owned(), scores)]);
        let (view, purpose, command) = &found[1];
        assert_eq!((found.len(), *view), (2, 1));
        assert_eq!(purpose, "Compute the scores of test:3 alone:");
        assert!(command.contains(" --query test:3 --at "), "{command}");
        assert!(!command.contains("validation") && command.ends_with(" --out one-query.csv"));
    }
}

//! The scores of the tokens of sequences: a long table with one row per token.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufWriter, Write};
use std::path::Path;

use hindcast_model::csv_rows::CsvRows;
use hindcast_model::data::DataSet;
use hindcast_model::files;
use hindcast_model::objective::Split;
use serde_json::{Map, Value};

use super::spreadsheet::{quoted, unquoted};
use crate::error::{AnalysisError, Result};
use crate::output::{Kind, replace};

/// The score of one token of a training sequence: the influence of its term in the sequence's loss.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct TokenRow {
    /// The sequence's index in the training split.
    pub index: u64,
    /// The token's position in the sequence's targets, from 0.
    pub position: u64,
    /// The id of the token that the term predicts. `None` if the data doesn't say it.
    pub token: Option<i64>,
    /// Its text; empty if the data has no vocabulary. The texts of a sequence, joined, are the sequence's text.
    pub text: String,
    /// Per query: the predicted change of the query if this term is left out of the window's batches, and all other terms keep
    /// their weights. The sum over a sequence's tokens is the influence of the sequence.
    pub influence: Vec<f64>,
}

/// The scores of the tokens of all training sequences.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct TokenScores {
    /// Each query's name, with the score of each token of each training example. An example without scores has an empty list.
    pub queries: Vec<(String, Vec<Vec<f64>>)>,
}

/// Some sequences of a table of tokens that was read from a file.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct TokenTable {
    /// The names of the queries; a single name is empty if the table doesn't say it.
    pub queries: Vec<String>,
    /// The rows of each sequence, by its index.
    pub sequences: BTreeMap<u64, Vec<TokenRow>>,
}

/// Columns before the influences.
const COLUMNS: [&str; 4] = ["index", "position", "token", "text"];
const INFLUENCE: &str = "influence";

impl TokenScores {
    /// The tokens of a training example, by position; none if it has no scores. A target below 0, which stands for padding,
    /// has no row if its scores are 0. If the example's loss doesn't have one term per token, its terms have no token and no
    /// text: which token a term belongs to isn't known.
    pub fn rows(&self, index: u64, data: &dyn DataSet) -> Vec<TokenRow> {
        let of = |terms: &Vec<Vec<f64>>| {
            let at = usize::try_from(index).unwrap_or(usize::MAX);
            terms.get(at).cloned().unwrap_or_default()
        };
        let scores: Vec<Vec<f64>> = self.queries.iter().map(|(_, terms)| of(terms)).collect();
        let positions = scores.first().map_or(0, Vec::len);
        let tokens = data
            .tokens(Split::Train, index)
            .filter(|tokens| tokens.len() == positions)
            .unwrap_or_default();
        let texts = match data.vocabulary() {
            Some(vocabulary) => vocabulary.texts(&tokens),
            None => Vec::new(),
        };
        let rows = (0..positions).map(|at| TokenRow {
            index,
            position: at as u64,
            token: tokens.get(at).copied(),
            text: texts.get(at).cloned().unwrap_or_default(),
            influence: scores
                .iter()
                .map(|of| of.get(at).copied().unwrap_or(0.0))
                .collect(),
        });
        let padding = |row: &TokenRow| {
            row.token.is_some_and(|token| token < 0) && row.influence.iter().all(|&x| x == 0.0)
        };
        rows.filter(|row| !padding(row)).collect()
    }

    /// Writes one row per token of each training sequence that has scores: CSV, or JSON lines if the name ends in .jsonl or
    /// .ndjson. The columns are index, position, token, text and influence; with several queries, each has a column
    /// `influence[QUERY]`. Returns the number of rows.
    ///
    /// # Errors
    /// The extension is unknown, the file can't be written, or it exists and isn't a table of tokens.
    pub fn write(&self, path: &Path, data: &dyn DataSet) -> Result<u64> {
        let format = Format::of(path)?;
        let mut written = 0;
        replace(path, Kind::Tokens, |temporary| {
            let to = BufWriter::new(std::fs::File::create(temporary)?);
            let mut to = Writer::new(format, to, &self.columns())?;
            let examples = self.queries.first().map_or(0, |(_, terms)| terms.len());
            for index in 0..examples as u64 {
                for row in self.rows(index, data) {
                    to.row(&row)?;
                    written += 1;
                }
            }
            to.finish()
        })
        .map_err(|e| failed(path, e.to_string()))?;
        Ok(written)
    }

    /// The names of the columns of influence.
    fn columns(&self) -> Vec<String> {
        match self.queries.as_slice() {
            [_] => vec![INFLUENCE.to_owned()],
            several => several
                .iter()
                .map(|(name, _)| format!("{INFLUENCE}[{name}]"))
                .collect(),
        }
    }
}

impl TokenTable {
    /// Reads the rows of the `wanted` sequences.
    ///
    /// # Errors
    /// The file can't be read or parsed, or lacks a column. The text names the line.
    pub fn read(path: &Path, wanted: &BTreeSet<u64>) -> Result<TokenTable> {
        let format = Format::of(path)?;
        let open = files::open_text(path, files::TABLE)?;
        match format {
            Format::Csv => read_csv(open, wanted),
            Format::JsonLines => read_json_lines(open, wanted),
        }
        .map_err(|problem| failed(path, problem))
    }
}

fn failed(path: &Path, problem: String) -> AnalysisError {
    AnalysisError::File {
        path: path.to_owned(),
        problem,
    }
}

/// A table's file format. The file's extension determines it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Csv,
    JsonLines,
}

impl Format {
    fn of(path: &Path) -> Result<Self> {
        let ending = path.extension().map(|e| e.to_string_lossy().to_lowercase());
        match ending.as_deref() {
            Some("csv") => Ok(Format::Csv),
            Some("jsonl" | "ndjson") => Ok(Format::JsonLines),
            _ => Err(failed(
                path,
                "a table of tokens ends in .csv or .jsonl".to_owned(),
            )),
        }
    }
}

/// Writes rows one by one: the whole table may be much larger than the scores.
enum Writer<W: Write> {
    Csv(Box<csv::Writer<W>>),
    JsonLines(W, Vec<String>),
}

impl<W: Write> Writer<W> {
    fn new(format: Format, to: W, influences: &[String]) -> std::io::Result<Self> {
        Ok(match format {
            Format::JsonLines => Writer::JsonLines(to, influences.to_vec()),
            Format::Csv => {
                let mut csv = csv::Writer::from_writer(to);
                let names = COLUMNS
                    .into_iter()
                    .chain(influences.iter().map(String::as_str));
                csv.write_record(names).map_err(std::io::Error::other)?;
                Writer::Csv(Box::new(csv))
            }
        })
    }

    fn row(&mut self, row: &TokenRow) -> std::io::Result<()> {
        match self {
            Writer::Csv(csv) => {
                let token = row.token.map_or_else(String::new, |id| id.to_string());
                let mut cells = vec![row.index.to_string(), row.position.to_string(), token];
                cells.push(quoted(&row.text).into_owned());
                // Debug prints the shortest decimal that reads back.
                cells.extend(row.influence.iter().map(|x| format!("{x:?}")));
                csv.write_record(cells).map_err(std::io::Error::other)
            }
            Writer::JsonLines(to, influences) => {
                let text = serde_json::to_string(&row.text)?;
                let token = serde_json::to_string(&row.token)?;
                let (index, position) = (row.index, row.position);
                write!(
                    to,
                    "{{\"index\":{index},\"position\":{position},\"token\":{token},\"text\":{text}"
                )?;
                for (name, x) in influences.iter().zip(&row.influence) {
                    let (name, x) = (serde_json::to_string(name)?, serde_json::to_string(x)?);
                    write!(to, ",{name}:{x}")?;
                }
                to.write_all(b"}\n")
            }
        }
    }

    fn finish(self) -> std::io::Result<()> {
        match self {
            Writer::Csv(mut csv) => csv.flush(),
            Writer::JsonLines(mut to, _) => to.flush(),
        }
    }
}

/// The position of each column in a file.
struct Header {
    fixed: [usize; 4],
    influences: Vec<(String, usize)>,
}

impl Header {
    fn of(names: &[&str]) -> Result<Self, String> {
        let at = |wanted: &str| names.iter().position(|name| name.trim() == wanted);
        let mut fixed = [0; 4];
        for (slot, name) in fixed.iter_mut().zip(COLUMNS) {
            *slot = at(name).ok_or_else(|| missing(name))?;
        }
        let query = |name: &str| {
            let rest = name.trim().strip_prefix(INFLUENCE)?;
            if rest.is_empty() {
                return Some(String::new());
            }
            Some(rest.strip_prefix('[')?.strip_suffix(']')?.to_owned())
        };
        let influences: Vec<(String, usize)> = names
            .iter()
            .enumerate()
            .filter_map(|(at, name)| Some((query(name)?, at)))
            .collect();
        if influences.is_empty() {
            return Err(missing(INFLUENCE));
        }
        Ok(Header { fixed, influences })
    }

    fn table(&self) -> TokenTable {
        TokenTable {
            queries: self.influences.iter().map(|(q, _)| q.clone()).collect(),
            sequences: BTreeMap::new(),
        }
    }
}

fn missing(column: &str) -> String {
    format!(
        "there is no column `{column}`; a table of tokens has index, position, token, text and influence"
    )
}

fn number<T: std::str::FromStr>(cell: &str, what: &str, line: u64) -> Result<T, String> {
    cell.trim()
        .parse()
        .map_err(|_| format!("line {line}: `{cell}` is not {what}"))
}

fn read_csv(from: impl BufRead, wanted: &BTreeSet<u64>) -> Result<TokenTable, String> {
    let mut csv = CsvRows::new(from);
    let names = csv.header().and_then(|row| row.texts());
    let names = names.map_err(|e| e.to_string())?;
    let columns = names.len();
    let header = Header::of(&names)?;
    let mut table = header.table();
    let [index, position, token, text] = header.fixed;
    while let Some(record) = csv.read().map_err(|e| e.to_string())? {
        record.check_length(columns).map_err(|e| e.to_string())?;
        let (cells, line) = (record.texts().map_err(|e| e.to_string())?, record.line());
        let cell = |at: usize| cells.get(at).copied().unwrap_or_default();
        let index: u64 = number(cell(index), "a whole number", line)?;
        if !wanted.contains(&index) {
            continue;
        }
        let token = match cell(token).trim() {
            "" => None,
            id => Some(number(id, "a token's id", line)?),
        };
        let influence = header.influences.iter();
        table.add(TokenRow {
            index,
            position: number(cell(position), "a whole number", line)?,
            token,
            text: unquoted(cell(text)).to_owned(),
            influence: influence
                .map(|(_, at)| number(cell(*at), "a number", line))
                .collect::<Result<_, _>>()?,
        });
    }
    Ok(table)
}

fn read_json_lines(from: impl BufRead, wanted: &BTreeSet<u64>) -> Result<TokenTable, String> {
    let mut read: Option<(Vec<String>, TokenTable)> = None;
    for (line, at) in from.lines().zip(1u64..) {
        let line = line.map_err(|e| e.to_string())?;
        if line.trim().is_empty() {
            continue;
        }
        let object: Map<String, Value> =
            serde_json::from_str(&line).map_err(|e| format!("line {at}: {e}"))?;
        let (names, table) = match &mut read {
            Some(read) => read,
            empty => {
                let names: Vec<&str> = object.keys().map(String::as_str).collect();
                let header = Header::of(&names)?;
                let names = header
                    .influences
                    .iter()
                    .map(|(_, at)| names[*at].to_owned());
                empty.insert((names.collect(), header.table()))
            }
        };
        let value = |name: &str| object.get(name).unwrap_or(&Value::Null);
        let wrong = |name: &str, what: &str| {
            let got = value(name);
            format!("line {at}: `{name}`: expected {what}, got {got}; write the table again")
        };
        let whole = |name| {
            let found = value(name).as_u64();
            found.ok_or_else(|| wrong(name, "a whole number"))
        };
        let index = whole("index")?;
        if !wanted.contains(&index) {
            continue;
        }
        let influence = names
            .iter()
            .map(|name| value(name).as_f64().ok_or_else(|| wrong(name, "a number")));
        table.add(TokenRow {
            index,
            position: whole("position")?,
            token: value("token").as_i64(),
            text: value("text").as_str().unwrap_or_default().to_owned(),
            influence: influence.collect::<Result<_, _>>()?,
        });
    }
    read.map(|(_, table)| table)
        .ok_or_else(|| "the file has no rows".to_owned())
}

impl TokenTable {
    fn add(&mut self, row: TokenRow) {
        self.sequences.entry(row.index).or_default().push(row);
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Tensor};
    use hindcast_model::data::from_tensors;

    use super::*;

    #[test]
    fn terms_that_are_not_one_per_token_have_no_token() {
        let ids = Tensor::new(&[[5i64, -100, 7]], &Device::Cpu).unwrap();
        let inputs = Tensor::new(&[[1i64, 5, 2]], &Device::Cpu).unwrap();
        let pair = (&inputs, &ids);
        let data = from_tensors(pair, Some(pair), None, &[], None).unwrap();
        let rows = |terms: &[f64]| {
            let scores = TokenScores {
                queries: vec![("validation".to_owned(), vec![terms.to_vec()])],
            };
            let rows = scores.rows(0, data.as_ref());
            let of = |row: TokenRow| (row.position, row.token, row.influence[0]);
            rows.into_iter().map(of).collect::<Vec<_>>()
        };
        // The padding has no row.
        let all = [(0, Some(5), 0.5), (2, Some(7), 0.25)];
        assert_eq!(rows(&[0.5, 0.0, 0.25]), all);
        // A loss without the first position: the second term isn't that of the padding.
        assert_eq!(rows(&[0.5, 0.0]), [(0, None, 0.5), (1, None, 0.0)]);
    }

    #[test]
    fn a_wrong_value_is_named_with_what_was_expected() {
        let wanted = BTreeSet::from([0]);
        let read = |text: &str| read_json_lines(text.as_bytes(), &wanted).err().unwrap();
        let columns = r#""position":0,"token":1,"text":"a","influence":0.5"#;
        let problem = read(&format!("{{\"index\":null,{columns}}}\n"));
        assert_eq!(
            problem,
            "line 1: `index`: expected a whole number, got null; write the table again"
        );
    }
}

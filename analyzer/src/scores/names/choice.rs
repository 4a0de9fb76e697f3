//! The roles of the columns in a file of names.

use super::key::NameKey;
use crate::error::BadNames;

/// Positions of the columns that are read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct NameColumns {
    /// Meaning of the numbers, if there are any.
    pub key: Option<NameKey>,
    /// The column of the numbers.
    pub number: Option<usize>,
    /// The column with the row's file.
    pub file: Option<usize>,
    /// The column of the names.
    pub name: usize,
}

/// The column with this name, ignoring letter case and surrounding spaces.
///
/// # Errors
/// Several columns have the name.
pub(super) fn find(columns: &[String], name: &str) -> Result<Option<usize>, String> {
    let plain = |text: &str| text.trim().to_lowercase();
    let mut found = (0..)
        .zip(columns)
        .filter(|(_, column)| plain(column) == plain(name))
        .map(|(at, _)| at);
    match (found.next(), found.next()) {
        (Some(_), Some(_)) => Err(format!(
            "several columns are called `{name}`: {}",
            columns.join(", ")
        )),
        (found, _) => Ok(found),
    }
}

/// The columns of the numbers, the files and the names. `by` and `wanted` are the user's choices.
///
/// # Errors
/// A column is missing, or it isn't clear which one is meant.
pub(super) fn choose(
    columns: &[String],
    by: Option<NameKey>,
    wanted: Option<&str>,
) -> Result<NameColumns, BadNames> {
    let column = |name: &str| find(columns, name);
    if let [only] = columns
        && only.contains([';', '\t'])
    {
        return Err(BadNames::Text(format!(
            "the header is one column, `{only}`: separate columns by commas"
        )));
    }
    let numbers = [
        (NameKey::Index, column("index")?),
        (NameKey::Row, column("row")?),
    ];
    let numbered = numbers
        .iter()
        .find_map(|&(key, at)| Some((key, at?)).filter(|(key, _)| by.is_none_or(|by| by == *key)));
    let key = numbered.map(|(key, _)| key);
    let by_file = match key {
        Some(NameKey::Row) => column("file")?,
        _ => None,
    };
    let name = match wanted {
        Some(wanted) => exactly(columns, wanted)?,
        None => match column("name")? {
            Some(name) => name,
            None => only(columns, &numbers.map(|(_, at)| at), by_file)?,
        },
    };
    if key.is_none() {
        refuse_unread(columns, by, name)?;
    }
    Ok(NameColumns {
        key,
        number: numbered.map(|(_, at)| at),
        file: by_file.filter(|&at| at != name),
        name,
    })
}

/// The chosen column: with the same letters, or else ignoring letter case.
fn exactly(columns: &[String], wanted: &str) -> Result<usize, String> {
    if let Some(at) = columns.iter().position(|column| column == wanted) {
        return Ok(at);
    }
    find(columns, wanted)?.ok_or_else(|| {
        format!(
            "there is no column `{wanted}`; there are: {}",
            columns.join(", ")
        )
    })
}

/// The only column left for the names.
fn only(
    columns: &[String],
    numbers: &[Option<usize>],
    by_file: Option<usize>,
) -> Result<usize, BadNames> {
    let others: Vec<usize> = (0..columns.len())
        .filter(|at| !numbers.contains(&Some(*at)))
        .collect();
    let names: Vec<usize> = others
        .iter()
        .copied()
        .filter(|at| Some(*at) != by_file)
        .collect();
    match (others.as_slice(), names.as_slice()) {
        ([only], _) | (_, [only]) => Ok(*only),
        _ => Err(BadNames::Column {
            columns: columns.to_vec(),
        }),
    }
}

/// Refuses a column that seems to identify the example but would not be read, because lines would be counted instead.
fn refuse_unread(columns: &[String], by: Option<NameKey>, name: usize) -> Result<(), String> {
    const WORDS: [&str; 7] = [
        "row",
        "rows",
        "index",
        "indices",
        "idx",
        "rownumber",
        "rowindex",
    ];
    let seems = |column: &str| {
        column
            .to_lowercase()
            .split(|c: char| !c.is_alphanumeric())
            .any(|word| WORDS.contains(&word))
    };
    let found = (0..)
        .zip(columns)
        .find(|(at, column)| *at != name && seems(column));
    let Some((_, column)) = found else {
        return Ok(());
    };
    let wanted = match by {
        Some(by) => format!("`{}`, as requested", by.column()),
        None => "`row` or `index`".to_owned(),
    };
    Err(format!(
        "the column `{column}` seems to identify the example, but it is not called {wanted}: rename it, or remove it to count lines instead"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(
        columns: &str,
        by: Option<NameKey>,
        wanted: Option<&str>,
    ) -> Result<NameColumns, BadNames> {
        let columns: Vec<String> = columns.split(',').map(str::to_owned).collect();
        choose(&columns, by, wanted)
    }

    #[test]
    fn a_column_of_numbers_is_found_in_any_letter_case() {
        for (columns, key) in [
            ("row,name", NameKey::Row),
            ("Row,name", NameKey::Row),
            ("ROW , Name ", NameKey::Row),
            (" row,id", NameKey::Row),
            ("Index,name", NameKey::Index),
            ("INDEX,text", NameKey::Index),
        ] {
            let chosen = of(columns, None, None).unwrap();
            assert_eq!(
                (chosen.key, chosen.number, chosen.name),
                (Some(key), Some(0), 1)
            );
        }
        let chosen = of("File,Row,Name", None, None).unwrap();
        assert_eq!(
            (chosen.number, chosen.file, chosen.name),
            (Some(1), Some(0), 2)
        );
        // A table of scores has both numbers.
        let both = |by| of("index,row,name", by, None).unwrap().number;
        assert_eq!(
            [None, Some(NameKey::Index), Some(NameKey::Row)].map(both),
            [Some(0), Some(0), Some(1)]
        );
        assert_eq!(of("row,a,b", None, Some("B")).unwrap().name, 2);
        assert_eq!(of("id,name", None, None).unwrap().number, None);
        assert_eq!(of("row_title", None, None).unwrap().name, 0);
    }

    #[test]
    fn a_column_that_seems_to_identify_examples_is_not_ignored() {
        for (columns, by, hint) in [
            ("row_number,name", None, "the column `row_number` seems"),
            ("Row ID,name", None, "the column `Row ID` seems"),
            ("idx,name", None, "the column `idx` seems"),
            ("row,name", Some(NameKey::Index), "not called `index`"),
            ("index,name", Some(NameKey::Row), "not called `row`"),
            ("Row,row,name", None, "several columns are called `row`"),
            ("name;Row", None, "separate columns by commas"),
            ("name\trow", None, "separate columns by commas"),
            ("row,name,Name", None, "several columns are called `name`"),
        ] {
            let said = of(columns, by, None).unwrap_err().to_string();
            assert!(said.contains(hint), "{columns}: {said}");
        }
    }
}

//! Parquet tables: what other programs read, and what is refused.

use super::*;

/// Other programs read our Parquet files, with the numbers, texts and missing scores.
#[test]
fn parquet_is_read_by_duckdb_or_pandas() {
    const READ: &str = r#"
import sys
path = sys.argv[1]
try:
    import duckdb
    rows = duckdb.sql(f"SELECT * FROM read_parquet('{path}') ORDER BY index").fetchall()
    columns = duckdb.sql(f"SELECT * FROM read_parquet('{path}')").columns
    who = "DuckDB " + duckdb.__version__
except ImportError:
    import pandas
    frame = pandas.read_parquet(path).sort_values("index")
    columns = list(frame.columns)
    rows = [[None if pandas.isna(x) else x for x in row] for row in frame.itertuples(index=False)]
    who = "pandas " + pandas.__version__
print(who)
print("|".join(columns))
for row in rows:
    print("|".join("" if x is None else float(x).hex() if isinstance(x, float) else str(x) for x in row))
"#;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("scores.parquet");
    let mut table = table(
        &["validation"],
        &[4],
        &[0.1 + 0.2, -f64::MAX, 5e-324, -2e-9],
    );
    for row in &mut table.rows {
        row.name = Some(format!("{}.png", row.index));
        row.label = format!("label {}", row.index);
    }
    table.write(&path).unwrap();
    let python = std::env::var_os("HINDCAST_PYTHON").unwrap_or_else(|| "python3".into());
    let output = match std::process::Command::new(&python)
        .args(["-c", READ])
        .arg(&path)
        .output()
    {
        Ok(output) => output,
        Err(e) => {
            println!("skipped: {} cannot be run here: {e}", python.display());
            return;
        }
    };
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let problem = String::from_utf8_lossy(&output.stderr).into_owned();
    let lacks = ["ModuleNotFoundError", "usable engine"];
    if !output.status.success() && lacks.iter().any(|l| problem.contains(l)) {
        println!("skipped: this Python has neither DuckDB nor pandas");
        return;
    }
    assert!(output.status.success(), "{problem}");
    let mut lines = said.lines();
    println!("read by {}", lines.next().unwrap());
    assert_eq!(
        lines.next().unwrap(),
        "index|row|name|label|occurrences|influence|influence_renormalised|accumulative|counterfactual|epoch_4|file"
    );
    let hex = |x: Option<f64>| x.map_or(String::new(), python_hex);
    for row in &table.rows {
        let cells = [
            row.index.to_string(),
            row.row.to_string(),
            row.name.clone().unwrap(),
            row.label.clone(),
            row.occurrences.to_string(),
            hex(row.influence[0]),
            hex(row.renormalised[0]),
            hex(row.refined[0].accumulative),
            hex(row.refined[0].counterfactual),
            hex(row.epochs[0][0]),
            row.file.clone(),
        ];
        assert_eq!(lines.next(), Some(cells.join("|").as_str()));
    }
    assert_eq!(lines.next(), None);
}

/// A table of several row groups, written row by row, with whole scores so that every sum is exact.
fn large(path: &Path, rows: u64) {
    let mut table = table(&["validation", "test"], &[], &[1.0]);
    table.metadata.files = vec![vec!["a.csv".to_owned()]];
    let row = |index: u64| ScoreRow {
        index,
        row: index + 7,
        file: "a.csv".to_owned(),
        label: (index % 10).to_string(),
        occurrences: index % 3,
        influence: vec![
            (!index.is_multiple_of(3)).then_some(index as f64),
            Some(-1.0),
        ],
        renormalised: vec![None, Some(0.5)],
        ..ScoreRow::default()
    };
    let written = write_rows(path, &table.metadata, (0..rows).map(row)).unwrap();
    assert_eq!(written, rows);
}

/// DuckDB sees every row group of a large table, with its types, its missing scores and its sums.
#[test]
fn parquet_of_several_row_groups_is_opened_by_duckdb() {
    const READ: &str = r#"
import sys, duckdb
path = sys.argv[1]
table = duckdb.sql(f"SELECT * FROM read_parquet('{path}')")
print(",".join(f"{name} {kind}" for name, kind in zip(table.columns, table.types)))
print(duckdb.sql(f"""SELECT count(*), sum("influence[validation]"), count("influence[validation]"), sum("influence[test]"),
    count("influence_renormalised[validation]"), sum("row")::BIGINT, count(DISTINCT label), count(DISTINCT file)
    FROM read_parquet('{path}')""").fetchall()[0])
print(duckdb.sql(f"SELECT count(DISTINCT row_group_id) FROM parquet_metadata('{path}')").fetchall()[0][0])
"#;
    const ROWS: u64 = 300_000;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("scores.parquet");
    large(&path, ROWS);
    let python = std::env::var_os("HINDCAST_PYTHON").unwrap_or_else(|| "python3".into());
    let run = std::process::Command::new(&python)
        .args(["-c", READ])
        .arg(&path)
        .output();
    let output = match run {
        Ok(output) => output,
        Err(e) => {
            println!("skipped: {} cannot be run here: {e}", python.display());
            return;
        }
    };
    let problem = String::from_utf8_lossy(&output.stderr).into_owned();
    if !output.status.success() && problem.contains("ModuleNotFoundError") {
        println!("skipped: this Python has no DuckDB");
        return;
    }
    assert!(output.status.success(), "{problem}");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(
        lines[0],
        "index UBIGINT,row UBIGINT,label VARCHAR,occurrences UBIGINT,influence[validation] DOUBLE,influence_renormalised[validation] DOUBLE,influence[test] DOUBLE,influence_renormalised[test] DOUBLE,file VARCHAR"
    );
    let scored = (0..ROWS).filter(|index| !index.is_multiple_of(3));
    let (sum, count) = (scored.clone().sum::<u64>(), scored.count());
    let row = (0..ROWS).map(|index| index + 7).sum::<u64>();
    assert_eq!(
        lines[1],
        format!("({ROWS}, {sum}.0, {count}, -{ROWS}.0, 0, {row}, 10, 1)")
    );
    assert_eq!(lines[2], "3", "row groups of 131,072 rows");
}

/// A damaged file is refused by its metadata. Without metadata, it is an error or other numbers, and never a panic.
#[test]
fn a_damaged_parquet_table_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("scores.parquet");
    large(&path, 200);
    let whole = fs::read(&path).unwrap();
    let damaged = |bytes: &[u8]| {
        fs::write(&path, bytes).unwrap();
        ScoreTable::read(&path).map(drop)
    };
    let said = damaged(&whole[..whole.len() - 1]).unwrap_err().to_string();
    assert!(said.contains("it isn't the table that"), "{said}");
    fs::remove_file(sidecar_path(&path)).unwrap();
    for end in (0..whole.len()).step_by(7) {
        let said = damaged(&whole[..end]).unwrap_err().to_string();
        assert!(said.contains("scores.parquet"), "{said}");
    }
    let mut refused = 0;
    for at in 0..whole.len() {
        let mut bytes = whole.clone();
        bytes[at] ^= 1 << (at % 8);
        refused += usize::from(damaged(&bytes).is_err());
    }
    assert!(refused > whole.len() / 4, "{refused} of {}", whole.len());
}

/// Another program's table: an index that is null is no index 0, and a text that is null is empty.
#[test]
fn a_null_number_in_a_foreign_parquet_table_is_refused_with_its_row() {
    use std::sync::Arc;

    use arrow_array::{ArrayRef, Float64Array, RecordBatch, StringArray, UInt64Array};

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("t.parquet");
    let write = |index: [Option<u64>; 3], row: [Option<u64>; 3]| {
        let columns: [(&str, ArrayRef); 4] = [
            ("index", Arc::new(UInt64Array::from(index.to_vec()))),
            ("row", Arc::new(UInt64Array::from(row.to_vec()))),
            (
                "label",
                Arc::new(StringArray::from(vec![Some("a"), None, Some("c")])),
            ),
            (
                "influence",
                Arc::new(Float64Array::from(vec![Some(0.5), None, Some(-1.0)])),
            ),
        ];
        let batch = RecordBatch::try_from_iter(columns).unwrap();
        let file = fs::File::create(&path).unwrap();
        let mut writer = parquet::arrow::ArrowWriter::try_new(file, batch.schema(), None).unwrap();
        writer.write(&batch).unwrap();
        writer.close().unwrap();
        ScoreTable::read(&path)
    };
    let whole = [Some(7), Some(8), Some(9)];
    for (index, row, wanted) in [
        (
            [Some(1), Some(2), None],
            whole,
            "row 3: column `index` has no value",
        ),
        (
            whole,
            [Some(1), None, Some(3)],
            "row 2: column `row` has no value",
        ),
    ] {
        let said = write(index, row).unwrap_err().to_string();
        assert!(
            said.contains(wanted) && said.contains("t.parquet"),
            "{said}"
        );
    }
    let rows = write(whole, whole).unwrap().rows;
    let labels: Vec<&str> = rows.iter().map(|r| r.label.as_str()).collect();
    assert_eq!(labels, ["a", "", "c"]);
    assert_eq!(rows[1].influence, [None]);
}

/// A float as Python's `float.hex` writes it, with every bit.
fn python_hex(x: f64) -> String {
    let bits = x.to_bits();
    let (exponent, fraction) = ((bits >> 52) & 0x7ff, bits & ((1 << 52) - 1));
    let sign = if x.is_sign_negative() { "-" } else { "" };
    match exponent {
        0 if fraction == 0 => format!("{sign}0x0.0p+0"),
        0 => format!("{sign}0x0.{fraction:013x}p-1022"),
        _ => format!("{sign}0x1.{fraction:013x}p{:+}", exponent as i64 - 1023),
    }
}

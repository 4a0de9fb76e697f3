//! CSV tables.

use super::{folder, open, refused, says};
use candle_core::{DType, Device};
use hindcast_model::objective::Split;

const PEOPLE: &str =
    "age, sex, id, income\n39, Male, 1, <=50K\n50, Female, 2, >50K\n38, Male, 3, <=50K\n";
const TABLE: &str = "source = 'csv'\ntrain_files = 'a.csv'\nlabel = 'income'\ncategorical = ['sex']\nignore = ['id']";

#[test]
fn numbers_stay_and_categories_become_columns() {
    let dir = folder(&[("a.csv", PEOPLE.as_bytes())]);
    let set = open(TABLE, dir.path()).unwrap();
    assert_eq!(set.feature_names(), ["age", "sex=Female", "sex=Male"]);
    assert_eq!(set.class_names(), ["<=50K", ">50K"]);
    let batch = set
        .batch(Split::Train, &[0, 1], None, DType::F64, &Device::Cpu)
        .unwrap();
    assert_eq!(
        batch.inputs.to_vec2::<f64>().unwrap(),
        [[39.0, 0.0, 1.0], [50.0, 1.0, 0.0]]
    );
    assert_eq!(batch.targets.to_vec1::<u32>().unwrap(), [0, 1]);
    assert_eq!(set.image(Split::Train, 0), None);
}

#[test]
fn the_cells_of_a_row_are_as_its_file_writes_them() {
    let table = "age;height;note;id;income\n39;1,80;\"a; b\";x1;low\n?;1,75;caf\u{e9};x2;high\n41;1,9;;x3;low\n";
    let (latin, _, _) = encoding_rs::WINDOWS_1252.encode(table);
    let test = "age;height;note;id;income\n7;0,5;last;x4;low\n";
    let dir = folder(&[("a.csv", &latin), ("t.csv", test.as_bytes())]);
    let task = "source = 'csv'\ntrain_files = 'a.csv'\ntest_files = 't.csv'\nlabel = -1\ndelimiter = ';'\ndecimal = ','\n\
        encoding = 'windows-1252'\nignore = ['id']\nstandardise = true\nlog1p = ['height']\n\
        missing = { fill = 'drop', texts = ['?'] }\ntfidf = { columns = ['note'] }";
    let set = open(task, dir.path()).unwrap();
    let row = |split, index| -> Vec<String> {
        let cells = set.cells(split, index).unwrap();
        let names: Vec<&str> = cells.iter().map(|cell| cell.column.as_str()).collect();
        assert_eq!(names, ["age", "height", "note", "id"]);
        cells.into_iter().map(|cell| cell.text).collect()
    };
    // The second row is in no split, because a value is missing.
    assert_eq!(row(Split::Train, 0), ["39", "1,80", "a; b", "x1"]);
    assert_eq!(row(Split::Train, 1), ["41", "1,9", "", "x3"]);
    assert_eq!(row(Split::Test, 0), ["7", "0,5", "last", "x4"]);
    assert!(set.cells(Split::Train, 2).unwrap().is_empty());

    // A file that has become shorter since it was read.
    let set = open(task, dir.path()).unwrap();
    std::fs::write(
        dir.path().join("a.csv"),
        "age;height;note;id;income\n39;1,80;a;x1;low\n",
    )
    .unwrap();
    let error = set.cells(Split::Train, 1).unwrap_err().to_string();
    says(&error, &["a.csv", "no row 2"]);
}

#[test]
fn categories_and_classes_are_those_of_all_files() {
    let test = "age,sex,id,income\n20,Other,9,?\n";
    let dir = folder(&[("a.csv", PEOPLE.as_bytes()), ("t.csv", test.as_bytes())]);
    let set = open(&format!("{TABLE}\ntest_files = 't.csv'"), dir.path()).unwrap();
    assert_eq!(
        set.feature_names(),
        ["age", "sex=Female", "sex=Male", "sex=Other"]
    );
    assert_eq!(set.class_names(), ["<=50K", ">50K", "?"]);
    assert_eq!(set.class(Split::Test, 0), Some(2));
    // The names in the Task determine the class numbers, and must include all labels.
    let named = open(
        &format!("{TABLE}\nclass_names = ['>50K', '<=50K']"),
        dir.path(),
    )
    .unwrap();
    assert_eq!(named.class(Split::Train, 0), Some(1));
    says(
        &refused(&format!("{TABLE}\nclass_names = ['>50K']"), dir.path()),
        &["data.class_names", "<=50K"],
    );
}

#[test]
fn labels_that_are_numbers_are_sorted_by_value_or_predicted() {
    let dir = folder(&[("a.csv", b"x;y\n1;10\n2;9\n3;10\n")]);
    let text = "source = 'csv'\ntrain_files = 'a.csv'\nlabel = 'y'\ndelimiter = ';'";
    let set = open(text, dir.path()).unwrap();
    assert_eq!(set.class_names(), ["9", "10"]);
    let set = open(&format!("{text}\ntarget = 'value'"), dir.path()).unwrap();
    let batch = set
        .batch(Split::Train, &[0, 1], None, DType::F32, &Device::Cpu)
        .unwrap();
    assert_eq!(batch.targets.to_vec2::<f32>().unwrap(), [[10.0], [9.0]]);
}

#[test]
fn a_file_without_a_header_gets_its_names_from_the_task() {
    let dir = folder(&[("a.csv", b"|a remark\n1,a\n2,b\n\n")]);
    let set = open(
        "source = 'csv'\ntrain_files = 'a.csv'\nlabel = 'y'\ncolumns = ['x', 'y']\ncomment = '|'",
        dir.path(),
    )
    .unwrap();
    assert_eq!(set.len(Split::Train), 2);
    assert_eq!(set.label(Split::Train, 1), "b");
}

#[test]
fn errors_of_tables_name_the_line_and_the_column() {
    let dir = folder(&[
        ("a.csv", b"x,y\n1,a\nn/a,b\n"),
        ("short.csv", b"x,y\n1,a\n2\n"),
        ("twice.csv", b"x,x\n1,a\n"),
        ("empty.csv", b"x,y\n"),
        ("nan.csv", b"x,y\nNaN,b\n"),
        ("latin.csv", b"x,y\n1,\xe9\n"),
        ("y.csv", b"y\na\n"),
        ("other.csv", b"x,z\n1,a\n"),
    ]);
    let table = |file: &str| format!("source = 'csv'\ntrain_files = '{file}'\nlabel = 'y'");
    says(
        &refused(&table("a.csv"), dir.path()),
        &[
            "row 1",
            "line 3",
            "\"x\"",
            "a finite number",
            "n/a",
            "categorical = [\"x\"]",
        ],
    );
    says(
        &refused(&table("short.csv"), dir.path()),
        &["line 3", "1 cell,", "expected 2"],
    );
    says(
        &refused(&table("twice.csv"), dir.path()),
        &["two columns \"x\""],
    );
    says(&refused(&table("empty.csv"), dir.path()), &["no row"]);
    says(&refused(&table("nan.csv"), dir.path()), &["NaN", "finite"]);
    says(
        &refused(&table("latin.csv"), dir.path()),
        &["line 2", "UTF-8"],
    );
    says(
        &refused(&table("y.csv"), dir.path()),
        &["no column of inputs"],
    );
    says(
        &refused(&table("other.csv"), dir.path()),
        &["data.label", "no column \"y\"", "x, z"],
    );
    let two =
        "source = 'csv'\ntrain_files = ['nan.csv', 'other.csv']\nlabel = 'y'\ncategorical = ['x']";
    says(&refused(two, dir.path()), &["other.csv", "x, z", "x, y"]);
    let many: String = std::iter::once("x,y\n".to_string())
        .chain((0..1500).map(|i| format!("{i},{i}.5\n")))
        .collect();
    let dir = folder(&[("many.csv", many.as_bytes())]);
    says(
        &refused(&table("many.csv"), dir.path()),
        &["at most 1000 classes", "target = \"value\""],
    );
    assert!(
        open(
            &format!("{}\ntarget = 'value'", table("many.csv")),
            dir.path()
        )
        .is_ok()
    );
}

#[test]
fn texts_are_merged_and_logarithms_taken() {
    let people = "pay,work,income\n0,?,a\n1.5,none,a.\n2,Private,b\n";
    let dir = folder(&[("a.csv", people.as_bytes())]);
    let text = "source = 'csv'\ntrain_files = 'a.csv'\nlabel = 'income'\ncategorical = ['work']\nlog1p = ['pay']\n\
        [merge.work]\nunknown = ['?', 'none']\n[merge.income]\na = ['a.']";
    let set = open(text, dir.path()).unwrap();
    assert_eq!(
        set.feature_names(),
        ["log(1 + pay)", "work=Private", "work=unknown"]
    );
    assert_eq!(set.class_names(), ["a", "b"]);
    let batch = set
        .batch(Split::Train, &[0, 1, 2], None, DType::F64, &Device::Cpu)
        .unwrap();
    assert_eq!(
        batch.inputs.to_vec2::<f64>().unwrap(),
        [
            [0.0, 0.0, 1.0],
            [1.5f64.ln_1p(), 0.0, 1.0],
            [2f64.ln_1p(), 1.0, 0.0]
        ]
    );
    assert_eq!(batch.targets.to_vec1::<u32>().unwrap(), [0, 0, 1]);

    let base = "source = 'csv'\ntrain_files = 'a.csv'\nlabel = 'income'\ncategorical = ['work']\n";
    for (keys, pieces) in [
        (
            "merge = { pay = { 0 = ['?'] } }",
            ["data.merge", "pay", "categorical"],
        ),
        (
            "merge = { job = { 0 = ['?'] } }",
            ["data.merge", "no column \"job\"", "work"],
        ),
        (
            "merge = { work = { x = ['?'], y = ['?'] } }",
            ["data.merge", "\"?\"", "twice"],
        ),
        ("log1p = ['work']", ["data.log1p", "work", "text"]),
        (
            "log1p = ['wage']",
            ["data.log1p", "no column \"wage\"", "pay"],
        ),
    ] {
        says(&refused(&format!("{base}{keys}"), dir.path()), &pieces);
    }
    let dir = folder(&[("a.csv", b"pay,income\n0,a\n-1,b\n")]);
    let text = "source = 'csv'\ntrain_files = 'a.csv'\nlabel = 'income'\nlog1p = ['pay']";
    says(
        &refused(text, dir.path()),
        &["row 1", "\"pay\"", "above -1", "log1p"],
    );
}

#[test]
fn numbers_can_have_decimal_commas_and_dates_are_refused_with_advice() {
    let dir = folder(&[
        ("a.csv", b"x;y\n1,5;a\n-2;b\n"),
        ("thousands.csv", b"x;y\n1.234,5;a\n"),
        ("dates.csv", b"x;y\n30.11.2026;a\n"),
    ]);
    let text = "source = 'csv'\nlabel = 'y'\ndelimiter = ';'\ntrain_files = 'a.csv'";
    says(&refused(text, dir.path()), &["\"1,5\"", "decimal = \",\""]);
    let comma = format!("{text}\ndecimal = ','");
    let set = open(&comma, dir.path()).unwrap();
    let batch = set
        .batch(Split::Train, &[0, 1], None, DType::F64, &Device::Cpu)
        .unwrap();
    assert_eq!(batch.inputs.to_vec2::<f64>().unwrap(), [[1.5], [-2.0]]);
    let of = |file: &str| refused(&comma.replace("a.csv", file), dir.path());
    says(
        &of("thousands.csv"),
        &[
            "row 0 (line 2)",
            "\"x\"",
            "\"1.234,5\"",
            "thousands = \".\"",
        ],
    );
    let grouped = format!("{comma}\nthousands = '.'").replace("a.csv", "thousands.csv");
    let set = open(&grouped, dir.path()).unwrap();
    let batch = set
        .batch(Split::Train, &[0], None, DType::F64, &Device::Cpu)
        .unwrap();
    assert_eq!(batch.inputs.to_vec2::<f64>().unwrap(), [[1234.5]]);
    for wrong in ["'_'", "','"] {
        says(
            &refused(&format!("{comma}\nthousands = {wrong}"), dir.path()),
            &["data.thousands", "decimal separator"],
        );
    }
    says(
        &of("dates.csv"),
        &["30.11.2026", "date", "day of the week", "ignore = [\"x\"]"],
    );
    says(
        &refused(&format!("{text}\ndecimal = ';'"), dir.path()),
        &["data.decimal", "';'"],
    );
}

#[test]
fn the_label_can_be_a_column_by_its_number() {
    let dir = folder(&[("a.csv", b"y,x,2\nlow,1,7\nhigh,2,9\n")]);
    let of = |label: &str| {
        let text = format!("source = 'csv'\ntrain_files = 'a.csv'\nlabel = {label}");
        open(&text, dir.path()).map_err(|e| e.to_string())
    };
    assert_eq!(of("1").unwrap().class_names(), ["high", "low"]);
    assert_eq!(of("-3").unwrap().class_names(), ["high", "low"]);
    // A column whose name is the number comes first.
    let named = refused(
        "source = 'csv'\ntrain_files = 'a.csv'\nlabel = 2",
        dir.path(),
    );
    says(&named, &["column \"y\""]);
    for wrong in ["0", "4", "-4"] {
        let error = of(wrong).err().unwrap();
        says(
            &error,
            &[
                "data.label",
                &format!("no column {wrong}"),
                "3 columns",
                "y, x, 2",
            ],
        );
    }
}

#[test]
fn texts_have_the_encoding_that_the_task_names() {
    let latin = b"x,y\n1,caf\xe9\n2,\x80\n";
    let utf16: Vec<u8> = "\u{feff}x,y\n1,caf\u{e9}\n"
        .encode_utf16()
        .flat_map(u16::to_le_bytes)
        .collect();
    let json = b"{\"text\": \"un caf\xe9\", \"y\": \"a\"}\n{\"text\": \"th\xe9\", \"y\": \"b\"}\n";
    let dir = folder(&[
        ("a.csv", latin),
        ("b.csv", &utf16),
        ("c.jsonl", json),
        ("d.csv", b"x,y\n1,a\n2,\x81\xff\n"),
    ]);
    let of = |file: &str, more: &str| {
        format!("source = 'csv'\ntrain_files = '{file}'\nlabel = 'y'\n{more}")
    };
    says(
        &refused(&of("a.csv", ""), dir.path()),
        &["line 2, cell 2 is not UTF-8", "encoding = \"windows-1252\""],
    );
    for name in ["windows-1252", "latin1", "ISO-8859-1"] {
        let set = open(&of("a.csv", &format!("encoding = '{name}'")), dir.path()).unwrap();
        assert_eq!(set.class_names(), ["caf\u{e9}", "\u{20ac}"]);
    }
    let set = open(&of("b.csv", "encoding = 'utf-16'"), dir.path()).unwrap();
    assert_eq!(set.class_names(), ["caf\u{e9}"]);
    says(
        &refused(&of("d.csv", "encoding = 'shift_jis'"), dir.path()),
        &["line 3", "Shift_JIS"],
    );
    says(
        &refused(&of("a.csv", "encoding = 'klingon'"), dir.path()),
        &["data.encoding", "klingon", "windows-1252"],
    );
    let documents = "source = 'documents'\ntrain_files = 'c.jsonl'\nlabel = 'y'";
    says(
        &refused(documents, dir.path()),
        &["line 1", "UTF-8", "windows-1252"],
    );
    let set = open(&format!("{documents}\nencoding = 'latin1'"), dir.path()).unwrap();
    assert_eq!(set.feature_names(), ["caf\u{e9}", "th\u{e9}", "un"]);
    says(
        &refused("source = 'idx'\nencoding = 'latin1'", dir.path()),
        &["data.encoding", "csv, documents, text"],
    );
}

#[test]
fn lines_that_are_no_rows_are_refused_with_advice() {
    let dir = folder(&[
        ("sign.csv", b"x,y\n|1x3 Cross validator\n1,a\n"),
        ("note.csv", b"x,y\n1,a\nsource: the city\n"),
        ("cells.csv", b"x,y\n1,a,b\n"),
    ]);
    for (file, advice) in [
        ("sign.csv", ["line 2 has 1 cell", "comment = \"|\""]),
        ("note.csv", ["line 3 has 1 cell", "Remove titles and notes"]),
        ("cells.csv", ["line 2 has 3 cells", "quotes"]),
    ] {
        let text = format!("source = 'csv'\nlabel = 'y'\ntrain_files = '{file}'");
        says(&refused(&text, dir.path()), &advice);
    }
    let missing = "source = 'csv'\nlabel = 'y'\ntrain_files = 'tickets.csv'";
    let message = refused(missing, dir.path());
    assert!(!message.contains("adult"), "{message}");
}

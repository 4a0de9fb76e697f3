//! Pages of the documentation that have a generated part between two marks.

use std::path::Path;

/// Checks that the part of `docs/NAME` between the marks is `should`, which follows from `source`. If the environment variable is
/// set, writes it instead. `test` is the name by which the message tells how to run the calling test.
pub fn is_up_to_date(
    name: &str,
    [begin, end]: [&str; 2],
    should: &str,
    source: &str,
    variable: &str,
    test: &str,
) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../docs")
        .join(name);
    let found = std::fs::read_to_string(&path).unwrap();
    let (head, rest) = found
        .split_once(begin)
        .expect("the page has its first mark");
    let (now, tail) = rest.split_once(end).expect("the page has its last mark");
    if std::env::var_os(variable).is_some() {
        std::fs::write(&path, format!("{head}{begin}{should}{end}{tail}")).unwrap();
        return;
    }
    assert!(
        now == should,
        "docs/{name} differs from {source}; {variable}=1 cargo test -p hindcast {test} writes it"
    );
}

//! Computes every row that `hindcast exactness` prints.

use std::sync::Mutex;

use hindcast_lab::exactness::{LIMIT, matrix, matrix_with, print};

#[test]
fn every_row_is_within_the_limit() {
    let rows = matrix(None).unwrap();
    let mut text = Vec::new();
    print(&mut text, &rows).unwrap();
    println!("{}", String::from_utf8(text).unwrap());
    let failed: Vec<_> = rows.iter().filter(|row| !row.passed()).collect();
    assert!(failed.is_empty(), "above {LIMIT:e}: {failed:#?}");
    for kind in ["operation", "layer", "optimizer", "query point", "discount"] {
        assert!(rows.iter().any(|row| row.kind == kind), "no {kind} rows");
    }
    assert!(rows.len() > 600, "only {} rows", rows.len());
}

#[test]
fn progress_is_reported_before_the_first_case_and_after_each() {
    let reported = Mutex::new(Vec::new());
    let rows = matrix_with(Some("optimizer adamw"), &|done, total| {
        reported.lock().unwrap().push((done, total));
    })
    .unwrap();
    assert!(rows.len() > 3, "{rows:?}");
    let expected: Vec<_> = (0..=rows.len()).map(|done| (done, rows.len())).collect();
    assert_eq!(reported.into_inner().unwrap(), expected);
}

#[test]
fn a_filter_that_matches_no_row_is_refused_with_an_example() {
    let message = matrix(Some("conv9d")).unwrap_err().to_string();
    assert!(message.contains("conv2d mean dropout"), "{message}");
}

//! The example of the README, run as it is.

#[path = "../../examples/own_loop.rs"]
#[expect(dead_code, reason = "its `main` is for `cargo run --example`")]
mod own_loop;

#[test]
fn the_own_loop_of_the_front_page_records() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run");
    own_loop::record(path.to_str().unwrap()).unwrap();
    let trace = hindcast_format::Trace::open(&path).unwrap();
    assert_eq!(crate::common::kept(&trace), (0..40).collect::<Vec<_>>());
    assert!(trace.verify().unwrap().findings.is_empty());
}

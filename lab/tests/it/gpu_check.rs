//! Runs `hindcast-gpu-check` in its quick form: on the CPU, in the form that GPUs run, and without a GPU.

use std::process::{Command, Output};

fn check(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_hindcast-gpu-check"))
        .args(arguments)
        .output()
        .unwrap()
}

/// All tests of all sections pass, and every section has lines.
fn passes(device: &str) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("report.json");
    let out = path.to_str().unwrap();
    let output = check(&["--device", device, "--quick", "--out", out]);
    let text = String::from_utf8_lossy(&output.stdout);
    println!("{text}");
    assert!(output.status.success(), "{output:?}");
    let report: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    let sections = report["sections"].as_array().unwrap();
    assert_eq!(sections.len(), 7);
    for section in sections {
        assert!(section["failure"].is_null(), "{section}");
        let lines = section["lines"].as_array().unwrap();
        assert!(lines.len() > 2, "{section}");
    }
    let tests = sections
        .iter()
        .flat_map(|section| section["lines"].as_array().unwrap())
        .filter(|line| line["passed"] == true)
        .count();
    assert!(tests > 100, "{tests}");
}

#[test]
fn all_tests_pass_on_the_cpu() {
    passes("cpu");
}

#[test]
fn all_tests_pass_in_the_form_that_gpus_run() {
    passes("composed");
}

#[test]
fn a_missing_gpu_and_an_unknown_section_are_errors() {
    if !candle_core::utils::cuda_is_available() {
        let output = check(&["--quick"]);
        assert_eq!(output.status.code(), Some(1));
        let message = String::from_utf8_lossy(&output.stderr);
        assert!(message.contains("--device cpu"), "{message}");
    }
    let output = check(&["--device", "cpu", "--only", "layer"]);
    assert_eq!(output.status.code(), Some(2));
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(message.contains("layers, determinism"), "{message}");
}

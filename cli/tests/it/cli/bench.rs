//! `hindcast bench` on a task of a few hundred parameters.

use std::fs;

use super::*;

const TASK: &str = "name = \"small\"\n[data]\nsource = \"digits\"\n[model]\ninput = [1, 6, 6]\n\
    layers = [{ kind = \"conv2d\", out = 2, kernel = 3 }, { kind = \"batch_norm\" }, { kind = \"relu\" }, \
    { kind = \"flatten\" }, { kind = \"linear\", out = 10 }]\n[loss]\nkind = \"cross-entropy\"\n\
    [optimizer]\nkind = \"sgd\"\nmomentum = 0.9\n[schedule]\nkind = \"linear\"\nlearning_rate = 0.02\n\
    [train]\nepochs = 2\nbatch = 10\n";

#[test]
fn every_row_is_timed_and_counted_without_data() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    fs::write(dir.join("small.toml"), TASK).unwrap();
    let words = [
        "bench",
        "small.toml",
        "--batch",
        "4",
        "--threads",
        "2",
        "--queries",
        "3",
        "--reps",
        "7",
    ];
    for (precision, name) in [("f32", "f32"), ("f64", "f64"), ("recorded", "f32")] {
        let more = ["--precision", precision, "--json"];
        let output = hindcast(dir, &[&words[..], &more].concat());
        assert_eq!(code(&output), 0, "{}", stderr(&output));
        assert!(stderr(&output).contains("nothing else runs on this machine"));
        let report: serde_json::Value = serde_json::from_str(&stdout(&output)).unwrap();
        assert_eq!(report["precision"], name);
        assert_eq!(report["parameters"], 20 + 4 + 330);
        let peak = report["peak_gflops"].as_f64().unwrap();
        assert!(peak > 0.0);
        // Two filters of 3x3 at 4x4 positions; 32 inputs to 10.
        let (first, rest) = (2.0 * 18.0 * 16.0, 2.0 * 320.0);
        let expected = [
            ("training step", Some(2.0 * first + 3.0 * rest)),
            ("replay step, autodiff", Some(7.0 * first + 20.0 * rest)),
            ("gradient, autodiff", Some(2.0 * first + 3.0 * rest)),
            ("decoding a recorded step", None),
        ];
        for (name, flops) in expected {
            let rows = report["rows"].as_array().unwrap();
            let row = rows
                .iter()
                .find(|row| row["name"] == name)
                .unwrap_or_else(|| panic!("no {name} in {report}"));
            let number = |key: &str| row[key].as_f64();
            let (median, min) = (number("median_ms").unwrap(), number("min_ms").unwrap());
            assert!(0.0 < min && min <= median, "{row}");
            assert_eq!(number("gflop"), flops.map(|f| 4.0 * f / 1e9), "{name}");
            let rate = number("gflop").map(|gflop| 1e3 * gflop / median);
            assert_eq!(number("gflops"), rate, "{name}");
            assert_eq!(
                number("share_of_peak"),
                rate.map(|rate| rate / peak),
                "{name}"
            );
        }
    }
    let text = fine(dir, &words);
    assert!(text.contains("small: 354 parameters, batch 4, f32, 2 threads, 3 queries"));
    assert!(text.contains("peak: "), "{text}");
    let output = hindcast(dir, &["bench", "small.toml", "--reps", "0"]);
    assert_eq!(code(&output), 2, "{}", stderr(&output));
}

//! A loop whose loader gives no indices: recorded by the rows of its batches, killed, resumed and analysed without any data.

use std::collections::HashMap;
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use candle_nn::{Init, Optimizer, SGD, VarMap};
use hindcast_format::{RowLayout, RowTensor, RowType};
use hindcast_model::data::DataSet;
use hindcast_model::objective::Split;
use hindcast_recorder::{Recorder, StoreRows};

use super::*;

/// The position of each digest in the data set, computed from the data alone.
fn positions(data: &dyn DataSet) -> HashMap<String, u64> {
    let count = data.len(Split::Train);
    let all: Vec<u64> = (0..count).collect();
    let batch = data
        .batch(Split::Train, &all, None, DType::F32, &Device::Cpu)
        .unwrap();
    let shape = data.shape().to_vec();
    let layout = RowLayout::new(vec![
        RowTensor {
            dtype: RowType::F32,
            shape: shape.clone(),
        },
        RowTensor {
            dtype: RowType::U32,
            shape: vec![],
        },
    ])
    .unwrap();
    let inputs: Vec<f32> = batch.inputs.flatten_all().unwrap().to_vec1().unwrap();
    let targets: Vec<u32> = batch.targets.to_vec1().unwrap();
    let width: usize = shape.iter().product();
    let rows = inputs.chunks_exact(width).zip(&targets).zip(0..);
    rows.map(|((input, target), index)| {
        let mut row: Vec<u8> = input.iter().flat_map(|x| x.to_le_bytes()).collect();
        row.extend(target.to_le_bytes());
        (hindcast_format::hex(&layout.digest(&row)), index)
    })
    .collect()
}

/// The columns of a table by index: influence as text, and the label.
fn scores(path: &Path) -> HashMap<u64, (String, String)> {
    let mut reader = csv::Reader::from_path(path).unwrap();
    let headers = reader.headers().unwrap().clone();
    let column = |name: &str| headers.iter().position(|h| h == name).unwrap();
    let (index, influence, label) = (column("index"), column("influence"), column("label"));
    let records = reader.records().map(Result::unwrap);
    records
        .map(|r| {
            (
                r[index].parse().unwrap(),
                (r[influence].into(), r[label].into()),
            )
        })
        .collect()
}

/// The digest of each training row that `export` writes, by index.
fn digests(exported: &Path) -> HashMap<u64, String> {
    let text = std::fs::read_to_string(exported.join("rows.jsonl")).unwrap();
    let lines = text.lines().map(|line| {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        let index = line["index"].as_u64().unwrap();
        let digest = line["digest"].as_str().unwrap().to_owned();
        (line["split"] == "train", index, digest)
    });
    let train = lines.filter(|(train, ..)| *train);
    train.map(|(_, index, digest)| (index, digest)).collect()
}

#[test]
fn scores_by_rows_are_those_by_indices_to_the_bit() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    fine(dir, &["train", "by-index"]);
    // The other run is killed on its way.
    let mut child = command(dir, &["train", "by-rows", "--rows"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let held = || Trace::open(dir.join("by-rows")).map_or(0, |trace| trace.span().end);
    while held() < 40 && child.try_wait().unwrap().is_none() {
        std::thread::sleep(Duration::from_millis(5));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    fine(dir, &["train", "by-rows", "--rows"]);
    assert_eq!(end(&dir.join("by-index")), end(&dir.join("by-rows")));

    let said = |words: &[&str]| {
        let output = without_data(dir, words);
        let text = String::from_utf8_lossy(&output.stdout).into_owned()
            + &String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{words:?}\n{text}");
        text
    };
    let info = said(&["info", "by-rows"]);
    assert!(
        info.contains("768 distinct training rows, stored"),
        "{info}"
    );
    assert!(info.contains("validation rows"), "{info}");
    let verified = said(&["verify", "by-rows", "--replay"]);
    assert!(verified.contains("20 of 20 steps"), "{verified}");
    let influence = ["influence", "--window", "last-epoch", "--skip-check"];
    let asked = |run: &str, out: &str| {
        let words = [&influence[..], &[run, "--out", out]].concat();
        if run == "by-rows" {
            said(&words)
        } else {
            fine(dir, &words)
        }
    };
    asked("by-index", "index.csv");
    let printed = asked("by-rows", "rows.csv");
    said(&["export", "by-rows", "--steps", "0..120", "--out", "steps"]);

    let data = example::data::load(None).unwrap();
    let position = positions(data.as_ref());
    let digest = digests(&dir.join("steps"));
    let (by_index, by_rows) = (
        scores(&dir.join("index.csv")),
        scores(&dir.join("rows.csv")),
    );
    assert_eq!((by_rows.len(), digest.len()), (768, 768));
    for (index, score) in &by_rows {
        let original = position[&digest[index]];
        assert_eq!(
            &by_index[&original], score,
            "row {index} is example {original}"
        );
        // The table names a row by the beginning of its digest.
        assert_eq!(data.label(Split::Train, original), score.1);
    }
    let some = digest
        .values()
        .any(|digest| printed.contains(&digest[..16]));
    assert!(some, "no digest in {printed}");

    let retrained = said(&[
        "counterfactual",
        "by-rows",
        "--window",
        "last-epoch",
        "--top",
        "20",
        "rows.csv",
    ]);
    assert!(retrained.contains("bit for bit"), "{retrained}");
    let other = fine(
        dir,
        &[
            "counterfactual",
            "by-index",
            "--window",
            "last-epoch",
            "--top",
            "20",
            "index.csv",
        ],
    );
    let change = |text: &str| {
        let line = text
            .lines()
            .find(|line| line.contains("predicted (by the table)"));
        line.unwrap().to_owned()
    };
    assert_eq!(change(&retrained), change(&other));
    said(&["report", "by-rows", "rows.csv", "--out", "report.html"]);

    // A run by indices needs the loader, and the message says so.
    let refused = without_data(dir, &["influence", "by-index", "--out", "none.csv"]);
    assert_eq!(refused.status.code(), Some(1));
    let text = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(text.contains("by the indices that its loop gave"), "{text}");
    assert!(text.contains("run_with"), "{text}");
}

/// Of each row, the run has the digest only. Damage to the metadata of step 5 is no reason not to export step 0.
#[test]
fn a_run_of_digests_exports_steps_in_spite_of_damage_elsewhere() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    let variables = VarMap::new();
    let w = variables.get(1, "w", Init::Const(1.0), DType::F32, &Device::Cpu);
    let w = w.unwrap();
    let run = Recorder::builder(dir.join("run"))
        .store_rows(StoreRows::Never)
        .segment_steps(2)
        .create(&variables)
        .unwrap();
    let mut sgd = run.wrap(SGD::new(variables.all_vars(), 0.1).unwrap());
    for step in 0..6u8 {
        let x = Tensor::new(&[[f32::from(step)]], &Device::Cpu).unwrap();
        run.batch_of(0, &[&x]).unwrap();
        let loss = w.sqr().unwrap().sum_all().unwrap();
        sgd.backward_step(&loss).unwrap();
    }
    run.finish().unwrap();

    let layout = RowLayout::new(vec![RowTensor {
        dtype: RowType::F32,
        shape: vec![1],
    }]);
    let digest = layout.unwrap().digest(&5f32.to_le_bytes());
    let mut flipped = 0;
    for entry in std::fs::read_dir(dir.join("run")).unwrap() {
        let path = entry.unwrap().path();
        let mut bytes = std::fs::read(&path).unwrap();
        let found = bytes.windows(32).position(|window| window == digest);
        if let Some(at) = found {
            bytes[at] ^= 1;
            std::fs::write(&path, bytes).unwrap();
            flipped += 1;
        }
    }
    assert_eq!(flipped, 1);
    fine(dir, &["export", "run", "--steps", "0", "--out", "out"]);
    assert!(dir.join("out/step-000000000.safetensors").exists());
    assert!(!dir.join("out/rows.jsonl").exists());
}

//! The description of a run can be replaced until its first segment begins.

use std::sync::Arc;

use hindcast_format::layout::{Layout, Role};
use hindcast_format::{FormatError, MemStorage, RunInfo, RunWriter};

use crate::common::*;

/// A plan whose layout lacks a tensor, and the description with that tensor and a rule.
fn late(plan: &Plan) -> (RunInfo, RunInfo) {
    let mut first = info(&plan.layout);
    let mut specs = plan.layout.tensors().to_vec();
    specs.retain(|spec| spec.role != Role::OptimizerState);
    first.layout = Layout::new(specs).unwrap();
    first.chunks = RunInfo::new(first.layout.clone(), 0).chunks;
    let mut told = info(&plan.layout);
    told.rule = Some("kind = \"adamw\"".to_owned());
    (first, told)
}

#[test]
fn a_replaced_description_is_the_one_of_all_segments() {
    let plan = Plan::new(40);
    let (first, told) = late(&plan);
    let storage = MemStorage::new();
    let mut writer =
        RunWriter::create(Arc::new(storage.clone()), first.clone(), plan.durability).unwrap();
    assert!(!writer.describe(&first).unwrap(), "nothing changed");
    assert!(writer.describe(&told).unwrap());
    assert!(!writer.is_described());
    // A reader sees it at once.
    assert_eq!(open(&storage).unwrap().info(), &told);
    let truth = truth(&plan);
    record_from(writer, &plan, &truth, 0, |_, _| {}).unwrap();
    let trace = open(&storage).unwrap();
    assert_eq!(trace.info(), &told);
    assert_eq!(check_forward(&trace, &truth).len(), 40);
    assert!(trace.verify().unwrap().findings.is_empty());
    // The segments repeat it: a trace without its manifest has it, too.
    let segments = storage.files().into_iter();
    let segments = MemStorage::from_files(segments.filter(|(name, _)| name != "manifest.json"));
    assert_eq!(open(&segments).unwrap().info(), &told);
}

#[test]
fn a_description_that_a_segment_repeats_or_of_another_run_is_refused() {
    let plan = Plan {
        end: End::Leave,
        ..Plan::new(10)
    };
    let (storage, truth) = recorded(&plan);
    let mut told = info(&plan.layout);
    told.rule = Some("kind = \"sgd\"".to_owned());
    let (mut writer, _) = RunWriter::resume(Arc::new(storage.clone()), 5, plan.durability).unwrap();
    assert!(writer.is_described());
    let refused = writer.describe(&told).unwrap_err();
    assert!(matches!(refused, FormatError::Order { .. }), "{refused}");
    assert!(refused.to_string().contains("segment repeats"), "{refused}");
    // The writer stays usable.
    record_from(
        writer,
        &Plan {
            end: End::Finish,
            ..plan.clone()
        },
        &truth,
        5,
        |_, _| {},
    )
    .unwrap();
    assert_eq!(open(&storage).unwrap().info(), &info(&plan.layout));

    let storage = MemStorage::new();
    let mut writer =
        RunWriter::create(Arc::new(storage), info(&plan.layout), plan.durability).unwrap();
    told.salt = [0; 16];
    assert!(
        writer
            .describe(&told)
            .unwrap_err()
            .to_string()
            .contains("another run")
    );
}

/// An interrupted replacement leaves the old or the new description.
#[test]
fn a_failed_replacement_leaves_the_old_description() {
    let plan = Plan::new(1);
    let (first, told) = late(&plan);
    let storage = MemStorage::new();
    let mut writer =
        RunWriter::create(Arc::new(storage.clone()), first.clone(), plan.durability).unwrap();
    storage.fail_nth(storage.calls(), false, std::io::ErrorKind::StorageFull);
    assert!(writer.describe(&told).is_err());
    assert_eq!(open(&storage).unwrap().info(), &first);
    drop(writer);
    let (mut writer, _) = RunWriter::resume(Arc::new(storage.clone()), 0, plan.durability).unwrap();
    assert!(writer.describe(&told).unwrap());
    assert_eq!(open(&storage).unwrap().info(), &told);
}

//! A ring of segments: the oldest are dropped, and the chain stays complete.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use hindcast_format::{
    Crash, Durability, FileEntry, FindingKind, FormatError, MANIFEST, Manifest, Mapped, MemStorage,
    ReadFile, RunWriter, SegmentPolicy, Segmenter, Storage, WriteFile, verify_storage,
};

use crate::common::*;

/// Keeps the last complete epoch and the current one.
fn ring(storage: &MemStorage, plan: &Plan, truth: &Truth) {
    let mut writer = RunWriter::create(
        Arc::new(storage.clone()),
        info(&plan.layout),
        plan.durability,
    )
    .unwrap();
    let mut encoder = writer.encoder().unwrap();
    let mut segmenter = Segmenter::new(SegmentPolicy {
        cut_every_epoch: true,
        ..plan.policy
    });
    for (t, meta) in truth.metas.iter().enumerate() {
        let step = t as u64;
        if segmenter.place(meta).cut {
            if t > 0 {
                writer
                    .append(
                        encoder
                            .link(step, step - 1, &truth.states[t - 1], &truth.states[t])
                            .unwrap(),
                    )
                    .unwrap();
                writer.seal().unwrap();
                let kept = writer.segments().unwrap().count();
                writer.drop_oldest(kept.saturating_sub(1)).unwrap();
            }
            writer.open_segment(step).unwrap();
            writer
                .append(
                    encoder
                        .keyframe(meta, &truth.states[t], &key_for(&plan.layout, step))
                        .unwrap(),
                )
                .unwrap();
        } else {
            writer
                .append(
                    encoder
                        .difference(meta, step - 1, &truth.states[t - 1], &truth.states[t])
                        .unwrap(),
                )
                .unwrap();
        }
    }
    let step = plan.steps;
    let last = step as usize - 1;
    writer
        .append(
            encoder
                .link(step, step - 1, &truth.states[last], &truth.states[last + 1])
                .unwrap(),
        )
        .unwrap();
    writer
        .finish(
            &truth.states[last + 1],
            &truth.final_key,
            Default::default(),
        )
        .unwrap();
}

#[test]
fn dropped_segments_leave_their_digests_and_the_rest_is_read() {
    let plan = Plan {
        steps_per_epoch: 8,
        ..Plan::new(40)
    };
    let truth = truth(&plan);
    let storage = MemStorage::new();
    ring(&storage, &plan, &truth);
    let trace = open(&storage).unwrap();
    assert!(trace.ranges().unwrap().iter().eq([&(24..40)]));
    assert_eq!(trace.epochs().unwrap(), [(3, 24..32), (4, 32..40)]);
    assert_eq!(check_forward(&trace, &truth).len(), 16);
    let mut backward = 0;
    let mut steps = trace.reverse(24..40);
    while steps.next().unwrap().is_some() {
        backward += 1;
    }
    assert_eq!(backward, 16);
    // The keyframe has the buffers before the window.
    assert_eq!(trace.read(24).unwrap().key, Some(key_for(&plan.layout, 24)));
    let report = trace.verify().unwrap();
    assert!(report.is_ok());
    assert_eq!(
        report.findings.iter().map(|f| f.kind).collect::<Vec<_>>(),
        [FindingKind::Dropped]
    );
    assert_eq!(trace.manifest().unwrap().segments.len(), 6);
}

#[test]
fn a_kill_or_power_cut_while_a_ring_drops_segments_leaves_a_valid_run() {
    for durability in [Durability::Os, Durability::Seals] {
        let plan = Plan {
            steps_per_epoch: 8,
            durability,
            ..Plan::new(40)
        };
        let truth = truth(&plan);
        let storage = MemStorage::logged();
        ring(&storage, &plan, &truth);
        for operations in 1..=storage.operations() {
            let image = storage.crash_image(Crash::Kill {
                operations,
                bytes: 0,
            });
            let trace = open(&image).unwrap();
            assert!(trace.ranges().unwrap().len() <= 1);
            check_forward(&trace, &truth);
            assert!(trace.verify().unwrap().is_ok());
            for seed in 0..4u64 {
                let mut noise = Noise(operations as u64 * 4 + seed);
                let image = storage.crash_image(Crash::PowerLoss {
                    operations,
                    keep: &mut || noise.next() % 4 < seed,
                });
                if let Ok(trace) = open(&image) {
                    check_forward(&trace, &truth);
                } else {
                    assert_eq!(durability, Durability::Os, "after {operations} operations");
                }
            }
        }
    }
}

/// Marks the oldest segment as dropped and removes its file, as a recorder does.
fn drop_oldest(storage: &MemStorage) {
    let mut oldest = String::new();
    storage.edit(MANIFEST, |bytes| {
        let (mut manifest, _) = Manifest::from_bytes(bytes, None).unwrap();
        let record = manifest.segments.iter_mut().find(|s| !s.dropped).unwrap();
        record.dropped = true;
        oldest.clone_from(&record.file);
        *bytes = manifest.to_bytes().unwrap();
    });
    storage.remove(&oldest).unwrap();
}

#[test]
fn segments_dropped_during_a_read_are_not_damage_but_lost_segments_are() {
    let plan = Plan::new(40);
    let (storage, truth) = recorded(&plan);
    let trace = open(&storage).unwrap();
    drop_oldest(&storage);
    let dropped = |error: &FormatError| {
        assert!(
            matches!(error, FormatError::NotRecorded { why, .. } if why.contains("dropped seg-00000000.hcs") && why.contains("open it again")),
            "{error}"
        );
    };
    dropped(&trace.read(3).unwrap_err());
    dropped(&trace.epochs().unwrap_err());
    dropped(&trace.checkpoint(3).unwrap_err());
    dropped(&trace.forward(0..40).next().unwrap_err());
    // Going backward, the steps that are still there come first.
    let mut steps = trace.reverse(0..40).tolerant();
    for step in (10..40).rev() {
        let found = steps.next().unwrap().unwrap();
        assert!(found.meta.step == step && found.state == &truth.states[step as usize]);
    }
    dropped(&steps.next().unwrap_err());
    assert_eq!(open(&storage).unwrap().span(), 10..40);
    // A missing file that no manifest lists as dropped is lost.
    storage.remove("seg-00000001.hcs").unwrap();
    let error = trace.read(12).unwrap_err();
    assert!(
        error.is_damage() && error.to_string().contains("seg-00000001.hcs"),
        "{error}"
    );
    assert!(
        trace
            .epochs()
            .is_err_and(|e| matches!(e, FormatError::NotRecorded { .. }))
    );
    assert!(!open(&storage).unwrap().verify().unwrap().is_ok());
}

/// Storage in which a recorder drops its oldest segment right after a reader has listed the files.
#[derive(Debug)]
struct Dropping {
    storage: MemStorage,
    listed: AtomicBool,
}

impl Storage for Dropping {
    fn location(&self) -> String {
        self.storage.location()
    }
    fn create_run(&self, manifest: &[u8]) -> io::Result<()> {
        self.storage.create_run(manifest)
    }
    fn list(&self) -> io::Result<Vec<FileEntry>> {
        let entries = self.storage.list();
        if !self.listed.swap(true, Ordering::Relaxed) {
            drop_oldest(&self.storage);
        }
        entries
    }
    fn create(&self, name: &str) -> io::Result<Box<dyn WriteFile>> {
        self.storage.create(name)
    }
    fn open(&self, name: &str) -> io::Result<Box<dyn ReadFile>> {
        self.storage.open(name)
    }
    fn map(&self, name: &str) -> io::Result<Mapped> {
        self.storage.map(name)
    }
    fn replace(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.storage.replace(name, bytes)
    }
    fn remove(&self, name: &str) -> io::Result<()> {
        self.storage.remove(name)
    }
    fn sync(&self, name: &str) -> io::Result<()> {
        self.storage.sync(name)
    }
    fn sync_dir(&self) -> io::Result<()> {
        self.storage.sync_dir()
    }
}

#[test]
fn verification_of_a_ring_that_drops_segments_counts_the_present_steps() {
    let (storage, _) = recorded(&Plan::new(40));
    let dropping: Arc<dyn Storage> = Arc::new(Dropping {
        storage,
        listed: AtomicBool::new(false),
    });
    let report = verify_storage(&dropping).unwrap();
    assert!(report.is_ok(), "{report:?}");
    assert_eq!((report.steps, report.steps_ok), (30, 30), "{report:?}");
}

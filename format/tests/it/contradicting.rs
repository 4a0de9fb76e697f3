//! Files with valid checksums and seals that contradict one another: a manifest and its segments, a final state and the steps, a segment
//! without an end and the segment after it. Every reader reports damage, and recovery follows the segments.

use std::sync::Arc;

use hindcast_format::{
    LossKind, MANIFEST, Manifest, MemStorage, RunWriter, SegmentPolicy, SegmentSize, Severity,
    Storage, VerifyReport, verify_storage,
};

use crate::common::*;
use crate::recover::{kinds, recovered_from, steps_of};

const STEPS: u64 = 40;
const SEGMENT: u64 = 8;

fn plan(end: End) -> Plan {
    Plan {
        policy: SegmentPolicy {
            max_steps: SEGMENT as u32,
            min_steps: SEGMENT as u32,
            cut_every_epoch: false,
        },
        end,
        ..Plan::new(STEPS)
    }
}

fn verified(storage: &MemStorage) -> VerifyReport {
    let shared: Arc<dyn Storage> = Arc::new(storage.clone());
    verify_storage(&shared).unwrap()
}

fn bytes(storage: &MemStorage, name: &str) -> Vec<u8> {
    let files = storage.files();
    files.into_iter().find(|(n, _)| n == name).unwrap().1
}

/// A copy of the run whose manifest was edited and sealed again.
fn edited(storage: &MemStorage, edit: impl FnOnce(&mut Manifest)) -> MemStorage {
    let image = MemStorage::from_files(storage.files());
    image.edit(MANIFEST, |b| {
        let (mut manifest, _) = Manifest::from_bytes(b, None).unwrap();
        edit(&mut manifest);
        *b = manifest.to_bytes().unwrap();
    });
    image
}

/// An edit of a manifest, and its name in messages.
type Edit = (&'static str, fn(&mut Manifest));

#[test]
fn a_manifest_that_contradicts_its_segments_is_damage_and_costs_no_step() {
    let (storage, truth) = recorded(&plan(End::Finish));
    let edits: [Edit; 7] = [
        ("steps listed as the final state", |m| {
            m.segments[1].is_final = true;
        }),
        ("steps listed as an empty final state", |m| {
            let s = &mut m.segments[1];
            (s.is_final, s.steps, s.end_step) = (true, 0, s.first_step);
        }),
        ("the final state listed as steps", |m| {
            m.segments[5].is_final = false;
        }),
        ("fewer steps listed", |m| m.segments[1].steps = 5),
        ("gaps listed in place of steps", |m| {
            (m.segments[1].steps, m.segments[1].gaps) = (5, 3);
        }),
        ("a segment that begins later", |m| {
            (m.segments[1].first_step, m.segments[1].steps) = (10, 6);
        }),
        ("another end of the chain", |m| m.chain = [7; 32]),
    ];
    for (what, edit) in edits {
        let image = edited(&storage, edit);
        let report = verified(&image);
        assert!(!report.is_ok(), "{what}");
        assert!(report.steps_ok <= report.steps, "{what}");
        let (trace, recovered) = recovered_from(&image).unwrap();
        assert_eq!(
            check_forward(&trace, &truth).len() as u64,
            STEPS,
            "{what}: {recovered:#?}"
        );
        assert!(trace.final_state().unwrap().is_some(), "{what}");
    }
    let image = edited(&storage, edits[2].1);
    assert!(open(&image).unwrap().final_state().unwrap_err().is_damage());
}

/// A sealed segment taken apart, and put together again with valid checksums and digests.
struct Forged {
    header: Vec<u8>,
    frames: Vec<Vec<u8>>,
    salt: u32,
}

impl Forged {
    fn of(bytes: &[u8], salt: &[u8]) -> Forged {
        let number = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
        let mut at = number(12);
        let header = bytes[..at].to_vec();
        let mut frames = Vec::new();
        while &bytes[at..at + 4] == b"HCFR" {
            frames.push(bytes[at..at + number(at + 8)].to_vec());
            at += number(at + 8);
        }
        Forged {
            header,
            frames,
            salt: crc32c::crc32c(salt),
        }
    }

    /// Gives the only frame of a final segment another step.
    fn set_step(&mut self, step: u64) {
        self.header[40..48].copy_from_slice(&step.to_le_bytes());
        let end = self.header.len() - 4;
        let crc = crc32c::crc32c(&self.header[20..end]);
        self.header[end..].copy_from_slice(&crc.to_le_bytes());
        let frame = &mut self.frames[0];
        frame[16..24].copy_from_slice(&step.to_le_bytes());
        frame[24..32].copy_from_slice(&step.to_le_bytes());
        let crc = crc32c::crc32c_append(self.salt, &frame[..60]);
        frame[60..64].copy_from_slice(&crc.to_le_bytes());
    }

    /// The file and its digest.
    fn sealed(&self) -> (Vec<u8>, [u8; 32]) {
        let mut file = [self.header.clone(), self.frames.concat()].concat();
        let start = file.len();
        file.extend_from_slice(b"HCIX");
        file.extend_from_slice(&(self.frames.len() as u32).to_le_bytes());
        for frame in &self.frames {
            let length = frame.len() as u64 | u64::from(frame[4]) << 56;
            file.extend_from_slice(&length.to_le_bytes());
            file.extend_from_slice(&frame[16..24]);
        }
        let crc = crc32c::crc32c_append(self.salt, &file[start..]);
        let trailer = file.len();
        file.extend_from_slice(&crc.to_le_bytes());
        let length = (trailer + 60 - start) as u32;
        file.extend_from_slice(&length.to_le_bytes());
        file.extend_from_slice(&((trailer + 60) as u64).to_le_bytes());
        let digest = *blake3::hash(&file).as_bytes();
        file.extend_from_slice(&digest);
        file.extend_from_slice(b"HCSEALED");
        let crc = crc32c::crc32c(&file[trailer..]);
        file.extend_from_slice(&crc.to_le_bytes());
        (file, digest)
    }
}

/// What `verify` warns of, of a run that counts as intact.
fn warnings(storage: &MemStorage) -> Vec<String> {
    let report = verified(storage);
    assert!(report.is_ok(), "{:?}", report.findings);
    let found = report.findings.into_iter();
    let warnings = found.filter(|f| f.severity == Severity::Warning);
    warnings.map(|f| f.text).collect()
}

/// A run in which storage failed at steps 20 to 22.
fn with_a_hole(end: End) -> MemStorage {
    let plan = plan(end);
    let (storage, truth) = (MemStorage::new(), truth(&plan));
    let shared: Arc<dyn Storage> = Arc::new(storage.clone());
    let writer = RunWriter::create(shared, info(&plan.layout), plan.durability).unwrap();
    let before = Plan {
        steps: 20,
        end: End::Abandon,
        ..plan.clone()
    };
    record_from(writer, &before, &truth, 0, |_, _| {}).unwrap();
    let shared: Arc<dyn Storage> = Arc::new(storage.clone());
    let (writer, _) = RunWriter::resume(shared, 20, plan.durability).unwrap();
    record_from(writer, &plan, &truth, 23, |_, _| {}).unwrap();
    storage
}

#[test]
fn missing_steps_that_the_counters_do_not_say_were_lost_are_named() {
    for end in [End::Finish, End::Abandon] {
        let storage = with_a_hole(end);
        let found = warnings(&storage);
        assert!(
            found.iter().any(|text| text.contains("its end: 3;")),
            "{found:?}"
        );
        for (lost, named) in [(2, true), (3, false)] {
            let image = edited(&storage, |m| {
                m.counters.insert("lost".to_owned(), lost);
                m.counters.insert("lost-from".to_owned(), 20);
                m.counters.insert("lost-to".to_owned(), 23);
            });
            assert_eq!(!warnings(&image).is_empty(), named, "{end:?}, {lost}");
        }
    }
    let whole = recorded(&Plan {
        gaps: vec![11, 12, 30],
        ..plan(End::Finish)
    });
    assert_eq!(warnings(&whole.0), Vec::<String>::new());
}

#[test]
fn a_segment_after_a_cut_that_the_manifest_does_not_list_is_damage() {
    let storage = with_a_hole(End::Finish);
    let image = edited(&storage, |m| m.forks.clear());
    let report = verified(&image);
    let found = report.findings.iter().map(|f| f.text.as_str());
    let found: Vec<&str> = found.collect();
    assert!(
        !report.is_ok() && found.iter().any(|text| text.contains("cuts before")),
        "{found:?}"
    );
}

#[test]
fn a_final_state_before_the_last_steps_is_damage_and_the_steps_are_recovered() {
    let (storage, truth) = recorded(&plan(End::Finish));
    let name = "seg-00000005.hcs";
    let mut forged = Forged::of(&bytes(&storage, name), b"salt of the test");
    assert_eq!(
        forged.sealed().0,
        bytes(&storage, name),
        "put together as it was"
    );
    for step in [0, 10, 39] {
        forged.set_step(step);
        let (file, digest) = forged.sealed();
        let image = edited(&storage, |m| {
            let s = &mut m.segments[5];
            (s.first_step, s.end_step, s.digest) = (step, step, digest);
            m.chain = digest;
        });
        image.edit(name, |b| b.clone_from(&file));
        for manifest in [true, false] {
            if !manifest {
                image.remove(MANIFEST).unwrap();
            }
            let report = verified(&image);
            let told = report
                .findings
                .iter()
                .any(|f| f.file == name && f.text.contains("step of the final state"));
            assert!(!report.is_ok() && told, "{step}: {report:#?}");
            let trace = open(&image).unwrap();
            assert!(trace.final_state().unwrap_err().is_damage(), "{step}");
            assert!(trace.newest_checkpoint().unwrap_err().is_damage(), "{step}");
            let (recovered, lost) = recovered_from(&image).unwrap();
            assert_eq!(check_forward(&recovered, &truth).len() as u64, STEPS);
            assert!(recovered.final_state().unwrap().is_none(), "{step}");
            assert!(kinds(&lost).contains(&LossKind::FinalState), "{lost:#?}");
        }
    }
}

#[test]
fn the_manifest_of_another_run_is_ignored_if_no_segment_belongs_to_that_run() {
    let (storage, truth) = recorded(&plan(End::Finish));
    let foreign = edited(&storage, |m| m.run.salt = *b"of another run..");
    assert!(!verified(&foreign).is_ok());
    let (trace, report) = recovered_from(&foreign).unwrap();
    assert_eq!(check_forward(&trace, &truth).len() as u64, STEPS);
    assert!(trace.final_state().unwrap().is_some());
    assert_eq!(kinds(&report), [LossKind::Manifest], "{report:#?}");
    assert!(
        report.losses[0].to_string().contains("of another run"),
        "{report:#?}"
    );
    // One segment of the manifest's run suffices for the manifest to be used.
    foreign.edit("seg-00000002.hcs", |b| {
        let mut forged = Forged::of(b, b"salt of the test");
        let at = forged
            .header
            .windows(32)
            .position(|w| w == hindcast_format::hex(b"salt of the test").as_bytes())
            .unwrap();
        let new = hindcast_format::hex(b"of another run..");
        forged.header[at..at + 32].copy_from_slice(new.as_bytes());
        let end = forged.header.len() - 4;
        let crc = crc32c::crc32c(&forged.header[20..end]);
        forged.header[end..].copy_from_slice(&crc.to_le_bytes());
        *b = forged.sealed().0;
    });
    assert!(
        recovered_from(&foreign).is_err(),
        "its frames are of the other run"
    );
}

/// The manifest is older than the last segments. Only the later segment shows that the one before it was complete.
#[test]
fn an_unlisted_segment_without_an_end_is_damage_if_another_follows() {
    let (storage, _) = recorded(&plan(End::Finish));
    let open_run = edited(&storage, |m| {
        m.status = hindcast_format::Status::Open;
        m.segments.truncate(3);
        m.chain = m.segments[2].digest;
    });
    assert!(verified(&open_run).is_ok());
    let whole = bytes(&storage, "seg-00000003.hcs");
    let frame = |n: usize| {
        let mut starts = (0..whole.len() - 4).filter(|&i| &whole[i..i + 4] == b"HCFR");
        starts.nth(n).unwrap()
    };
    for length in [0, 30, frame(3), frame(5) + 20] {
        let image = MemStorage::from_files(open_run.files());
        image.edit("seg-00000003.hcs", |b| b.truncate(length));
        let report = verified(&image);
        let told = report.findings.iter().any(|f| f.file == "seg-00000003.hcs");
        assert!(!report.is_ok() && told, "{length}: {report:#?}");
        let damage = open(&image).unwrap().ends_early().cloned();
        assert_eq!(damage.unwrap().file, "seg-00000003.hcs", "{length}");
        // Without later segments, it is the last segment of a killed recorder, which isn't damage.
        image.remove("seg-00000004.hcs").unwrap();
        image.remove("seg-00000005.hcs").unwrap();
        assert!(verified(&image).is_ok(), "{length}");
        assert_eq!(open(&image).unwrap().ends_early(), None, "{length}");
    }
}

#[test]
fn what_only_the_lost_manifest_recorded_is_reported_as_unknown() {
    let (storage, _) = recorded(&plan(End::Leave));
    storage.remove(MANIFEST).unwrap();
    let says = |storage: &MemStorage, what: &str| {
        let report = verified(storage);
        assert!(
            !report.is_ok() && report.findings.iter().any(|f| f.text.contains(what)),
            "{report:#?}"
        );
        let (_, report) = recovered_from(storage).unwrap();
        assert!(!report.is_lossless());
        assert!(
            report.losses.iter().any(|l| l.why.contains(what)),
            "{report:#?}"
        );
        report
    };
    says(
        &storage,
        "not known whether the run continued after step 39",
    );
    // A ring drops its first segments on purpose; any other run has lost them.
    storage.remove("seg-00000000.hcs").unwrap();
    let report = says(
        &storage,
        "not known whether the run continued after step 39",
    );
    assert_eq!(
        steps_of(&report, LossKind::Step),
        (0..SEGMENT).collect::<Vec<_>>()
    );
    let ring = MemStorage::new();
    let about = hindcast_format::RunInfo {
        keep: "last-steps=32".to_owned(),
        ..info(&layout())
    };
    let plan = plan(End::Leave);
    let writer = hindcast_format::RunWriter::create(Arc::new(ring.clone()), about, plan.durability);
    record_from(
        writer.unwrap(),
        &plan,
        &crate::common::truth(&plan),
        0,
        |_, _| {},
    )
    .unwrap();
    ring.remove(MANIFEST).unwrap();
    ring.remove("seg-00000000.hcs").unwrap();
    says(
        &ring,
        "not known whether segments 0..1 (steps before 8) were dropped",
    );
}

/// The run was resumed at step 12 and took another course. Then the manifest was lost, and a segment of the earlier course was put in place
/// of the one that replaced it.
#[test]
fn steps_of_an_earlier_course_are_never_mixed_into_the_later_one() {
    let plan = plan(End::Abandon);
    let (storage, old) = recorded(&plan);
    let earlier = bytes(&storage, "seg-00000001.hcs");
    let mut new = truth(&plan);
    for state in &mut new.states[12..] {
        nudge(state, &mut Noise(3));
    }
    let shared: Arc<dyn Storage> = Arc::new(storage.clone());
    let (writer, _) =
        hindcast_format::RunWriter::resume(Arc::clone(&shared), 12, plan.durability).unwrap();
    record_from(writer, &plan, &new, 12, |_, _| {}).unwrap();
    assert_eq!(
        check_forward(&open(&storage).unwrap(), &new).len() as u64,
        STEPS
    );
    storage.remove(MANIFEST).unwrap();
    storage.remove("seg-00000001.f1.hcs").unwrap();
    let mut files = storage.files();
    files.retain(|(name, _)| name != "seg-00000001.hcs");
    files.push(("seg-00000001.hcs".to_owned(), earlier));
    let image = MemStorage::from_files(files);
    assert!(!verified(&image).is_ok());
    let (trace, report) = recovered_from(&image).unwrap();
    assert!(!report.is_lossless());
    let kept = check_forward(&trace, &new);
    assert!(kept.contains(&0) && kept.contains(&39), "{kept:?}");
    assert!(!kept.contains(&8) && old.states[13] != new.states[13]);
    assert_eq!(
        steps_of(&report, LossKind::Step),
        (8..12).collect::<Vec<_>>(),
        "{report:#?}"
    );
}

/// A flipped bit in the tensors of a sealed segment that the manifest doesn't list yet breaks its digest, and hides no step after its end.
#[test]
fn damage_in_an_unlisted_sealed_segment_adds_no_lost_step_after_its_end() {
    let (storage, _) = recorded(&plan(End::Finish));
    let image = edited(&storage, |m| {
        m.status = hindcast_format::Status::Open;
        m.segments.truncate(4);
        m.chain = m.segments[3].digest;
    });
    image.remove("seg-00000005.hcs").unwrap();
    image.edit("seg-00000004.hcs", |b| {
        let frames: Vec<usize> = (0..b.len() - 4)
            .filter(|&i| &b[i..i + 4] == b"HCFR")
            .collect();
        b[frames[3] - 13] ^= 1;
    });
    let (_, report) = recovered_from(&image).unwrap();
    let lost: Vec<u64> = report.losses.iter().flat_map(|l| l.steps.clone()).collect();
    assert!(!report.is_lossless());
    assert!(lost.iter().all(|step| *step < STEPS), "{report:#?}");
}

#[test]
fn a_run_whose_only_segment_is_refused_is_not_discarded_as_empty() {
    let (storage, _) = recorded(&plan(End::Finish));
    // The manifest lists nothing yet, and the first file holds the steps of another segment.
    let open_run = edited(&storage, |m| {
        m.status = hindcast_format::Status::Open;
        m.segments.clear();
        m.chain = [0; 32];
    });
    let steps = bytes(&storage, "seg-00000001.hcs");
    let manifest = open_run.files().into_iter().filter(|(n, _)| n == MANIFEST);
    let foreign = MemStorage::from_files(manifest);
    let mut file = foreign.create("seg-00000000.hcs").unwrap();
    file.write(&steps).unwrap();
    drop(file);
    let shared: Arc<dyn Storage> = Arc::new(foreign.clone());
    assert!(!RunWriter::discard_empty(&shared).unwrap());
    assert_eq!(bytes(&foreign, "seg-00000000.hcs"), steps);
    // Without that file there is no step, and the run is removed.
    foreign.remove("seg-00000000.hcs").unwrap();
    assert!(RunWriter::discard_empty(&shared).unwrap());
}

#[test]
fn enormous_numbers_in_a_manifest_are_damage_and_not_an_overflow() {
    let (storage, truth) = recorded(&plan(End::Finish));
    let far = u64::MAX - 1;
    let edits: [Edit; 2] = [
        ("more steps than bytes could hold", |m| {
            let last = m.segments.len() - 2;
            m.segments[last].steps = u64::MAX - 1 - m.segments[last].first_step;
            for segment in &mut m.segments[last..] {
                segment.end_step = u64::MAX - 1;
            }
            m.segments[last + 1].first_step = u64::MAX - 1;
        }),
        ("more bytes than a disk could hold", |m| {
            for segment in &mut m.segments {
                segment.bytes = u64::MAX - 1;
            }
        }),
    ];
    for (what, edit) in edits {
        let image = edited(&storage, edit);
        let sizes = open(&image).unwrap().sizes();
        let most = |of: fn(&SegmentSize) -> u64| sizes.iter().map(of).max().unwrap();
        assert!(most(|s| s.stored_bytes.max(s.raw_bytes)) >= far, "{what}");
        assert!(!verified(&image).is_ok(), "{what}");
        let (trace, _) = recovered_from(&image).unwrap();
        assert_eq!(check_forward(&trace, &truth).len() as u64, STEPS, "{what}");
    }
}

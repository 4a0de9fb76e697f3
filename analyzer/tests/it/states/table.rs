//! The table.

use super::build::{World, frame};
use super::{Cell, State};

pub(super) fn states() -> Vec<State> {
    let todo = || [const { Cell(0, &[]) }; 9];
    let state = |name, meaning, build| State { name, meaning, build, cells: todo() };
    vec![
        state("finished", "", |w| w.finished()),
        state("absent", "", |w| w.empty()),
        state("half-born", "", |w| w.half_born()),
        state("open", "", |w| w.killed()),
        state("live", "", |w| w.live()),
        state("unfinished", "", |w| w.unfinished()),
        state("ring", "", |w| w.ring()),
        state("resumed", "", |w| w.resumed()),
        state("torn", "", |w| w.torn()),
        state("tensors", "", |w| w.hit("seg-00000001.hcs", |b| frame(b, 2) - 13)),
        state("metadata", "", |w| w.hit("seg-00000001.hcs", |b| frame(b, 1) + 66)),
        state("header", "", |w| w.hit("seg-00000001.hcs", |b| frame(b, 1) + 20)),
        state("final", "", |w| w.hit("seg-00000003.hcs", |b| b.len() - 90)),
        state("damaged manifest", "", |w| w.hit("manifest.json", |_| 700)),
        state("missing manifest", "", |w| w.without("manifest.json")),
        state("missing segment", "", |w| w.without("seg-00000001.hcs")),
        state("recovered", "", |w| w.recovered()),
        state("future", "", |w| w.future()),
        state("wrong data", "", |w| { let mut s = w.finished(); s.data = "other"; s }),
        state("no data", "", |w| { let mut s = w.finished(); s.data = "nowhere"; s }),
        state("other folder", "", |w| { let s = w.empty(); std::fs::create_dir(s.run()).unwrap(); std::fs::write(s.run().join("notes.txt"), "mine").unwrap(); s }),
        state("empty folder", "", |w| { let s = w.empty(); std::fs::create_dir(s.run()).unwrap(); s }),
        state("file", "", |w| { let s = w.empty(); std::fs::write(s.run(), "mine").unwrap(); s }),
    ]
}

//! The cost of a trace: bytes per step compared with raw float32, and the codec's speed compared with zstd-1 alone on the same byte planes.
//!
//! `cargo bench -p hindcast-format` trains the paper's MNIST CNN and a 784-128-128-10 MLP with plain SGD, records every step, and prints
//! both figures. With `--features encrypt` it also prints what encryption costs. It also prints the zeroth-order entropy of the byte planes and of the magnitudes: the size that an ideal coder of single
//! bytes would reach with either form. `HINDCAST_BENCH_IMAGES` and `HINDCAST_BENCH_LABELS` name uncompressed IDX files to train on; without
//! them, images of blurred strokes are drawn. To measure recorded states instead, set `HINDCAST_BENCH_STATES` to a file of raw float32
//! states, stored back to back, and `HINDCAST_BENCH_TENSORS=500,20,…` to the number of elements of each tensor.

mod images;
mod nets;

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hindcast_format::{
    BatchWeights, DType, Durability, Encoder, GroupHyper, KeyState, Layout, MemStorage, Role,
    RunInfo, RunWriter, SegmentPolicy, Segmenter, State, StepMeta, TensorSpec, Trace,
};

/// Number of timed rounds. Ratios are medians over them.
const ROUNDS: usize = 9;

fn main() {
    if std::env::args().any(|a| a == "--test") {
        // `cargo test --benches` needs a quick run, not figures.
        return;
    }
    println!(
        "{:<28} {:>9} {:>9} {:>9} {:>9} {:>9} {:>10} {:>10} {:>10} {:>10}",
        "",
        "raw B",
        "planes",
        "classes",
        "frame",
        "file",
        "enc MB/s",
        "enc/zstd",
        "dec MB/s",
        "dec/zstd"
    );
    if let (Ok(path), Ok(tensors)) = (
        std::env::var("HINDCAST_BENCH_STATES"),
        std::env::var("HINDCAST_BENCH_TENSORS"),
    ) {
        let sizes: Vec<usize> = tensors
            .split(',')
            .map(|n| n.trim().parse().expect("HINDCAST_BENCH_TENSORS: numbers"))
            .collect();
        let bytes = std::fs::read(&path).expect("HINDCAST_BENCH_STATES: a readable file");
        let layout = layout(&sizes);
        let states: Vec<State> = bytes
            .chunks_exact(layout.frame_bytes())
            .map(|b| State::new(&layout, b.to_vec()).unwrap())
            .collect();
        measure("states from the file", &states, 64);
        return;
    }
    let images = images::load(10_000);
    let steps = 157;
    #[cfg(feature = "encrypt")]
    {
        let cnn = trajectory(&mut nets::Cnn::new(1), &images, 0, steps);
        measure_encrypted("MNIST CNN, first epoch", &cnn, 64);
        let mlp = trajectory(&mut nets::Mlp::new(2), &images, 0, steps);
        measure_encrypted("784-128-128-10, first epoch", &mlp, 64);
    }
    measure(
        "MNIST CNN, first epoch",
        &trajectory(&mut nets::Cnn::new(1), &images, 0, steps),
        64,
    );
    let mut cnn = nets::Cnn::new(1);
    measure(
        "MNIST CNN, fourth epoch",
        &trajectory(&mut cnn, &images, 3 * steps, steps),
        64,
    );
    measure(
        "784-128-128-10, first epoch",
        &trajectory(&mut nets::Mlp::new(2), &images, 0, steps),
        64,
    );
}

/// Trains `skip` unrecorded steps, then records the state before each of `steps` steps.
fn trajectory(
    net: &mut dyn nets::Net,
    images: &images::Images,
    skip: usize,
    steps: usize,
) -> Vec<State> {
    let layout = layout(&net.sizes());
    let mut states = Vec::new();
    for step in 0..skip + steps + 1 {
        if step >= skip {
            let bytes = net
                .parameters()
                .iter()
                .flat_map(|v| v.to_le_bytes())
                .collect();
            states.push(State::new(&layout, bytes).unwrap());
        }
        net.step(&images.batch(step, 64), 0.05);
    }
    states
}

fn layout(sizes: &[usize]) -> Layout {
    let spec = |(i, &n): (usize, &usize)| TensorSpec {
        name: format!("{i:03}"),
        role: Role::Parameter,
        dtype: DType::F32,
        shape: vec![n],
        group: 0,
    };
    Layout::new(sizes.iter().enumerate().map(spec).collect()).unwrap()
}

fn meta(layout: &Layout, step: u64, batch: u64) -> StepMeta {
    StepMeta {
        step,
        epoch: 0,
        groups: vec![GroupHyper {
            learning_rate: 0.05,
            weight_decay: 0.0,
        }],
        indices: (0..batch)
            .map(|i| (step * batch + i).wrapping_mul(0x9e37_79b9) % 10_000)
            .collect(),
        weights: BatchWeights::Mean,
        micro_batches: vec![],
        loss: Some(0.5),
        clip_norm: None,
        optimizer_step: step,
        trained: vec![true; layout.parameters().len()],
        scalars: vec![],
        extensions: vec![],
    }
}

fn measure(name: &str, states: &[State], batch: u64) {
    let layout = states[0].layout().clone();
    let info = RunInfo::new(layout.clone(), 0);
    let (storage, frames) = record(&info, states, batch);
    let raw = layout.frame_bytes() as f64;
    let file: usize = storage
        .files()
        .iter()
        .filter(|(n, _)| n.starts_with("seg-00000000"))
        .map(|(_, b)| b.len())
        .sum();
    let steps = states.len() - 1;

    let changes = changes(&info, states);
    let planes: Vec<Vec<u8>> = changes
        .iter()
        .flat_map(|c| (0..4).map(|k| c.iter().map(|z| (z >> (8 * k)) as u8).collect()))
        .collect();
    let mut zstd = zstd::bulk::Compressor::new(1).unwrap();
    let mut unzstd = zstd::bulk::Decompressor::new().unwrap();
    let mut out =
        vec![0; zstd::zstd_safe::compress_bound(planes.iter().map(Vec::len).max().unwrap_or(0))];
    let packed: Vec<Vec<u8>> = planes.iter().map(|p| zstd.compress(p).unwrap()).collect();
    let mut encoder = Encoder::new(&info).unwrap();
    let metas: Vec<StepMeta> = (0..steps as u64 + 1)
        .map(|t| meta(&layout, t, batch))
        .collect();
    let trace = Trace::open_storage(Arc::new(storage)).unwrap();

    let mut times: Vec<[Duration; 4]> = Vec::new();
    for _ in 0..ROUNDS {
        let start = Instant::now();
        for t in 1..steps {
            let frame = encoder
                .difference(&metas[t], t as u64 - 1, &states[t - 1], &states[t])
                .unwrap();
            encoder.recycle(black_box(frame));
        }
        let ours = start.elapsed();
        let start = Instant::now();
        for plane in &planes {
            black_box(zstd.compress_to_buffer(plane, &mut out[..]).unwrap());
        }
        let theirs = start.elapsed();
        let start = Instant::now();
        let mut walk = trace.forward(0..steps as u64);
        while let Some(step) = walk.next().unwrap() {
            black_box(step.state.bytes());
        }
        let ours_back = start.elapsed();
        let start = Instant::now();
        for (plane, packed) in planes.iter().zip(&packed) {
            black_box(
                unzstd
                    .decompress_to_buffer(packed, &mut out[..plane.len()])
                    .unwrap(),
            );
        }
        times.push([ours, theirs, ours_back, start.elapsed()]);
    }
    let median = |f: &dyn Fn(&[Duration; 4]) -> f64| {
        let mut values: Vec<f64> = times.iter().map(f).collect();
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    let speed = |i: usize| raw * (steps - 1) as f64 / 1e6 / median(&|t| t[i].as_secs_f64());
    println!(
        "{name:<28} {raw:>9} {:>9.4} {:>9.4} {:>9.4} {:>9.4} {:>10.0} {:>10.2} {:>10.0} {:>10.2}",
        planes.iter().map(|p| entropy(p)).sum::<f64>() / (raw * (steps - 1) as f64),
        changes.iter().map(|c| magnitudes(c)).sum::<f64>() / (raw * (steps - 1) as f64),
        frames as f64 / (raw * (steps - 1) as f64),
        file as f64 / (raw * steps as f64),
        speed(0),
        median(&|t| t[1].as_secs_f64() / t[0].as_secs_f64()),
        speed(2),
        median(&|t| t[3].as_secs_f64() / t[2].as_secs_f64()),
    );
}

/// What encryption costs: time of encoding and of decoding as multiples of the times without it, and the share by which the file grows.
#[cfg(feature = "encrypt")]
fn measure_encrypted(name: &str, states: &[State], batch: u64) {
    use hindcast_format::{Identities, Recipients};

    let plain = RunInfo::new(states[0].layout().clone(), 0);
    let (secret, public) = Identities::generate();
    let recipients = Recipients::read(&public).unwrap();
    let encrypted = RunInfo {
        encryption: Some(recipients.encryption().unwrap()),
        ..plain.clone()
    };
    let steps = states.len() - 1;
    let metas: Vec<StepMeta> = (0..steps as u64 + 1)
        .map(|t| meta(states[0].layout(), t, batch))
        .collect();
    let runs = [plain, encrypted].map(|info| {
        let (storage, frames) = record(&info, states, batch);
        storage.give_keys(Arc::new(Identities::read(&secret).unwrap()));
        let trace = Trace::open_storage(Arc::new(storage)).unwrap();
        (trace, Encoder::new(&info).unwrap(), frames)
    });
    let grown = runs[1].2 as f64 / runs[0].2 as f64 - 1.0;
    let mut runs = runs;
    let mut rounds: Vec<[f64; 2]> = Vec::new();
    for _ in 0..ROUNDS {
        let times = runs.each_mut().map(|(trace, encoder, _)| {
            let start = Instant::now();
            for t in 1..steps {
                let frame = encoder
                    .difference(&metas[t], t as u64 - 1, &states[t - 1], &states[t])
                    .unwrap();
                encoder.recycle(black_box(frame));
            }
            let encode = start.elapsed();
            let start = Instant::now();
            let mut walk = trace.forward(0..steps as u64);
            while let Some(step) = walk.next().unwrap() {
                black_box(step.state.bytes());
            }
            [encode, start.elapsed()]
        });
        let ratio = |i: usize| times[1][i].as_secs_f64() / times[0][i].as_secs_f64();
        rounds.push([ratio(0), ratio(1)]);
    }
    let median = |i: usize| {
        let mut values: Vec<f64> = rounds.iter().map(|r| r[i]).collect();
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    println!(
        "{name:<28} encrypted: encoding takes {:.2} times as long, decoding {:.2}; frames grow by {:.2} %",
        median(0),
        median(1),
        100.0 * grown
    );
}

/// Bytes that an ideal coder of single bytes would need for the plane (zeroth-order entropy, without its tables).
fn entropy(plane: &[u8]) -> f64 {
    let mut counts = [0f64; 256];
    plane.iter().for_each(|&b| counts[usize::from(b)] += 1.0);
    let n = plane.len() as f64;
    counts
        .iter()
        .filter(|c| **c > 0.0)
        .map(|c| c * (n / c).log2())
        .sum::<f64>()
        / 8.0
}

/// Records all states except the last, which is the final one. Returns the bytes of the differences.
fn record(info: &RunInfo, states: &[State], batch: u64) -> (MemStorage, usize) {
    let storage = MemStorage::new();
    let mut writer =
        RunWriter::create(Arc::new(storage.clone()), info.clone(), Durability::Os).unwrap();
    let mut encoder = writer.encoder().unwrap();
    let mut segmenter = Segmenter::new(SegmentPolicy::default());
    let key = KeyState::zeros(&info.layout);
    let mut frames = 0;
    let (last, rest) = states.split_last().unwrap();
    for (t, state) in rest.iter().enumerate() {
        let meta = meta(&info.layout, t as u64, batch);
        let frame = if segmenter.place(&meta).cut {
            writer.open_segment(t as u64).unwrap();
            encoder.keyframe(&meta, state, &key).unwrap()
        } else {
            let frame = encoder
                .difference(&meta, t as u64 - 1, &states[t - 1], state)
                .unwrap();
            frames += frame.bytes().len();
            frame
        };
        writer.append(frame).unwrap();
    }
    let steps = rest.len() as u64;
    writer
        .append(
            encoder
                .link(steps, steps - 1, &states[rest.len() - 1], last)
                .unwrap(),
        )
        .unwrap();
    writer.finish(last, &key, Default::default()).unwrap();
    (storage, frames)
}

/// Bytes that an ideal coder would need for the chunk's magnitude classes, plus the open bits.
fn magnitudes(change: &[u32]) -> f64 {
    let open = |z: u32| (32 - z.leading_zeros()).saturating_sub(3);
    let classes: Vec<u8> = change
        .iter()
        .map(|&z| ((open(z) << 2) + (z >> open(z))) as u8)
        .collect();
    let bits: u32 = change.iter().map(|&z| open(z)).sum();
    entropy(&classes) + f64::from(bits) / 8.0
}

/// The integers that the encoder codes, one vector per chunk and step, computed here from the specification.
fn changes(info: &RunInfo, states: &[State]) -> Vec<Vec<u32>> {
    let ordered = |b: &[u8]| {
        let bits = u32::from_le_bytes([b[0], b[1], b[2], b[3]]);
        if bits >> 31 == 1 {
            !bits
        } else {
            bits ^ 1 << 31
        }
    };
    let mut changes = Vec::new();
    for pair in states[..states.len() - 1].windows(2) {
        let mut at = 0;
        for &elements in &info.chunks.state {
            let range = at..at + 4 * elements as usize;
            at = range.end;
            let (a, b) = (&pair[0].bytes()[range.clone()], &pair[1].bytes()[range]);
            let zigzag = a.chunks_exact(4).zip(b.chunks_exact(4)).map(|(a, b)| {
                let d = ordered(b).wrapping_sub(ordered(a));
                d << 1 ^ (d as i32 >> 31) as u32
            });
            changes.push(zigzag.collect());
        }
    }
    changes
}

//! Raw files with planted wrong labels, as a user has them, and how well the usual recipe finds these labels.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use hindcast_model::data::{DataSet, DataSpec, Source, from_tensors, load};
use hindcast_model::net::Net;
use hindcast_model::objective::Split;
use hindcast_model::random::{Purpose, Stream};
use hindcast_model::task::Task;
use hindcast_model::train::{self, TrainError, Trainer};

/// What is known about files that were made.
pub(crate) struct Made {
    /// The rows of the training file with a wrong label.
    pub(crate) wrong: BTreeSet<usize>,
    /// For each row of the training file, the probability of its given label by the distribution that it was drawn from, before
    /// labels were made wrong. No ranking finds more wrong labels on average than the one by this probability, because they
    /// were chosen at random. Empty if it isn't known.
    pub(crate) posterior: Vec<f64>,
}

/// The seed of the files of the guide.
pub(crate) const SEED: u64 = 7;

/// Random numbers for the files of one kind.
fn draws(seed: u64, of: u32) -> Stream {
    Stream::of_run(seed, Purpose::Other(1 << 30, of))
}

/// The probabilities that are proportional to the exponentials of these numbers.
fn softmax(logits: &[f64]) -> Vec<f64> {
    let largest = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let all: Vec<f64> = logits.iter().map(|z| (z - largest).exp()).collect();
    let sum: f64 = all.iter().sum();
    all.into_iter().map(|p| p / sum).collect()
}

/// Gives a tenth of the labels another class. Returns the rows with a wrong label.
fn plant(labels: &mut [usize], classes: usize, draws: &mut Stream) -> BTreeSet<usize> {
    let mut rows: Vec<usize> = (0..labels.len()).collect();
    draws.shuffle(&mut rows);
    rows.truncate(labels.len() / 10);
    for &row in &rows {
        let other = 1 + draws.below(classes as u64 - 1) as usize;
        labels[row] = (labels[row] + other) % classes;
    }
    rows.into_iter().collect()
}

/// A little-endian array, as numpy writes it.
pub(crate) fn npy(kind: &str, shape: &str, body: &[u8]) -> Vec<u8> {
    let dict = format!("{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}");
    let length = (10 + dict.len() + 1).next_multiple_of(64) - 10;
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((length as u16).to_le_bytes());
    bytes.extend(format!("{dict:<0$}\n", length - 1).bytes());
    bytes.extend(body);
    bytes
}

const CLASSES: usize = 6;
const DIMENSIONS: usize = 24;

/// Embeddings of 2,000 training, 500 validation and 1,000 test examples: x.npy, y.npy, validation-x.npy and so on. The
/// training labels and the validation labels have wrong ones.
pub(crate) fn embeddings(to: &Path, seed: u64) -> Made {
    let mut draws = draws(seed, 0);
    let centres: Vec<Vec<f64>> = (0..CLASSES)
        .map(|_| (0..DIMENSIONS).map(|_| 0.55 * draws.normal()).collect())
        .collect();
    let mut made = Made {
        wrong: BTreeSet::new(),
        posterior: Vec::new(),
    };
    for (prefix, n) in [("", 2000), ("validation-", 500), ("test-", 1000)] {
        let mut labels: Vec<usize> = (0..n)
            .map(|_| draws.below(CLASSES as u64) as usize)
            .collect();
        let rows: Vec<Vec<f64>> = labels
            .iter()
            .map(|&label| centres[label].iter().map(|c| c + draws.normal()).collect())
            .collect();
        if prefix != "test-" {
            let planted = plant(&mut labels, CLASSES, &mut draws);
            if prefix.is_empty() {
                made.wrong = planted;
                let of = |(row, &label): (&Vec<f64>, &usize)| of_centres(row, &centres)[label];
                made.posterior = rows.iter().zip(&labels).map(of).collect();
            }
        }
        let values = rows.iter().flatten();
        let x: Vec<u8> = values.flat_map(|x| (*x as f32).to_le_bytes()).collect();
        let y: Vec<u8> = labels
            .iter()
            .flat_map(|y| (*y as i64).to_le_bytes())
            .collect();
        let x = npy("<f4", &format!("({n}, {DIMENSIONS})"), &x);
        fs::write(to.join(format!("{prefix}x.npy")), x).unwrap();
        let y = npy("<i8", &format!("({n},)"), &y);
        fs::write(to.join(format!("{prefix}y.npy")), y).unwrap();
    }
    made
}

/// The probability of each class for a point that was drawn around the centre of its class with variance 1.
fn of_centres(point: &[f64], centres: &[Vec<f64>]) -> Vec<f64> {
    let logit = |centre: &Vec<f64>| {
        let squares = point.iter().zip(centre).map(|(x, c)| (x - c).powi(2));
        -0.5 * squares.sum::<f64>()
    };
    softmax(&centres.iter().map(logit).collect::<Vec<f64>>())
}

const PLANS: [&str; 3] = ["free", "basic", "pro"];
/// Words of a note, the second half of them by customers who leave.
const WORDS: [&str; 12] = [
    "thanks",
    "great",
    "helpful",
    "happy",
    "upgrade",
    "renewed",
    "cancel",
    "expensive",
    "slow",
    "broken",
    "refund",
    "competitor",
];

/// What a row of the table shows of a customer. `None` is a gap.
struct Customer {
    months: Option<f64>,
    plan: Option<usize>,
    tickets: Option<u64>,
    spend: f64,
    /// Numbers of words.
    note: Vec<usize>,
}

/// How much a customer of these months, plan and tickets likes to stay, before chance.
fn liking(months: f64, plan: usize, tickets: u64) -> f64 {
    0.05 * (months - 30.0) + 0.8 * (plan as f64 - 1.0) - 0.4 * (tickets as f64 - 4.0)
}

/// A customer, and whether they stay.
fn customer(draws: &mut Stream) -> (Customer, usize) {
    let plan = draws.below(3) as usize;
    let months = (draws.uniform_in(0.0, 60.0) * 10.0).round() / 10.0;
    let tickets = draws.below(9);
    let spend = 5.0 + 20.0 * plan as f64 + 3.0 * draws.normal();
    let stays = liking(months, plan, tickets) + 0.5 * draws.normal() > 0.0;
    let note = (0..3)
        .map(|_| {
            let of_leaving = draws.bernoulli(if stays { 0.25 } else { 0.75 });
            draws.below(6) as usize + 6 * usize::from(of_leaving)
        })
        .collect();
    let mut is_gap = || draws.bernoulli(0.05);
    let seen = Customer {
        months: (!is_gap()).then_some(months),
        tickets: (!is_gap()).then_some(tickets),
        plan: (!is_gap()).then_some(plan),
        spend,
        note,
    };
    (seen, usize::from(stays))
}

impl Customer {
    fn text(&self) -> String {
        let months = self.months.map_or(String::new(), |x| x.to_string());
        let tickets = self.tickets.map_or(String::new(), |x| x.to_string());
        let plan = self.plan.map_or("", |plan| PLANS[plan]);
        let note: Vec<&str> = self.note.iter().map(|&word| WORDS[word]).collect();
        format!(
            "{months},{plan},{tickets},{:.2},\"{}\"",
            self.spend,
            note.join(", ")
        )
    }

    /// The probability of leaving and of staying: Bayes' rule, with the mean over what a gap hides.
    fn posterior(&self) -> Vec<f64> {
        let months: Vec<f64> = match self.months {
            Some(months) => vec![months],
            None => (0..60).map(|month| f64::from(month) + 0.5).collect(),
        };
        let plans: Vec<usize> = self.plan.map_or((0..3).collect(), |plan| vec![plan]);
        let tickets: Vec<u64> = self.tickets.map_or((0..9).collect(), |n| vec![n]);
        // A plan's spending is normal around its price.
        let of_plan: Vec<f64> = plans
            .iter()
            .map(|&plan| -0.5 * ((self.spend - 5.0 - 20.0 * plan as f64) / 3.0).powi(2))
            .collect();
        let mut stays = 0.0;
        for (&plan, weight) in plans.iter().zip(softmax(&of_plan)) {
            for &months in &months {
                for &tickets in &tickets {
                    stays += weight * normal_below(liking(months, plan, tickets) / 0.5);
                }
            }
        }
        stays /= (months.len() * tickets.len()) as f64;
        let of_leaving = self.note.iter().filter(|word| **word >= 6).count() as f64;
        let said = (self.note.len() as f64 - 2.0 * of_leaving) * 3f64.ln();
        softmax(&[(1.0 - stays).ln(), stays.ln() + said])
    }
}

/// The probability that a standard normal number is below x.
fn normal_below(x: f64) -> f64 {
    0.5 * libm::erfc(-x / std::f64::consts::SQRT_2)
}

/// Customers: train.csv (1,500 rows) with wrong labels, and test.csv (1,000 rows).
pub(crate) fn customers(to: &Path, seed: u64) -> Made {
    let mut draws = draws(seed, 1);
    let mut made = Made {
        wrong: BTreeSet::new(),
        posterior: Vec::new(),
    };
    for (name, n) in [("train.csv", 1500), ("test.csv", 1000)] {
        let (rows, mut labels): (Vec<Customer>, Vec<usize>) =
            (0..n).map(|_| customer(&mut draws)).unzip();
        if name == "train.csv" {
            made.wrong = plant(&mut labels, 2, &mut draws);
            let rows = rows.iter().zip(&labels);
            made.posterior = rows.map(|(row, &label)| row.posterior()[label]).collect();
        }
        let mut text = "months,plan,tickets,spend,note,outcome\n".to_owned();
        for (row, label) in rows.iter().zip(&labels) {
            let _ = writeln!(text, "{},{}", row.text(), ["leaves", "stays"][*label]);
        }
        fs::write(to.join(name), text).unwrap();
    }
    made
}

/// Drawn digits in a folder per class: train (1,500 images) with images in a wrong folder, and test (500). An image's row is its
/// place in the sorted list of paths.
pub(crate) fn digits(to: &Path, seed: u64) -> Made {
    let mut spec = DataSpec::new(Source::Digits);
    (spec.train, spec.validation, spec.test) = (Some(1500), Some(1), Some(500));
    spec.flipped = Some(0.0);
    let drawn = load(&spec, None, None, seed - 2).unwrap();
    let mut draws = draws(seed, 2);
    let mut wrong = Vec::new();
    for split in [Split::Train, Split::Test] {
        let mut labels: Vec<usize> = (0..drawn.len(split))
            .map(|i| drawn.class(split, i).unwrap())
            .collect();
        let planted = match split {
            Split::Train => plant(&mut labels, 10, &mut draws),
            _ => BTreeSet::new(),
        };
        for (i, label) in labels.iter().enumerate() {
            let image = drawn.image(split, i as u64).unwrap();
            let (width, height) = (image.width as u32, image.height as u32);
            let grey = image::GrayImage::from_raw(width, height, image.pixels).unwrap();
            let folder = to.join(split.name()).join(label.to_string());
            fs::create_dir_all(&folder).unwrap();
            let path = folder.join(format!("{i:04}.png"));
            grey.save(&path).unwrap();
            if split == Split::Train {
                wrong.push((path, planted.contains(&i)));
            }
        }
    }
    wrong.sort();
    let rows = wrong.iter().enumerate().filter(|(_, (_, wrong))| *wrong);
    Made {
        wrong: rows.map(|(row, _)| row).collect(),
        posterior: Vec::new(),
    }
}

/// The share of `wrong` among the first of a ranking of training examples, as many as there are wrong ones. The lowest scores
/// are the first.
pub(crate) fn share_found(scores: &[(u64, f64)], wrong: &BTreeSet<u64>) -> f64 {
    let mut ranked = scores.to_vec();
    ranked.sort_by(|a, b| a.1.total_cmp(&b.1).then(a.0.cmp(&b.0)));
    let first = ranked.iter().take(wrong.len());
    first.filter(|(index, _)| wrong.contains(index)).count() as f64 / wrong.len() as f64
}

/// The usual recipe, cross-validated self-confidence: five models of the task, each trained without a fifth of the training
/// examples, and the logarithm of the probability that the model that hasn't seen an example gives to its label.
pub(crate) fn self_confidence(task: &Task, data: &dyn DataSet) -> Vec<(u64, f64)> {
    const FOLDS: u64 = 5;
    let n = data.len(Split::Train);
    let all: Vec<u64> = (0..n).collect();
    let batch = data
        .batch(Split::Train, &all, None, DType::F32, &Device::Cpu)
        .unwrap();
    let names: Vec<&str> = data.class_names().iter().map(String::as_str).collect();
    let mut scores = Vec::new();
    for fold in 0..FOLDS {
        let rows = |inside: bool| -> Vec<u32> {
            let rows = (0..n as u32).filter(|i| (u64::from(*i) % FOLDS == fold) == inside);
            rows.collect()
        };
        let part = |rows: &[u32]| {
            let rows = Tensor::new(rows, &Device::Cpu).unwrap();
            let of = |x: &Tensor| x.index_select(&rows, 0).unwrap();
            (of(&batch.inputs), of(&batch.targets))
        };
        let (held, others) = (rows(true), rows(false));
        let (train_part, held_part) = (part(&others), part(&held));
        let folds = from_tensors(
            (&train_part.0, &train_part.1),
            Some((&held_part.0, &held_part.1)),
            None,
            &names,
            None,
        )
        .unwrap();
        let net = Net::new(&task.model, &task.loss).unwrap();
        let mut trainer = Trainer::<f32>::new(task, &net, folds.as_ref(), &Device::Cpu).unwrap();
        while trainer.step(|_| Ok::<(), TrainError>(())).unwrap() {}
        let end = trainer.into_state();
        let indices: Vec<u64> = (0..held.len() as u64).collect();
        let losses = train::losses(
            &net,
            &end.parameters,
            &end.buffers,
            folds.as_ref(),
            Split::Validation,
            &indices,
            &Device::Cpu,
        );
        let held = held.into_iter().map(u64::from);
        scores.extend(held.zip(losses.unwrap().into_iter().map(|loss| -loss)));
    }
    scores
}

/// The task in a file, and its data in a folder.
pub(crate) fn opened(task: &Path, data: &Path) -> (Task, Box<dyn DataSet>) {
    let task = Task::from_toml(&fs::read_to_string(task).unwrap()).unwrap();
    let data = load(&task.data, Some(&task.augment), Some(data), task.train.seed).unwrap();
    (task, data)
}

//! A table of customers: numbers, a category, a text and gaps.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::Path;

use hindcast_model::random::Stream;
use statrs::function::erf::erfc;

use super::made::{Made, draws, plant, softmax};

const PLANS: [&str; 3] = ["free", "basic", "pro"];
const OUTCOMES: [&str; 2] = ["leaves", "stays"];
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
    0.5 * erfc(-x / std::f64::consts::SQRT_2)
}

/// Customers: train.csv (1,500 rows) with wrong labels, and test.csv (1,000 rows).
///
/// # Errors
/// The file system's.
pub fn customers(to: &Path, seed: u64) -> io::Result<Made> {
    let mut draws = draws(seed, 1);
    let mut made = Made {
        wrong: BTreeSet::new(),
        truth: Vec::new(),
        posterior: Vec::new(),
    };
    for (name, n) in [("train.csv", 1500), ("test.csv", 1000)] {
        let (rows, mut labels): (Vec<Customer>, Vec<usize>) =
            (0..n).map(|_| customer(&mut draws)).unzip();
        if name == "train.csv" {
            made.truth = labels.iter().map(|&l| OUTCOMES[l].to_owned()).collect();
            made.wrong = plant(&mut labels, 2, &mut draws);
            let rows = rows.iter().zip(&labels);
            made.posterior = rows.map(|(row, &label)| row.posterior()[label]).collect();
        }
        let mut text = "months,plan,tickets,spend,note,outcome\n".to_owned();
        for (row, label) in rows.iter().zip(&labels) {
            let _ = writeln!(text, "{},{}", row.text(), OUTCOMES[*label]);
        }
        fs::write(to.join(name), text)?;
    }
    Ok(made)
}

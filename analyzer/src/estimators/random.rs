//! Random scores: the baseline for all methods.

use hindcast_model::random::{Purpose, Stream};

use super::estimate::Estimate;
use super::estimator::{Choices, Estimator, Method, MethodOption, Question};
use crate::engine::ReplayEngine;
use crate::error::Result;
use crate::sweep::Observer;

pub(super) static METHOD: Method = Method {
    name: "random",
    about: "Random scores, the same for every query: the baseline for all other methods",
    needs: "nothing",
    source: "the baseline of random removal in Hara, Nitanda, Maehara, NeurIPS 2019",
    predicts: false,
    asks: false,
    windowed: false,
    sweeps: false,
    options: &[MethodOption {
        key: "seed",
        default: "0",
        about: "seed of the scores",
    }],
    build: |choices: &Choices| {
        Ok(Box::new(Random {
            seed: choices.count("seed", 0)?,
        }))
    },
};

/// Random stream of the scores. Crates other than the model's use numbers from 2³¹ up.
const SCORES: u32 = (1 << 31) + 1;

struct Random {
    seed: u64,
}

impl Estimator for Random {
    fn method(&self) -> &'static Method {
        &METHOD
    }

    fn estimate(
        &self,
        question: &Question<'_>,
        engine: &mut dyn ReplayEngine,
        _: &mut dyn Observer,
    ) -> Result<Estimate> {
        question.without_window(&METHOD)?;
        let gradients = question.gradients(engine)?;
        let mut stream = Stream::of_run(self.seed, Purpose::Other(SCORES, 0));
        let scores: Vec<f64> = (0..question.run.examples())
            .map(|_| stream.uniform_in(-1.0, 1.0))
            .collect();
        question.everyone(&gradients, vec![scores; gradients.len()], Vec::new())
    }
}

//! Random scores: what any method has to beat.

use hindcast_model::random::{Purpose, Stream};

use super::estimate::{everyone, without_window};
use super::{Choices, Estimate, Estimator, Method, MethodOption, Question, Watcher};
use crate::engine::ReplayEngine;
use crate::error::Result;

pub(super) static METHOD: Method = Method {
    name: "random",
    about: "Random scores, the same for every query: what any method has to beat",
    needs: "nothing",
    source: "the baseline of random removal in Hara, Nitanda, Maehara, NeurIPS 2019",
    predicts: false,
    windowed: false,
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

/// Stream of the random scores; numbers from 2³¹ up are free for other crates than the model's.
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
        _: &mut dyn ReplayEngine,
        _: &mut Watcher<'_>,
    ) -> Result<Estimate> {
        without_window(&METHOD, question)?;
        let mut stream = Stream::of_run(self.seed, Purpose::Other(SCORES, 0));
        let scores: Vec<f64> = (0..question.run.examples())
            .map(|_| stream.uniform_in(-1.0, 1.0))
            .collect();
        everyone(question, vec![scores; question.gradients.len()], Vec::new())
    }
}

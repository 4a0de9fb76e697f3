//! State of a sweep between two steps: a few vectors, so that it can be saved and resumed.

use std::collections::BTreeMap;
use std::ops::Range;

use hindcast_model::vectors::norm;
use serde::{Deserialize, Serialize};

use crate::query::average::StateWeights;
use crate::query::one::QueryGradient;

/// A sweep between two steps. After the last step it is the result.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SweepState {
    /// Steps [A, B) that are scored.
    pub window: Range<u64>,
    /// The model at which the queries are evaluated.
    pub at: StateWeights,
    /// T, the number of steps of the run.
    pub end: u64,
    /// The steps [next, T) have been walked. The sweep is done when `next` is A.
    pub next: u64,
    /// How many times each training example was in the window's batches so far, length N.
    pub occurrences: Vec<u64>,
    /// One entry per query.
    pub queries: Vec<QuerySweep>,
}

/// One query's part of a [`SweepState`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct QuerySweep {
    /// As the user wrote it.
    pub name: String,
    /// Its value at the point that it is asked about.
    pub value: f64,
    /// u: the query's sensitivity to the parameters before step `next`, length p.
    pub parameters: Vec<f64>,
    /// Its sensitivity to the optimizer's state before step `next`.
    pub optimizer: Vec<f64>,
    /// ρ: its sensitivity to the running statistics before step `next`, length b.
    pub buffers: Vec<f64>,
    /// The query's gradient in the parameters at its point, length p. Its share a_k is added to u at each averaged step k
    /// that is still ahead. Empty if none is.
    pub gradient: Vec<f64>,
    /// The same in the running statistics, length b.
    pub buffer_gradient: Vec<f64>,
    /// L_j so far with fixed denominators, length N.
    pub influence: Vec<f64>,
    /// L_j so far with renormalised batches, length N.
    pub renormalised: Vec<f64>,
    /// Each epoch's share of `influence`; empty unless the sweep keeps these shares.
    pub epochs: BTreeMap<u64, Vec<f64>>,
    /// L of each term of each example's loss so far, with fixed denominators, length N; empty unless the sweep keeps these
    /// scores. The list of an example is empty until one of its uses is scored.
    #[serde(default)]
    pub terms: Vec<Vec<f64>>,
    /// `(t, ‖u_t‖)`, newest first. The first entry, at T, is the norm of the query's gradient at its point.
    pub growth: Vec<(u64, f64)>,
}

impl SweepState {
    /// A sweep before its first step.
    pub(super) fn new(
        window: Range<u64>,
        at: StateWeights,
        end: u64,
        examples: usize,
        optimizer_values: usize,
        queries: &[QueryGradient],
        per_term: bool,
    ) -> Self {
        let weight = at.of(end);
        let share = |gradient: &[f64]| gradient.iter().map(|x| weight * x).collect();
        // Without an average nothing is added later.
        let later = |gradient: &Vec<f64>| {
            if at.first() < end {
                gradient.clone()
            } else {
                Vec::new()
            }
        };
        SweepState {
            window,
            end,
            next: end,
            occurrences: vec![0; examples],
            queries: queries
                .iter()
                .map(|q| QuerySweep {
                    name: q.name.clone(),
                    value: q.value,
                    parameters: share(&q.parameters),
                    optimizer: vec![0.0; optimizer_values],
                    buffers: share(&q.buffers),
                    gradient: later(&q.parameters),
                    buffer_gradient: later(&q.buffers),
                    influence: vec![0.0; examples],
                    renormalised: vec![0.0; examples],
                    epochs: BTreeMap::new(),
                    terms: vec![Vec::new(); if per_term { examples } else { 0 }],
                    growth: vec![(end, norm(&q.parameters))],
                })
                .collect(),
            at,
        }
    }

    /// Number of steps walked so far, and of all steps.
    pub fn progress(&self) -> (u64, u64) {
        (self.end - self.next, self.end - self.window.start)
    }

    /// Whether the whole window has been walked.
    pub fn is_done(&self) -> bool {
        self.next <= self.window.start
    }
}

impl QuerySweep {
    /// Adds the share of a model with this weight to the query's sensitivities to that model.
    pub(super) fn inject(&self, weight: f64, parameters: &mut [f64], buffers: &mut [f64]) {
        if weight == 0.0 {
            return;
        }
        for (sum, share) in [
            (parameters, &self.gradient),
            (buffers, &self.buffer_gradient),
        ] {
            for (sum, x) in sum.iter_mut().zip(share) {
                *sum += weight * x;
            }
        }
    }

    /// Frees the gradient when no averaged step is ahead.
    pub(super) fn end_injection(&mut self) {
        self.gradient = Vec::new();
        self.buffer_gradient = Vec::new();
    }
}

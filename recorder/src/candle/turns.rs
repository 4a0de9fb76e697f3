//! Which optimizer trains each parameter, and how many updates it has done. Several optimizers may take turns.

use std::collections::BTreeSet;

/// The optimizers of a run, by parameter.
pub(crate) struct Turns {
    /// The counter that the optimizer of each parameter has before its next step. `None` if the trace of a resumed run
    /// doesn't tell it.
    counters: Vec<Option<u64>>,
    /// Whether a step of this recording has trained the parameter.
    trained: Vec<bool>,
    /// The wrapped optimizer that each parameter belongs to.
    owners: Vec<Option<u64>>,
    /// The optimizers that own all of their parameters.
    adopted: BTreeSet<u64>,
    /// Number of optimizers that were wrapped.
    wrapped: u64,
}

impl Turns {
    /// The counters at the beginning of a recording. There are none in a new run, and after a restart.
    pub(crate) fn new(parameters: usize, counters: &[Option<u64>]) -> Self {
        let mut counters = counters.to_vec();
        counters.resize(parameters, Some(0));
        Self {
            counters,
            trained: vec![false; parameters],
            owners: vec![None; parameters],
            adopted: BTreeSet::new(),
            wrapped: 0,
        }
    }

    /// Notes a step with this counter that trains the flagged parameters.
    pub(crate) fn take(&mut self, trained: &[bool], update: u64) {
        let parameters = self.counters.iter_mut().zip(&mut self.trained);
        for ((counter, before), _) in parameters.zip(trained).filter(|(_, trained)| **trained) {
            *counter = Some(update + 1);
            *before = true;
        }
    }

    /// The counter of an optimizer of these parameters before its next step. `None` if the trace doesn't tell it.
    pub(crate) fn counter_of(&self, parameters: &[usize]) -> Option<u64> {
        let known = parameters.iter().filter_map(|at| *self.counters.get(*at)?);
        known.max()
    }

    /// Whether a step of this recording has trained one of these parameters.
    pub(crate) fn have_trained(&self, parameters: &[usize]) -> bool {
        parameters
            .iter()
            .any(|at| self.trained.get(*at) == Some(&true))
    }

    /// A number for a newly wrapped optimizer.
    pub(crate) fn new_optimizer(&mut self) -> u64 {
        self.wrapped += 1;
        self.wrapped
    }

    /// Notes that the parameters belong to this optimizer. Optimizers that they belonged to before must be adopted again
    /// before their next steps.
    pub(crate) fn adopt(&mut self, optimizer: u64, parameters: &[usize]) {
        for at in parameters {
            let before = self
                .owners
                .get_mut(*at)
                .and_then(|owner| owner.replace(optimizer));
            if let Some(before) = before.filter(|before| *before != optimizer) {
                self.adopted.remove(&before);
            }
        }
        self.adopted.insert(optimizer);
    }

    /// Whether this optimizer was the last one to adopt all of these parameters.
    pub(crate) fn belong_to(&self, optimizer: u64, parameters: &[usize]) -> bool {
        let mut owners = parameters.iter().map(|at| self.owners.get(*at));
        owners.all(|owner| owner == Some(&Some(optimizer)))
    }

    /// Notes that the optimizer may have changed.
    pub(crate) fn release(&mut self, optimizer: u64) {
        self.adopted.remove(&optimizer);
    }

    /// Whether the optimizer has been adopted, and no other has taken one of its parameters since.
    pub(crate) fn is_adopted(&self, optimizer: u64) -> bool {
        self.adopted.contains(&optimizer)
    }
}

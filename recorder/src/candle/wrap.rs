//! A candle optimizer that records before it steps.

use std::any::Any;
use std::collections::HashSet;

use candle_core::backprop::GradStore;
use candle_core::{Tensor, TensorId, Var};
use candle_nn::{Optimizer, SGD};
use hindcast_format::meta::GroupHyper;

use super::adopt::{Adoption, Wrapped};
use super::describe::Describe;
use super::handle::Handle;
use super::known::{Describing, name_of};
use super::part::{Facts, Part};
use super::step::{OptimizerState, StepInfo, Trained};
use super::together::WrappedOptimizer;
use crate::error::RecorderError;
use crate::metadata::StepHyper;
use crate::update_rule::UpdateRule;

type HyperFn<O> = Box<dyn Fn(&O, &mut [GroupHyper]) + Send>;
type StateFn<O> = fn(&O) -> &dyn OptimizerState;

/// A candle optimizer whose steps are recorded. [`Recorder::wrap`](crate::Recorder::wrap) makes it.
///
/// [`backward_step`](Self::backward_step) computes the gradients, records the parameters before the step, the learning
/// rate and the updated parameters, and then lets the optimizer step. Every step needs a batch, which
/// [`Recorder::batch`](crate::Recorder::batch) announces.
///
/// It implements [`Optimizer`], so it fits where a loop expects one. Only [`Optimizer::new`] always fails, because it
/// gets no run to record into.
pub struct Recorded<O> {
    optimizer: O,
    run: Handle,
    describe: Describing<O>,
    /// Its number in the run.
    number: u64,
    /// The optimizer's counter before its next step, unless it tells its own. `None` until the optimizer is adopted.
    updates: Option<u64>,
    /// The run's counter when the optimizer was wrapped.
    at_wrap: u64,
    /// Whether the program may have replaced the optimizer since it was adopted.
    replaced: bool,
    /// Why the optimizer can't take part in the run.
    refused: Option<String>,
    hyper: Option<HyperFn<O>>,
    state: Option<StateFn<O>>,
    groups: Vec<GroupHyper>,
    /// The variables that the optimizer updates, if they are known.
    updated: Option<HashSet<TensorId>>,
    /// Whether the optimizer must be asked for them again.
    ask: bool,
    /// Whether the user listed them with [`updates`](Self::updates).
    listed: bool,
    /// Parameters that have not been seen to change. `None` before the first step.
    unseen: Option<Vec<usize>>,
    /// The last comparison of the optimizer with the run's rule. `None` before the first step.
    checked: Option<Checked>,
}

/// What the comparison of an optimizer with the run's rule found.
#[derive(Clone, Copy)]
struct Checked {
    /// What the optimizer told.
    rule: Option<UpdateRule>,
    /// The weight decay in that.
    decay: Option<f64>,
}

impl<O: Optimizer + 'static> Recorded<O> {
    pub(crate) fn new(
        optimizer: O,
        run: Handle,
        describe: Describing<O>,
        state: Option<StateFn<O>>,
    ) -> Self {
        let (optimizer, held) = held_by_sgd(optimizer);
        let (number, at_wrap) = {
            let mut steps = run.lock();
            (steps.turns_mut().new_optimizer(), steps.next_update())
        };
        let mut recorded = Self {
            ask: held.is_none(),
            optimizer,
            run,
            describe,
            number,
            updates: None,
            at_wrap,
            replaced: false,
            refused: None,
            hyper: None,
            state,
            groups: Vec::new(),
            updated: held.map(|vars| ids(&vars)),
            listed: false,
            unseen: None,
            checked: None,
        };
        recorded.ask();
        // Before the first step, the run's layout can get the optimizer's state. The optimizer's next step repeats an error.
        if recorded.describe.of(&recorded.optimizer).is_some() && recorded.run.lock().at_beginning()
        {
            let _ = recorded.adopt();
        }
        recorded.claim();
        recorded
    }

    /// Lists the variables that the optimizer updates: those that it was created with. All other parameters are
    /// recorded as not trained, even if candle gives them a gradient.
    ///
    /// Without this call the wrapper finds out by itself. It asks candle's `SGD`. With other optimizers it compares
    /// each parameter before and after every step until it has changed. For a large frozen part on a GPU, this call
    /// saves the copies that the comparison needs.
    #[must_use]
    pub fn updates<'v>(mut self, variables: impl IntoIterator<Item = &'v Var>) -> Self {
        self.updated = Some(variables.into_iter().map(|var| var.id()).collect());
        self.ask = false;
        self.listed = true;
        self.run.lock().turns_mut().release(self.number);
        self.claim();
        self
    }

    /// How to read the learning rate and the weight decay of each parameter group from the optimizer before every step.
    /// When `read` is called, the entries hold the optimizer's [`learning_rate`](Optimizer::learning_rate) and the
    /// default weight decay: that of candle's `AdamW`, of [`Builder::weight_decay`](crate::Builder::weight_decay), or
    /// of the run's rule. Without this call, every group has these values.
    #[must_use]
    pub fn hyper(mut self, read: impl Fn(&O, &mut [GroupHyper]) + Send + 'static) -> Self {
        self.hyper = Some(Box::new(read));
        self
    }

    /// Computes the gradients of `loss`, records the step, and steps.
    ///
    /// # Errors
    /// No batch was announced, recording has failed, or candle failed. The variables have not changed, unless the
    /// optimizer's step itself failed.
    pub fn backward_step(&mut self, loss: &Tensor) -> Result<(), RecorderError> {
        let gradients = loss.backward().map_err(|error| {
            let run = self.run.lock();
            run.at().candle("computing the gradients", error)
        })?;
        self.step_with(&gradients, Some(loss))
    }

    /// Records the step with these gradients (which may have been clipped or accumulated), and steps. `loss` is the
    /// batch loss, if it is to be recorded.
    ///
    /// # Errors
    /// As [`backward_step`](Self::backward_step).
    pub fn step_with(
        &mut self,
        gradients: &GradStore,
        loss: Option<&Tensor>,
    ) -> Result<(), RecorderError> {
        let Checked { decay, .. } = self.check()?;
        self.ask();
        self.take_part()?;
        let learning_rate = self.optimizer.learning_rate();
        let updates = self.counter();
        if self.hyper.is_some() {
            self.read_groups(decay);
        }
        let mut info = StepInfo::announced(learning_rate).optimizer_step(updates);
        info.trained = match &self.updated {
            Some(updated) => Trained::Updated(gradients, updated),
            None => Trained::Watched(gradients),
        };
        info.hyper = match &self.hyper {
            None => StepHyper::One {
                learning_rate,
                weight_decay: decay,
            },
            Some(_) => StepHyper::Each(&self.groups),
        };
        if let Some(state) = self.state {
            info = info.optimizer(state(&self.optimizer));
        }
        self.run.lock().prepare(&info, loss)?;
        self.updates = Some(updates + 1);
        let unseen = match &self.updated {
            Some(_) => None,
            None => Some(
                self.unseen
                    .get_or_insert_with(|| (0..self.run.lock().parameters()).collect()),
            )
            .filter(|unseen| !unseen.is_empty()),
        };
        let Some(unseen) = unseen else {
            self.run.lock().hand_over();
            let stepped = self.optimizer.step(gradients);
            return stepped.map_err(|error| self.run.lock().update_failed(error));
        };
        match self.optimizer.step(gradients) {
            Ok(()) => self.run.lock().settle(gradients, unseen),
            Err(error) => {
                self.run.lock().hand_over();
                Err(self.run.lock().update_failed(error))
            }
        }
    }

    /// Asks the optimizer which variables it holds, if it may hold others than before.
    fn ask(&mut self) {
        if std::mem::take(&mut self.ask) {
            let told = self.describe.of(&self.optimizer);
            self.updated = told.and_then(Describe::variables).map(|vars| ids(&vars));
        }
    }

    /// Takes a parameter group for the variables that the optimizer holds.
    fn claim(&mut self) {
        if let Some(held) = &self.updated
            && let Err(why) = self.run.lock().claim_group(held)
        {
            self.refused.get_or_insert(why);
        }
    }

    /// How the optimizer becomes part of the run. `None` if it is, or if it doesn't describe itself.
    fn plan(&self) -> Result<Option<Adoption>, String> {
        let run = self.run.lock();
        let described = self.describe.of(&self.optimizer);
        let Some(described) = described.filter(|_| !run.turns().is_adopted(self.number)) else {
            return Ok(None);
        };
        let held = self.updated.as_ref();
        let wrapped = Wrapped {
            number: self.number,
            name: name_of::<O>(),
            held: held.map(|held| run.positions(held.iter().copied())),
            count: self.updates,
            replaced: self.replaced,
        };
        Adoption::plan(&run, described, &wrapped).map(Some)
    }

    /// Makes the optimizer part of the run, if it isn't yet.
    fn adopt(&mut self) -> Result<(), String> {
        let Some(plan) = self.plan()? else {
            return Ok(());
        };
        let count = plan.count;
        if let Some(described) = self.describe.of_mut(&mut self.optimizer) {
            plan.apply(&mut self.run.lock(), described, self.number)?;
        }
        (self.updates, self.replaced) = (Some(count), false);
        Ok(())
    }

    fn take_part(&mut self) -> Result<(), RecorderError> {
        self.adopt().map_err(|why| self.run.lock().at().wrong(why))
    }

    /// The counter before the next step.
    fn counter(&self) -> u64 {
        let told = self
            .describe
            .of(&self.optimizer)
            .and_then(Describe::updates);
        told.or(self.updates).unwrap_or_else(|| {
            let run = self.run.lock();
            let held = self.updated.as_ref();
            let held = held.map(|held| run.positions(held.iter().copied()));
            let counted = held.and_then(|held| run.turns().counter_of(&held));
            counted.unwrap_or(self.at_wrap)
        })
    }

    /// Reads the learning rate and the decay of each parameter group. `decay` is the one that the optimizer told.
    fn read_groups(&mut self, decay: Option<f64>) {
        let run = self.run.lock();
        let plain = GroupHyper {
            learning_rate: self.optimizer.learning_rate(),
            weight_decay: decay.unwrap_or_else(|| run.choices().default_decay()),
        };
        self.groups.clear();
        self.groups.resize(run.groups(), plain);
        drop(run);
        if let Some(read) = &self.hyper {
            read(&self.optimizer, &mut self.groups);
        }
    }

    /// Compares the optimizer with the run's rule, unless it told the same at the last step. A run without a rule gets
    /// the optimizer's before its first step.
    fn check(&mut self) -> Result<Checked, RecorderError> {
        if let Some(why) = &self.refused {
            return Err(self.run.lock().at().wrong(why));
        }
        let told = self.describe.of(&self.optimizer).map(Describe::rule);
        match self.checked {
            Some(checked) if checked.rule == told => return Ok(checked),
            _ => {}
        }
        let stated = self.run.lock().choices().rule.is_stated();
        let decay = match told {
            None if stated || self.run.lock().choices().rule_later => None,
            None => return Err(self.no_rule()),
            Some(rule) => {
                let mut run = self.run.lock();
                run.state_rule(&rule)?;
                let checked = run.choices_mut().check_told(&rule, name_of::<O>());
                checked.map_err(|why| run.at().wrong(why))?
            }
        };
        Ok(*self.checked.insert(Checked { rule: told, decay }))
    }

    fn no_rule(&self) -> RecorderError {
        let optimizer = name_of::<O>();
        self.run.lock().at().wrong(format!(
            "the update rule of the optimizer {optimizer} is not known, and the run states none, so no analysis could replay it: give the builder \
             rule(UpdateRule::..), or implement Describe for {optimizer} and call wrap_described; if the analysing program will give the \
             rule, call rule_later() on the builder"
        ))
    }

    /// The wrapped optimizer.
    pub fn optimizer(&self) -> &O {
        &self.optimizer
    }

    /// Mutable access to the wrapped optimizer. Changes that it makes to variables outside of a recorded step are not
    /// in the trace.
    pub fn optimizer_mut(&mut self) -> &mut O {
        // Afterwards it may be another optimizer, or hold other variables.
        self.replaced = true;
        self.run.lock().turns_mut().release(self.number);
        if !self.listed {
            (self.updated, self.unseen, self.ask) = (None, None, true);
        }
        &mut self.optimizer
    }

    /// Ends the recording of this optimizer and returns it.
    pub fn into_inner(self) -> O {
        self.optimizer
    }
}

impl<O: Optimizer + 'static> Optimizer for Recorded<O> {
    type Config = O::Config;

    /// Always fails: use [`Recorder::wrap`](crate::Recorder::wrap).
    fn new(_: Vec<Var>, _: Self::Config) -> candle_core::Result<Self> {
        candle_core::bail!(
            "a recorded optimizer cannot be created from variables alone: create the optimizer and pass it to Recorder::wrap"
        )
    }

    fn step(&mut self, gradients: &GradStore) -> candle_core::Result<()> {
        Ok(self.step_with(gradients, None)?)
    }

    fn learning_rate(&self) -> f64 {
        self.optimizer.learning_rate()
    }

    fn set_learning_rate(&mut self, learning_rate: f64) {
        self.optimizer.set_learning_rate(learning_rate);
    }

    fn backward_step(&mut self, loss: &Tensor) -> candle_core::Result<()> {
        Ok(Recorded::backward_step(self, loss)?)
    }
}

impl<O: OptimizerState> OptimizerState for Recorded<O> {
    fn tensors(&self) -> candle_core::Result<Vec<(String, Tensor)>> {
        self.optimizer.tensors()
    }
}

/// The optimizer, and the variables that it holds if it is candle's `SGD`. `SGD` gives its variables out only through
/// `into_inner`, which consumes it, so it is rebuilt from them.
fn held_by_sgd<O: Optimizer + 'static>(optimizer: O) -> (O, Option<Vec<Var>>) {
    let mut held = None;
    let mut optimizer = optimizer;
    if let Some(sgd) = (&mut optimizer as &mut dyn Any).downcast_mut::<SGD>()
        && let Ok(empty) = SGD::new(Vec::new(), sgd.learning_rate())
    {
        let vars = std::mem::replace(sgd, empty).into_inner();
        vars.iter().for_each(|var| sgd.push(var));
        held = Some(vars);
    }
    (optimizer, held)
}

fn ids(vars: &[Var]) -> HashSet<TensorId> {
    vars.iter().map(|var| var.id()).collect()
}

impl<O: Optimizer + 'static> Part for Recorded<O> {
    fn is_of(&self, run: usize) -> bool {
        self.run.id() == run
    }

    fn facts(&mut self) -> Result<Facts, RecorderError> {
        let Checked { decay, .. } = self.check()?;
        self.ask();
        let plan = self.plan();
        let plan = plan.map_err(|why| self.run.lock().at().wrong(why))?;
        self.read_groups(decay);
        Ok(Facts {
            name: name_of::<O>(),
            groups: self.groups.clone(),
            updates: plan.map_or_else(|| self.counter(), |plan| plan.count),
            held: self.updated.clone(),
        })
    }

    fn take_part(&mut self) -> Result<(), RecorderError> {
        Recorded::take_part(self)
    }

    fn update(&mut self, gradients: &GradStore) -> candle_core::Result<()> {
        self.updates = Some(self.counter() + 1);
        self.optimizer.step(gradients)
    }
}

impl<O: Optimizer + 'static> WrappedOptimizer for Recorded<O> {}

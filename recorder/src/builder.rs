//! Chooses what a run records and how.

use std::path::Path;
use std::sync::Arc;

use hindcast_format::{
    DataIdentity, Durability, Encryption, FrozenTensor, FsStorage, Keyed, Keys, RowType,
    SplitFingerprint, Storage,
};

use crate::keep::Keep;
use crate::options::Options;
use crate::policy::{LossValues, OnError, WhenFull};
use crate::rows::StoreRows;
use crate::update_rule::UpdateRule;

/// Chooses what a run records and how. With candle, [`create`](Self::create) opens the run; without it,
/// [`create_of`](Self::create_of) does.
///
/// Every choice has a default: all steps are kept, a full queue makes training wait, a storage failure ends the
/// recording with an error, and each finished segment is synced.
#[must_use]
pub struct Builder {
    pub(crate) options: Options,
}

impl Builder {
    /// A builder for a run in the folder `path`.
    pub fn new(path: impl AsRef<Path>) -> Self {
        let path = path.as_ref();
        Self::on(Arc::new(FsStorage::new(path)), path.display().to_string())
    }

    /// A builder for a run in any storage. Messages call the run `name`.
    pub fn on(storage: Arc<dyn Storage>, name: impl Into<String>) -> Self {
        Self {
            options: Options::new(storage, name.into()),
        }
    }

    /// Which steps to keep on disk. All by default.
    pub fn keep(mut self, keep: Keep) -> Self {
        self.options.keep = Some(keep);
        self
    }

    /// How much a power failure may lose. By default, at most the segment that is being written.
    pub fn durability(mut self, durability: Durability) -> Self {
        self.options.durability = durability;
        self
    }

    /// What to do when the queue is full because storage is slow. By default training waits.
    pub fn when_full(mut self, policy: WhenFull) -> Self {
        self.options.when_full = policy;
        self
    }

    /// What to do when storage fails. By default the next call returns the error.
    pub fn on_error(mut self, policy: OnError) -> Self {
        self.options.on_error = policy;
        self
    }

    /// Whether wrapped optimizers record the loss. By default they do where reading it costs nothing.
    pub fn loss_values(mut self, policy: LossValues) -> Self {
        self.options.loss_values = policy;
        self
    }

    /// Whether the run stores the rows of batches that are announced with
    /// [`batch_of`](crate::Recorder::batch_of). By default it does, up to 4 GiB of distinct rows.
    pub fn store_rows(mut self, rows: StoreRows) -> Self {
        self.options.store_rows = rows;
        self
    }

    /// Limit of the snapshots that wait for the encoders and the disk, in bytes. By default 64 MiB, or four steps with the
    /// rows that they store if those are larger.
    pub fn queue_bytes(mut self, bytes: u64) -> Self {
        self.options.queue_bytes = Some(bytes);
        self
    }

    /// Number of encoder threads, from 1 to 64. The default is 1: one thread encodes several hundred MB of parameters
    /// per second, and writes them. With more, another thread writes, so that encoding continues while storage is slow.
    /// The trace is the same for any number.
    pub fn encoders(mut self, threads: usize) -> Self {
        self.options.encoders = threads;
        self
    }

    /// The run's seed, from which its random draws can be repeated.
    pub fn seed(mut self, seed: u64) -> Self {
        self.options.seed = Some(seed);
        self
    }

    /// The task that is trained, as TOML text. It is stored unchanged. `verify --replay` compares the run with it: initial values,
    /// batches, learning rates, losses and length. So give it only if the loop does what the task says.
    pub fn task(mut self, toml: impl Into<String>) -> Self {
        self.options.task = Some(toml.into());
        self
    }

    /// The optimizer's update rule, for an optimizer that doesn't tell it: a type of your own, or an update that the loop
    /// computes itself. candle's `SGD` and `AdamW` and every optimizer that implements [`Describe`](crate::Describe)
    /// tell theirs. If both are given, they must agree.
    pub fn rule(self, rule: impl Into<UpdateRule>) -> Self {
        self.rule_text(rule.into().to_string())
    }

    /// The optimizer's update rule as TOML text, stored unchanged. For programs that have the text already, such as a
    /// task's optimizer. Otherwise prefer [`rule`](Self::rule), which the compiler checks.
    pub fn rule_text(mut self, toml: impl Into<String>) -> Self {
        self.options.rule = Some(toml.into());
        self
    }

    /// The program that analyses the run will give the update rule. With this call, an optimizer that doesn't tell its
    /// rule can be wrapped in a run without one.
    pub fn rule_later(mut self) -> Self {
        self.options.rule_later = true;
        self
    }

    /// The name of the loop's own model and loss, for runs without a task.
    pub fn objective(mut self, name: impl Into<String>) -> Self {
        self.options.objective = Some(name.into());
        self
    }

    /// The identity of the training data. With a fingerprint, the indices of every batch are checked against the number
    /// of examples in the split `train`, or in the only split.
    pub fn data(mut self, identity: DataIdentity) -> Self {
        self.options.data = identity;
        self
    }

    /// The fingerprint of the training data: name, number of examples and Merkle root of each split. A data set of
    /// `hindcast_model` returns it from its method `fingerprint`. An analysis compares it with the data that it is
    /// given. Without splits there is no fingerprint.
    pub fn fingerprint<S: Into<(String, u64, [u8; 32])>>(
        self,
        splits: impl IntoIterator<Item = S>,
    ) -> Self {
        let splits: Vec<_> = splits
            .into_iter()
            .map(|split| {
                let (name, examples, root) = split.into();
                SplitFingerprint {
                    name,
                    examples,
                    root,
                }
            })
            .collect();
        self.data(if splits.is_empty() {
            DataIdentity::None
        } else {
            DataIdentity::Fingerprint { splits }
        })
    }

    /// A text of your choice to store with the run. Keys that begin with `frozen.` or `made.`, and the keys `held-out.validation`
    /// and `held-out.test`, are refused when a run is created: the recorder uses them.
    pub fn note(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.options.notes.insert(key.into(), value.into());
        self
    }

    /// Leaves the command line out of what a new run says about how it was made. It also says which program recorded it, at
    /// which commit of the repository of the working directory, with which processor, vector width, number of cores, operating
    /// system, GPU and version of candle.
    pub fn without_command_line(mut self) -> Self {
        self.options.command_line = false;
        self
    }

    /// Encrypts a new run: batches, parameters and everything else that its steps hold, and most of its description. Its files are for
    /// their owner only. `Recipients` makes an encryption for those who may read the run; the program that records needs no secret key. A
    /// resumed run stays as it is, and a run that isn't encrypted is refused.
    pub fn encrypt(mut self, encryption: Encryption) -> Self {
        self.options.encryption = Some(encryption);
        self
    }

    /// The keys for resuming an encrypted run. A new run needs none.
    pub fn keys(mut self, keys: Arc<dyn Keys>) -> Self {
        let storage = Arc::clone(&self.options.storage);
        self.options.storage = Arc::new(Keyed::new(storage, keys));
        self
    }

    /// The optimizer's own weight decay λ. It is recorded with every step that doesn't give its own. By default it is
    /// the decay that the wrapped optimizer tells, else the decay of the [`rule`](Self::rule). A run whose rule states
    /// another decay is refused.
    pub fn weight_decay(mut self, decay: f64) -> Self {
        self.options.weight_decay = Some(decay);
        self
    }

    /// Variables whose names pass this test are buffers: the forward pass changes them, not the optimizer. Names that
    /// end in `running_mean` or `running_var` are buffers in any case.
    pub fn buffers(mut self, is_buffer: impl Fn(&str) -> bool + 'static) -> Self {
        self.options.buffers.push(Box::new(is_buffer));
        self
    }

    /// Variables whose names pass this test are not recorded.
    pub fn exclude(mut self, leave_out: impl Fn(&str) -> bool + 'static) -> Self {
        self.options.exclude.push(Box::new(leave_out));
        self
    }

    /// Variables whose names pass this test are frozen: part of the model, and not trained. They aren't recorded with the
    /// steps, only once by their digests, so that a run that trains a head or an adapter is small. An analysis gets their
    /// values from elsewhere, such as the file of the base model, and compares the digests. An optimizer that says that it
    /// holds a frozen variable is refused. The values are compared with the digests after the first step, in `finish`, and
    /// when the run is resumed: a variable that changes in between is noticed only there, and the steps since then are
    /// wrong. If you unfreeze a part of the model later, don't name it here.
    pub fn frozen(mut self, is_frozen: impl Fn(&str) -> bool + 'static) -> Self {
        self.options.frozen.push(Box::new(is_frozen));
        self
    }

    /// A frozen tensor given as bytes; see [`frozen`](Self::frozen). The bytes are row-major and little-endian. If their
    /// number doesn't fit type and shape, the run is refused when it is created or resumed.
    pub fn frozen_bytes(
        mut self,
        name: impl Into<String>,
        dtype: RowType,
        shape: &[usize],
        bytes: &[u8],
    ) -> Self {
        let name = name.into();
        let expected = FrozenTensor::expected_bytes(dtype, shape);
        if expected != Some(bytes.len() as u64) {
            let expected = expected.map_or("too many".to_owned(), |n| n.to_string());
            self.options.mistake.get_or_insert(format!(
                "the frozen tensor {name:?} is {} of shape {shape:?}, so it has {expected} bytes, but {} were given: give all its elements, row-major and \
                 little-endian, in that type",
                dtype.name(),
                bytes.len()
            ));
            return self;
        }
        let tensor = FrozenTensor::of(name, dtype, shape, bytes);
        self.options.frozen_tensors.push(tensor);
        self
    }

    /// The parameter group of each parameter by its name, counted from 0. By default there is one group.
    pub fn groups(mut self, group_of: impl Fn(&str) -> u16 + 'static) -> Self {
        self.options.groups = Some(Box::new(group_of));
        self
    }

    /// The number of steps of the run, and of one epoch. Only the [estimate](crate::Estimate) uses them.
    pub fn expected_steps(mut self, steps: u64, steps_per_epoch: u64) -> Self {
        self.options.steps = Some(steps);
        self.options.steps_per_epoch = Some(steps_per_epoch);
        self
    }

    /// The largest number of steps per segment. By default 256, or fewer where little is kept.
    pub fn segment_steps(mut self, steps: u32) -> Self {
        self.options.segment_steps = Some(steps.max(1));
        self
    }

    /// When resuming, sets the variables to the recorded values of the step. Otherwise the variables must hold those
    /// values already.
    pub fn restore_variables(mut self) -> Self {
        self.options.restore = true;
        self
    }

    /// When resuming, the optimizer restarts: with its initial state, and counting its updates from 0. The trace says so
    /// with the counter of that step, and an analysis follows it. Without this call, an optimizer that describes itself and
    /// whose state the trace doesn't have is refused. One that doesn't describe itself isn't: the recorder doesn't see its
    /// state, and takes its counter from the trace. The program must restore both.
    pub fn restart_optimizer(mut self) -> Self {
        self.options.restart_optimizer = true;
        self
    }
}

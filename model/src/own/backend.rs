//! The sources of tensors for the `VarBuilder` of a user's own model.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use candle_core::{DType, Device, Result, Shape, Tensor};
use candle_nn::var_builder::SimpleBackend;
use candle_nn::{Init, VarMap};

/// Names and shapes in the order of the names, which is the order of a trace's layout.
type Found = Arc<Mutex<BTreeMap<String, Vec<usize>>>>;

/// A request that candle's `VarMap` can't fulfil either.
pub(super) fn without_shape(name: &str) -> Result<Tensor> {
    candle_core::bail!("`{name}` is requested without a shape; use `get`, as with a VarMap")
}

pub(super) fn contains(variables: &VarMap, name: &str) -> bool {
    let variables = variables.data().lock();
    let variables = variables.unwrap_or_else(PoisonError::into_inner);
    variables.contains_key(name)
}

/// Returns tensors of ones, and records the requested names and shapes.
#[derive(Default)]
pub(super) struct Collect(Found);

impl Collect {
    pub(super) fn found(&self) -> Found {
        Arc::clone(&self.0)
    }
}

impl SimpleBackend for Collect {
    fn get(&self, s: Shape, name: &str, _: Init, dtype: DType, dev: &Device) -> Result<Tensor> {
        let mut found = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let shape = found
            .entry(name.to_owned())
            .or_insert_with(|| s.dims().to_vec());
        if shape != s.dims() {
            candle_core::bail!(
                "the model requests `{name}` in two shapes: {shape:?} and {:?}",
                s.dims()
            );
        }
        Tensor::ones(s, dtype, dev)
    }

    fn get_unchecked(&self, name: &str, _: DType, _: &Device) -> Result<Tensor> {
        candle_core::bail!(
            "the model requests `{name}` without a shape; use `get`, as with a VarMap"
        )
    }

    /// As with a new VarMap, a tensor exists after its first request.
    fn contains_tensor(&self, name: &str) -> bool {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .contains_key(name)
    }
}

/// Returns the tensors of a pass.
pub(super) struct Given {
    tensors: HashMap<String, Tensor>,
    requested: Mutex<HashSet<String>>,
}

impl Given {
    pub(super) fn new(tensors: HashMap<String, Tensor>) -> Self {
        Self {
            tensors,
            requested: Mutex::new(HashSet::new()),
        }
    }
}

impl SimpleBackend for Given {
    fn get(&self, s: Shape, name: &str, _: Init, dtype: DType, dev: &Device) -> Result<Tensor> {
        let tensor = self.get_unchecked(name, dtype, dev)?;
        if tensor.shape() != &s {
            candle_core::bail!(
                "the model requests `{name}` of shape {:?}, but it was {:?} when it was first built",
                s.dims(),
                tensor.dims()
            );
        }
        Ok(tensor)
    }

    fn get_unchecked(&self, name: &str, dtype: DType, dev: &Device) -> Result<Tensor> {
        let Some(tensor) = self.tensors.get(name) else {
            candle_core::bail!(
                "the model requests `{name}`, which it did not request when it was first built: a model must request \
                 the same tensors each time"
            );
        };
        self.requested
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(name.to_owned());
        // If device and type are already right, both calls return the tensor itself. Buffers rely on that.
        tensor.to_device(dev)?.to_dtype(dtype)
    }

    fn contains_tensor(&self, name: &str) -> bool {
        self.requested
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .contains(name)
    }
}

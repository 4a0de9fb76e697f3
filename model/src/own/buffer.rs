//! Buffers: tensors that a forward pass changes.
//!
//! In training, a buffer is a variable that is overwritten. In a replay, its new value must stay in the graph. A pass
//! therefore opens a scope on its thread. Within the scope, reading a buffer returns the tensor of the pass, and writing a
//! buffer stores the new tensor for the result of the pass.

use std::cell::RefCell;
use std::collections::HashMap;

use candle_core::{Result, Shape, Tensor, TensorId, Var};
use candle_nn::{Init, VarBuilder};

/// A tensor of a layer that the forward pass changes and not the optimizer, such as running statistics.
///
/// In training it is a variable of the `VarMap`, and [`set`](Buffer::set) overwrites it, as candle_nn's layers do. In a
/// replay, reads and writes are differentiable. The recorder and
/// [`OwnModel::buffers_where`](super::OwnModel::buffers_where) must be told that its name belongs to a buffer.
#[derive(Debug, Clone)]
pub struct Buffer(Var);

impl Buffer {
    /// The buffer `name` under the builder's prefix. In a new `VarMap`, its initial value is `init`.
    ///
    /// # Errors
    /// If the builder doesn't return the tensor.
    pub fn get(
        vb: &VarBuilder<'_>,
        shape: impl Into<Shape>,
        name: &str,
        init: Init,
    ) -> Result<Self> {
        // `Var::from_tensor` returns a VarMap's variable itself, and copies other tensors.
        Ok(Self(Var::from_tensor(
            &vb.get_with_hints(shape, name, init)?,
        )?))
    }

    /// The current value: a constant in training, the tensor of the pass in a replay.
    pub fn value(&self) -> Tensor {
        with(self.0.id(), |scope, at| scope.current(at))
            .unwrap_or_else(|| self.0.as_detached_tensor())
    }

    /// Sets a new value.
    ///
    /// # Errors
    /// If the shape or the type of the value differs.
    pub fn set(&self, value: &Tensor) -> Result<()> {
        if value.dims() != self.0.dims() || value.dtype() != self.0.dtype() {
            candle_core::bail!(
                "buffer: expected a value of shape {:?} and type {:?}, got {:?} and {:?}",
                self.0.dims(),
                self.0.dtype(),
                value.dims(),
                value.dtype()
            );
        }
        match with(self.0.id(), |scope, at| {
            if let Some(slot) = scope.after.get_mut(at) {
                *slot = Some(value.clone());
            }
        }) {
            Some(()) => Ok(()),
            None => self.0.set(&value.detach()),
        }
    }
}

thread_local! {
    static OPEN: RefCell<Vec<PassBuffers>> = const { RefCell::new(Vec::new()) };
}

/// The buffers of a running pass.
struct PassBuffers {
    /// Position of each buffer, by the id of its variable.
    places: HashMap<TensorId, usize>,
    before: Vec<Tensor>,
    /// The value that the pass has set. `None` for a buffer that isn't set yet.
    after: Vec<Option<Tensor>>,
}

impl PassBuffers {
    fn current(&self, at: usize) -> Tensor {
        match self.after.get(at) {
            Some(Some(value)) => value.clone(),
            _ => self.before[at].clone(),
        }
    }
}

/// Calls `act` with the innermost scope and the buffer's position in it. `None` if the tensor isn't a buffer of that
/// scope.
fn with<T>(id: TensorId, act: impl FnOnce(&mut PassBuffers, usize) -> T) -> Option<T> {
    OPEN.with_borrow_mut(|open| {
        let pass = open.last_mut()?;
        let at = *pass.places.get(&id)?;
        Some(act(pass, at))
    })
}

/// The scope of a running pass. It is closed on drop.
pub(super) struct Scope(Vec<Var>);

impl Scope {
    /// Opens the scope. `before` are the buffers before the pass.
    pub(super) fn enter(before: &[Tensor]) -> Result<Self> {
        let copies = before
            .iter()
            .map(|t| Var::from_tensor(&t.detach().copy()?))
            .collect::<Result<Vec<_>>>()?;
        let places = copies.iter().enumerate().map(|(i, c)| (c.id(), i));
        let pass = PassBuffers {
            places: places.collect(),
            before: before.to_vec(),
            after: vec![None; before.len()],
        };
        OPEN.with_borrow_mut(|open| open.push(pass));
        Ok(Self(copies))
    }

    /// The tensors for the model's builder.
    pub(super) fn handed_out(&self) -> impl Iterator<Item = &Tensor> {
        self.0.iter().map(Var::as_tensor)
    }

    /// The buffers after the pass. A buffer that was overwritten through its variable has no graph.
    pub(super) fn leave(self) -> Result<Vec<Tensor>> {
        let kept: Vec<(Tensor, Option<Tensor>)> = OPEN.with_borrow_mut(|open| {
            open.last_mut().map_or_else(Vec::new, |pass| {
                let after = std::mem::take(&mut pass.after);
                pass.before.drain(..).zip(after).collect()
            })
        });
        kept.into_iter()
            .zip(&self.0)
            .map(|((before, after), copy)| match after {
                Some(after) => Ok(after),
                None if same_values(&before, copy)? => Ok(before),
                None => Ok(copy.as_detached_tensor()),
            })
            .collect()
    }
}

impl Drop for Scope {
    fn drop(&mut self) {
        OPEN.with_borrow_mut(|open| {
            open.pop();
        });
    }
}

/// Whether all values are equal. NaN counts as equal to NaN.
fn same_values(a: &Tensor, b: &Tensor) -> Result<bool> {
    let values = |t: &Tensor| {
        t.detach()
            .to_dtype(candle_core::DType::F64)?
            .flatten_all()?
            .to_vec1::<f64>()
    };
    Ok(values(a)?
        .iter()
        .zip(&values(b)?)
        .all(|(a, b)| a == b || (a.is_nan() && b.is_nan())))
}

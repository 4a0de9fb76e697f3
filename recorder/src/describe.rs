//! What an optimizer tells the recorder about itself.

use std::any::Any;

use candle_core::Var;
use candle_nn::{AdamW, Optimizer, SGD};

use crate::update_rule::UpdateRule;

/// An optimizer that tells what it does, so that a loop needn't repeat it.
///
/// candle's `SGD` and `AdamW` implement it. Implement it for an optimizer of your own, and pass the optimizer to
/// [`Recorder::wrap_described`](crate::Recorder::wrap_described):
///
/// ```
/// use candle_core::Var;
/// use hindcast_recorder::{Describe, UpdateRule};
///
/// struct Decayed { variables: Vec<Var>, rate: f64, decay: f64 }
///
/// impl Describe for Decayed {
///     fn rule(&self) -> UpdateRule {
///         UpdateRule::sgd().weight_decay(self.decay).into()
///     }
///
///     fn variables(&self) -> Option<Vec<Var>> {
///         Some(self.variables.clone())
///     }
/// }
/// ```
pub trait Describe {
    /// The update rule with all its constants as they are now.
    ///
    /// It is read before every step. The weight decay is recorded with the step, so it may change, like the learning
    /// rate. The other constants must keep their values.
    fn rule(&self) -> UpdateRule;

    /// The variables that the optimizer updates. `None` if it can't list them: then the wrapper compares each parameter
    /// before and after the steps. It is read at the first step, and again after
    /// [`Recorded::optimizer_mut`](crate::Recorded::optimizer_mut).
    fn variables(&self) -> Option<Vec<Var>> {
        None
    }
}

impl Describe for SGD {
    fn rule(&self) -> UpdateRule {
        UpdateRule::sgd().into()
    }
}

impl Describe for AdamW {
    fn rule(&self) -> UpdateRule {
        let params = self.params();
        UpdateRule::adam_w()
            .beta1(params.beta1)
            .beta2(params.beta2)
            .eps(params.eps)
            .weight_decay(params.weight_decay)
            .into()
    }
}

/// Reads the description of an optimizer of type `O`. `None` if the type has none.
pub(crate) type Describing<O> = fn(&O) -> Option<&dyn Describe>;

/// The description of an optimizer whose type the recorder knows.
pub(crate) fn of_known<O: Optimizer + 'static>(optimizer: &O) -> Option<&dyn Describe> {
    let any = optimizer as &dyn Any;
    if let Some(sgd) = any.downcast_ref::<SGD>() {
        return Some(sgd);
    }
    any.downcast_ref::<AdamW>()
        .map(|adamw| adamw as &dyn Describe)
}

/// The optimizer's type for messages, such as `AdamW`.
pub(crate) fn name_of<O>() -> &'static str {
    let full = std::any::type_name::<O>();
    let plain = full.split('<').next().unwrap_or(full);
    plain.rsplit("::").next().unwrap_or(plain)
}

#[cfg(test)]
mod tests {
    use candle_nn::ParamsAdamW;

    use super::*;

    #[test]
    fn candles_optimizers_tell_their_rule() {
        let sgd = SGD::new(Vec::new(), 0.1).unwrap();
        assert_eq!(of_known(&sgd).unwrap().rule(), UpdateRule::sgd().into());
        let params = ParamsAdamW {
            lr: 0.5,
            beta1: 0.8,
            beta2: 0.95,
            eps: 1e-6,
            weight_decay: 0.2,
        };
        let adamw = AdamW::new(Vec::new(), params).unwrap();
        assert_eq!(
            of_known(&adamw).unwrap().rule().to_string(),
            "kind = \"adamw\"\nbeta1 = 0.8\nbeta2 = 0.95\neps = 0.000001\nweight_decay = 0.2"
        );
    }

    #[test]
    fn messages_name_the_type_without_its_path() {
        assert_eq!(name_of::<AdamW>(), "AdamW");
        assert_eq!(name_of::<Vec<AdamW>>(), "Vec");
    }
}

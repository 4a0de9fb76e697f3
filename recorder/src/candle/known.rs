//! The optimizers whose types the recorder knows.

use std::any::Any;

use candle_nn::{AdamW as CandleAdamW, Optimizer, SGD};

use super::adamw::AdamW;
use super::describe::{Describe, StateVariable};
use crate::update_rule::UpdateRule;

impl Describe for SGD {
    fn rule(&self) -> UpdateRule {
        UpdateRule::sgd().into()
    }

    fn state(&self) -> Option<Vec<StateVariable>> {
        Some(Vec::new())
    }
}

impl Describe for CandleAdamW {
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

/// How to reach the description of an optimizer of type `O`. The functions return `None` if the type has none.
pub(crate) struct Describing<O> {
    get: fn(&O) -> Option<&dyn Describe>,
    get_mut: fn(&mut O) -> Option<&mut dyn Describe>,
}

impl<O: Optimizer + 'static> Describing<O> {
    /// For an optimizer of any type. Only known types have a description.
    pub(crate) const KNOWN: Self = Self {
        get: |optimizer| {
            let any = optimizer as &dyn Any;
            if let Some(sgd) = any.downcast_ref::<SGD>() {
                return Some(sgd);
            }
            if let Some(adamw) = any.downcast_ref::<AdamW>() {
                return Some(adamw);
            }
            any.downcast_ref::<CandleAdamW>()
                .map(|adamw| adamw as &dyn Describe)
        },
        get_mut: |optimizer| {
            let any = optimizer as &mut dyn Any;
            if any.is::<AdamW>() {
                return any
                    .downcast_mut::<AdamW>()
                    .map(|adamw| adamw as &mut dyn Describe);
            }
            if any.is::<SGD>() {
                return any
                    .downcast_mut::<SGD>()
                    .map(|sgd| sgd as &mut dyn Describe);
            }
            any.downcast_mut::<CandleAdamW>()
                .map(|adamw| adamw as &mut dyn Describe)
        },
    };

    pub(crate) fn of<'o>(&self, optimizer: &'o O) -> Option<&'o dyn Describe> {
        (self.get)(optimizer)
    }

    pub(crate) fn of_mut<'o>(&self, optimizer: &'o mut O) -> Option<&'o mut dyn Describe> {
        (self.get_mut)(optimizer)
    }
}

impl<O: Describe> Describing<O> {
    /// For an optimizer that describes itself.
    pub(crate) const OWN: Self = Self {
        get: |optimizer| Some(optimizer),
        get_mut: |optimizer| Some(optimizer),
    };
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
        let told = Describing::KNOWN.of(&sgd).unwrap();
        assert_eq!(told.rule(), UpdateRule::sgd().into());
        let params = ParamsAdamW {
            lr: 0.5,
            beta1: 0.8,
            beta2: 0.95,
            eps: 1e-6,
            weight_decay: 0.2,
        };
        let text =
            "kind = \"adamw\"\nbeta1 = 0.8\nbeta2 = 0.95\neps = 0.000001\nweight_decay = 0.2";
        let mut candles = CandleAdamW::new(Vec::new(), params.clone()).unwrap();
        let mut ours = AdamW::new(Vec::new(), params).unwrap();
        for told in [
            Describing::KNOWN.of(&candles).unwrap(),
            Describing::KNOWN.of(&ours).unwrap(),
        ] {
            assert_eq!(told.rule().to_string(), text);
        }
        Describing::KNOWN.of_mut(&mut ours).unwrap().set_updates(3);
        assert_eq!(ours.updates(), 3);
        let told = Describing::KNOWN.of_mut(&mut candles).unwrap();
        assert!(told.state().is_none() && told.updates().is_none());
    }

    #[test]
    fn messages_name_the_type_without_its_path() {
        assert_eq!(name_of::<AdamW>(), "AdamW");
        assert_eq!(name_of::<Vec<AdamW>>(), "Vec");
    }
}

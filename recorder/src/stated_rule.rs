//! The optimizer settings that a run's rule or task states, compared with those of the loop and the optimizer.
//!
//! The rule is TOML text that other crates interpret. The recorder reads only the keys that can also be given
//! elsewhere, so that no trace contains contradicting settings for a step.

use candle_nn::{AdamW, Optimizer, ParamsAdamW};
use hindcast_format::meta::GroupHyper;
use toml::{Table, Value};

/// The keys of an update rule that concern the recorder.
#[derive(Debug, Clone, Default)]
pub(crate) struct StatedRule {
    table: Option<Table>,
}

impl StatedRule {
    /// Reads the rule, or the task's optimizer if no rule was given. If both were given, they must agree, and so must
    /// both seeds.
    pub(crate) fn read(
        rule: Option<&str>,
        task: Option<&str>,
        seed: Option<u64>,
    ) -> Result<Self, String> {
        // A task that is not TOML is not compared.
        let task = task.and_then(|text| text.parse::<Table>().ok());
        let of_task = task
            .as_ref()
            .and_then(|task| task.get("optimizer"))
            .and_then(Value::as_table);
        let of_rule = rule.map(str::parse::<Table>).transpose();
        let of_rule = of_rule.map_err(|error| format!("the rule is not TOML: {error}"))?;
        if let (Some(rule), Some(task)) = (&of_rule, of_task)
            && let Some((key, a, b)) = disagreement(rule, task)
        {
            return Err(format!(
                "the rule says {key} = {a}, and the task's optimizer says {key} = {b}: give it in one place, or the same value in both"
            ));
        }
        let of_train = task
            .as_ref()
            .and_then(|task| task.get("train")?.get("seed")?.as_integer());
        if let (Some(seed), Some(of_train)) = (seed, of_train)
            && u64::try_from(of_train) != Ok(seed)
        {
            return Err(format!(
                "the run's seed is {seed}, and the task says train.seed = {of_train}: give it in one place, or the same value in both"
            ));
        }
        let rule = Self {
            table: of_rule.or_else(|| of_task.cloned()),
        };
        for key in ["weight_decay", "clip_norm"] {
            if let Some(value) = rule.get(key)
                && number(value).is_none_or(|number| !number.is_finite() || number < 0.0)
            {
                return Err(format!(
                    "the rule's {key} is {value}: expected a number of 0 or above"
                ));
            }
        }
        Ok(rule)
    }

    fn get(&self, key: &str) -> Option<&Value> {
        self.table.as_ref()?.get(key)
    }

    fn number(&self, key: &str) -> Option<f64> {
        self.get(key).and_then(number)
    }

    fn kind(&self) -> Option<&str> {
        self.get("kind")?.as_str()
    }

    /// The weight decay that the rule states.
    pub(crate) fn weight_decay(&self) -> Option<f64> {
        self.number("weight_decay")
    }

    /// The weight decay of a step for which the loop gives none.
    pub(crate) fn default_decay(&self) -> f64 {
        self.weight_decay().unwrap_or_else(|| match self.kind() {
            Some("adamw") => ParamsAdamW::default().weight_decay,
            _ => 0.0,
        })
    }

    /// Compares the weight decays of a step's groups with the rule. Some groups may differ from the rule, but not all
    /// of them.
    pub(crate) fn check_decays(&self, groups: &[GroupHyper]) -> Result<(), String> {
        let Some(written) = self.weight_decay() else {
            return Ok(());
        };
        match groups.first() {
            Some(first) if groups.iter().all(|group| group.weight_decay != written) => {
                Err(format!(
                    "the rule says weight_decay = {written}, and the step has a decay of {}: make them agree, or leave weight_decay out of \
                 the rule if it changes from step to step",
                    first.weight_decay
                ))
            }
            _ => Ok(()),
        }
    }

    /// Compares the clipping of a step with the rule.
    pub(crate) fn check_clipping(&self, clip_norm: Option<f64>) -> Result<(), String> {
        match (self.number("clip_norm"), clip_norm) {
            (Some(written), Some(given)) if written != given => Err(format!(
                "the rule says clip_norm = {written}, and the batch says {given}: make them agree, or leave clip_norm out of the rule if it \
                 changes from step to step"
            )),
            _ => Ok(()),
        }
    }

    /// Compares the rule with candle's SGD.
    pub(crate) fn check_sgd(&self) -> Result<(), String> {
        self.check_kind("sgd", "UpdateRule::sgd()", "candle_nn::SGD")?;
        for key in ["momentum", "weight_decay"] {
            self.check_number(key, 0.0, 0.0, "candle_nn::SGD")?;
        }
        Ok(())
    }

    /// Compares the rule with candle's AdamW and its constants.
    pub(crate) fn check_adamw(&self, params: &ParamsAdamW) -> Result<(), String> {
        let usual = ParamsAdamW::default();
        self.check_kind("adamw", "UpdateRule::adam_w()", "candle_nn::AdamW")?;
        for (key, value, default) in [
            ("beta1", params.beta1, usual.beta1),
            ("beta2", params.beta2, usual.beta2),
            ("eps", params.eps, usual.eps),
            // The decay is recorded with every step, so a rule may leave it out.
            ("weight_decay", params.weight_decay, params.weight_decay),
        ] {
            self.check_number(key, value, default, "candle_nn::AdamW")?;
        }
        Ok(())
    }

    fn check_kind(&self, kind: &str, rule: &str, optimizer: &str) -> Result<(), String> {
        match self.kind() {
            Some(written) if written != kind => Err(format!(
                "the rule says kind = {written:?}, and the optimizer is {optimizer}: give the rule as {rule} (kind = {kind:?}), or change the optimizer"
            )),
            _ => Ok(()),
        }
    }

    fn check_number(
        &self,
        key: &str,
        value: f64,
        default: f64,
        optimizer: &str,
    ) -> Result<(), String> {
        let Some(table) = &self.table else {
            return Ok(());
        };
        let says = table.get(key).map_or(Some(default), number);
        if says == Some(value) {
            return Ok(());
        }
        Err(format!(
            "the rule's {key} is {}, and {optimizer} has {value}: give the rule {key} = {value}, or change the optimizer",
            table.get(key).map_or_else(
                || format!("{default}, its default"),
                std::string::ToString::to_string
            )
        ))
    }
}

/// The first key for which the tables have different values.
fn disagreement<'a>(a: &'a Table, b: &'a Table) -> Option<(&'a str, &'a Value, &'a Value)> {
    a.iter()
        .filter_map(|(key, value)| Some((key.as_str(), value, b.get(key)?)))
        .find(|(_, a, b)| a != b && number(a).zip(number(b)).is_none_or(|(a, b)| a != b))
}

fn number(value: &Value) -> Option<f64> {
    value
        .as_float()
        .or_else(|| value.as_integer().map(|number| number as f64))
}

/// Compares a wrapped optimizer with the rule, if it is one of candle's own.
pub(crate) fn check_optimizer<O: Optimizer + 'static>(
    rule: &StatedRule,
    optimizer: &O,
) -> Result<(), String> {
    if let Some(adamw) = downcast::<O, AdamW>(optimizer) {
        rule.check_adamw(adamw.params())
    } else if downcast::<O, candle_nn::SGD>(optimizer).is_some() {
        rule.check_sgd()
    } else {
        Ok(())
    }
}

/// The optimizer as a `T`, if that is its type.
pub(crate) fn downcast<O: 'static, T: 'static>(optimizer: &O) -> Option<&T> {
    (optimizer as &dyn std::any::Any).downcast_ref()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(text: &str) -> StatedRule {
        StatedRule::read(Some(text), None, None).unwrap()
    }

    #[test]
    fn the_default_decay_is_the_rules() {
        assert_eq!(
            rule("kind = \"adamw\"\nweight_decay = 0.1").default_decay(),
            0.1
        );
        assert_eq!(rule("kind = \"adamw\"").default_decay(), 0.01);
        assert_eq!(rule("kind = \"sgd\"").default_decay(), 0.0);
        assert_eq!(StatedRule::default().default_decay(), 0.0);
        let task = "[optimizer]\nkind = \"adam\"\nweight_decay = 1";
        assert_eq!(
            StatedRule::read(None, Some(task), None)
                .unwrap()
                .default_decay(),
            1.0
        );
    }

    #[test]
    fn settings_given_twice_must_agree() {
        let task = "[train]\nseed = 3\n[optimizer]\nkind = \"sgd\"\nweight_decay = 1";
        let read = |rule, seed| StatedRule::read(Some(rule), Some(task), seed).map(|_| ());
        assert_eq!(read("weight_decay = 1.0\nmomentum = 0.9", Some(3)), Ok(()));
        assert!(
            read("weight_decay = 0.5", None)
                .unwrap_err()
                .contains("weight_decay = 0.5")
        );
        assert!(read("", Some(4)).unwrap_err().contains("train.seed = 3"));
        let written = rule("weight_decay = 0.1\nclip_norm = 1");
        let groups = |decays: [f64; 2]| {
            decays.map(|weight_decay| GroupHyper {
                learning_rate: 0.1,
                weight_decay,
            })
        };
        assert!(written.check_decays(&groups([0.1, 0.0])).is_ok());
        assert!(written.check_decays(&groups([0.0, 0.2])).is_err());
        assert!(written.check_clipping(Some(1.0)).is_ok() && written.check_clipping(None).is_ok());
        assert!(written.check_clipping(Some(2.0)).is_err());
        for text in [
            "weight_decay = \"much\"",
            "weight_decay = -1",
            "clip_norm = nan",
            "no toml",
        ] {
            assert!(StatedRule::read(Some(text), None, None).is_err(), "{text}");
        }
    }

    #[test]
    fn candles_optimizers_are_compared_with_the_rule() {
        let params = ParamsAdamW {
            weight_decay: 0.2,
            ..Default::default()
        };
        assert!(rule("kind = \"adamw\"").check_adamw(&params).is_ok());
        let error = rule("kind = \"adamw\"\nweight_decay = 0.1")
            .check_adamw(&params)
            .unwrap_err();
        assert!(error.contains("weight_decay = 0.2"), "{error}");
        assert!(
            rule("kind = \"adamw\"\nbeta1 = 0.8")
                .check_adamw(&params)
                .is_err()
        );
        assert!(rule("kind = \"adam\"").check_adamw(&params).is_err());
        assert!(rule("kind = \"sgd\"\nmomentum = 0.9").check_sgd().is_err());
        assert!(rule("kind = \"sgd\"\nmomentum = 0").check_sgd().is_ok());
        assert!(StatedRule::default().check_adamw(&params).is_ok());
    }
}

//! The optimizer settings that a run's rule or task states, compared with those of the loop and the optimizer.
//!
//! The rule is TOML text that other crates interpret. The recorder reads only the keys that can also be given
//! elsewhere, so that no trace contains contradicting settings for a step.

use hindcast_format::meta::GroupHyper;
use toml::{Table, Value};

use crate::rule_facts::{default_of, number, number_of, slots};

/// The keys of an update rule that concern the recorder.
#[derive(Debug, Clone, Default)]
pub(crate) struct StatedRule {
    table: Option<Table>,
    origin: Origin,
}

/// Who stated the rule of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Origin {
    /// The program, with the builder's rule or task.
    #[default]
    Builder,
    /// The trace of the resumed run. The program repeated neither rule nor task.
    Trace,
    /// The wrapped optimizer.
    Optimizer,
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
            origin: Origin::Builder,
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

    /// The weight decay that the rule states.
    pub(crate) fn weight_decay(&self) -> Option<f64> {
        self.number("weight_decay")
    }

    /// The weight decay of a step for which the loop gives none.
    pub(crate) fn default_decay(&self) -> f64 {
        let table = self.table.as_ref();
        let usual = || number_of(table?, "weight_decay");
        self.weight_decay().or_else(usual).unwrap_or(0.0)
    }

    /// Compares the weight decays of a step's groups with the rule. Some groups may differ from the rule, but not all
    /// of them. A rule that the optimizer told has the decay of the first step, which later steps may change.
    pub(crate) fn check_decays(&self, groups: &[GroupHyper]) -> Result<(), String> {
        if self.origin == Origin::Optimizer {
            return Ok(());
        }
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

    /// Whether there is a rule at all.
    pub(crate) fn is_stated(&self) -> bool {
        self.table.is_some()
    }

    /// Whether a step depends on the steps before it: in every rule but SGD without momentum.
    pub(crate) fn has_state(&self) -> bool {
        let slots = self.table.as_ref().and_then(slots);
        slots.is_none_or(|slots| !slots.is_empty())
    }

    /// Every value of the optimizer's state before its first step. Zero, except for Adagrad.
    pub(crate) fn initial_state(&self) -> f64 {
        let table = self.table.as_ref();
        table
            .and_then(|table| number_of(table, "initial_accumulator_value"))
            .unwrap_or(0.0)
    }

    /// Who stated it.
    pub(crate) fn origin(&self) -> Origin {
        self.origin
    }

    /// The same rule, with who stated it.
    pub(crate) fn from(self, origin: Origin) -> Self {
        Self { origin, ..self }
    }

    /// Compares the rule with the one that the optimizer tells. `optimizer` is its type, for messages.
    pub(crate) fn check_told(&self, told: &Table, optimizer: &str) -> Result<(), String> {
        let Some(stated) = &self.table else {
            return Ok(());
        };
        // Clipping is done by the loop, so the optimizer doesn't know it. A decay that only an optimizer has told is the
        // decay of the run's first step, and each step has its own.
        let ignored: &[&str] = match self.origin {
            Origin::Builder => &["clip_norm"],
            Origin::Trace | Origin::Optimizer => &["clip_norm", "weight_decay"],
        };
        let Some(Difference { key, stated, told }) = difference(stated, told, ignored) else {
            return Ok(());
        };
        let says = |value: Option<Value>| value.map_or("not given".to_owned(), |v| v.to_string());
        let (stated, told) = (says(stated), says(told));
        let what = format!("{key} = {stated}, and the optimizer {optimizer} says {key} = {told}");
        Err(match self.origin {
            Origin::Builder => format!(
                "the rule says {what}: remove the rule from the builder, because this optimizer tells its own, or make them agree"
            ),
            Origin::Trace => format!(
                "the run was recorded with {what}: a run has one update rule, of which only the weight decay may change; resume it with the \
                 same constants, or record another run"
            ),
            Origin::Optimizer => format!(
                "the run's first step was taken with {what} now: a run has one update rule, of which only the weight decay may change; \
                 record another run"
            ),
        })
    }
}

/// A setting that two rules give differently.
struct Difference {
    key: String,
    stated: Option<Value>,
    told: Option<Value>,
}

/// The first setting in which `told` differs from `stated`. A setting that one of them leaves out has its default. A
/// stated rule may leave out the decay, because each step records its own.
fn difference(stated: &Table, told: &Table, ignored: &[&str]) -> Option<Difference> {
    let kind = stated.get("kind").and_then(Value::as_str).unwrap_or("");
    let keys = stated.keys().chain(told.keys());
    // A wrong kind explains all other differences.
    let keys = std::iter::once("kind").chain(keys.map(String::as_str));
    for key in keys {
        let left_out = key == "weight_decay" && !stated.contains_key(key);
        if left_out || ignored.contains(&key) {
            continue;
        }
        let value = |table: &Table| table.get(key).cloned().or_else(|| default_of(kind, key));
        let (a, b) = (value(stated), value(told));
        let same = match (&a, &b) {
            (Some(a), Some(b)) => same_value(a, b),
            _ => a == b,
        };
        if !same {
            return Some(Difference {
                key: key.to_owned(),
                stated: a,
                told: b,
            });
        }
    }
    None
}

/// Whether two texts state the same rule. A text that is not TOML agrees only with itself.
pub(crate) fn rules_agree(a: &str, b: &str) -> bool {
    match (a.parse::<Table>(), b.parse::<Table>()) {
        (Ok(first), Ok(second)) => difference(&first, &second, &[]).is_none(),
        _ => a == b,
    }
}

/// The first key for which the tables have different values.
fn disagreement<'a>(a: &'a Table, b: &'a Table) -> Option<(&'a str, &'a Value, &'a Value)> {
    a.iter()
        .filter_map(|(key, value)| Some((key.as_str(), value, b.get(key)?)))
        .find(|(_, a, b)| !same_value(a, b))
}

fn same_value(a: &Value, b: &Value) -> bool {
    a == b || number(a).zip(number(b)).is_some_and(|(a, b)| a == b)
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
    fn the_rule_is_compared_with_the_one_that_the_optimizer_tells() {
        let adamw = "kind = \"adamw\"\nbeta1 = 0.9\nbeta2 = 0.999\neps = 1e-8\nweight_decay = 0.2";
        let check =
            |stated: &str, told: &str| rule(stated).check_told(&told.parse().unwrap(), "AdamW");
        for stated in [
            "kind = \"adamw\"",
            "kind = \"adamw\"\nbeta1 = 0.9",
            "kind = \"adamw\"\nweight_decay = 0.2\nclip_norm = 1",
        ] {
            assert_eq!(check(stated, adamw), Ok(()), "{stated}");
        }
        for (stated, what) in [
            (
                "kind = \"adamw\"\nweight_decay = 0.1",
                "weight_decay = 0.1, and the optimizer AdamW says weight_decay = 0.2",
            ),
            ("kind = \"adamw\"\nbeta1 = 0.8", "beta1 = 0.8"),
            ("kind = \"adam\"\nbeta1 = 0.8", "kind = \"adam\""),
        ] {
            let error = check(stated, adamw).unwrap_err();
            assert!(error.contains(what), "{error}");
        }
        let other = adamw.replace("0.9\n", "0.8\n");
        let error = check("kind = \"adamw\"", &other).unwrap_err();
        assert!(
            error.contains("beta1 = 0.9, and the optimizer AdamW says beta1 = 0.8"),
            "{error}"
        );
        assert!(check("kind = \"sgd\"\nmomentum = 0.9", "kind = \"sgd\"").is_err());
        assert!(check("kind = \"sgd\"\nmomentum = 0", "kind = \"sgd\"").is_ok());
        assert!(
            StatedRule::default()
                .check_told(&adamw.parse().unwrap(), "AdamW")
                .is_ok()
        );
        // Every rule's defaults are known.
        for (stated, told) in [
            (
                "kind = \"rmsprop\"",
                "alpha = 0.99\neps = 1e-8\nmomentum = 0\ncentered = false",
            ),
            (
                "kind = \"adagrad\"",
                "lr_decay = 0\neps = 1e-10\ninitial_accumulator_value = 0",
            ),
            (
                "kind = \"lamb\"",
                "beta1 = 0.9\nbeta2 = 0.999\neps = 1e-6\nweight_decay = 0",
            ),
            ("kind = \"lion\"", "beta1 = 0.9\nbeta2 = 0.99"),
            (
                "kind = \"muon\"",
                "momentum = 0.95\nnesterov = true\nbeta1 = 0.9\nbeta2 = 0.95\neps = 1e-8",
            ),
        ] {
            assert_eq!(check(stated, &format!("{stated}\n{told}")), Ok(()));
            assert!(rules_agree(stated, &format!("{stated}\n{told}")));
            let (first, rest) = told.split_once('=').unwrap();
            let rest = rest.split_once('\n').unwrap().1;
            let other = format!("{stated}\n{first} = 0.25\n{rest}");
            assert!(check(stated, &other).is_err(), "{other}");
        }
        // A setting whose default isn't known must be given in one place.
        assert!(check("kind = \"other\"", "kind = \"other\"\nalpha = 0.9").is_err());
    }

    #[test]
    fn only_the_decay_of_a_rule_that_the_optimizer_told_may_change() {
        let told = |decay: f64, beta: f64| -> Table {
            format!("kind = \"adamw\"\nbeta1 = {beta}\nweight_decay = {decay}")
                .parse()
                .unwrap()
        };
        for (origin, word) in [
            (Origin::Optimizer, "first step"),
            (Origin::Trace, "recorded with"),
        ] {
            let rule = rule("kind = \"adamw\"\nbeta1 = 0.9\nweight_decay = 0.1").from(origin);
            assert_eq!(rule.check_told(&told(0.2, 0.9), "AdamW"), Ok(()));
            let error = rule.check_told(&told(0.2, 0.8), "AdamW").unwrap_err();
            assert!(
                error.contains(word) && error.contains("beta1 = 0.8"),
                "{error}"
            );
        }
    }

    #[test]
    fn two_texts_of_one_rule_agree() {
        let adamw = "kind = \"adamw\"";
        assert!(rules_agree(
            adamw,
            "kind = \"adamw\"\nbeta1 = 0.9\nweight_decay = 0.3"
        ));
        assert!(!rules_agree(adamw, "kind = \"adamw\"\nbeta1 = 0.8"));
        assert!(!rules_agree(
            "kind = \"sgd\"\nclip_norm = 1",
            "kind = \"sgd\""
        ));
        assert!(rules_agree("no toml", "no toml") && !rules_agree("no toml", adamw));
    }
}

//! The settings of a rule that were given, as a trace stores them.

use toml::Value;

/// The keys of the text, in their order there, with the values that were given.
pub(super) type Settings = Vec<(&'static str, Option<Value>)>;

/// The settings that every rule has.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(super) struct Common {
    pub weight_decay: Option<f64>,
    pub clip_norm: Option<f64>,
}

impl Common {
    /// Appends them to a rule's own settings.
    pub fn after(self, own: impl IntoIterator<Item = (&'static str, Option<f64>)>) -> Settings {
        let own = own
            .into_iter()
            .map(|(key, value)| (key, value.map(Value::from)));
        own.chain(self.settings()).collect()
    }

    pub fn settings(self) -> Settings {
        vec![
            ("weight_decay", self.weight_decay.map(Value::from)),
            ("clip_norm", self.clip_norm.map(Value::from)),
        ]
    }
}

/// Methods that give one setting each: `name => field;` with the documentation before it.
macro_rules! setters {
    ($($(#[$documentation:meta])* $name:ident => $($field:ident).+;)*) => {
        $($(#[$documentation])*
        pub fn $name(mut self, value: f64) -> Self {
            self.$($field).+ = Some(value);
            self
        })*
    };
}

pub(super) use setters;

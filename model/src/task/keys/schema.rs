//! Reads the JSON Schema of a Task: what each value can be.

use serde_json::{Map, Value};

use super::key::Choice;
use super::words::{Plain, Words};

pub(in crate::task) type Object = Map<String, Value>;

/// The schema of a Task. A schema refers to its definitions by name.
#[derive(Clone, Copy)]
pub(in crate::task) struct Schema<'a> {
    pub(in crate::task) root: &'a Object,
    definitions: Option<&'a Object>,
}

/// What a value can be.
pub(in crate::task) enum Shape<'a> {
    /// A table with these properties.
    Table(&'a Object),
    /// Tables whose keys depend on the value of one key.
    Tagged(&'a str, Vec<&'a Object>),
    /// One of these texts.
    Choice(Vec<Choice>),
    /// A table whose keys are names that the user chooses, and the type of their values.
    Named(&'a Object),
    /// A list of values of this type, of a given length if there is one.
    List(&'a Object, Option<u64>),
    /// One of several types.
    Either(Vec<&'a Object>),
    /// A value of a plain type.
    Plain(Plain),
}

impl<'a> Schema<'a> {
    /// `None` if the schema isn't an object, which that of a Task always is.
    pub(in crate::task) fn new(schema: &'a Value) -> Option<Self> {
        let root = schema.as_object()?;
        let definitions = root.get("$defs").and_then(Value::as_object);
        Some(Self { root, definitions })
    }

    /// What a value can be.
    pub(in crate::task) fn shape(self, value: &'a Object) -> Shape<'a> {
        shape(self.resolve(value).0)
    }

    /// The type of a value in words.
    pub(in crate::task) fn words(self, value: &'a Object) -> Words {
        match self.shape(value) {
            Shape::Table(_) | Shape::Tagged(..) => Words::table(),
            Shape::Choice(_) => Words::plain(Plain::Text),
            Shape::Named(of) => Words::table_of(&self.words(of)),
            Shape::List(item, length) => Words::list_of(&self.words(item), length),
            Shape::Either(types) => {
                let types: Vec<Words> = types.into_iter().map(|t| self.words(t)).collect();
                Words::either(&types)
            }
            Shape::Plain(plain) => Words::plain(plain),
        }
    }

    /// The texts that a value, or each entry of a list, can be. Empty if it isn't a choice.
    pub(in crate::task) fn choices(self, value: &'a Object) -> Vec<Choice> {
        match self.shape(value) {
            Shape::Choice(choices) => choices,
            Shape::List(item, _) => self.choices(item),
            Shape::Either(types) => types.into_iter().flat_map(|t| self.choices(t)).collect(),
            _ => Vec::new(),
        }
    }

    /// The definition that a schema refers to, and its name. An optional value stands for the value.
    pub(in crate::task) fn resolve(self, value: &'a Object) -> (&'a Object, Option<&'a str>) {
        let (mut at, mut name) = (value, None);
        loop {
            let options: Vec<&Object> = objects(at, "anyOf");
            let present = |option: &&&Object| option.get("type") != Some(&Value::from("null"));
            let present: Vec<&&Object> = options.iter().filter(present).collect();
            if let ([one], 2) = (present.as_slice(), options.len()) {
                at = one;
                continue;
            }
            let to = at.get("$ref").and_then(Value::as_str);
            let to = to.and_then(|to| to.strip_prefix("#/$defs/"));
            let found = to.and_then(|to| Some((to, self.definitions?.get(to)?.as_object()?)));
            let Some((to, definition)) = found else {
                return (at, name);
            };
            (at, name) = (definition, Some(to));
        }
    }
}

/// What a schema without references can be.
fn shape(object: &Object) -> Shape<'_> {
    let (variants, types) = (objects(object, "oneOf"), objects(object, "anyOf"));
    if let Some(tag) = variants.first().and_then(|first| tag(first)) {
        return Shape::Tagged(tag, variants);
    }
    if !variants.is_empty() {
        let named: Vec<Choice> = variants.iter().flat_map(|v| constants(v)).collect();
        // Some variants of an enum can be texts and others tables.
        return if variants.iter().all(|v| !constants(v).is_empty()) {
            Shape::Choice(named)
        } else {
            Shape::Either(variants)
        };
    }
    if !types.is_empty() {
        return Shape::Either(types);
    }
    let named = constants(object);
    if !named.is_empty() {
        return Shape::Choice(named);
    }
    if object.contains_key("properties") {
        return Shape::Table(object);
    }
    let of = object.get("additionalProperties");
    if let Some(of) = of.and_then(Value::as_object) {
        return Shape::Named(of);
    }
    let bound = |key: &str| object.get(key).and_then(Value::as_u64);
    if let Some(item) = object.get("items").and_then(Value::as_object) {
        let length = bound("minItems").filter(|least| Some(*least) == bound("maxItems"));
        return Shape::List(item, length);
    }
    let name = match object.get("type") {
        // An optional value has two types, and the other is null.
        Some(Value::Array(names)) => names.first().and_then(Value::as_str),
        name => name.and_then(Value::as_str),
    };
    Shape::Plain(match (name, bound("maxLength")) {
        (Some("integer"), _) if object.contains_key("minimum") => Plain::Whole,
        (Some("integer"), _) => Plain::Signed,
        (Some("number"), _) => Plain::Number,
        (Some("boolean"), _) => Plain::Truth,
        (_, Some(1)) => Plain::Character,
        _ => Plain::Text,
    })
}

/// The texts that a schema of texts accepts: one constant, or a list of them.
fn constants(object: &Object) -> Vec<Choice> {
    let about = text(object);
    let listed = object.get("enum").and_then(Value::as_array);
    let names = object.get("const").into_iter();
    names
        .chain(listed.into_iter().flatten())
        .filter_map(Value::as_str)
        .map(|name| Choice {
            name: name.to_owned(),
            text: about.clone(),
        })
        .collect()
}

/// The key of a table that has one constant value.
fn tag(object: &Object) -> Option<&str> {
    let mut names = properties(object).map(|(name, _)| name);
    names.find(|name| constant(object, name).is_some())
}

/// The constant value of a key.
pub(in crate::task) fn constant<'a>(object: &'a Object, key: &str) -> Option<&'a str> {
    object.get("properties")?.get(key)?.get("const")?.as_str()
}

/// The keys of a table, with the types of their values.
pub(in crate::task) fn properties(object: &Object) -> impl Iterator<Item = (&str, &Object)> {
    let properties = object.get("properties").and_then(Value::as_object);
    let pairs = properties.into_iter().flatten();
    pairs.filter_map(|(name, value)| Some((name.as_str(), value.as_object()?)))
}

/// The names of the keys that a table must have.
pub(in crate::task) fn required(object: &Object) -> Vec<&str> {
    let names = object.get("required").and_then(Value::as_array);
    names
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect()
}

/// The first paragraph of a comment, on one line.
pub(super) fn text(object: &Object) -> String {
    let whole = object.get("description").and_then(Value::as_str);
    let first = whole.unwrap_or_default().split("\n\n").next();
    first.unwrap_or_default().replace('\n', " ")
}

fn objects<'a>(object: &'a Object, keyword: &str) -> Vec<&'a Object> {
    let list = object.get(keyword).and_then(Value::as_array);
    list.into_iter()
        .flatten()
        .filter_map(Value::as_object)
        .collect()
}

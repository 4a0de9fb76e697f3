//! The order in which the types declare their keys. A schema is sorted by name.

use serde::de::value::Error;
use serde::de::{Deserialize, Deserializer, Error as _, Visitor};

use crate::data::{
    AugmentSpec, DataSpec, DocumentsSpec, ImagesSpec, MissingSpec, Pair, TextSpec, TfidfSpec,
};
use crate::task::layers::ModelSpec;
use crate::task::loss::LossSpec;
use crate::task::spec::Task;
use crate::task::training::TrainSpec;

/// The names of each struct's fields, in the order of declaration.
pub(super) fn declared() -> Vec<&'static [&'static str]> {
    vec![
        fields::<Task>(),
        fields::<DataSpec>(),
        fields::<Pair>(),
        fields::<DocumentsSpec>(),
        fields::<TextSpec>(),
        fields::<ImagesSpec>(),
        fields::<MissingSpec>(),
        fields::<TfidfSpec>(),
        fields::<ModelSpec>(),
        fields::<LossSpec>(),
        fields::<TrainSpec>(),
        fields::<AugmentSpec>(),
    ]
}

/// The names of a struct's fields.
fn fields<T: for<'de> Deserialize<'de>>() -> &'static [&'static str] {
    let mut names: &'static [&'static str] = &[];
    // It always fails: the names are all that is asked for.
    let _ = T::deserialize(Names(&mut names));
    names
}

/// Takes the names of the fields with which a struct asks to be deserialised.
struct Names<'a>(&'a mut &'static [&'static str]);

impl<'de> Deserializer<'de> for Names<'_> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, _visitor: V) -> Result<V::Value, Error> {
        Err(Error::custom("not a struct"))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        _visitor: V,
    ) -> Result<V::Value, Error> {
        *self.0 = fields;
        Err(Error::custom("only the names are asked for"))
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

//! Serde over YAML with positions: an error knows the line of what it is about.
//!
//! Tagged enums make serde copy a map before it looks into it, and errors met in the copy know
//! nothing of lines. They are raised at the map's line, and [`refine`] finds the key or value that
//! their text quotes.

use std::fmt;

use serde::de::value::StringDeserializer;
use serde::de::{
    DeserializeSeed, Deserializer, EnumAccess, IntoDeserializer, MapAccess, SeqAccess, Unexpected,
    VariantAccess, Visitor,
};
use serde::forward_to_deserialize_any;

use crate::rule::yaml::{Entry, Node, Value};

/// Why a node is not what it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Error {
    /// The line it is about; `None` where serde did not say.
    pub(crate) line: Option<usize>,
    /// What serde says.
    pub(crate) message: String,
}

impl Error {
    fn at(mut self, line: usize) -> Error {
        self.line.get_or_insert(line);
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

impl serde::de::Error for Error {
    fn custom<T: fmt::Display>(message: T) -> Error {
        Error { line: None, message: message.to_string() }
    }
}

/// Reads a value out of a node.
///
/// # Errors
/// The first thing that is wrong.
pub(crate) fn read<'de, T: serde::Deserialize<'de>>(node: &'de Node) -> Result<T, Error> {
    T::deserialize(Reader(node))
}

/// A node as serde sees it.
#[derive(Clone, Copy)]
struct Reader<'n>(&'n Node);

impl<'de> Deserializer<'de> for Reader<'de> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let line = self.0.line;
        let read = match &self.0.value {
            Value::Null => visitor.visit_unit(),
            Value::Bool(value) => visitor.visit_bool(*value),
            Value::Integer(text) => match (text.parse::<u64>(), text.parse::<i64>()) {
                (Ok(number), _) => visitor.visit_u64(number),
                (_, Ok(number)) => visitor.visit_i64(number),
                _ => Err(serde::de::Error::invalid_value(Unexpected::Str(text), &visitor)),
            },
            Value::Float(number) => visitor.visit_f64(*number),
            Value::Text(text) => visitor.visit_borrowed_str(text),
            Value::List(items) => visitor.visit_seq(Items(items.iter())),
            Value::Map(entries) => visitor.visit_map(Entries { rest: entries.iter(), value: None }),
        };
        read.map_err(|error| error.at(line))
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.0.value {
            Value::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    /// Empty sections (`rules:`) are what they are without any key.
    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        match &self.0.value {
            Value::Null => visitor
                .visit_map(Entries { rest: [].iter(), value: None })
                .map_err(|error: Error| error.at(self.0.line)),
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self).map_err(|error: Error| error.at(self.0.line))
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        let read = match self.0.scalar_text() {
            Some(text) => visitor.visit_enum(Word(text)),
            None => self.deserialize_any(visitor),
        };
        read.map_err(|error| error.at(self.0.line))
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit
        unit_struct seq tuple tuple_struct map identifier ignored_any
    }
}

impl<'de> IntoDeserializer<'de, Error> for Reader<'de> {
    type Deserializer = Reader<'de>;

    fn into_deserializer(self) -> Reader<'de> {
        self
    }
}

/// An enum's variant without content.
struct Word(String);

impl<'de> EnumAccess<'de> for Word {
    type Error = Error;
    type Variant = Word;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Word), Error> {
        let name: StringDeserializer<Error> = self.0.clone().into_deserializer();
        Ok((seed.deserialize(name)?, self))
    }
}

impl<'de> VariantAccess<'de> for Word {
    type Error = Error;

    fn unit_variant(self) -> Result<(), Error> {
        Ok(())
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, _seed: T) -> Result<T::Value, Error> {
        Err(self.lacks_content())
    }

    fn tuple_variant<V: Visitor<'de>>(self, _len: usize, _visitor: V) -> Result<V::Value, Error> {
        Err(self.lacks_content())
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        _fields: &'static [&'static str],
        _visitor: V,
    ) -> Result<V::Value, Error> {
        Err(self.lacks_content())
    }
}

impl Word {
    fn lacks_content(&self) -> Error {
        serde::de::Error::custom(format_args!("`{}` needs keys of its own", self.0))
    }
}

struct Items<'n>(std::slice::Iter<'n, Node>);

impl<'de> SeqAccess<'de> for Items<'de> {
    type Error = Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Error> {
        let Some(item) = self.0.next() else { return Ok(None) };
        seed.deserialize(Reader(item)).map(Some).map_err(|error| error.at(item.line))
    }
}

struct Entries<'n> {
    rest: std::slice::Iter<'n, Entry>,
    value: Option<&'n Entry>,
}

impl<'de> MapAccess<'de> for Entries<'de> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Error> {
        self.value = self.rest.next();
        let Some(entry) = self.value else { return Ok(None) };
        let key: StringDeserializer<Error> = entry.key.clone().into_deserializer();
        seed.deserialize(key).map(Some).map_err(|error| error.at(entry.line))
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Error> {
        let entry = self.value.take().ok_or_else(|| {
            <Error as serde::de::Error>::custom("a value was asked for before its key")
        })?;
        seed.deserialize(Reader(&entry.value)).map_err(|error| error.at(entry.line))
    }
}

/// The line of the key, or of the value, that the message quotes, where it is in the map that
/// stands at the error's line.
pub(crate) fn refine(root: &Node, error: &Error) -> usize {
    let line = error.line.unwrap_or(root.line);
    let quoted = quoted(&error.message);
    let is_missing = error.message.contains("missing field");
    let is_key = error.message.contains("unknown field");
    if is_missing {
        return line;
    }
    let place = map_at(root, line).unwrap_or(root);
    let found = quoted
        .iter()
        .find_map(|word| if is_key { key_line(place, word) } else { value_line(place, word) });
    found.unwrap_or(line)
}

/// Texts between backticks or double quotes.
fn quoted(message: &str) -> Vec<String> {
    let mut found = Vec::new();
    for quote in ['`', '"'] {
        let parts = message.split(quote).skip(1).step_by(2);
        found.extend(parts.filter(|part| !part.is_empty()).map(str::to_owned));
    }
    found
}

/// The outermost map that begins at the line, the root aside.
fn map_at(node: &Node, line: usize) -> Option<&Node> {
    let children: Vec<&Node> = match &node.value {
        Value::List(items) => items.iter().collect(),
        Value::Map(entries) => entries.iter().map(|entry| &entry.value).collect(),
        _ => return None,
    };
    let here = children
        .iter()
        .copied()
        .find(|child| child.line == line && matches!(child.value, Value::Map(_)));
    here.or_else(|| children.into_iter().find_map(|child| map_at(child, line)))
}

fn key_line(node: &Node, key: &str) -> Option<usize> {
    match &node.value {
        Value::Map(entries) => entries.iter().find_map(|entry| {
            if entry.key == key { Some(entry.line) } else { key_line(&entry.value, key) }
        }),
        Value::List(items) => items.iter().find_map(|item| key_line(item, key)),
        _ => None,
    }
}

fn value_line(node: &Node, value: &str) -> Option<usize> {
    match &node.value {
        Value::Map(entries) => entries.iter().find_map(|entry| value_line(&entry.value, value)),
        Value::List(items) => items.iter().find_map(|item| value_line(item, value)),
        _ => node.scalar_text().filter(|text| text == value).map(|_| node.line),
    }
}

//! Messages, lists and their fields: what lies between serde's visitors and the OTLP messages.
//!
//! Nothing here collects: a [`Message`] is handed its fields and a [`List`] its items as they are read.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use serde::de::{
    Deserialize, DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor,
};
use serde_json::value::RawValue;

use super::scalar::{self, Id};

/// An OTLP message, filled field by field.
pub(super) trait Message<'a> {
    /// What stands in its place in the error when something else does.
    const EXPECTED: &'static str;

    /// Takes one field. Unknown ones are to be skipped.
    fn field<A: MapAccess<'a>>(
        &mut self,
        name: &str,
        field: Field<'_, 'a, A>,
    ) -> Result<(), A::Error>;
}

/// A repeated field, taken item by item.
pub(super) trait List<'a> {
    /// What stands in its place in the error when something else does.
    const EXPECTED: &'static str;

    /// Takes the next item; `false` when there is none.
    fn next<A: SeqAccess<'a>>(&mut self, items: &mut A) -> Result<bool, A::Error>;
}

/// Reads an object into a message. Gives `false` for null.
pub(super) struct ReadMessage<'m, M>(pub(super) &'m mut M);

impl<'a, M: Message<'a>> DeserializeSeed<'a> for ReadMessage<'_, M> {
    type Value = bool;

    fn deserialize<D: Deserializer<'a>>(self, deserializer: D) -> Result<bool, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'a, M: Message<'a>> Visitor<'a> for ReadMessage<'_, M> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(M::EXPECTED)
    }

    fn visit_unit<E: Error>(self) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_map<A: MapAccess<'a>>(self, mut map: A) -> Result<bool, A::Error> {
        while let Some(Text(name)) = map.next_key()? {
            let field = Field {
                map: &mut map,
                body: PhantomData,
            };
            self.0.field(name.as_deref().unwrap_or_default(), field)?;
        }
        Ok(true)
    }
}

/// Reads an array through a list. Null is an empty one.
pub(super) struct ReadList<'m, L>(pub(super) &'m mut L);

impl<'a, L: List<'a>> DeserializeSeed<'a> for ReadList<'_, L> {
    type Value = ();

    fn deserialize<D: Deserializer<'a>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'a, L: List<'a>> Visitor<'a> for ReadList<'_, L> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(L::EXPECTED)
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'a>>(self, mut items: A) -> Result<(), A::Error> {
        while self.0.next(&mut items)? {}
        Ok(())
    }
}

/// The value of one field, to be read exactly once.
#[must_use = "a field that is not read leaves the parser in front of its value"]
pub(super) struct Field<'m, 'a, A> {
    map: &'m mut A,
    body: PhantomData<&'a str>,
}

impl<'a, A: MapAccess<'a>> Field<'_, 'a, A> {
    /// Passes over the value. Nesting costs a byte a level, not the stack.
    pub(super) fn skip(self) -> Result<(), A::Error> {
        self.map.next_value::<IgnoredAny>().map(drop)
    }

    /// Passes over the value and keeps where it stands; `None` for null.
    pub(super) fn raw(self) -> Result<Option<&'a RawValue>, A::Error> {
        let raw: &RawValue = self.map.next_value()?;
        Ok(Some(raw).filter(|raw| raw.get() != "null"))
    }

    /// As [`Field::raw`], for a list of records: a second one in the same object is an error.
    pub(super) fn raw_once(self, into: &mut Option<&'a RawValue>) -> Result<(), A::Error> {
        let Some(raw) = self.raw()? else {
            return Ok(());
        };
        match into.replace(raw) {
            None => Ok(()),
            Some(_) => Err(A::Error::custom("a list of records stands twice")),
        }
    }

    /// A message; `false` for null.
    pub(super) fn message<M: Message<'a>>(self, message: &mut M) -> Result<bool, A::Error> {
        self.map.next_value_seed(ReadMessage(message))
    }

    /// A repeated field.
    pub(super) fn list<L: List<'a>>(self, list: &mut L) -> Result<(), A::Error> {
        self.map.next_value_seed(ReadList(list))
    }

    /// A string; `None` for null.
    pub(super) fn optional_text(self) -> Result<Option<Cow<'a, str>>, A::Error> {
        let Text(text) = self.map.next_value()?;
        Ok(text)
    }

    /// A string; empty for null.
    pub(super) fn text(self) -> Result<Cow<'a, str>, A::Error> {
        self.optional_text().map(Option::unwrap_or_default)
    }

    /// A boolean; `None` for null.
    pub(super) fn boolean(self) -> Result<Option<bool>, A::Error> {
        self.map.next_value()
    }

    /// An integer of any width; `None` for null.
    pub(super) fn optional_int<T: TryFrom<i128>>(self) -> Result<Option<T>, A::Error> {
        scalar::int(self.map.next_value()?).map_err(A::Error::custom)
    }

    /// An integer of any width; 0 for null.
    pub(super) fn int<T: TryFrom<i128> + Default>(self) -> Result<T, A::Error> {
        self.optional_int().map(Option::unwrap_or_default)
    }

    /// A double; `None` for null.
    pub(super) fn optional_double(self) -> Result<Option<f64>, A::Error> {
        scalar::double(self.map.next_value()?).map_err(A::Error::custom)
    }

    /// A double; 0 for null.
    pub(super) fn double(self) -> Result<f64, A::Error> {
        self.optional_double().map(Option::unwrap_or_default)
    }

    /// An enum's number; 0 for null. `number_of` knows its names.
    pub(super) fn enumeration(self, number_of: fn(&str) -> Option<i32>) -> Result<i32, A::Error> {
        scalar::enumeration(self.map.next_value()?, number_of).map_err(A::Error::custom)
    }

    /// A trace or span id; empty for null.
    pub(super) fn id(self) -> Result<Id, A::Error> {
        self.text().map(|text| Id::from_hex(&text))
    }

    /// Bytes in base64; `None` for null.
    pub(super) fn bytes(self) -> Result<Option<Vec<u8>>, A::Error> {
        let text = self.optional_text()?;
        text.map(|text| scalar::base64(&text))
            .transpose()
            .map_err(A::Error::custom)
    }
}

/// A JSON string, borrowed from the body where it has no escapes; `None` for null.
struct Text<'a>(Option<Cow<'a, str>>);

impl<'a> Deserialize<'a> for Text<'a> {
    fn deserialize<D: Deserializer<'a>>(deserializer: D) -> Result<Text<'a>, D::Error> {
        struct TextVisitor;
        impl<'a> Visitor<'a> for TextVisitor {
            type Value = Text<'a>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_unit<E: Error>(self) -> Result<Text<'a>, E> {
                Ok(Text(None))
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Text<'a>, E> {
                Ok(Text(Some(Cow::Owned(text.to_owned()))))
            }

            fn visit_borrowed_str<E: Error>(self, text: &'a str) -> Result<Text<'a>, E> {
                Ok(Text(Some(Cow::Borrowed(text))))
            }
        }
        deserializer.deserialize_any(TextVisitor)
    }
}

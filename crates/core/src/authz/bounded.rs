//! Lists in texts, read no further than their limit: a longer list is never held.

use core::fmt;
use core::marker::PhantomData;
use std::collections::BTreeMap;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};

struct AtMost<const MAX: usize, T>(PhantomData<T>);

fn more<E: Error>(max: usize) -> E {
    E::custom(format_args!("a list is longer than {max}"))
}

impl<'de, const MAX: usize, T: Deserialize<'de>> Visitor<'de> for AtMost<MAX, T> {
    type Value = Vec<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a list of at most {MAX}")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Vec<T>, A::Error> {
        let mut read = Vec::new();
        while let Some(element) = list.next_element()? {
            if read.len() == MAX {
                return Err(more(MAX));
            }
            read.push(element);
        }
        Ok(read)
    }
}

/// Reads a list of at most `MAX`.
pub(super) fn at_most<'de, const MAX: usize, T, D>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    T: Deserialize<'de>,
    D: Deserializer<'de>,
{
    deserializer.deserialize_seq(AtMost::<MAX, T>(PhantomData))
}

/// A list of at most `MAX`, as a value of a map.
struct List<const MAX: usize>(Vec<String>);

impl<'de, const MAX: usize> Deserialize<'de> for List<MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        at_most::<MAX, _, _>(deserializer).map(Self)
    }
}

struct ByName<const MAX: usize>;

impl<'de, const MAX: usize> Visitor<'de> for ByName<MAX> {
    type Value = BTreeMap<String, Vec<String>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at most {MAX} lists, each of at most {MAX}, by name")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut read = BTreeMap::new();
        while let Some((name, List(list))) = map.next_entry::<String, List<MAX>>()? {
            if read.len() == MAX {
                return Err(more(MAX));
            }
            read.insert(name, list);
        }
        Ok(read)
    }
}

/// Reads at most `MAX` lists by name, each of at most `MAX`.
pub(super) fn by_name_at_most<'de, const MAX: usize, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<BTreeMap<String, Vec<String>>, D::Error> {
    deserializer.deserialize_map(ByName::<MAX>)
}

//! Maps and sets that keep a digest of what they hold. Each change updates it, so that a whole state is digested
//! without being read.
//!
//! The digest of a table is the sum of the digests of its entries, eight numbers of 64 bits each, so it does not depend
//! on the order in which they came. It finds states that came to differ. It is no commitment: a member that lies about
//! its state may as well lie about the digest.
//!
//! A table answers by key. Reading all entries is a call of its own, [`Table::scan`], since commands, checks and what
//! follows each change must not take time by what is on record: `cargo xtask tidy` lists the files that may call it.

use core::borrow::Borrow;
use core::fmt;
use core::ops::{Index, RangeBounds};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::map::{Map, Set};

/// The digest of the entries of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sum([u64; 8]);

impl Sum {
    /// Of one entry: what follows from its encoding. Every entry that a state holds has one.
    pub(crate) fn of<T: Serialize>(entry: &T) -> Self {
        let bytes = postcard::to_allocvec(entry).unwrap_or_default();
        let mut digest = [0; 64];
        blake3::Hasher::new_derive_key("countersign v1 entry of a table")
            .update(&bytes)
            .finalize_xof()
            .fill(&mut digest);
        let mut sum = [0; 8];
        for (number, bytes) in sum.iter_mut().zip(digest.as_chunks::<8>().0) {
            *number = u64::from_be_bytes(*bytes);
        }
        Self(sum)
    }

    pub(crate) fn add(&mut self, other: Self) {
        self.0.iter_mut().zip(other.0).for_each(|(number, other)| *number = number.wrapping_add(other));
    }

    pub(crate) fn subtract(&mut self, other: Self) {
        self.0.iter_mut().zip(other.0).for_each(|(number, other)| *number = number.wrapping_sub(other));
    }

    /// As bytes, to be digested with the rest of a state.
    pub fn to_bytes(self) -> [u8; 64] {
        let mut bytes = [0; 64];
        for (bytes, number) in bytes.as_chunks_mut::<8>().0.iter_mut().zip(self.0) {
            *bytes = number.to_be_bytes();
        }
        bytes
    }
}

/// A map with the digest of its entries.
pub struct Table<K: Ord, V> {
    map: Map<K, V>,
    sum: Sum,
}

/// A set with the digest of its keys.
pub struct TableSet<K: Ord> {
    set: Set<K>,
    sum: Sum,
}

impl<K: Ord, V> Table<K, V> {
    /// An empty table.
    pub fn new() -> Self {
        Self::default()
    }

    /// The digest of the entries.
    pub const fn sum(&self) -> Sum {
        self.sum
    }

    /// How many entries it has.
    pub fn len(&self) -> usize {
        self.map.len()
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.map.is_empty()
    }

    /// The value of a key.
    pub fn get(&self, key: &K) -> Option<&V> {
        self.map.get(key)
    }

    /// Whether it has the key.
    pub fn contains_key(&self, key: &K) -> bool {
        self.map.contains_key(key)
    }

    /// The entries whose keys are within `range`.
    pub fn range(&self, range: impl RangeBounds<K>) -> impl DoubleEndedIterator<Item = (&K, &V)> {
        self.map.range(range)
    }

    /// The entry of the highest key.
    pub fn last_key_value(&self) -> Option<(&K, &V)> {
        self.map.last_key_value()
    }

    /// All entries: for lists that an operator asks for, for whole copies, and for checks of the whole state.
    pub const fn scan(&self) -> &Map<K, V> {
        &self.map
    }
}

impl<K: Ord + Clone + Serialize, V: Clone + Serialize> Table<K, V> {
    /// Enters a value in place of the one before.
    pub fn insert(&mut self, key: K, value: V) {
        if let Some(before) = self.map.get(&key) {
            self.sum.subtract(Sum::of(&(&key, before)));
        }
        self.sum.add(Sum::of(&(&key, &value)));
        self.map.insert(key, value);
    }

    /// Takes an entry out. None if there was none.
    pub fn remove(&mut self, key: &K) -> Option<V> {
        let value = self.map.remove(key)?;
        self.sum.subtract(Sum::of(&(key, &value)));
        Some(value)
    }

    /// Changes a value. None if there is none.
    pub fn update<T>(&mut self, key: &K, change: impl FnOnce(&mut V) -> T) -> Option<T> {
        let mut value = self.map.get(key).cloned()?;
        let done = change(&mut value);
        self.insert(key.clone(), value);
        Some(done)
    }
}

impl<K: Ord + Clone + Serialize> TableSet<K> {
    /// An empty set.
    pub fn new() -> Self {
        Self::default()
    }

    /// The digest of the keys.
    pub const fn sum(&self) -> Sum {
        self.sum
    }

    /// How many it has.
    pub fn len(&self) -> usize {
        self.set.len()
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.set.is_empty()
    }

    /// Whether it has this one.
    pub fn contains(&self, key: &K) -> bool {
        self.set.contains(key)
    }

    /// Those within `range`.
    pub fn range(&self, range: impl RangeBounds<K>) -> impl DoubleEndedIterator<Item = &K> {
        self.set.range(range)
    }

    /// All of them, as [`Table::scan`] has it.
    pub const fn scan(&self) -> &Set<K> {
        &self.set
    }

    /// Puts one in. False if it is there already.
    pub fn insert(&mut self, key: K) -> bool {
        let news = !self.set.contains(&key);
        if news {
            self.sum.add(Sum::of(&key));
            self.set.insert(key);
        }
        news
    }

    /// Takes one out. False if it is not there.
    pub fn remove<Q: Ord + Serialize + ?Sized>(&mut self, key: &Q) -> bool
    where
        K: Borrow<Q>,
    {
        let gone = self.set.remove(key);
        if gone {
            self.sum.subtract(Sum::of(&key));
        }
        gone
    }
}

impl<K: Ord, V> Index<&K> for Table<K, V> {
    type Output = V;

    #[allow(clippy::indexing_slicing, reason = "as of a BTreeMap, whose users this replaces: tests")]
    fn index(&self, key: &K) -> &V {
        &self.map[key]
    }
}

impl<K: Ord, V> Clone for Table<K, V> {
    fn clone(&self) -> Self {
        Self { map: self.map.clone(), sum: self.sum }
    }
}

impl<K: Ord> Clone for TableSet<K> {
    fn clone(&self) -> Self {
        Self { set: self.set.clone(), sum: self.sum }
    }
}

impl<K: Ord, V> Default for Table<K, V> {
    fn default() -> Self {
        Self { map: Map::default(), sum: Sum::default() }
    }
}

impl<K: Ord> Default for TableSet<K> {
    fn default() -> Self {
        Self { set: Set::default(), sum: Sum::default() }
    }
}

impl<K: Ord, V: PartialEq> PartialEq for Table<K, V> {
    fn eq(&self, other: &Self) -> bool {
        self.sum == other.sum && self.map == other.map
    }
}

impl<K: Ord, V: Eq> Eq for Table<K, V> {}

impl<K: Ord> PartialEq for TableSet<K> {
    fn eq(&self, other: &Self) -> bool {
        self.sum == other.sum && self.set == other.set
    }
}

impl<K: Ord> Eq for TableSet<K> {}

impl<K: Ord + fmt::Debug, V: fmt::Debug> fmt::Debug for Table<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.map.fmt(f)
    }
}

impl<K: Ord + fmt::Debug> fmt::Debug for TableSet<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.set.fmt(f)
    }
}

impl<K: Ord + Clone + Serialize, V: Clone + Serialize> Extend<(K, V)> for Table<K, V> {
    fn extend<I: IntoIterator<Item = (K, V)>>(&mut self, entries: I) {
        entries.into_iter().for_each(|(key, value)| self.insert(key, value));
    }
}

impl<K: Ord + Clone + Serialize, V: Clone + Serialize> FromIterator<(K, V)> for Table<K, V> {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(entries: I) -> Self {
        let mut table = Self::new();
        table.extend(entries);
        table
    }
}

impl<K: Ord + Clone + Serialize, V: Clone + Serialize, const N: usize> From<[(K, V); N]> for Table<K, V> {
    fn from(entries: [(K, V); N]) -> Self {
        entries.into_iter().collect()
    }
}

impl<K: Ord + Clone + Serialize, V: Clone + Serialize> From<std::collections::BTreeMap<K, V>> for Table<K, V> {
    fn from(entries: std::collections::BTreeMap<K, V>) -> Self {
        entries.into_iter().collect()
    }
}

impl<K: Ord + Clone + Serialize> Extend<K> for TableSet<K> {
    fn extend<I: IntoIterator<Item = K>>(&mut self, keys: I) {
        keys.into_iter().for_each(|key| {
            self.insert(key);
        });
    }
}

impl<K: Ord + Clone + Serialize> FromIterator<K> for TableSet<K> {
    fn from_iter<I: IntoIterator<Item = K>>(keys: I) -> Self {
        let mut set = Self::new();
        set.extend(keys);
        set
    }
}

impl<K: Ord + Serialize, V: Serialize> Serialize for Table<K, V> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.map.serialize(serializer)
    }
}

impl<K: Ord + Serialize> Serialize for TableSet<K> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.set.serialize(serializer)
    }
}

impl<'de, K, V> Deserialize<'de> for Table<K, V>
where
    K: Ord + Clone + Serialize + Deserialize<'de>,
    V: Clone + Serialize + Deserialize<'de>,
{
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let map = Map::<K, V>::deserialize(deserializer)?;
        let mut sum = Sum::default();
        map.iter().for_each(|entry| sum.add(Sum::of(&entry)));
        Ok(Self { map, sum })
    }
}

impl<'de, K: Ord + Clone + Serialize + Deserialize<'de>> Deserialize<'de> for TableSet<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let set = Set::<K>::deserialize(deserializer)?;
        let mut sum = Sum::default();
        set.iter().for_each(|key| sum.add(Sum::of(key)));
        Ok(Self { set, sum })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::codec;

    proptest! {
        /// However a table came to hold its entries, it has the digest of one that was read with them; another has
        /// another.
        #[test]
        fn digest_of_a_table_follows_from_what_it_holds(
            done in prop::collection::vec((0_u8..16, prop::option::of(any::<u8>())), 0..64),
            (key, value) in (0_u8..16, any::<u8>()),
        ) {
            let (mut table, mut set) = (Table::new(), TableSet::new());
            for (key, value) in done {
                match value {
                    Some(0) => drop(table.update(&key, |value| *value = 7)),
                    Some(value) => {
                        table.insert(key, value);
                        set.insert(key);
                    }
                    None => {
                        table.remove(&key);
                        set.remove(&key);
                    }
                }
            }
            let again: Table<u8, u8> = codec::decode(&codec::encode(&table).unwrap()).unwrap();
            prop_assert_eq!((again.sum(), &again), (table.sum(), &table));
            let again: TableSet<u8> = codec::decode(&codec::encode(&set).unwrap()).unwrap();
            prop_assert_eq!((again.sum(), &again), (set.sum(), &set));
            let (mut other, mut other_set) = (table.clone(), set.clone());
            other.insert(key, value);
            other_set.insert(key);
            prop_assert_eq!(other.sum() == table.sum(), other.scan() == table.scan());
            prop_assert_eq!(other_set.sum() == set.sum(), other_set.scan() == set.scan());
        }
    }

    #[test]
    fn key_and_value_are_told_apart_and_nothing_is_zero() {
        let of = |entries: &[(&str, &str)]| {
            entries.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect::<Table<String, String>>().sum()
        };
        assert_ne!(of(&[("a", "b"), ("c", "d")]), of(&[("a", "d"), ("c", "b")]));
        assert_ne!(of(&[("ab", "c")]), of(&[("a", "bc")]));
        assert_eq!(of(&[]), Sum::default());
        assert_eq!(of(&[("a", "b"), ("c", "d")]), of(&[("c", "d"), ("a", "b")]));
    }
}

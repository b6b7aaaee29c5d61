//! One group of rules, compiled: what it says of a name in one look-up, however many rules there are.
//!
//! Names that no rule has are found by the longest prefix that one has. So the table keeps the names that rules have,
//! never those that callers ask for.

use std::cmp::Ordering;
use std::hash::{BuildHasher, Hasher};
use std::net::IpAddr;
use std::sync::Arc;

use countersign_core::authz::{Effect, Group, Kind, NamePattern, Rule};
use countersign_core::time::UnixMillis;
use hashbrown::{DefaultHashBuilder, HashTable};

/// What unconditional rules say, and where the others are.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Cell {
    pub(crate) allow: u8,
    pub(crate) deny: u8,
    /// One more than the place of a list of conditional rules; zero for none.
    conditional: u32,
}

struct Exact {
    name: Arc<str>,
    cell: Cell,
}

struct Prefix {
    /// The first bytes of the text, which most comparisons end with.
    head: u128,
    /// The bits of a head that are of the text.
    bits: u128,
    text: Arc<str>,
    cell: Cell,
    /// One more than the place of the longest shorter prefix of it; zero for none.
    parent: u32,
}

impl Prefix {
    fn new(text: &Arc<str>, cell: Cell) -> Self {
        let beyond = u32::try_from(HEAD_LEN.saturating_sub(text.len())).unwrap_or(0) * 8;
        let bits = u128::MAX.checked_shl(beyond).unwrap_or(0);
        Self { head: head(text), bits, text: Arc::clone(text), cell, parent: 0 }
    }

    /// Whether `name`, whose head is given, begins with it.
    #[inline]
    fn begins(&self, name: &str, begins: u128) -> bool {
        (self.head ^ begins) & self.bits == 0
            && name.len() >= self.text.len()
            && (self.text.len() <= HEAD_LEN || name.starts_with(&*self.text))
    }
}

/// So many are looked at one by one in the time that a search takes.
const FEW: usize = 4;

const HEAD_LEN: usize = size_of::<u128>();

/// The first bytes of a text, zeros after its end: ordered as texts are, as far as they differ in these.
#[inline]
fn head(text: &str) -> u128 {
    let bytes = text.as_bytes();
    if let Some(first) = bytes.first_chunk() {
        return u128::from_be_bytes(*first);
    }
    let (Some(first), Some(last)) = (bytes.first_chunk(), bytes.last_chunk()) else {
        return bytes.iter().rev().fold(0, |head, byte| head >> 8 | u128::from(*byte) << 120);
    };
    // The last eight bytes, without those that are among the first.
    let shift = u32::try_from(HEAD_LEN - bytes.len()).unwrap_or(0) * 8;
    let rest = u64::from_be_bytes(*last).checked_shl(shift).unwrap_or(0);
    u128::from(u64::from_be_bytes(*first)) << 64 | u128::from(rest)
}

/// One of 64 bits by the first byte of a text.
#[inline]
fn bit(text: &str) -> u64 {
    1 << (text.as_bytes().first().unwrap_or(&0) & 63)
}

/// The rules of a group that are about things of one kind, compiled.
pub(crate) struct Cells {
    kind: Kind,
    any: Cell,
    exact: HashTable<Exact>,
    /// The [`bit`]s of all of these: most names begin like none of them.
    exact_bits: u64,
    /// In the order of their texts.
    prefixes: Vec<Prefix>,
    prefix_bits: u64,
    conditional: Vec<Conditional>,
}

/// Conditional rules of one pattern, and where those of wider ones are.
struct Conditional {
    rules: Box<[Arc<Rule>]>,
    /// One more than the place of the next; zero for none.
    wider: u32,
}

/// What conditional rules say.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Said {
    pub(crate) allow: u8,
    pub(crate) deny: u8,
    /// The first moment at which one of them is over.
    pub(crate) until: Option<UnixMillis>,
}

impl Cell {
    /// Whether there are rules that depend on where a request comes from, or when.
    #[inline]
    pub(crate) const fn is_conditional(self) -> bool {
        self.conditional != 0
    }
}

/// A group, compiled: what it says of each kind that it says anything of.
///
/// Distant memory is read in loops of its own, whose reads do not wait for each other.
pub(crate) fn compile(source: &Group, hasher: &DefaultHashBuilder) -> Vec<Arc<Cells>> {
    let entries: Vec<_> = source.iter().map(|((kind, pattern), rules)| (kind, pattern, rules)).collect();
    let of_one_kind = entries.chunk_by(|(a, ..), (b, ..)| a == b);
    let compiled = of_one_kind.filter_map(|entries| {
        let mut cells = Cells::new(entries.first()?.0.clone());
        let hashes: Vec<u64> = entries.iter().map(|(_, pattern, _)| hash(hasher, pattern.text())).collect();
        cells.exact.reserve(entries.len(), |exact| hash(hasher, &exact.name));
        // In the order of patterns: any, exact names, prefixes.
        for ((_, pattern, rules), hash) in entries.iter().zip(hashes) {
            cells.put(pattern, rules, hash, hasher);
        }
        cells.inherit();
        Some(Arc::new(cells))
    });
    compiled.collect()
}

impl Cells {
    fn new(kind: Kind) -> Self {
        let (exact, prefixes, conditional) = (HashTable::new(), Vec::new(), Vec::new());
        Self { kind, any: Cell::default(), exact, exact_bits: 0, prefixes, prefix_bits: 0, conditional }
    }

    fn put(&mut self, pattern: &NamePattern, rules: &[Arc<Rule>], hashed: u64, hasher: &DefaultHashBuilder) {
        let cell = self.cell(rules);
        match pattern {
            NamePattern::Any => self.any = cell,
            NamePattern::Exact(name) => {
                self.exact_bits |= bit(name);
                let exact = Exact { name: Arc::clone(name), cell };
                self.exact.insert_unique(hashed, exact, |exact| hash(hasher, &exact.name));
            }
            NamePattern::Prefix(text) => {
                self.prefix_bits |= bit(text);
                self.prefixes.push(Prefix::new(text, cell));
            }
        }
    }

    fn cell(&mut self, rules: &[Arc<Rule>]) -> Cell {
        let mut cell = Cell::default();
        for rule in rules.iter().filter(|rule| !rule.is_conditional()) {
            match rule.effect {
                Effect::Allow => cell.allow |= rule.decides().bits(),
                Effect::Deny => cell.deny |= rule.decides().bits(),
            }
        }
        let conditional: Vec<Arc<Rule>> = rules.iter().filter(|rule| rule.is_conditional()).cloned().collect();
        cell.conditional = self.keep(conditional);
        cell
    }

    fn keep(&mut self, rules: Vec<Arc<Rule>>) -> u32 {
        if rules.is_empty() {
            return 0;
        }
        self.conditional.push(Conditional { rules: rules.into(), wider: 0 });
        // The limit on rules keeps this far below.
        u32::try_from(self.conditional.len()).unwrap_or(u32::MAX)
    }

    /// Adds to each cell what wider patterns say, so that a look-up finds one cell.
    fn inherit(&mut self) {
        let any = self.any;
        let (mut prefixes, mut exact) = (std::mem::take(&mut self.prefixes), std::mem::take(&mut self.exact));
        let mut open: Vec<(usize, Arc<str>, Cell)> = Vec::new();
        for (at, prefix) in prefixes.iter_mut().enumerate() {
            while open.last().is_some_and(|(_, text, _)| !prefix.text.starts_with(&**text)) {
                open.pop();
            }
            let (parent, wider) = open.last().map_or((0, any), |(parent, _, cell)| (parent + 1, *cell));
            prefix.parent = u32::try_from(parent).unwrap_or(0);
            prefix.cell = self.joined(wider, prefix.cell);
            open.push((at, Arc::clone(&prefix.text), prefix.cell));
        }
        for exact in &mut exact {
            let wider = longest(&prefixes, &exact.name, head(&exact.name)).unwrap_or(any);
            exact.cell = self.joined(wider, exact.cell);
        }
        (self.prefixes, self.exact) = (prefixes, exact);
    }

    fn joined(&mut self, wider: Cell, own: Cell) -> Cell {
        let conditional = match (wider.conditional, own.conditional) {
            (0, only) | (only, 0) => only,
            (wider, own) => {
                // A list is of one pattern alone, so it has one that is next wider.
                if let Some(list) = place(own).and_then(|at| self.conditional.get_mut(at)) {
                    list.wider = wider;
                }
                own
            }
        };
        Cell { allow: wider.allow | own.allow, deny: wider.deny | own.deny, conditional }
    }

    /// Conditional rules from here on, the narrowest pattern's first.
    fn conditional(&self, first: u32) -> impl Iterator<Item = &Arc<Rule>> {
        let at = |link: u32| place(link).and_then(|at| self.conditional.get(at));
        core::iter::successors(at(first), move |list| at(list.wider)).flat_map(|list| list.rules.iter())
    }

    /// The kind of thing that it is about.
    pub(crate) const fn kind(&self) -> &Kind {
        &self.kind
    }

    /// What it says of every name, if it says the same of each.
    pub(crate) fn of_every_name(&self) -> Option<Cell> {
        let differs = !self.exact.is_empty() || !self.prefixes.is_empty() || self.any.is_conditional();
        (!differs).then_some(self.any)
    }

    /// What it says of a name.
    #[inline(always)]
    pub(crate) fn said(&self, sought: Sought<'_>) -> Cell {
        let Sought { name, hash, bit, head } = sought;
        if self.exact_bits & bit != 0
            && let Some(exact) = self.exact.find(hash, |exact| *exact.name == *name)
        {
            return exact.cell;
        }
        if self.prefix_bits & bit == 0 {
            return self.any;
        }
        longest(&self.prefixes, name, head).unwrap_or(self.any)
    }

    /// What the conditional rules of a cell say besides, to one who asks from somewhere, at some time.
    #[cold]
    pub(crate) fn conditions(&self, cell: Cell, from: Option<IpAddr>, now: UnixMillis) -> Said {
        let mut said = Said::default();
        for rule in self.conditional(cell.conditional) {
            if !rule.holds(from, now) {
                continue;
            }
            match rule.effect {
                Effect::Allow => said.allow |= rule.decides().bits(),
                Effect::Deny => said.deny |= rule.decides().bits(),
            }
            if let Some(last) = rule.not_after {
                let over = last.next_second();
                said.until = Some(said.until.map_or(over, |until| until.min(over)));
            }
        }
        said
    }
}

/// Links are one more than the place that they lead to.
fn place(link: u32) -> Option<usize> {
    usize::try_from(link).ok()?.checked_sub(1)
}

/// A name as it is looked up, however many groups are asked.
#[derive(Clone, Copy)]
pub(crate) struct Sought<'a> {
    name: &'a str,
    hash: u64,
    bit: u64,
    head: u128,
}

impl<'a> Sought<'a> {
    #[inline]
    pub(crate) fn new(name: &'a str, hash: u64) -> Self {
        Self { name, hash, bit: bit(name), head: head(name) }
    }
}

/// The hash by which names are found. Whatever else makes one finds nothing.
#[inline]
pub(crate) fn hash(hasher: &DefaultHashBuilder, name: &str) -> u64 {
    let mut hash = hasher.build_hasher();
    hash.write(name.as_bytes());
    hash.finish()
}

/// The cell of the longest stored prefix of `name`, whose head is given.
#[inline]
fn longest(prefixes: &[Prefix], name: &str, begins: u128) -> Option<Cell> {
    if prefixes.len() <= FEW {
        // Of texts that begin the same name the longer one comes later.
        return prefixes.iter().rev().find(|prefix| prefix.begins(name, begins)).map(|prefix| prefix.cell);
    }
    // No text that begins the name is greater than it; so is the greatest such text, or one that it begins with.
    let mut at = prefixes.partition_point(|prefix| match prefix.head.cmp(&begins) {
        Ordering::Equal => *prefix.text <= *name,
        unequal @ (Ordering::Less | Ordering::Greater) => unequal.is_lt(),
    });
    while let Some(prefix) = at.checked_sub(1).and_then(|at| prefixes.get(at)) {
        if prefix.begins(name, begins) {
            return Some(prefix.cell);
        }
        at = usize::try_from(prefix.parent).unwrap_or(0);
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn heads_are_ordered_as_their_texts(a in "[\0ab\u{ff}]{0,20}", b in "[\0ab\u{ff}]{0,20}") {
            let ordered = head(&a).cmp(&head(&b));
            prop_assert!(ordered == Ordering::Equal || ordered == a.cmp(&b));
        }

        #[test]
        fn a_name_begins_with_a_prefix_whatever_their_lengths(
            text in "[\0ab\u{ff}]{1,20}", rest in "[\0ab]{0,20}", other in "[\0ab\u{ff}]{0,20}",
        ) {
            let prefix = Prefix::new(&text.as_str().into(), Cell::default());
            for name in [format!("{text}{rest}"), other] {
                prop_assert_eq!(prefix.begins(&name, head(&name)), name.starts_with(&text));
            }
        }

        #[test]
        fn a_name_has_what_all_its_prefixes_say_however_many_others_there_are(
            texts in proptest::collection::btree_set("[ab\u{ff}]{1,4}", 0..=8), name in "[ab\u{ff}]{0,20}",
        ) {
            let mut cells = Cells::new(Kind::TOPIC);
            for (at, text) in texts.iter().enumerate() {
                cells.prefix_bits |= bit(text);
                cells.prefixes.push(Prefix::new(&text.as_str().into(), Cell { allow: 1 << at, ..Cell::default() }));
            }
            cells.inherit();
            let begin = texts.iter().enumerate().filter(|(_, text)| name.starts_with(&***text));
            let expected = begin.fold(0, |allow, (at, _)| allow | 1 << at);
            prop_assert_eq!(cells.said(Sought::new(&name, 0)).allow, expected);
        }
    }
}

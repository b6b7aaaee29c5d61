//! Which of many stored prefixes a name begins with, without looking at all of them.

/// Goes through the stored prefixes that `name` begins with, longest first. `floor(text)` is the greatest one that is
/// not greater than `text` in the order of bytes, with the value stored under it.
pub(super) struct Prefixes<'n, F> {
    /// Everything that was not looked at is a prefix of this.
    left: &'n str,
    floor: F,
}

impl<'n, F> Prefixes<'n, F> {
    pub(super) const fn of(name: &'n str, floor: F) -> Self {
        Self { left: name, floor }
    }
}

impl<'m, V, F: Fn(&str) -> Option<(&'m str, V)>> Iterator for Prefixes<'_, F> {
    type Item = V;

    fn next(&mut self) -> Option<V> {
        while !self.left.is_empty() {
            let (found, value) = (self.floor)(self.left)?;
            let common = common(self.left, found);
            if common == found.len() {
                self.left = shorter(self.left, common.saturating_sub(1));
                return Some(value);
            }
            // Whatever begins like the name for longer than this would have been found instead.
            self.left = shorter(self.left, common);
        }
        None
    }
}

fn common(a: &str, b: &str) -> usize {
    a.bytes().zip(b.bytes()).take_while(|(a, b)| a == b).count()
}

/// At most `len` bytes of the text, and no part of a character.
fn shorter(text: &str, len: usize) -> &str {
    let mut len = len.min(text.len());
    while !text.is_char_boundary(len) {
        len -= 1;
    }
    text.get(..len).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use core::ops::Bound;
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn exactly_the_prefixes_of_a_name_are_found(
            stored in prop::collection::btree_set("[abé]{1,4}", 0..20),
            name in "[abéc]{0,6}",
        ) {
            let stored: BTreeSet<String> = stored;
            let upto = |text: &str| (Bound::Unbounded, Bound::Included(text.to_owned()));
            let floor = |text: &str| stored.range(upto(text)).next_back().map(|s| (s.as_str(), s.as_str()));
            let found: Vec<&str> = Prefixes::of(&name, floor).collect();
            let mut expected: Vec<&str> = stored.iter().map(String::as_str).filter(|s| name.starts_with(s)).collect();
            expected.reverse();
            prop_assert_eq!(found, expected);
        }
    }
}

//! Writing JSON in one way only (RFC 8259): fields in the order given, no spaces, so that equal values have equal
//! bytes.

use core::fmt::{Display, Write};

/// An object, field by field.
#[derive(Debug, Clone)]
pub(crate) struct Object(String);

impl Default for Object {
    fn default() -> Self {
        Self("{".to_owned())
    }
}

impl Object {
    fn key(mut self, key: &str) -> Self {
        if self.0.len() > 1 {
            self.0.push(',');
        }
        quote(&mut self.0, key);
        self.0.push(':');
        self
    }

    /// A field that is a string.
    pub(crate) fn text(self, key: &str, value: impl Display) -> Self {
        let mut this = self.key(key);
        quote(&mut this.0, &value.to_string());
        this
    }

    /// A field that is a string, if there is one.
    pub(crate) fn maybe(self, key: &str, value: Option<impl Display>) -> Self {
        match value {
            Some(value) => self.text(key, value),
            None => self,
        }
    }

    /// A field that is a number.
    pub(crate) fn number(self, key: &str, value: u64) -> Self {
        let mut this = self.key(key);
        let _ = write!(this.0, "{value}");
        this
    }

    /// A field that is true or false.
    pub(crate) fn flag(self, key: &str, value: bool) -> Self {
        let mut this = self.key(key);
        this.0.push_str(if value { "true" } else { "false" });
        this
    }

    /// A field that is an object.
    pub(crate) fn object(self, key: &str, value: Self) -> Self {
        let mut this = self.key(key);
        this.0.push_str(&value.end());
        this
    }

    /// A field that is a list of strings, of `len_max` bytes at most as written: it ends before the first that goes
    /// beyond.
    pub(crate) fn texts(self, key: &str, values: impl IntoIterator<Item = impl Display>, len_max: usize) -> Self {
        let quoted = values.into_iter().map(|value| {
            let mut out = String::new();
            quote(&mut out, &value.to_string());
            out
        });
        self.list(key, quoted, len_max)
    }

    /// A field that is a list of objects, with the same limit.
    pub(crate) fn objects(self, key: &str, values: impl IntoIterator<Item = Self>, len_max: usize) -> Self {
        self.list(key, values.into_iter().map(Self::end), len_max)
    }

    fn list(self, key: &str, written: impl Iterator<Item = String>, len_max: usize) -> Self {
        let mut this = self.key(key);
        this.0.push('[');
        let begin = this.0.len();
        for (at, value) in written.enumerate() {
            if this.0.len().saturating_sub(begin).saturating_add(value.len()).saturating_add(1) > len_max {
                break;
            }
            if at > 0 {
                this.0.push(',');
            }
            this.0.push_str(&value);
        }
        this.0.push(']');
        this
    }

    /// The object without its closing brace, to which fields may be added by hand.
    pub(crate) fn open(self) -> String {
        self.0
    }

    /// The whole object.
    pub(crate) fn end(mut self) -> String {
        self.0.push('}');
        self.0
    }
}

/// A string within its quotes (RFC 8259 §7).
fn quote(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            c if c < ' ' => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_string_reads_back_as_it_was() {
        let all: String = (0..0x300_u32).filter_map(char::from_u32).chain("\u{2028}\u{1f512}\\\"/".chars()).collect();
        let text = Object::default().text("k\"", &all).end();
        let read: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(read["k\""], serde_json::Value::String(all));
        assert!(!text.contains(|c: char| c < ' '), "one line");
    }

    #[test]
    fn fields_stand_in_the_order_given_without_spaces() {
        let inner = Object::default().flag("no", false).maybe("none", None::<u8>);
        let object = Object::default().number("n", 7).object("o", inner).texts("t", ["a", "b"], 99).maybe("m", Some(1));
        assert_eq!(object.end(), r#"{"n":7,"o":{"no":false},"t":["a","b"],"m":"1"}"#);
        assert_eq!(Object::default().end(), "{}");
    }

    #[test]
    fn list_ends_before_the_value_that_goes_beyond_its_limit() {
        let list = |max| Object::default().texts("t", ["ab", "cd", "e"], max).end();
        assert_eq!(list(9), r#"{"t":["ab","cd"]}"#);
        assert_eq!(list(8), r#"{"t":["ab"]}"#);
        assert_eq!(list(4), r#"{"t":[]}"#);
        let objects = Object::default().objects("t", [Object::default().number("n", 1)], 8).end();
        assert_eq!(objects, r#"{"t":[{"n":1}]}"#);
    }
}

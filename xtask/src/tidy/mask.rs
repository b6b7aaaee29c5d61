//! Rust source with comments and the content of literals blanked, so that a rule about code never reads prose.
//!
//! Every line keeps its number. This is a scanner of tokens that can hold other tokens, not a parser.

use std::iter::Peekable;
use std::str::Chars;

/// Blanks comments, strings and characters; newlines and quotation marks stay.
pub(crate) fn code_of(source: &str) -> String {
    let mut scanner = Scanner { rest: source.chars().peekable(), code: String::with_capacity(source.len()) };
    while let Some(c) = scanner.rest.next() {
        scanner.token(c);
    }
    scanner.code
}

struct Scanner<'a> {
    rest: Peekable<Chars<'a>>,
    code: String,
}

impl Scanner<'_> {
    fn token(&mut self, c: char) {
        let next = self.rest.peek().copied();
        match (c, next) {
            ('/', Some('/')) => self.line_comment(),
            ('/', Some('*')) => self.block_comment(),
            ('"', _) => self.string(),
            ('\'', Some(_)) => self.character_or_lifetime(),
            ('r', Some('"' | '#')) if !self.within_word() => self.raw_string_or_word(),
            _ => self.code.push(c),
        }
    }

    /// Whether the last character read belongs to a word; `b` and `c` before `r` do not, as in `br"…"`.
    fn within_word(&self) -> bool {
        let mut back = self.code.chars().rev();
        match back.next() {
            Some('b' | 'c') => back.next().is_some_and(is_word),
            last => last.is_some_and(is_word),
        }
    }

    fn blank(&mut self, c: char) {
        self.code.push(if c == '\n' { '\n' } else { ' ' });
    }

    fn line_comment(&mut self) {
        self.blank('/');
        while let Some(c) = self.rest.next_if(|c| *c != '\n') {
            self.blank(c);
        }
    }

    fn block_comment(&mut self) {
        self.rest.next();
        self.code.push_str("  ");
        let mut depth = 1;
        while depth > 0 {
            let Some(c) = self.rest.next() else { return };
            self.blank(c);
            match (c, self.rest.peek()) {
                ('/', Some('*')) => depth += 1,
                ('*', Some('/')) => depth -= 1,
                _ => continue,
            }
            self.rest.next();
            self.blank(' ');
        }
    }

    fn string(&mut self) {
        self.code.push('"');
        while let Some(c) = self.rest.next() {
            match c {
                '"' => return self.code.push('"'),
                '\\' => {
                    self.blank(c);
                    if let Some(escaped) = self.rest.next() {
                        self.blank(escaped);
                    }
                }
                _ => self.blank(c),
            }
        }
    }

    fn character_or_lifetime(&mut self) {
        let mut ahead = self.rest.clone();
        let (first, second) = (ahead.next(), ahead.next());
        self.code.push('\'');
        if first != Some('\\') && second != Some('\'') {
            return; // a lifetime
        }
        let mut escaped = false;
        while let Some(c) = self.rest.next() {
            if c == '\'' && !escaped {
                return self.code.push('\'');
            }
            escaped = c == '\\' && !escaped;
            self.blank(c);
        }
    }

    fn raw_string_or_word(&mut self) {
        self.code.push('r');
        let mut ahead = self.rest.clone();
        let mut hashes = 0;
        while ahead.next_if_eq(&'#').is_some() {
            hashes += 1;
        }
        if ahead.next() != Some('"') {
            return; // a raw word, such as `r#type`
        }
        self.rest = ahead;
        self.code.push('"');
        let end: String = std::iter::once('"').chain(std::iter::repeat_n('#', hashes)).collect();
        let mut content = String::new();
        while !content.ends_with(&end) {
            let Some(c) = self.rest.next() else { break };
            content.push(c);
            self.blank(c);
        }
        self.code.push('"');
    }
}

/// Whether `c` can be part of an identifier.
pub(crate) const fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

/// Byte offsets at which `pattern` stands as whole words.
pub(crate) fn find_words<'a>(text: &'a str, pattern: &'a str) -> impl Iterator<Item = usize> + 'a {
    let outside =
        |inner: Option<char>, outer: Option<char>| !(inner.is_some_and(is_word) && outer.is_some_and(is_word));
    text.match_indices(pattern).map(|(at, _)| at).filter(move |at| {
        let (before, from) = text.split_at(*at);
        let after = from.strip_prefix(pattern).and_then(|rest| rest.chars().next());
        outside(pattern.chars().next(), before.chars().next_back()) && outside(pattern.chars().next_back(), after)
    })
}

/// The line, counted from 1, that holds the byte at `at`.
pub(crate) fn line_at(text: &str, at: usize) -> usize {
    text.bytes().take(at).filter(|b| *b == b'\n').count() + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(source: &str, code: &str) {
        assert_eq!(code_of(source), code, "{source}");
    }

    #[test]
    fn comments_are_blanked_to_their_end() {
        check("a // b\nc", "a     \nc");
        check("a /* b */ c", "a         c");
        check("a /* /* b */ c */ d", "a                 d");
        check("a /*\n*/ d", "a   \n   d");
        check("a /**/ b /***/ c", "a      b       c");
        check("a / b", "a / b");
    }

    #[test]
    fn strings_are_blanked_with_their_escapes() {
        check(r#"f("a\"b", c)"#, r#"f("    ", c)"#);
        check(r#""// no comment" b"#, r#""             " b"#);
        check(r#"b"x" c"y" z"#, r#"b" " c" " z"#);
        check("\"a\nb\"", "\" \n \"");
    }

    #[test]
    fn raw_strings_end_at_their_own_hashes() {
        let blanked = code_of(r###"f(r#"a "b" \"#, c, br"\", r#type, for"x")"###);
        for absent in ["a ", "b", "\\"] {
            assert!(!blanked.replace("br", "").contains(absent), "{blanked}");
        }
        for present in ["r#type", ", c, ", "for\" \")"] {
            assert!(blanked.contains(present), "{blanked}");
        }
    }

    #[test]
    fn characters_are_told_from_lifetimes() {
        check(r"'a' b", r"' ' b");
        check(r"'\'' b", r"'  ' b");
        check(r"'\\' b", r"'  ' b");
        check("'\"' b", "' ' b");
        check("&'a str, 'b", "&'a str, 'b");
    }

    #[test]
    fn words_are_found_whole() {
        let found = |text, pattern| find_words(text, pattern).count();
        assert_eq!(found("rand rand_core grand rand::x", "rand"), 2);
        assert_eq!(found("std::fs::read(x), afs::b, fs::c", "fs::"), 2);
        assert_eq!(found("#[ignore] #[ignore = \"\"] #[ignored]", "#[ignore"), 2);
    }
}

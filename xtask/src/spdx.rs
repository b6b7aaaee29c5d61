//! SPDX licence expressions: may this be used under the licences that we accept?
//!
//! Grammar (SPDX 2.3, annex D): identifiers, `WITH`, `AND`, `OR` and parentheses, binding in that order, and the `/`
//! that old manifests write for `OR`. What does not parse is an error, never accepted.

use anyhow::{Result, bail};

/// Whether `expression` can be satisfied by licences out of `accepted`. An exception (`WITH`) is part of a licence's
/// name here: `Apache-2.0 WITH LLVM-exception` is accepted only where it is listed so.
pub(crate) fn is_satisfied(expression: &str, accepted: &[&str]) -> Result<bool> {
    let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let mut parser = Parser { rest: spaced.split_whitespace().collect(), accepted };
    parser.rest.reverse();
    let satisfied = parser.any()?;
    match parser.rest.last() {
        None => Ok(satisfied),
        Some(word) => bail!("licence expression `{expression}`: `{word}` is out of place"),
    }
}

/// The words not read yet, last one first.
struct Parser<'a> {
    rest: Vec<&'a str>,
    accepted: &'a [&'a str],
}

impl Parser<'_> {
    fn take(&mut self, word: &str) -> bool {
        let found = self.rest.last().is_some_and(|next| *next == word);
        if found {
            self.rest.pop();
        }
        found
    }

    fn any(&mut self) -> Result<bool> {
        let mut satisfied = self.all()?;
        while self.take("OR") {
            satisfied |= self.all()?;
        }
        Ok(satisfied)
    }

    fn all(&mut self) -> Result<bool> {
        let mut satisfied = self.one()?;
        while self.take("AND") {
            satisfied &= self.one()?;
        }
        Ok(satisfied)
    }

    fn one(&mut self) -> Result<bool> {
        if self.take("(") {
            let satisfied = self.any()?;
            if !self.take(")") {
                bail!("licence expression: a parenthesis is not closed");
            }
            return Ok(satisfied);
        }
        let licence = self.identifier()?;
        if self.take("WITH") {
            let exception = self.identifier()?;
            return Ok(self.accepted.contains(&format!("{licence} WITH {exception}").as_str()));
        }
        Ok(self.accepted.contains(&licence.as_str()))
    }

    fn identifier(&mut self) -> Result<String> {
        match self.rest.pop() {
            Some("AND" | "OR" | "WITH" | "(" | ")") | None => bail!("licence expression: a licence is missing"),
            Some(word) if word.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'+')) => {
                Ok(word.to_owned())
            }
            Some(word) => bail!("licence expression: `{word}` is no licence"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ACCEPTED: [&str; 4] = ["MIT", "ISC", "Apache-2.0", "Apache-2.0 WITH LLVM-exception"];

    fn check(expression: &str, satisfied: bool) {
        assert_eq!(is_satisfied(expression, &ACCEPTED).unwrap(), satisfied, "{expression}");
    }

    #[test]
    fn one_accepted_alternative_is_enough() {
        check("MIT", true);
        check("GPL-3.0-only OR MIT", true);
        check("MIT OR Apache-2.0 OR LGPL-2.1-or-later", true);
        check("MIT/GPL-2.0", true);
        check("Apache-2.0 / MIT", true);
        check("GPL-2.0/LGPL-2.1", false);
        check("GPL-3.0-only", false);
        check("mit", false);
    }

    #[test]
    fn every_part_of_a_conjunction_must_be_accepted() {
        check("MIT AND ISC", true);
        check("MIT AND OpenSSL", false);
        check("ISC AND (Apache-2.0 OR ISC)", true);
        check("ISC AND (GPL-2.0-only OR OpenSSL)", false);
        check("(MIT OR Apache-2.0) AND Unicode-3.0", false);
    }

    #[test]
    fn and_binds_more_than_or_unless_parentheses_say_otherwise() {
        check("MIT OR ISC AND OpenSSL", true);
        check("(MIT OR ISC) AND OpenSSL", false);
        check("OpenSSL AND MIT OR ISC", true);
        check("OpenSSL AND (MIT OR ISC)", false);
        check("((MIT))", true);
    }

    #[test]
    fn an_exception_is_part_of_the_licence() {
        check("Apache-2.0 WITH LLVM-exception", true);
        check("MIT WITH LLVM-exception", false);
        check("GPL-2.0-only WITH Classpath-exception-2.0", false);
        check("CC0-1.0 OR Apache-2.0 WITH LLVM-exception", true);
        check("OpenSSL AND Apache-2.0 WITH LLVM-exception", false);
    }

    #[test]
    fn what_does_not_parse_is_an_error() {
        for bad in ["", " ", "MIT OR", "AND MIT", "(MIT", "MIT)", "()", "MIT ISC", "MIT WITH", "MIT, ISC", "MIT//ISC"] {
            assert!(is_satisfied(bad, &ACCEPTED).is_err(), "{bad:?}");
        }
    }
}

//! An error with its causes on one line, for logs and for people.

use core::error::Error;
use core::fmt;

/// Shows an error with its causes. A cause that is told already is not told twice.
pub fn chain<'a>(error: &'a (dyn Error + 'a)) -> impl fmt::Display + 'a {
    Chain(error)
}

struct Chain<'a>(&'a (dyn Error + 'a));

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = self.0.to_string();
        let mut source = self.0.source();
        while let Some(cause) = source {
            let more = cause.to_string();
            if !text.contains(&more) {
                text.push_str(": ");
                text.push_str(&more);
            }
            source = cause.source();
        }
        f.write_str(&text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot read `x`{told}")]
    struct Outer {
        told: &'static str,
        source: std::io::Error,
    }

    #[test]
    fn a_cause_is_told_once() {
        for told in ["", ": entity not found"] {
            let error = Outer { told, source: std::io::ErrorKind::NotFound.into() };
            assert_eq!(chain(&error).to_string(), "cannot read `x`: entity not found");
        }
    }
}

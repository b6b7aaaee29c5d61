//! Spans of time as people write them: `30m`, `24h`, `90d`. One whole number and one unit, nothing else.

/// Why a text is no span of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum DurationError {
    /// No number, or no unit after it.
    #[error("expected a number and a unit, such as 30m, 24h, 7d or 10y")]
    Form,
    /// Nothing lives for no time.
    #[error("is zero")]
    Zero,
    /// More seconds than can be counted.
    #[error("is too long")]
    TooLong,
}

const UNITS: [(&str, u64); 6] =
    [("y", 365 * 86_400), ("w", 7 * 86_400), ("d", 86_400), ("h", 3600), ("m", 60), ("s", 1)];

/// Parses a span into seconds.
pub(crate) fn parse_secs(text: &str) -> Result<u64, DurationError> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = text.strip_prefix(digits).unwrap_or_default();
    let (_, unit_secs) = UNITS.iter().find(|(name, _)| *name == unit).ok_or(DurationError::Form)?;
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(DurationError::Form);
    }
    let number: u64 = digits.parse().map_err(|_| DurationError::TooLong)?;
    match number.checked_mul(*unit_secs) {
        None => Err(DurationError::TooLong),
        Some(0) => Err(DurationError::Zero),
        Some(secs) => Ok(secs),
    }
}

/// Writes seconds in the largest unit that loses nothing; what `parse_secs` reads again.
pub(crate) fn rendered(secs: u64) -> String {
    // Weeks are read, not written: `90d` beside `2w` is harder to compare.
    let unit = UNITS.iter().find(|(name, unit)| *name != "w" && secs >= *unit && secs.is_multiple_of(*unit));
    let (name, unit) = unit.copied().unwrap_or(("s", 1));
    format!("{}{name}", secs / unit)
}

/// Writes seconds in the largest unit that fits, rounded down: for people.
pub(crate) fn roughly(secs: u64) -> String {
    let unit = UNITS.iter().find(|(name, unit)| *name != "w" && *name != "y" && secs >= *unit);
    let (name, unit) = unit.copied().unwrap_or(("s", 1));
    format!("{}{name}", secs / unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_read_and_written() {
        for (text, secs, again) in [
            ("30m", 1800, "30m"),
            ("24h", 86_400, "1d"),
            ("90d", 7_776_000, "90d"),
            ("2w", 1_209_600, "14d"),
            ("10y", 315_360_000, "10y"),
            ("90s", 90, "90s"),
            ("120s", 120, "2m"),
        ] {
            assert_eq!(parse_secs(text), Ok(secs), "{text}");
            assert_eq!(rendered(secs), again);
            assert_eq!(parse_secs(&rendered(secs)), Ok(secs));
        }
        assert_eq!(
            (roughly(89).as_str(), roughly(3599).as_str(), roughly(400 * 86_400).as_str()),
            ("1m", "59m", "400d")
        );
    }

    #[test]
    fn what_is_no_span_is_refused() {
        use DurationError as E;
        for (text, expected) in [
            ("", E::Form),
            ("30", E::Form),
            ("m", E::Form),
            ("-1m", E::Form),
            ("+1m", E::Form),
            ("1.5h", E::Form),
            ("1 h", E::Form),
            ("1M", E::Form),
            ("1h30m", E::Form),
            ("0s", E::Zero),
            ("99999999999999999999s", E::TooLong),
            ("18446744073709551615y", E::TooLong),
        ] {
            assert_eq!(parse_secs(text), Err(expected), "{text}");
        }
    }
}

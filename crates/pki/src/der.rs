//! A strict reader of DER (X.690 §10, §11), for everything that an unauthenticated caller can send.
//!
//! It never accepts two encodings of one value: lengths are definite and minimal, numbers minimal, booleans 0 or 255.
//! It never copies, never recurses on its own, and never reads past what it was given.

use countersign_core::time::UnixMillis;

/// Not the DER that was expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not valid DER")]
pub struct DerError;

/// Universal tags.
pub(crate) mod tag {
    pub(crate) const BOOLEAN: u8 = 0x01;
    pub(crate) const INTEGER: u8 = 0x02;
    pub(crate) const BIT_STRING: u8 = 0x03;
    pub(crate) const OCTET_STRING: u8 = 0x04;
    pub(crate) const OID: u8 = 0x06;
    pub(crate) const UTC_TIME: u8 = 0x17;
    pub(crate) const GENERALIZED_TIME: u8 = 0x18;
    pub(crate) const SEQUENCE: u8 = 0x30;
    pub(crate) const SET: u8 = 0x31;

    /// A context-specific tag on a primitive value.
    pub(crate) const fn context(number: u8) -> u8 {
        0x80 | number
    }

    /// A context-specific tag on a constructed value.
    pub(crate) const fn context_constructed(number: u8) -> u8 {
        0xa0 | number
    }
}

/// One value: its tag, its content, and both with the length between, as they were read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Value<'a> {
    pub(crate) tag: u8,
    pub(crate) content: &'a [u8],
    pub(crate) raw: &'a [u8],
}

/// Reads values one after the other.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) const fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Everything must have been read.
    pub(crate) fn finish(self) -> Result<(), DerError> {
        if self.0.is_empty() { Ok(()) } else { Err(DerError) }
    }

    pub(crate) fn any(&mut self) -> Result<Value<'a>, DerError> {
        let start = self.0;
        let (&tag, rest) = start.split_first().ok_or(DerError)?;
        // Tag numbers above 30 occur nowhere in a certificate.
        if tag & 0x1f == 0x1f {
            return Err(DerError);
        }
        let (length, rest) = read_length(rest)?;
        let (content, rest) = rest.split_at_checked(length).ok_or(DerError)?;
        let (raw, _) = start.split_at_checked(start.len().saturating_sub(rest.len())).ok_or(DerError)?;
        self.0 = rest;
        Ok(Value { tag, content, raw })
    }

    pub(crate) fn expect(&mut self, tag: u8) -> Result<Value<'a>, DerError> {
        let value = self.any()?;
        if value.tag == tag { Ok(value) } else { Err(DerError) }
    }

    /// The next value if it has this tag.
    pub(crate) fn optional(&mut self, tag: u8) -> Result<Option<Value<'a>>, DerError> {
        if self.0.first() == Some(&tag) { self.any().map(Some) } else { Ok(None) }
    }

    /// The reader over the content of the next value.
    pub(crate) fn within(&mut self, tag: u8) -> Result<Self, DerError> {
        Ok(Self(self.expect(tag)?.content))
    }

    /// Reads values until the end.
    pub(crate) fn each<T, E: From<DerError>>(
        mut self,
        mut read: impl FnMut(&mut Self) -> Result<T, E>,
    ) -> Result<Vec<T>, E> {
        let mut values = Vec::new();
        while !self.is_empty() {
            values.push(read(&mut self)?);
        }
        Ok(values)
    }

    pub(crate) fn oid(&mut self) -> Result<&'a [u8], DerError> {
        let content = self.expect(tag::OID)?.content;
        check_oid(content)?;
        Ok(content)
    }

    pub(crate) fn boolean(&mut self) -> Result<bool, DerError> {
        match self.expect(tag::BOOLEAN)?.content {
            [0x00] => Ok(false),
            [0xff] => Ok(true),
            _ => Err(DerError),
        }
    }

    /// `BOOLEAN DEFAULT FALSE`. An explicit FALSE breaks X.690 §11.5, and is always refused.
    pub(crate) fn default_false(&mut self) -> Result<bool, DerError> {
        if self.0.first() != Some(&tag::BOOLEAN) {
            return Ok(false);
        }
        if self.boolean()? { Ok(true) } else { Err(DerError) }
    }

    /// The content of an INTEGER, minimal, two's complement.
    pub(crate) fn integer(&mut self) -> Result<&'a [u8], DerError> {
        let content = self.expect(tag::INTEGER)?.content;
        check_integer(content)?;
        Ok(content)
    }

    /// A BIT STRING of whole octets, as keys and signatures are.
    pub(crate) fn bit_octets(&mut self) -> Result<&'a [u8], DerError> {
        match self.expect(tag::BIT_STRING)?.content.split_first() {
            Some((0, octets)) => Ok(octets),
            _ => Err(DerError),
        }
    }

    /// A point in time as certificates write it: UTCTime until 2049, GeneralizedTime from 2050, whole seconds, `Z`
    /// (RFC 5280 §4.1.2.5). Before 1970 becomes 1970.
    pub(crate) fn time(&mut self) -> Result<UnixMillis, DerError> {
        let value = self.any()?;
        let (year, rest) = match value.tag {
            tag::UTC_TIME => {
                let (year, rest) = digits(value.content, 2)?;
                (if year < 50 { year + 2000 } else { year + 1900 }, rest)
            }
            tag::GENERALIZED_TIME => {
                let (year, rest) = digits(value.content, 4)?;
                if year < 2050 {
                    return Err(DerError);
                }
                (year, rest)
            }
            _ => return Err(DerError),
        };
        seconds(year, rest).map(UnixMillis::from_secs)
    }
}

fn read_length(bytes: &[u8]) -> Result<(usize, &[u8]), DerError> {
    let (&first, rest) = bytes.split_first().ok_or(DerError)?;
    if first < 0x80 {
        return Ok((usize::from(first), rest));
    }
    // 0x80 is the indefinite form; four octets hold more than any limit allows.
    let count = usize::from(first & 0x7f);
    if count == 0 || count > 4 {
        return Err(DerError);
    }
    let (octets, rest) = rest.split_at_checked(count).ok_or(DerError)?;
    let length = octets.iter().fold(0_usize, |n, &octet| (n << 8) | usize::from(octet));
    let minimal = length >= 0x80 && octets.first() != Some(&0);
    if minimal { Ok((length, rest)) } else { Err(DerError) }
}

fn check_integer(content: &[u8]) -> Result<(), DerError> {
    match content {
        [] => Err(DerError),
        [0x00, second, ..] if second & 0x80 == 0 => Err(DerError),
        [0xff, second, ..] if second & 0x80 != 0 => Err(DerError),
        _ => Ok(()),
    }
}

fn check_oid(content: &[u8]) -> Result<(), DerError> {
    let ended = content.last().is_some_and(|last| last & 0x80 == 0);
    let mut fresh = true;
    for &octet in content {
        // An arc that begins with 0x80 has a leading zero.
        if fresh && octet == 0x80 {
            return Err(DerError);
        }
        fresh = octet & 0x80 == 0;
    }
    if ended { Ok(()) } else { Err(DerError) }
}

fn digits(bytes: &[u8], count: usize) -> Result<(u64, &[u8]), DerError> {
    let (digits, rest) = bytes.split_at_checked(count).ok_or(DerError)?;
    if !digits.iter().all(u8::is_ascii_digit) {
        return Err(DerError);
    }
    Ok((digits.iter().fold(0, |n, digit| n * 10 + u64::from(digit - b'0')), rest))
}

/// Seconds since 1970 of `YYYYMMDDhhmmss`.
pub(crate) fn civil_seconds(digits_only: &str) -> Result<u64, DerError> {
    let (year, rest) = digits(digits_only.as_bytes(), 4)?;
    seconds(year, &[rest, b"Z"].concat())
}

fn seconds(year: u64, rest: &[u8]) -> Result<u64, DerError> {
    let (month, rest) = digits(rest, 2)?;
    let (day, rest) = digits(rest, 2)?;
    let (hour, rest) = digits(rest, 2)?;
    let (minute, rest) = digits(rest, 2)?;
    let (second, rest) = digits(rest, 2)?;
    let leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let month_days = match month {
        4 | 6 | 9 | 11 => 30,
        2 if leap => 29,
        2 => 28,
        1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
        _ => return Err(DerError),
    };
    if rest != b"Z" || day == 0 || day > month_days || hour > 23 || minute > 59 || second > 59 {
        return Err(DerError);
    }
    // Days since 0000-03-01, counting years from March so that the leap day comes last.
    let (y, m) = if month > 2 { (year, month - 3) } else { (year.saturating_sub(1), month + 9) };
    let days = y * 365 + y / 4 - y / 100 + y / 400 + (m * 153 + 2) / 5 + day - 1;
    Ok((days.saturating_sub(719_468) * 24 + hour) * 3600 + minute * 60 + second)
        .map(|s| if year < 1970 { 0 } else { s })
}

/// Writes an OCTET STRING of fewer than 128 bytes: the content of a private extension.
pub(crate) fn short_octet_string(content: &[u8]) -> Option<Vec<u8>> {
    let length = u8::try_from(content.len()).ok().filter(|&n| n < 0x80)?;
    Some([&[tag::OCTET_STRING, length], content].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_encoding_of_a_length_is_refused() {
        for (bytes, ok) in [
            (&[0x04, 0x01, 0xaa][..], true),
            (&[0x04, 0x81, 0x01, 0xaa], false), // long form of a short length
            (&[0x04, 0x82, 0x00, 0x01, 0xaa], false),
            (&[0x24, 0x80, 0x04, 0x01, 0xaa, 0x00, 0x00], false), // indefinite
            (&[0x04, 0x02, 0xaa], false),                         // truncated
            (&[0x04, 0x85, 0, 0, 0, 0, 1, 0xaa], false),
            (&[0x1f, 0x81, 0x01, 0x00], false), // high tag number
            (&[0x04], false),
            (&[], false),
        ] {
            assert_eq!(Reader::new(bytes).any().is_ok(), ok, "{bytes:02x?}");
        }
        let long = [&[0x04, 0x81, 0x80][..], &[0; 128]].concat();
        assert_eq!(Reader::new(&long).any().unwrap().content.len(), 128);
    }

    #[test]
    fn numbers_booleans_and_oids_have_one_encoding() {
        for bytes in [&[2, 1, 0][..], &[2, 1, 0x80], &[2, 2, 0, 0x80], &[2, 2, 0xff, 0x7f]] {
            assert!(Reader::new(bytes).integer().is_ok(), "{bytes:02x?}");
        }
        for bytes in [&[2, 0][..], &[2, 2, 0, 0x7f], &[2, 2, 0xff, 0x80]] {
            assert!(Reader::new(bytes).integer().is_err(), "{bytes:02x?}");
        }
        assert_eq!(Reader::new(&[1, 1, 0xff]).boolean(), Ok(true));
        for bytes in [&[1, 1, 1][..], &[1, 0], &[1, 2, 0, 0]] {
            assert!(Reader::new(bytes).boolean().is_err(), "{bytes:02x?}");
        }
        assert!(Reader::new(&[1, 1, 0]).default_false().is_err());
        for bytes in [&[6, 0][..], &[6, 2, 0x80, 0x01], &[6, 1, 0x81], &[6, 3, 0x55, 0x80, 0x01]] {
            assert!(Reader::new(bytes).oid().is_err(), "{bytes:02x?}");
        }
    }

    #[test]
    fn times_are_read_to_the_second_and_only_in_their_form() {
        fn read(tag: u8, text: &str) -> Option<u64> {
            let bytes = [&[tag, text.len() as u8], text.as_bytes()].concat();
            Reader::new(&bytes).time().ok().map(UnixMillis::secs)
        }
        for (tag, text, expected) in [
            (0x17, "700101000000Z", Some(0)),
            (0x17, "491231235959Z", Some(2_524_607_999)),
            (0x17, "240229120000Z", Some(1_709_208_000)),
            (0x17, "690101000000Z", Some(0)),
            (0x18, "20500101000000Z", Some(2_524_608_000)),
            (0x18, "99991231235959Z", Some(253_402_300_799)),
            (0x18, "20491231235959Z", None), // must be UTCTime
            (0x17, "230229120000Z", None),
            (0x17, "2402291200Z", None),
            (0x17, "240229120000+0000", None),
            (0x17, "240229126000Z", None),
            (0x17, "241329120000Z", None),
            (0x17, "240200120000Z", None),
            (0x18, "20500101000000.5Z", None),
            (0x18, "2050010100000 Z", None),
        ] {
            assert_eq!(read(tag, text), expected, "{text}");
        }
    }
}

//! The bytes that are signed: a label and fields of known width, so that no two messages share an encoding (NUL-joined
//! fields elsewhere let one message type be read as another).

/// The bytes under a signature. Begins with the product, the protocol version and a label that names its one use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transcript(Vec<u8>);

impl Transcript {
    /// Starts a transcript for one use, named by `label`.
    pub fn new(label: &[u8]) -> Self {
        Self(b"countersign v1".to_vec()).variable(label)
    }

    /// Appends a field whose width the label fixes.
    #[must_use]
    pub fn fixed<const N: usize>(mut self, field: &[u8; N]) -> Self {
        self.0.extend_from_slice(field);
        self
    }

    /// Appends a field of any width, behind its length.
    #[must_use]
    pub fn variable(mut self, field: &[u8]) -> Self {
        self.0.extend_from_slice(&(field.len() as u64).to_be_bytes());
        self.0.extend_from_slice(field);
        self
    }

    /// The bytes to sign or verify.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moving_a_byte_between_fields_changes_the_transcript() {
        let a = Transcript::new(b"x").variable(b"ab").variable(b"c");
        let b = Transcript::new(b"x").variable(b"a").variable(b"bc");
        assert_ne!(a, b);
        assert_ne!(Transcript::new(b"xa").variable(b""), Transcript::new(b"x").variable(b"a"));
    }
}

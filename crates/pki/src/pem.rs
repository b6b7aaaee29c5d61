//! PEM (RFC 7468): text around DER.

use core::fmt;

use data_encoding::BASE64;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use zeroize::Zeroizing;

const LINE_LEN: usize = 64;

/// A text that is a secret: not cloned, not shown by `Debug`, wiped when dropped.
pub struct SecretText(Zeroizing<String>);

impl SecretText {
    /// The text itself. Every use of this is a place to look at.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for SecretText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretText(…)")
    }
}

/// Writes a private key.
pub(crate) fn private_key_pem(der: &[u8]) -> SecretText {
    SecretText(encode("PRIVATE KEY", der))
}

/// Writes one section. The intermediate text is wiped, since the section may be a private key.
pub(crate) fn encode(label: &str, der: &[u8]) -> Zeroizing<String> {
    let base64 = Zeroizing::new(BASE64.encode(der));
    // Reserved whole: growing would leave copies behind.
    let lines = base64.len().div_ceil(LINE_LEN);
    let mut pem = Zeroizing::new(String::with_capacity(base64.len() + lines + 2 * label.len() + 34));
    pem.push_str("-----BEGIN ");
    pem.push_str(label);
    pem.push_str("-----\n");
    let mut rest = base64.as_str();
    while let Some((line, after)) = rest.split_at_checked(LINE_LEN.min(rest.len())).filter(|(line, _)| !line.is_empty())
    {
        pem.push_str(line);
        pem.push('\n');
        rest = after;
    }
    pem.push_str("-----END ");
    pem.push_str(label);
    pem.push_str("-----\n");
    pem
}

/// Writes a certificate as PEM.
pub fn certificate_pem(der: &[u8]) -> String {
    encode("CERTIFICATE", der).as_str().to_owned()
}

/// Reads all certificates of a PEM text, in their order; sections of other kinds are passed over.
pub fn certificates_from_pem(text: &str) -> Result<Vec<CertificateDer<'static>>, PemError> {
    CertificateDer::pem_slice_iter(text.as_bytes()).map(|item| item.map_err(|_| PemError)).collect()
}

/// The text is not PEM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("malformed PEM")]
pub struct PemError;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        for len in [1, 47, 48, 49, 96, 1000] {
            let der = vec![7; len];
            let text = format!("{}noise\n{}", certificate_pem(&der), certificate_pem(&der));
            let read = certificates_from_pem(&text).unwrap();
            assert_eq!(read.len(), 2);
            assert!(read.iter().all(|c| c.as_ref() == der));
            assert!(text.lines().all(|line| line.len() <= LINE_LEN));
        }
        assert_eq!(certificates_from_pem("no PEM at all"), Ok(Vec::new()));
        assert_eq!(
            certificates_from_pem("-----BEGIN CERTIFICATE-----\n!!\n-----END CERTIFICATE-----\n"),
            Err(PemError)
        );
    }
}

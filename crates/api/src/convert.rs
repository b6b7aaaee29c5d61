//! From the wire to checked values: what does not fit is named.

use bytes::Bytes;

use crate::cluster::EnrollReply;
use countersign_core::codec::{self, CodecError};
use countersign_core::id::{ClusterId, NodeId};
use countersign_core::principal::{PrincipalError, TrustDomain};
use countersign_core::time::UnixMillis;
use countersign_core::trust::outcome::Refused;
use countersign_core::trust::view::View;

/// A message does not hold what its schema promises.
#[derive(Debug, thiserror::Error)]
pub enum MessageError {
    /// A field has another length than its type.
    #[error("field `{field}` has {got} bytes, expected {expected}")]
    Length {
        /// Which.
        field: &'static str,
        /// Bytes found.
        got: usize,
        /// Bytes expected.
        expected: usize,
    },
    /// An encoded body does not decode.
    #[error("field `{field}` does not decode")]
    Encoded {
        /// Which.
        field: &'static str,
        /// Why.
        #[source]
        source: CodecError,
    },
    /// The trust domain is none.
    #[error("trust domain is malformed")]
    TrustDomain(#[from] PrincipalError),
}

/// Decodes an `encoded` field.
pub fn decoded<T: serde::de::DeserializeOwned>(field: &'static str, bytes: &[u8]) -> Result<T, MessageError> {
    codec::decode(bytes).map_err(|source| MessageError::Encoded { field, source })
}

/// Characters of a reason in words that are kept.
const REASON_LEN_MAX: usize = 512;

/// Decodes a refusal. One that this build does not know is [`Refused::Later`], in the words that came with it:
/// printable characters, at most 512.
///
/// Errors: [`MessageError`] where there are no words either.
pub fn refusal(refused: &[u8], reason: &str) -> Result<Refused, MessageError> {
    let words: String = reason.chars().filter(|c| !c.is_control()).take(REASON_LEN_MAX).collect();
    decoded("refused", refused).or_else(|error| if words.is_empty() { Err(error) } else { Ok(Refused::Later(words)) })
}

/// What a verified server says of its cluster.
#[derive(Debug, Clone)]
pub struct ClusterInfo {
    /// Which cluster.
    pub cluster: ClusterId,
    /// The namespace of its principals.
    pub trust_domain: TrustDomain,
    /// Its time.
    pub time: UnixMillis,
}

impl TryFrom<crate::cluster::ViewReply> for ClusterInfo {
    type Error = MessageError;
    fn try_from(reply: crate::cluster::ViewReply) -> Result<Self, MessageError> {
        let got = reply.cluster.len();
        let cluster = reply.cluster.as_ref().try_into().map_err(|_| MessageError::Length {
            field: "cluster",
            got,
            expected: 16,
        })?;
        Ok(Self {
            cluster: ClusterId(cluster),
            trust_domain: TrustDomain::parse(&reply.trust_domain)?,
            time: UnixMillis(reply.time_millis),
        })
    }
}

/// The answer to an enrollment.
#[derive(Debug, Clone)]
pub struct Enrollment {
    /// The new member's number.
    pub node: NodeId,
    /// Its certificate chain, DER, leaf first, the authority last.
    pub chain: Vec<Bytes>,
    /// The view that holds it.
    pub view: View,
    /// The cluster's time.
    pub time: UnixMillis,
}

impl TryFrom<EnrollReply> for Enrollment {
    type Error = MessageError;
    fn try_from(reply: EnrollReply) -> Result<Self, MessageError> {
        Ok(Self {
            node: NodeId(reply.node),
            view: decoded("view", &reply.view)?,
            chain: reply.chain,
            time: UnixMillis(reply.time_millis),
        })
    }
}

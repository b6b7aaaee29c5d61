//! Asks members for the next certificate, one after another, and tells what their answers mean for the caller.

use std::time::Duration;

use countersign::{Address, Client, KeyPair, REFUSAL, Refusal, RenewError};
use tonic::{Code, Status};

use super::identity::Identity;
use super::{Renewal, issue_again};
use crate::failure::{Exit, Failure, chain};

/// How long one member may take, with the voters that it names.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// The next certificate.
pub(super) struct Answer {
    /// DER, leaf first, the authority last.
    pub(super) chain: Vec<Vec<u8>>,
    /// Its last second, since 1970.
    pub(super) not_after: u64,
    /// The member that was asked.
    pub(super) member: Address,
}

/// Asks for the next certificate, which must be of `key` and of the same principal.
///
/// # Errors
/// The answer of a member that refuses counts at once: the others know the same. Members that are not reached are all
/// named.
pub(super) async fn renewed(identity: &Identity, wanted: &Renewal<'_>, key: &KeyPair) -> Result<Answer, Failure> {
    let client = Client::new(identity.dialer.clone());
    let (mut tried, mut full) = (Vec::new(), None);
    for member in wanted.members {
        let asked = tokio::time::timeout(ANSWER_TIMEOUT, client.renew(core::slice::from_ref(member), key)).await;
        match asked {
            Ok(Ok(renewed)) => {
                let validity = renewed.client.dialer().credential().validity();
                let not_after = validity.map_or(0, |validity| validity.not_after.secs());
                return Ok(Answer { chain: renewed.chain, not_after, member: member.clone() });
            }
            Ok(Err(RenewError::Member(status))) if is_final(&status) => {
                return Err(refused(identity, wanted, member, &status));
            }
            // Of one member, if it is busy; of all, if another key counts.
            Ok(Err(RenewError::Member(status))) if status.code() == Code::ResourceExhausted => {
                full = Some(refused(identity, wanted, member, &status));
            }
            // The message names the address that was dialed, which may be another that this member named.
            Ok(Err(RenewError::Member(status))) => tried.push(format!("{member}: {}", status.message())),
            Ok(Err(error)) => tried.push(format!("{member}: {}", chain(&error))),
            Err(_) => tried.push(format!("{member}: no answer within {} seconds", ANSWER_TIMEOUT.as_secs())),
        }
    }
    if let Some(full) = full {
        return Err(full);
    }
    Err(Failure::unreachable(
        format!("no member renewed the certificate: {}", tried.join("; ")),
        "check --member, which takes client ports (two above the cluster port), and that these members run; the files \
         are as they were",
    ))
}

/// Whether a member has answered, and the answer is no.
fn is_final(status: &Status) -> bool {
    match status.code() {
        Code::PermissionDenied | Code::Unauthenticated | Code::InvalidArgument | Code::Unimplemented => true,
        // A learner or guard that knows no voter says `FAILED_PRECONDITION`: another may know some.
        Code::FailedPrecondition
        | Code::ResourceExhausted
        | Code::Ok
        | Code::Cancelled
        | Code::Unknown
        | Code::DeadlineExceeded
        | Code::NotFound
        | Code::AlreadyExists
        | Code::Aborted
        | Code::OutOfRange
        | Code::Internal
        | Code::Unavailable
        | Code::DataLoss => false,
    }
}

fn refused(identity: &Identity, wanted: &Renewal<'_>, member: &Address, status: &Status) -> Failure {
    let code = status.metadata().get(REFUSAL).and_then(|code| code.to_str().ok());
    let again = issue_again(identity, wanted.files);
    let next = if code == Some(Refusal::Expired.label()) {
        again
    } else if code.is_some() {
        format!("`countersign explain` on that member tells more; if the principal may come back, {again}")
    } else if status.code() == Code::ResourceExhausted {
        "try again later; if another key that was renewed from this one, or before it, still counts, it must end \
         first, or an admin revokes it (`countersign cert list`, `cert revoke`)"
            .to_owned()
    } else {
        again
    };
    let reason =
        format!("{member} does not renew the certificate of {}: {}", identity.principal.role, status.message());
    Failure::new(Exit::Refused, reason, next)
}

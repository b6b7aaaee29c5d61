//! Recognizing the cluster: this member's questions when it was away, and its answers to members that were.
//!
//! Raft follows any member with the highest term, evicted since or not. So at each start, and once after each lapse of
//! its lease, a member believes no Raft message of any group until its [`recognition::Recognizer`] has recognized the
//! cluster. Answering needs no lease, no leader and no cluster recognition: a cold cluster does not wait for itself.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use countersign_api::cluster::enrollment_client::EnrollmentClient;
use countersign_api::cluster::{ViewReply, ViewRequest, VoterAddress};
use countersign_api::convert::{MessageError, decoded};
use countersign_core::codec::{self, CodecError};
use countersign_core::id::NodeId;
use countersign_core::member::recognition::{
    self, ANSWER_MILLIS, Answer, Asker, Excerpt, Page, Question, RecognizedCluster,
};
use countersign_core::name::Address;
use countersign_core::trust::attestation::SignedAttestation;
use countersign_core::trust::recognition::AttestationClaim;
use countersign_net::dial_view;
use tokio::task::JoinSet;
use tonic::Status;

use crate::boot::boot_now;
use crate::identity::keys::random;
use crate::identity::local::Local;
use crate::lease::Leasehold;
use crate::trust::denylist::Denylist;
use crate::trust::gate::Gate;
use crate::trust::machine::SharedState;
use crate::trust::stores::Stores;

/// How long one voter may take to be dialed, and as long again to answer.
const ANSWER_DEADLINE: Duration = Duration::from_millis(ANSWER_MILLIS);
/// How often a member looks whether its lease has lapsed.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// A question that was asked, and the answer; none if none came.
type Asked = (Question, Option<ViewReply>);

/// The task that recognizes the cluster whenever the gate is shut.
pub(crate) struct Recognizer {
    pub(crate) local: Arc<Local>,
    pub(crate) gate: Arc<Gate>,
    pub(crate) lease: Arc<Leasehold>,
    pub(crate) denylist: Arc<Denylist>,
    pub(crate) stores: Arc<Stores>,
}

impl Recognizer {
    /// Runs until the member stops.
    pub(crate) async fn run(self) {
        loop {
            if !self.gate.is_open() {
                let cluster = self.recognize().await;
                self.believe(cluster);
            }
            // why: a lease lapses by the passing of time alone
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// Asks until the cluster is recognized.
    async fn recognize(&self) -> RecognizedCluster {
        let known = Arc::clone(&self.local.view().attestation);
        let mut recognizer = recognition::Recognizer::new(self.local.node, known);
        let mut answers: JoinSet<Asked> = JoinSet::new();
        loop {
            if let Some(cluster) = recognizer.recognized() {
                return cluster;
            }
            if recognizer.poll_round(boot_now())
                && let Ok(nonce) = random::<32>()
            {
                // Answers of the round before are waited for no longer.
                answers = self.ask(&mut recognizer, *nonce.expose());
                continue;
            }
            let due = recognizer.poll_timeout().map(|due| due.since(boot_now())).filter(|due| *due > 0);
            tokio::select! {
                Some(asked) = answers.join_next() => {
                    if let Ok((question, reply)) = asked {
                        take_answer(&mut recognizer, &question, reply);
                    }
                }
                // why: a voter that is down comes back without a sign
                () = tokio::time::sleep(due.map_or(LOOK_AGAIN, Duration::from_millis)) => {}
            }
        }
    }

    /// Begins a round, and sends its questions.
    fn ask(&self, recognizer: &mut recognition::Recognizer, nonce: [u8; 32]) -> JoinSet<Asked> {
        let view = self.local.view();
        let asker = Asker { identity: &self.local.keys.identity, view: &view };
        let denied = |voter| self.local.endpoint.denied(voter).is_some();
        let questions = recognizer.begin_round(nonce, asker, denied, boot_now());
        let ask = |question: Question| {
            let local = Arc::clone(&self.local);
            async move {
                let reply = ask_view(&local, &question).await;
                (question, reply)
            }
        };
        questions.into_iter().map(ask).collect()
    }

    /// Refuses the members that were evicted, then believes Raft again.
    fn believe(&self, cluster: RecognizedCluster) {
        let RecognizedCluster { newest, refused, is_evicted } = cluster;
        if is_evicted {
            tracing::warn!("this node was evicted");
        }
        // Before anything is believed.
        self.stores.attested(&newest);
        self.denylist.recognized(refused);
        self.gate.recognized(self.lease.deadline());
        tracing::debug!(attestation = newest.number, "cluster recognized");
    }
}

/// Hands an answer to the machine.
fn take_answer(recognizer: &mut recognition::Recognizer, question: &Question, reply: Option<ViewReply>) {
    let Question { voter, nonce, .. } = question;
    let answer = match reply.map(|reply| answer_of(&reply)).transpose() {
        Ok(Some(answer)) => answer,
        Ok(None) => return recognizer.handle_failure(nonce, *voter, boot_now()),
        Err(error) => {
            tracing::warn!(%voter, error = %crate::chain(&error), "answer about the cluster cannot be read");
            return recognizer.handle_failure(nonce, *voter, boot_now());
        }
    };
    if let Err(error) = recognizer.handle_answer(nonce, *voter, answer, boot_now()) {
        tracing::warn!(%voter, %error, "answer about the cluster is not believed");
    }
}

async fn ask_view(local: &Local, question: &Question) -> Option<ViewReply> {
    let Question { voter, address, nonce, known } = question;
    let stream = match dial_view(&local.endpoint, address, *voter, ANSWER_DEADLINE).await {
        Ok(stream) => stream,
        Err(error) => {
            tracing::debug!(%voter, error = %crate::chain(&error), "voter not asked");
            return None;
        }
    };
    let endpoint = tonic::transport::Endpoint::from_static("http://member").timeout(ANSWER_DEADLINE);
    let mut client = EnrollmentClient::new(crate::channel_over(&endpoint, stream));
    let request = ViewRequest { nonce: Bytes::copy_from_slice(nonce), known: *known };
    Some(client.view(request).await.ok()?.into_inner())
}

/// What this member knows of the cluster and the caller does not. It is shown to every caller, with or without a
/// lease, so that a cold cluster does not wait for itself.
pub(crate) fn show(local: &Local, state: &SharedState, request: &ViewRequest) -> Result<ViewReply, Status> {
    if request.nonce.is_empty() {
        return Ok(ViewReply::default());
    }
    let nonce = request.nonce.as_ref().try_into().map_err(|_| Status::invalid_argument("nonce of another length"))?;
    // A member that has just been admitted knows what it was admitted under.
    let view = local.view();
    let excerpt = {
        let state = state.read();
        Excerpt::of(state.chain_after(request.known), state.newest_attested().unwrap_or(&view.attestation))
    };
    let answer = excerpt.answer(local.node, &local.keys.identity, nonce, &view);
    reply_of(&answer).map_err(|_| Status::internal("no encoding"))
}

fn reply_of(answer: &Answer) -> Result<ViewReply, CodecError> {
    let Answer { claim, page, signature, voters } = answer;
    let encoded = |signed: &SignedAttestation| codec::encode(signed).map(Bytes::from);
    let attestations: Result<Vec<Bytes>, _> = page.attestations().iter().map(encoded).collect();
    let voters = voters.iter().map(|(node, address)| VoterAddress { node: node.0, address: address.to_string() });
    Ok(ViewReply {
        node: claim.node.0,
        attestations: attestations?,
        number: claim.number,
        digest: Bytes::copy_from_slice(&claim.digest),
        signature: signature.map(|signature| Bytes::copy_from_slice(&signature)).unwrap_or_default(),
        voters: voters.collect(),
        ..ViewReply::default()
    })
}

/// The page of an answer.
pub(crate) fn page_of(reply: &ViewReply) -> Result<Page, MessageError> {
    let attestations: Result<Vec<SignedAttestation>, _> =
        reply.attestations.iter().map(|bytes| decoded("attestation", bytes)).collect();
    Ok(Page::of(attestations?, reply.number))
}

fn answer_of(reply: &ViewReply) -> Result<Answer, MessageError> {
    let claim =
        AttestationClaim { node: NodeId(reply.node), number: reply.number, digest: fixed("digest", &reply.digest)? };
    let signature = Some(&reply.signature).filter(|signature| !signature.is_empty());
    let signature = signature.map(|signature| fixed("signature", signature)).transpose()?;
    let address = |voter: &VoterAddress| Some((NodeId(voter.node), Address::parse(&voter.address).ok()?));
    let voters = reply.voters.iter().filter_map(address).collect();
    Ok(Answer { claim, page: page_of(reply)?, signature, voters })
}

fn fixed<const N: usize>(field: &'static str, bytes: &[u8]) -> Result<[u8; N], MessageError> {
    bytes.try_into().map_err(|_| MessageError::Length { field, got: bytes.len(), expected: N })
}

#[cfg(test)]
mod tests {
    use countersign_core::id::{AuthorityId, ClusterId, StoreId};
    use countersign_core::key::SecretKey;
    use countersign_core::secret::Secret;
    use countersign_core::trust::attestation::{Attestation, AttestedVoter};
    use std::collections::BTreeMap;

    use super::*;

    fn answer(signature: Option<[u8; 64]>) -> Answer {
        let identity = SecretKey::from_seed(Secret::new([1; 32])).public();
        let voter = AttestedVoter { identity, store: StoreId([1; 16]) };
        let founding = Arc::new(Attestation::founding(ClusterId([1; 16]), NodeId(1), voter, AuthorityId([2; 32])));
        let claim = AttestationClaim::of(NodeId(1), &founding);
        let page =
            Page::of(vec![SignedAttestation { attestation: founding, signatures: BTreeMap::new() }], claim.number);
        let voters = vec![(NodeId(1), Address::parse("10.0.0.1:7001").unwrap())];
        Answer { claim, page, signature, voters }
    }

    #[test]
    fn answers_are_read_as_they_were_written() {
        for signature in [None, Some([7; 64])] {
            let answer = answer(signature);
            assert_eq!(answer_of(&reply_of(&answer).unwrap()).unwrap(), answer);
        }
    }

    #[test]
    fn malformed_answer_is_refused_and_malformed_address_left_out() {
        let good = reply_of(&answer(Some([7; 64]))).unwrap();
        let bytes = |len| Bytes::from(vec![1; len]);
        for reply in [
            ViewReply { digest: bytes(31), ..good.clone() },
            ViewReply { signature: bytes(63), ..good.clone() },
            ViewReply { attestations: vec![Bytes::from_static(b"none")], ..good.clone() },
        ] {
            answer_of(&reply).unwrap_err();
        }
        let voters = vec![VoterAddress { node: 1, address: "no address".to_owned() }];
        assert_eq!(answer_of(&ViewReply { voters, ..good }).unwrap().voters, []);
    }
}

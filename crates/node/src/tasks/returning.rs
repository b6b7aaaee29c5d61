//! When peers refuse this member: it learns whether it was evicted, and comes back where it was not.
//!
//! One member's word changes nothing. That it was evicted it believes of its own log, or of a chain of statements that the
//! voters signed; then it serves nobody any more. Where its certificate is superseded (its data directory is an older copy)
//! or of an authority that is gone, it asks for the next one by its identity key, of a server that it has verified under
//! what that chain trusts.

use std::sync::Arc;
use std::time::Duration;

use countersign_api::cluster::enrollment_client::EnrollmentClient;
use countersign_api::cluster::{ReturnReply, ReturnRequest as Asked, ViewRequest};
use countersign_api::convert::{MessageError, refusal};
use countersign_core::codec::{self, CodecError};
use countersign_core::enroll::returning::ReturnRequest;
use countersign_core::id::NodeId;
use countersign_core::key::SecretKey;
use countersign_core::limits::ENROLLMENT_REQUESTS_MAX;
use countersign_core::name::Address;
use countersign_core::peer::Refusal;
use countersign_core::trust::member::Suffrage;
use countersign_core::trust::outcome::Refused;
use countersign_core::trust::statement::ChainBroken;
use countersign_core::trust::view::View;
use countersign_net::{
    Credential, CredentialError, DialCause, DialError, Dialer, RecognizedServer, Unrecognized, dial_return,
};
use countersign_pki::csr::{CsrError, create_csr};
use countersign_pki::key::KeyPair;
use tonic::Status;
use tonic::transport::Channel;

use crate::channel::channel_over;
use crate::identity::keys::{KeysError, NextLeaf, random};
use crate::identity::local::Local;
use crate::lease::Leasehold;
use crate::peers::Peers;
use crate::tasks::recognize::{Followed, Page};
use crate::trust::machine::SharedState;
use crate::trust::own_status::OwnStatus;

/// How often a member without a lease tries whether its peers still know it.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// How long to wait at most before asking anew why.
const ASK_AGAIN_MAX: Duration = Duration::from_secs(60);
/// How long one member may take to answer.
const ANSWER_DEADLINE: Duration = Duration::from_secs(20);
/// Times that a renewal number may turn out to be another while one return is under way.
const NUMBERS_MAX: usize = 3;
/// Pages of statements that are asked for over one connection, which is to return as well.
const PAGES_MAX: usize = ENROLLMENT_REQUESTS_MAX - NUMBERS_MAX;

/// What a refusal may mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Meaning {
    /// It claims that this member was evicted.
    Evicted,
    /// It does not take this member's certificate, and might take the next.
    Certificate,
    /// It refused within TLS, which says nothing: its authorities may be others than this member's certificate has.
    Unsaid,
}

/// What follows from a failure to connect; nothing, where another refusal or the network is to blame.
const fn meaning(refusal: Option<Refusal>, alert: bool) -> Option<Meaning> {
    match refusal {
        Some(Refusal::Evicted | Refusal::KeyRevoked) => Some(Meaning::Evicted),
        Some(Refusal::Superseded | Refusal::Authority | Refusal::KeyUnknown) => Some(Meaning::Certificate),
        None if alert => Some(Meaning::Unsaid),
        _ => None,
    }
}

fn meaning_of(error: &DialError) -> Option<Meaning> {
    match &error.cause {
        DialCause::Refused { code } => meaning(code.refusal(), false),
        // Without a place for one more handshake, the alert is another (RFC 8446 §6.2, internal_error).
        DialCause::Alert { alert } => meaning(None, *alert != 80),
        DialCause::Connect(_)
        | DialCause::Deadline { .. }
        | DialCause::Closed(_)
        | DialCause::NotCountersign(_)
        | DialCause::Pin { .. }
        | DialCause::Untrusted(_)
        | DialCause::Judged(_)
        | DialCause::Host
        | DialCause::NoCredential
        | DialCause::Tls(_) => None,
    }
}

/// Why one member issued no certificate to a member that asked by its identity key.
#[derive(Debug, thiserror::Error)]
pub enum ReturnFailure {
    /// It was not reached.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// It could not carry it out.
    #[error("the answer was: {}", .0.message())]
    Server(#[source] Box<Status>),
    /// Its answer cannot be read.
    #[error("the answer is malformed")]
    Message(#[from] MessageError),
    /// What it shows of the cluster is not believed.
    #[error(transparent)]
    Follow(#[from] FollowError),
    /// It is under no authority of the cluster, or the certificate is not.
    #[error("the server is not recognized")]
    Unrecognized(#[from] Unrecognized),
    /// The keys.
    #[error(transparent)]
    Keys(#[from] KeysError),
    /// The request for a certificate cannot be made.
    #[error("certificate request cannot be made")]
    Csr(#[from] CsrError),
    /// The request cannot be encoded.
    #[error("request cannot be encoded")]
    Codec(#[from] CodecError),
    /// The cluster refused.
    #[error("refused: {0}")]
    Refused(#[from] Refused),
    /// The certificate is of another key.
    #[error("the new certificate does not fit its key")]
    Credential(#[from] CredentialError),
}

impl From<Status> for ReturnFailure {
    fn from(status: Status) -> Self {
        Self::Server(Box::new(status))
    }
}

/// Why statements were not followed.
#[derive(Debug, thiserror::Error)]
pub enum FollowError {
    /// The member could not answer.
    #[error("the answer was: {}", .0.message())]
    Server(#[source] Box<Status>),
    /// Its answer cannot be read.
    #[error("the answer is malformed")]
    Message(#[from] MessageError),
    /// The statements do not follow from those that are known.
    #[error("the statements shown are not believed")]
    Chain(#[from] ChainBroken),
    /// No nonce could be drawn.
    #[error(transparent)]
    Keys(#[from] KeysError),
}

impl From<Status> for FollowError {
    fn from(status: Status) -> Self {
        Self::Server(Box::new(status))
    }
}

/// What the statements said.
enum Said {
    Evicted,
    Member,
    Returned,
}

/// The task that finds out why peers refuse this member, and brings it back where it was not evicted.
pub(crate) struct Returning {
    pub(crate) local: Arc<Local>,
    pub(crate) state: SharedState,
    pub(crate) peers: Peers,
    pub(crate) lease: Arc<Leasehold>,
    pub(crate) own: Arc<OwnStatus>,
}

impl Returning {
    /// Runs until the member stops, or knows that it was evicted.
    pub(crate) async fn run(self) {
        let mut failures = self.peers.failures();
        let mut applied = self.state.applied();
        let mut pause = LOOK_AGAIN;
        for turn in 0_usize.. {
            if self.state.read().view().is_some_and(|view| view.evicted.contains_key(&self.local.node)) {
                return self.own.evicted();
            }
            // why: whoever reaches nobody learns of nothing, and nothing tells that an answer was lost
            let again = tokio::time::sleep(LOOK_AGAIN);
            let refused = tokio::select! {
                _ = applied.changed() => continue,
                _ = failures.changed() => {
                    let failed = failures.borrow_and_update().clone();
                    failed.and_then(|(node, error)| Some((node, meaning_of(&error)?)))
                }
                () = again => {
                    let leased = self.lease.fresh().is_ok();
                    if leased {
                        pause = LOOK_AGAIN;
                        continue;
                    }
                    self.try_somebody(turn).await
                }
            };
            let Some((node, meaning)) = refused else { continue };
            match self.ask_why(node, meaning, turn).await {
                Some(Said::Evicted) => return self.own.evicted(),
                Some(Said::Member | Said::Returned) | None => {}
            }
            // why: the same members would say the same again
            tokio::time::sleep(pause).await;
            pause = pause.saturating_mul(2).min(ASK_AGAIN_MAX);
        }
    }

    /// Dials one voter, the next in each turn, and tells what it means if it refuses.
    async fn try_somebody(&self, turn: usize) -> Option<(NodeId, Meaning)> {
        let (node, address) = self.voters_from(None, turn).into_iter().next()?;
        let refused = Dialer::new(self.local.endpoint.clone()).dial_peer(&address, node).await.err()?;
        Some((node, meaning_of(&refused)?))
    }

    /// The other voters that this member knows, `first` before all others.
    fn voters_from(&self, first: Option<NodeId>, turn: usize) -> Vec<(NodeId, Address)> {
        let trust = self.local.endpoint.trust().load();
        let voters = trust.view.members.values().filter(|m| m.suffrage == Suffrage::Voter && m.id != self.local.node);
        let mut voters: Vec<_> = voters.filter_map(|m| Some((m.id, m.addresses.first()?.clone()))).collect();
        let turns = turn.checked_rem(voters.len()).unwrap_or(0);
        voters.rotate_left(turns);
        voters.sort_by_key(|(id, _)| Some(*id) != first);
        voters
    }

    /// Asks one voter after the other, whoever refused first, what has become of this member.
    async fn ask_why(&self, refused_by: NodeId, meaning: Meaning, turn: usize) -> Option<Said> {
        for (node, address) in self.voters_from(Some(refused_by), turn) {
            let asking = tokio::time::timeout(ANSWER_DEADLINE, self.ask_one(&address, meaning));
            match asking.await {
                Ok(Ok(said)) => return Some(said),
                Ok(Err(error)) => {
                    tracing::warn!(%node, error = %crate::chain(&error), "refused by peers, and not told why");
                }
                Err(_) => tracing::warn!(%node, "refused by peers, and not told why in time"),
            }
        }
        None
    }

    /// What the cluster has become, as `address` can prove it; and this member's way back, if it needs one.
    async fn ask_one(&self, address: &Address, meaning: Meaning) -> Result<Said, ReturnFailure> {
        let known = Arc::clone(&self.local.endpoint.trust().load().view.statement);
        let mut followed = Followed::from(Arc::clone(&known));
        let (mut client, presented) = loop {
            let (stream, presented) = dial_return(address).await?;
            let endpoint = tonic::transport::Endpoint::from_static("http://member").timeout(ANSWER_DEADLINE);
            let mut client = EnrollmentClient::new(channel_over(&endpoint, stream));
            if follow_all(&mut client, &mut followed).await? {
                break (client, presented);
            }
        };
        let Followed { newest, evicted } = followed;
        if evicted.contains(&self.local.node) {
            return Ok(Said::Evicted);
        }
        let useless = match meaning {
            Meaning::Evicted => true,
            // Somebody refuses, and others renew the lease: it is no reason to change anything.
            Meaning::Certificate => self.lease.fresh().is_ok(),
            Meaning::Unsaid => self.local.authority().is_some_and(|id| newest.authorities.contains(&id)),
        };
        // A certificate made elsewhere is renewed there.
        if useless || self.local.keys.leaf.foreign().is_some() {
            return Ok(Said::Member);
        }
        let server = presented.recognize(known.cluster, &newest.authorities, &evicted)?;
        self.come_back(&mut client, &server).await?;
        Ok(Said::Returned)
    }

    /// The next certificate by the identity key: the same key at every attempt, stored before it is asked for.
    async fn come_back(
        &self,
        client: &mut EnrollmentClient<Channel>,
        server: &RecognizedServer,
    ) -> Result<(), ReturnFailure> {
        let NextLeaf { key } = self.local.next_leaf(self.local.shown_key())?;
        let view = self.local.view();
        let (chain, number) =
            next_chain(client, &self.local.keys.identity, (&view, self.local.node), &key, server).await?;
        self.take_over(&key, chain, server, number)
    }

    /// Checks the certificate as its peers will, stores it with its key, and shows it from now on.
    fn take_over(
        &self,
        key: &KeyPair,
        chain: Vec<Vec<u8>>,
        server: &RecognizedServer,
        renewal: u64,
    ) -> Result<(), ReturnFailure> {
        let credential = Arc::new(Credential::new(chain.iter().cloned(), key)?);
        server.check(&credential, self.local.node, self.local.now())?;
        crate::identity::keys::store_leaf(&self.local.data, key, &chain)?;
        self.local.endpoint.publish_credential(credential);
        self.peers.redial();
        tracing::info!(renewal, key = %key.id(), "returned by the identity key");
        Ok(())
    }
}

/// The certificate chain that the cluster issues for `key` to the member that signs with `identity`, and the number of that
/// renewal. `view` may be older than the cluster's.
pub(crate) async fn next_chain(
    client: &mut EnrollmentClient<Channel>,
    identity: &SecretKey,
    (view, node): (&View, NodeId),
    key: &KeyPair,
    server: &RecognizedServer,
) -> Result<(Vec<Vec<u8>>, u64), ReturnFailure> {
    let record = view.members.get(&node).ok_or(Refused::NoSuchNode(node))?;
    let mut number = record.renewal().saturating_add(1);
    let csr = create_csr(key)?;
    for _ in 0..NUMBERS_MAX {
        let request = ReturnRequest::sign(identity, (view.cluster, node), (key.id(), number), server.channel());
        let asked = Asked { request: codec::encode(&request)?.into(), csr: csr.clone().into(), ..Asked::default() };
        let ReturnReply { chain, refused, reason } = client.r#return(asked).await?.into_inner();
        if refused.is_empty() {
            return Ok((chain.iter().map(|der| der.to_vec()).collect(), number));
        }
        match refusal(&refused, &reason)? {
            // What was renewed since this member's copy of its data.
            Refused::RenewalOutOfOrder { next, .. } if next != number => number = next,
            why @ (Refused::NoCluster
            | Refused::ClusterExists
            | Refused::Token(_)
            | Refused::BelowLevel { .. }
            | Refused::AboveLevel { .. }
            | Refused::LevelNeedsVoter(_)
            | Refused::TokenExists
            | Refused::Limit { .. }
            | Refused::Signature(_)
            | Refused::KeyRevoked
            | Refused::KeyTaken(_)
            | Refused::KeyReused
            | Refused::RequestReused
            | Refused::EvictedSince(_)
            | Refused::NameNotAdmitted(_)
            | Refused::NameTaken { .. }
            | Refused::MappedTaken { .. }
            | Refused::CertificateMissing
            | Refused::CertificateUnwanted
            | Refused::KeyElsewhere(_)
            | Refused::AddressTaken { .. }
            | Refused::NoAddress
            | Refused::NoSuchNode(_)
            | Refused::AlreadyEvicted(_)
            | Refused::NoSuchToken(_)
            | Refused::NoSuchAuthority(_)
            | Refused::NotSealed(_)
            | Refused::StillVotes(_)
            | Refused::StillInGroup(_)
            | Refused::Returning(_)
            | Refused::NotReturning { .. }
            | Refused::OtherStore { .. }
            | Refused::StoreTaken(_)
            | Refused::Alive { .. }
            | Refused::Later(_)
            | Refused::StateDiffers { .. }
            | Refused::NoQuorumOfOthers { .. }
            | Refused::LastVoter(_)
            | Refused::KeepAuthority(_)
            | Refused::Unchanged(..)
            | Refused::NotIssued(_)
            | Refused::HostTaken { .. }
            | Refused::KeyOfNode(_)
            | Refused::RenewalOutOfOrder { .. }
            | Refused::NoSuchPrincipal(_)
            | Refused::NotASigner { .. }
            | Refused::SignatureMissing { .. }
            | Refused::RenewedBefore { .. }
            | Refused::KeyUnsuitable(_)
            | Refused::Policy(_)
            | Refused::Label(_)
            | Refused::HostShared(_)
            | Refused::HostNotAdvertised { .. }
            | Refused::HostNotAdded { .. }
            | Refused::NotAVoter(_)
            | Refused::NoSuchGroup(_)
            | Refused::GroupWithoutMembers) => return Err(why.into()),
        }
    }
    Err(Refused::RenewalOutOfOrder { node, next: number }.into())
}

/// Follows page after page of statements; false if there are more than one connection may ask for. Each page leads on, so
/// that it ends.
pub(crate) async fn follow_all(
    client: &mut EnrollmentClient<Channel>,
    followed: &mut Followed,
) -> Result<bool, FollowError> {
    for _ in 0..PAGES_MAX {
        let nonce = random::<32>()?.expose().to_vec().into();
        let shown = client.view(ViewRequest { nonce, known: followed.newest.number }).await?.into_inner();
        let page = Page::of(&shown)?;
        followed.follow(&page)?;
        if !page.more {
            return Ok(true);
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_this_member_could_answer_is_acted_on() {
        for refusal in Refusal::ALL {
            let expected = match refusal {
                Refusal::Evicted | Refusal::KeyRevoked => Some(Meaning::Evicted),
                Refusal::Superseded | Refusal::Authority | Refusal::KeyUnknown => Some(Meaning::Certificate),
                _ => None,
            };
            assert_eq!(meaning(Some(refusal), false), expected, "{refusal}");
        }
        assert_eq!((meaning(None, true), meaning(None, false)), (Some(Meaning::Unsaid), None));
    }
}

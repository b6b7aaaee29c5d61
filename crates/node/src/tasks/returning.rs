//! When peers refuse this member: it learns whether it was evicted, and comes back where it was not.
//!
//! One member's word changes nothing, and what to do the [`RefusalFollower`] decides. An evicted member serves no
//! caller any more. Where its certificate is superseded (its data directory is an older copy) or of an authority that
//! is gone, it asks for the next one by its identity key, of a server that it has verified under what that chain
//! trusts.

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
use countersign_core::member::recognition::History;
use countersign_core::member::returning::{Action, Finding, Meaning, RefusalFollower, Standing, finding};
use countersign_core::name::Address;
use countersign_core::trust::attestation::ChainBroken;
use countersign_core::trust::outcome::Refused;
use countersign_core::trust::view::View;
use countersign_net::{
    Credential, CredentialError, DialCause, DialError, Dialer, RecognizedServer, Unrecognized, dial_return,
};
use countersign_pki::csr::{CsrError, create_csr};
use countersign_pki::key::KeyPair;
use tonic::Status;
use tonic::transport::Channel;

use crate::boot::boot_now;
use crate::channel::channel_over;
use crate::identity::keys::{KeysError, NextLeaf, random};
use crate::identity::local::Local;
use crate::lease::Leasehold;
use crate::peers::Peers;
use crate::tasks::recognize::page_of;
use crate::trust::machine::SharedState;
use crate::trust::own_status::OwnStatus;

/// How long one member may take to answer.
const ANSWER_DEADLINE: Duration = Duration::from_secs(20);
/// Times that a renewal number may turn out to be another while one return is under way.
const NUMBERS_MAX: usize = 3;
/// Pages of attestations that are asked for over one connection, which is to return as well.
const PAGES_MAX: usize = ENROLLMENT_REQUESTS_MAX - NUMBERS_MAX;

/// What a failure to connect means; none where another refusal or the network is to blame.
fn meaning_of(error: &DialError) -> Option<Meaning> {
    if let DialCause::Alert { alert } = error.cause {
        return Meaning::of_alert(alert);
    }
    let DialCause::Refused { code } = &error.cause else { return None };
    code.refusal().and_then(Meaning::of_refusal)
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

/// Why attestations were not followed.
#[derive(Debug, thiserror::Error)]
pub enum FollowError {
    /// The member could not answer.
    #[error("the answer was: {}", .0.message())]
    Server(#[source] Box<Status>),
    /// Its answer cannot be read.
    #[error("the answer is malformed")]
    Message(#[from] MessageError),
    /// The attestations do not follow from those that are known.
    #[error("the attestations are not believed")]
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
        let mut follower = RefusalFollower::new(self.local.node, boot_now());
        loop {
            if self.is_evicted() {
                follower.handle_evicted();
            }
            let leased = self.lease.fresh().is_ok();
            match follower.poll_action(&self.local.view(), leased, boot_now()) {
                Some(Action::Leave) => return self.own.evicted(),
                Some(Action::Dial(node, address)) => {
                    match Dialer::new(self.local.endpoint.clone()).dial_peer(&address, node).await {
                        Ok(_) => follower.handle_dialed(boot_now()),
                        Err(error) => follower.handle_failure(node, meaning_of(&error), boot_now()),
                    }
                }
                Some(Action::Ask { node, address, meaning }) => {
                    // The own log may tell before that voter does.
                    tokio::select! {
                        finding = self.ask(node, &address, meaning) => {
                            if let Some(finding) = finding {
                                follower.handle_finding(finding, boot_now());
                            }
                        }
                        () = self.own_log_evicts() => {}
                    }
                }
                None => {
                    let due = follower.poll_timeout().map_or(0, |due| due.since(boot_now())).max(1);
                    tokio::select! {
                        _ = applied.changed() => follower.handle_applied(boot_now()),
                        _ = failures.changed() => {
                            let failure = failures.borrow_and_update().clone();
                            if let Some((node, error)) = failure {
                                follower.handle_failure(node, meaning_of(&error), boot_now());
                            }
                        }
                        // why: one that reaches no peer learns of nothing, and nothing tells that an answer was lost
                        () = tokio::time::sleep(Duration::from_millis(due)) => {}
                    }
                }
            }
        }
    }

    fn is_evicted(&self) -> bool {
        self.state.read().view().is_some_and(|view| view.evicted.contains_key(&self.local.node))
    }

    /// Returns once the own log says that this member was evicted.
    async fn own_log_evicts(&self) {
        let mut applied = self.state.applied();
        while !self.is_evicted() {
            if applied.changed().await.is_err() {
                return core::future::pending().await;
            }
        }
    }

    /// Asks one voter what has become of this member; none if it does not prove it in time.
    async fn ask(&self, node: NodeId, address: &Address, meaning: Meaning) -> Option<Finding> {
        match tokio::time::timeout(ANSWER_DEADLINE, self.ask_one(address, meaning)).await {
            Ok(Ok(finding)) => return Some(finding),
            Ok(Err(error)) => {
                tracing::warn!(%node, error = %crate::chain(&error), "refused by peers, and not told why");
            }
            Err(_) => tracing::warn!(%node, "refused by peers, and not told why in time"),
        }
        None
    }

    /// What the cluster has become, as `address` can prove it; and this member's way back, if it needs one.
    async fn ask_one(&self, address: &Address, meaning: Meaning) -> Result<Finding, ReturnFailure> {
        let known = Arc::clone(&self.local.endpoint.trust().load().view.attestation);
        let mut history = History::from(Arc::clone(&known));
        let (mut client, unrecognized) = loop {
            let (stream, unrecognized) = dial_return(address).await?;
            let endpoint = tonic::transport::Endpoint::from_static("http://member").timeout(ANSWER_DEADLINE);
            let mut client = EnrollmentClient::new(channel_over(&endpoint, stream));
            if follow_all(&mut client, &mut history).await? {
                break (client, unrecognized);
            }
        };
        let own = Standing {
            leased: self.lease.fresh().is_ok(),
            authority: self.local.authority(),
            foreign: self.local.keys.leaf.foreign().is_some(),
        };
        let finding = finding(self.local.node, meaning, &history, own);
        match finding {
            Finding::Outdated => {
                let server = unrecognized.recognize(known.cluster, &history.newest.authorities, &history.evicted)?;
                self.come_back(&mut client, &server).await?;
            }
            Finding::Evicted | Finding::Member => {}
        }
        Ok(finding)
    }

    /// The next certificate by the identity key: the same key at every attempt, stored before it is asked for.
    async fn come_back(
        &self,
        client: &mut EnrollmentClient<Channel>,
        server: &RecognizedServer,
    ) -> Result<(), ReturnFailure> {
        let NextLeaf { key } = self.local.next_leaf(self.local.shown_key())?;
        let view = self.local.view();
        let next = next_chain(client, &self.local.keys.identity, (&view, self.local.node), &key, server).await;
        if let Err(ReturnFailure::Refused(Refused::KeyRevoked)) = &next {
            // An older copy of the directory has a next key that was used since, and revoked.
            self.local.discard_next_leaf()?;
        }
        let (chain, number) = next?;
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

/// The certificate chain that the cluster issues for `key` to the member that signs with `identity`, and the number of
/// that renewal. `view` may be older than the cluster's.
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

/// Follows page after page of attestations; false if there are more than one connection may ask for. Each page leads
/// on, so that it ends.
pub(crate) async fn follow_all(
    client: &mut EnrollmentClient<Channel>,
    history: &mut History,
) -> Result<bool, FollowError> {
    for _ in 0..PAGES_MAX {
        let nonce = random::<32>()?.expose().to_vec().into();
        let reply = client.view(ViewRequest { nonce, known: history.newest.number }).await?.into_inner();
        let page = page_of(&reply)?;
        history.follow(&page)?;
        if !page.has_more() {
            return Ok(true);
        }
    }
    Ok(false)
}

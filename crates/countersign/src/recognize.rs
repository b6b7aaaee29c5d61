//! Recognizing the cluster: this member's signatures under what the cluster becomes, its answers to members that were away,
//! and its own questions when it was.
//!
//! Raft follows whoever comes with the highest term, evicted since or not. So at each start, and once after each lapse of
//! its lease, a member believes no Raft message of any group until a majority of the voters has answered its fresh nonce
//! with what they know. Answering needs no lease, no leader and no recognition: a cold cluster does not wait for itself.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use countersign_api::cluster::enrollment_client::EnrollmentClient;
use countersign_api::cluster::{ViewReply, ViewRequest, VoterAddress};
use countersign_core::codec;
use countersign_core::id::NodeId;
use countersign_core::name::Address;
use countersign_core::time::BootMillis;
use countersign_core::trust::command::Command;
use countersign_core::trust::member::Suffrage;
use countersign_core::trust::recognition::{Recognition, Shown};
use countersign_core::trust::statement::{Signed, Statement};
use countersign_net::dial_view;
use tokio::task::JoinSet;
use tonic::Status;

use crate::boot::boot_now;
use crate::keys::random;
use crate::member::Inner;
use crate::propose::CommandError;

/// How long one voter may take to answer. All answers of a round are of one nonce, so none is older than this.
const ANSWER_DEADLINE: Duration = Duration::from_secs(2);
/// How long to wait before asking again.
const RETRY: Duration = Duration::from_millis(300);
/// How often a member looks whether its lease has lapsed.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// Whether Raft's messages are believed: one moment of the clock that no suspend stops, so that a member that was paused
/// past the end of its lease believes nothing that was waiting for it.
pub(crate) struct Gate(AtomicU64);

const SHUT: u64 = 0;
const NO_LEASE_SINCE: u64 = u64::MAX;

impl Default for Gate {
    /// Open: for a group that no member stands around yet.
    fn default() -> Self {
        Self(AtomicU64::new(NO_LEASE_SINCE))
    }
}

impl Gate {
    /// Shuts it until the cluster is recognized.
    pub(crate) fn shut(&self) {
        self.0.store(SHUT, Ordering::Release);
    }

    /// Whether messages are believed now.
    pub(crate) fn is_open(&self) -> bool {
        boot_now().0 < self.0.load(Ordering::Acquire)
    }

    /// The cluster is recognized: messages are believed until the lease that this member has, or gets next, lapses.
    fn recognized(&self, lease: Option<BootMillis>) {
        let until = lease.filter(|end| boot_now() < *end).map_or(NO_LEASE_SINCE, |end| end.0);
        self.0.store(until, Ordering::Release);
    }

    /// A lease counts: from its end on nothing is believed. It does not open what is shut.
    pub(crate) fn leased(&self, until: BootMillis) {
        let now = boot_now().0;
        let _ = self.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, |end| (now < end).then_some(until.0));
    }
}

/// What is known of the cluster while it is asked for.
struct Known {
    newest: Arc<Statement>,
    evicted: BTreeSet<NodeId>,
    /// Where voters say that voters are.
    hints: BTreeMap<NodeId, Address>,
}

pub(crate) fn spawn(member: &Arc<Inner>) {
    let this = Arc::clone(member);
    member.spawn(async move {
        loop {
            if !this.gate.is_open() {
                this.recognize().await;
            }
            // why: a lease lapses by the passing of time alone
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    });
}

impl Inner {
    /// Asks until a majority has answered, then refuses whom they evicted and believes Raft again.
    async fn recognize(self: &Arc<Self>) {
        let view = Arc::clone(&self.endpoint.trust().load().view);
        let mut known = Known { newest: Arc::clone(&view.statement), evicted: BTreeSet::new(), hints: BTreeMap::new() };
        let mut turn = 0;
        loop {
            let before = known.newest.number;
            if self.ask_voters(&mut known, turn).await {
                break;
            }
            turn += 1;
            if known.newest.number == before {
                // why: who is down comes back without a sign
                tokio::time::sleep(RETRY).await;
            }
        }
        if known.evicted.contains(&self.node) {
            tracing::warn!("this node was evicted");
        }
        // Before anything is believed.
        self.overlay.recognized(known.evicted.into_iter().filter(|node| *node != self.node));
        self.gate.recognized(self.lease.deadline());
        tracing::debug!(statement = known.newest.number, "cluster recognized");
    }

    /// Asks every voter once, with one nonce; true if a majority of the newest statement's voters has answered.
    async fn ask_voters(self: &Arc<Self>, known: &mut Known, turn: usize) -> bool {
        let Ok(nonce) = random::<32>() else { return false };
        let nonce = *nonce.expose();
        let asked = Arc::clone(&known.newest);
        let mut recognition = Recognition::new(Arc::clone(&asked), nonce);
        let mut answers = JoinSet::new();
        let voters: Vec<NodeId> = recognition.voters().collect();
        for voter in voters {
            if voter == self.node {
                // It knows what it asks from.
                let shown = Shown::of(voter, &asked);
                let _ = recognition.answer(&asked, &shown, &[], &shown.sign(&self.keys.identity, &nonce));
            } else if self.endpoint.denied(voter).is_none()
                && let Some(address) = self.address_of(voter, known, turn)
            {
                let (this, known) = (Arc::clone(self), asked.number);
                answers.spawn(async move { (voter, this.ask_view(voter, &address, nonce, known).await) });
            }
        }
        while recognition.recognized().is_none()
            && let Some(answered) = answers.join_next().await
        {
            let Ok((voter, Some(reply))) = answered else { continue };
            if let Err(error) = count(&mut recognition, &asked, voter, &reply) {
                tracing::warn!(%voter, %error, "answer about the cluster is not believed");
                continue;
            }
            for VoterAddress { node, address } in reply.voters {
                if let Ok(address) = Address::parse(&address) {
                    known.hints.insert(NodeId(node), address);
                }
            }
        }
        known.newest = Arc::clone(recognition.newest());
        known.evicted.extend(recognition.evicted());
        recognition.recognized().is_some()
    }

    /// Where to ask: the addresses on record here and what voters say, each in its turn.
    fn address_of(&self, voter: NodeId, known: &Known, turn: usize) -> Option<Address> {
        let trust = self.endpoint.trust().load();
        let recorded = trust.view.members.get(&voter).into_iter().flat_map(|member| &member.addresses);
        let all: Vec<&Address> = recorded.chain(known.hints.get(&voter)).collect();
        all.get(turn.checked_rem(all.len())?).map(|address| (*address).clone())
    }

    async fn ask_view(&self, voter: NodeId, address: &Address, nonce: [u8; 32], known: u64) -> Option<ViewReply> {
        let stream = match dial_view(&self.endpoint, address, voter, ANSWER_DEADLINE).await {
            Ok(stream) => stream,
            Err(error) => {
                tracing::debug!(%voter, error = %crate::chain(&error), "voter not asked");
                return None;
            }
        };
        let endpoint = tonic::transport::Endpoint::from_static("http://member").timeout(ANSWER_DEADLINE);
        let mut client = EnrollmentClient::new(crate::channel_over(&endpoint, stream));
        let request = ViewRequest { nonce: Bytes::copy_from_slice(&nonce), known };
        Some(client.view(request).await.ok()?.into_inner())
    }

    /// Signs the first statement that lacks this member's signature and awaits it.
    pub(crate) async fn sign_statement(&self) -> Result<bool, CommandError> {
        let statement = self.state.read().to_sign(self.node).cloned();
        let Some(statement) = statement else { return Ok(false) };
        let signature = self.keys.identity.sign(&statement.transcript());
        let command = Command::SignStatement { number: statement.number, node: self.node, signature };
        self.command(command, &[]).await?;
        Ok(true)
    }

    /// What this member knows that whoever asks does not: for anybody, lease or not, so that a cold cluster does not wait for
    /// itself.
    pub(crate) fn show(&self, request: &ViewRequest) -> Result<ViewReply, Status> {
        if request.nonce.is_empty() {
            return Ok(ViewReply::default());
        }
        let nonce =
            request.nonce.as_ref().try_into().map_err(|_| Status::invalid_argument("nonce of another length"))?;
        // A member that has just been admitted knows what it was admitted under.
        let view = Arc::clone(&self.endpoint.trust().load().view);
        let state = self.state.read();
        let chain = state.chain_after(request.known);
        let newest = chain.last().map(|signed| &signed.statement).or(state.newest_shown()).unwrap_or(&view.statement);
        let shown = Shown::of(self.node, newest);
        let statements = chain.iter().filter_map(|signed| codec::encode(signed).ok()).map(Bytes::from).collect();
        let voters = view.members.values().filter(|member| member.suffrage == Suffrage::Voter);
        let voters = voters.filter_map(|member| {
            let address = member.addresses.first()?.to_string();
            Some(VoterAddress { node: member.id.0, address })
        });
        Ok(ViewReply {
            node: self.node.0,
            statements,
            number: shown.number,
            digest: Bytes::copy_from_slice(&shown.digest),
            signature: Bytes::copy_from_slice(&shown.sign(&self.keys.identity, nonce)),
            voters: voters.collect(),
            ..ViewReply::default()
        })
    }
}

/// Why an answer does not count.
#[derive(Debug, thiserror::Error)]
enum Uncounted {
    #[error("it cannot be read")]
    Malformed,
    #[error("it is of another voter than the one asked")]
    Another,
    #[error(transparent)]
    Answer(#[from] countersign_core::trust::recognition::AnswerError),
}

fn count(
    recognition: &mut Recognition,
    asked: &Arc<Statement>,
    voter: NodeId,
    reply: &ViewReply,
) -> Result<(), Uncounted> {
    if reply.node != voter.0 {
        return Err(Uncounted::Another);
    }
    let chain: Result<Vec<Signed>, _> = reply.statements.iter().map(|bytes| codec::decode(bytes)).collect();
    let chain = chain.map_err(|_| Uncounted::Malformed)?;
    let digest = reply.digest.as_ref().try_into().map_err(|_| Uncounted::Malformed)?;
    let signature = reply.signature.as_ref().try_into().map_err(|_| Uncounted::Malformed)?;
    let shown = Shown { node: voter, number: reply.number, digest };
    Ok(recognition.answer(asked, &shown, &chain, signature)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gate_that_is_shut_opens_by_recognition_alone_and_shuts_with_the_lease() {
        let gate = Gate::default();
        assert!(gate.is_open(), "nobody stands around it yet");
        gate.shut();
        let (past, future) = (BootMillis(boot_now().0.saturating_sub(1)), boot_now().plus(3_600_000));
        gate.leased(future);
        assert!(!gate.is_open(), "a lease recognizes nothing");
        gate.recognized(None);
        assert!(gate.is_open(), "raft goes on without a lease");
        gate.leased(future);
        assert!(gate.is_open());
        gate.leased(past);
        assert!(!gate.is_open(), "it has lapsed");
        gate.leased(future);
        assert!(!gate.is_open(), "the next one comes too late");
        gate.recognized(Some(past));
        assert!(gate.is_open(), "once for each lapse");
        gate.recognized(Some(future));
        assert!(gate.is_open());
    }
}

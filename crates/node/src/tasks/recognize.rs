//! Recognizing the cluster: this member's signatures under what the cluster becomes, its answers to members that were away,
//! and its own questions when it was.
//!
//! Raft follows whoever comes with the highest term, evicted since or not. So at each start, and once after each lapse of
//! its lease, a member believes no Raft message of any group until a majority of the voters has answered its fresh nonce
//! with what they know. Answering needs no lease, no leader and no recognition: a cold cluster does not wait for itself.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use countersign_api::cluster::enrollment_client::EnrollmentClient;
use countersign_api::cluster::{ViewReply, ViewRequest, VoterAddress};
use countersign_api::convert::{MessageError, decoded};
use countersign_core::codec::{self, CodecError};
use countersign_core::id::NodeId;
use countersign_core::key::SecretKey;
use countersign_core::limits::STATEMENTS_PER_ANSWER_MAX;
use countersign_core::name::Address;
use countersign_core::trust::member::Suffrage;
use countersign_core::trust::recognition::{AnswerError, Recognition, Shown};
use countersign_core::trust::statement::{ChainBroken, Signed, Statement, follow};
use countersign_net::dial_view;
use tokio::task::JoinSet;
use tonic::Status;

use crate::identity::keys::random;
use crate::identity::local::Local;
use crate::lease::Leasehold;
use crate::trust::denylist::Denylist;
use crate::trust::gate::Gate;
use crate::trust::machine::SharedState;
use crate::trust::stores::Stores;

/// How long one voter may take to answer. All answers of a round are of one nonce, so none is older than this.
const ANSWER_DEADLINE: Duration = Duration::from_secs(2);
/// How long to wait before asking again.
const RETRY: Duration = Duration::from_millis(300);
/// How often a member looks whether its lease has lapsed.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// What is known of the cluster while it is asked for.
struct Known {
    newest: Arc<Statement>,
    evicted: BTreeSet<NodeId>,
    /// Where voters say that voters are.
    hints: BTreeMap<NodeId, Address>,
}

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
                self.recognize().await;
            }
            // why: a lease lapses by the passing of time alone
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// Asks until a majority has answered, then refuses whom they evicted and believes Raft again.
    async fn recognize(&self) {
        let view = self.local.view();
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
        if known.evicted.contains(&self.local.node) {
            tracing::warn!("this node was evicted");
        }
        // Before anything is believed.
        self.stores.attested(&known.newest);
        self.denylist.recognized(known.evicted.into_iter().filter(|node| *node != self.local.node));
        self.gate.recognized(self.lease.deadline());
        tracing::debug!(statement = known.newest.number, "cluster recognized");
    }

    /// Asks every voter once, with one nonce; true if a majority of the newest statement's voters has answered.
    async fn ask_voters(&self, known: &mut Known, turn: usize) -> bool {
        let Ok(nonce) = random::<32>() else { return false };
        let nonce = *nonce.expose();
        let asked = Arc::clone(&known.newest);
        let mut recognition = Recognition::new(Arc::clone(&asked), nonce);
        let mut answers = JoinSet::new();
        let voters: Vec<NodeId> = recognition.voters().collect();
        for voter in voters {
            if voter == self.local.node {
                // It knows what it asks from.
                let shown = Shown::of(voter, &asked);
                let _ = recognition.answer(&asked, &shown, &[], &shown.sign(&self.local.keys.identity, &nonce));
            } else if self.local.endpoint.denied(voter).is_none()
                && let Some(address) = self.address_of(voter, known, turn)
            {
                let (local, known) = (Arc::clone(&self.local), asked.number);
                answers.spawn(async move { (voter, ask_view(&local, voter, &address, nonce, known).await) });
            }
        }
        while recognition.recognized().is_none()
            && let Some(answered) = answers.join_next().await
        {
            let Ok((voter, Some(reply))) = answered else { continue };
            let page = match count(&mut recognition, &asked, voter, &reply) {
                Ok(page) => page,
                Err(error) => {
                    tracing::warn!(%voter, %error, "answer about the cluster is not believed");
                    continue;
                }
            };
            for VoterAddress { node, address } in reply.voters {
                if let Ok(address) = Address::parse(&address) {
                    known.hints.insert(NodeId(node), address);
                }
            }
            if let Some(Followed { newest, evicted }) = page {
                // All are asked on from here: answers about what is behind it say nothing of what is after.
                known.newest = newest;
                known.evicted.extend(evicted);
                return false;
            }
        }
        known.newest = Arc::clone(recognition.newest());
        known.evicted.extend(recognition.evicted());
        recognition.recognized().is_some()
    }

    /// Where to ask: the addresses on record here and what voters say, each in its turn.
    fn address_of(&self, voter: NodeId, known: &Known, turn: usize) -> Option<Address> {
        let trust = self.local.endpoint.trust().load();
        let recorded = trust.view.members.get(&voter).into_iter().flat_map(|member| &member.addresses);
        let all: Vec<&Address> = recorded.chain(known.hints.get(&voter)).collect();
        all.get(turn.checked_rem(all.len())?).map(|address| (*address).clone())
    }
}

async fn ask_view(local: &Local, voter: NodeId, address: &Address, nonce: [u8; 32], known: u64) -> Option<ViewReply> {
    let stream = match dial_view(&local.endpoint, address, voter, ANSWER_DEADLINE).await {
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
/// What this member knows of the cluster and the caller does not. It is shown to every caller, with or without a lease, so that a
/// cold cluster does not wait for itself.
pub(crate) fn show(local: &Local, state: &SharedState, request: &ViewRequest) -> Result<ViewReply, Status> {
    if request.nonce.is_empty() {
        return Ok(ViewReply::default());
    }
    let nonce = request.nonce.as_ref().try_into().map_err(|_| Status::invalid_argument("nonce of another length"))?;
    // A member that has just been admitted knows what it was admitted under.
    let view = local.view();
    let showing = {
        let state = state.read();
        Showing::of(state.chain_after(request.known), state.newest_shown().unwrap_or(&view.statement))
    };
    let voters = view.members.values().filter(|member| member.suffrage == Suffrage::Voter);
    let voters = voters.filter_map(|member| {
        let address = member.addresses.first()?.to_string();
        Some(VoterAddress { node: member.id.0, address })
    });
    Ok(ViewReply {
        voters: voters.collect(),
        ..showing.reply(local.node, &local.keys.identity, nonce).map_err(|_| Status::internal("no encoding"))?
    })
}
/// What is shown to one who knows less, taken out of the state so that applying does not wait for encoding and signing.
struct Showing {
    page: Vec<Signed>,
    newest: Arc<Statement>,
}

impl Showing {
    /// The first page of `chain`, which leads to the newest statement; if it is empty, that is `newest`.
    fn of(chain: &[Signed], newest: &Arc<Statement>) -> Self {
        let newest = chain.last().map_or(newest, |signed| &signed.statement);
        Self { page: chain.iter().take(STATEMENTS_PER_ANSWER_MAX).cloned().collect(), newest: Arc::clone(newest) }
    }

    fn reply(&self, node: NodeId, identity: &SecretKey, nonce: &[u8; 32]) -> Result<ViewReply, CodecError> {
        let statements: Result<Vec<Bytes>, _> =
            self.page.iter().map(|signed| codec::encode(signed).map(Bytes::from)).collect();
        let shown = Shown::of(node, &self.newest);
        let ends = self.page.last().is_none_or(|last| last.statement.number == shown.number);
        // An answer is about the newest statement, or it would pass off the past as the present: before the last page
        // there is none.
        let signature = if ends { Bytes::copy_from_slice(&shown.sign(identity, nonce)) } else { Bytes::new() };
        Ok(ViewReply {
            node: node.0,
            statements: statements?,
            number: shown.number,
            digest: Bytes::copy_from_slice(&shown.digest),
            signature,
            ..ViewReply::default()
        })
    }
}

/// The statements of one answer.
pub(crate) struct Page {
    chain: Vec<Signed>,
    /// Whether the newest statement that the answer names lies beyond them: to be asked for from the last of these.
    pub(crate) more: bool,
}

impl Page {
    pub(crate) fn of(reply: &ViewReply) -> Result<Self, MessageError> {
        let chain: Result<Vec<Signed>, _> = reply.statements.iter().map(|bytes| decoded("statement", bytes)).collect();
        let chain = chain?;
        let more = chain.last().is_some_and(|last| last.statement.number < reply.number);
        Ok(Self { chain, more })
    }
}

/// Where pages have led. Their statements prove themselves; as an answer to a nonce they do not count.
#[derive(Debug)]
pub(crate) struct Followed {
    pub(crate) newest: Arc<Statement>,
    pub(crate) evicted: BTreeSet<NodeId>,
}

impl Followed {
    pub(crate) const fn from(newest: Arc<Statement>) -> Self {
        Self { newest, evicted: BTreeSet::new() }
    }

    /// Goes on by one page, or stays where it is.
    pub(crate) fn follow(&mut self, page: &Page) -> Result<(), ChainBroken> {
        let (newest, evicted) = follow(&self.newest, &page.chain)?;
        self.newest = newest;
        self.evicted.extend(evicted);
        Ok(())
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
    Answer(#[from] AnswerError),
}

/// Counts an answer, or follows a page that is not the last.
fn count(
    recognition: &mut Recognition,
    asked: &Arc<Statement>,
    voter: NodeId,
    reply: &ViewReply,
) -> Result<Option<Followed>, Uncounted> {
    if reply.node != voter.0 {
        return Err(Uncounted::Another);
    }
    let page = Page::of(reply).map_err(|_| Uncounted::Malformed)?;
    if page.more {
        let mut followed = Followed::from(Arc::clone(asked));
        followed.follow(&page).map_err(AnswerError::from)?;
        return Ok(Some(followed));
    }
    let digest = reply.digest.as_ref().try_into().map_err(|_| Uncounted::Malformed)?;
    let signature = reply.signature.as_ref().try_into().map_err(|_| Uncounted::Malformed)?;
    let shown = Shown { node: voter, number: reply.number, digest };
    recognition.answer(asked, &shown, &page.chain, signature)?;
    Ok(None)
}

#[cfg(test)]
mod tests {
    use countersign_core::id::{AuthorityId, ClusterId, Generation, StoreId};
    use countersign_core::secret::Secret;
    use countersign_core::trust::statement::{Signature, StatedVoter};

    use super::*;

    const VOTER: NodeId = NodeId(1);

    fn key(seed: u8) -> SecretKey {
        SecretKey::from_seed(Secret::new([seed; 32]))
    }

    /// The founding of a cluster of one voter, and as many statements after it, each evicting one member more.
    fn history(after: u64) -> (Arc<Statement>, Vec<Signed>) {
        let voter = StatedVoter { identity: key(1).public(), store: StoreId([1; 16]) };
        let founding = Arc::new(Statement::founding(ClusterId([1; 16]), VOTER, voter, AuthorityId([2; 32])));
        let mut newest = Arc::clone(&founding);
        let mut chain = Vec::new();
        for number in 1..=after {
            let statement = Arc::new(Statement {
                number,
                generation: Generation(number + 1),
                previous: newest.digest(),
                evicted: BTreeSet::from([NodeId(100 + number)]),
                ..Statement::clone(&newest)
            });
            let signature = Signature(key(1).sign(&statement.transcript()));
            newest = Arc::clone(&statement);
            chain.push(Signed { statement, signatures: BTreeMap::from([(VOTER, signature)]) });
        }
        (founding, chain)
    }

    /// What the voter answers to whoever knows that much of it.
    fn answer(chain: &[Signed], known: &Arc<Statement>, nonce: &[u8; 32]) -> ViewReply {
        let rest = chain.get(usize::try_from(known.number).unwrap()..).unwrap();
        Showing::of(rest, known).reply(VOTER, &key(1), nonce).unwrap()
    }

    /// Asks until the answer counts: how many answers that took, what is known then, and whom it evicts.
    fn asked(founding: &Arc<Statement>, chain: &[Signed]) -> (usize, u64, BTreeSet<NodeId>) {
        let (mut known, mut evicted) = (Arc::clone(founding), BTreeSet::new());
        for round in 1_u8.. {
            let nonce = [round; 32];
            let mut recognition = Recognition::new(Arc::clone(&known), nonce);
            let reply = answer(chain, &known, &nonce);
            assert!(reply.statements.len() <= STATEMENTS_PER_ANSWER_MAX);
            let page = count(&mut recognition, &known, VOTER, &reply).unwrap();
            assert_eq!(page.is_none(), recognition.recognized().is_some());
            evicted.extend(recognition.evicted());
            let Some(page) = page else {
                return (round.into(), recognition.newest().number, evicted);
            };
            evicted.extend(page.evicted);
            known = page.newest;
        }
        unreachable!()
    }

    #[test]
    fn statements_come_in_pages_and_all_of_them_are_followed_before_an_answer_counts() {
        let page = STATEMENTS_PER_ANSWER_MAX as u64;
        for (after, answers) in [(0, 1), (1, 1), (page, 1), (page + 1, 2), (2 * page, 2), (3 * page + 1, 4)] {
            let (founding, chain) = history(after);
            let evicted = (1..=after).map(|number| NodeId(100 + number)).collect();
            assert_eq!(asked(&founding, &chain), (answers, after, evicted));
        }
    }

    #[test]
    fn whoever_returns_follows_page_after_page_and_none_that_does_not_lead_on() {
        let page = STATEMENTS_PER_ANSWER_MAX as u64;
        let (founding, chain) = history(3 * page + 1);
        let mut followed = Followed::from(Arc::clone(&founding));
        let ask = |known: &Arc<Statement>| Page::of(&answer(&chain, known, &[1; 32])).unwrap();
        let first = ask(&founding);
        let mut seen = Vec::new();
        loop {
            let page = ask(&followed.newest);
            followed.follow(&page).unwrap();
            seen.push(followed.newest.number);
            if !page.more {
                break;
            }
        }
        assert_eq!(seen, [page, 2 * page, 3 * page, 3 * page + 1]);
        assert_eq!(followed.evicted.len() as u64, 3 * page + 1);
        followed.follow(&first).unwrap_err();
        assert_eq!(followed.newest.number, 3 * page + 1, "no page leads back");
    }

    #[test]
    fn a_page_passes_for_no_answer_and_only_what_is_signed_is_followed() {
        let (founding, chain) = history(STATEMENTS_PER_ANSWER_MAX as u64 + 1);
        let nonce = [7; 32];
        let good = answer(&chain, &founding, &nonce);
        assert!(good.signature.is_empty(), "nothing is said of what is not the newest");
        let mut recognition = Recognition::new(Arc::clone(&founding), nonce);
        let mut refused = |reply: ViewReply, claim: &str| {
            count(&mut recognition, &founding, VOTER, &reply).map(|_| ()).expect_err(claim)
        };

        let last = &chain[STATEMENTS_PER_ANSWER_MAX - 1].statement;
        let digest = Bytes::copy_from_slice(&last.digest());
        refused(ViewReply { number: last.number, digest: digest.clone(), ..good.clone() }, "said to be the last");
        let other = Shown::of(VOTER, last).sign(&key(1), &[8; 32]).to_vec().into();
        refused(ViewReply { number: last.number, digest, signature: other, ..good.clone() }, "of another nonce");
        refused(ViewReply { statements: vec![], ..good.clone() }, "it leads nowhere");
        refused(ViewReply { node: 2, ..good.clone() }, "of another voter");
        let statements = good.statements[1..].to_vec();
        refused(ViewReply { statements, ..good.clone() }, "one is left out");
        let mut forged = chain[1].clone();
        forged.signatures.insert(VOTER, Signature(key(9).sign(&forged.statement.transcript())));
        let statements = vec![good.statements[0].clone(), codec::encode(&forged).unwrap().into()];
        refused(ViewReply { statements, ..good.clone() }, "one is not signed by the voter");
        let statements = vec![good.statements[0].clone(), Bytes::from_static(b"none")];
        refused(ViewReply { statements, ..good }, "it cannot be read");
        assert!(recognition.recognized().is_none());
    }
}

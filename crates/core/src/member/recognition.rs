//! How a member that was away recognizes its cluster, round after round, and what the others show it.
//!
//! It asks every voter with one fresh nonce, follows what they show, and asks again from there, until a majority of the
//! voters of the newest attestation has answered one nonce. It must never count an answer to another nonce.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::id::NodeId;
use crate::key::SecretKey;
use crate::limits::ATTESTATIONS_PER_ANSWER_MAX;
use crate::name::Address;
use crate::time::BootMillis;
use crate::trust::attestation::{Attestation, ChainBroken, SignedAttestation, follow};
use crate::trust::recognition::{AnswerError, AttestationClaim, Recognition};
use crate::trust::view::View;

/// Milliseconds that one voter may take to be dialed, and as many again to answer.
pub const ANSWER_MILLIS: u64 = 2_000;
/// Milliseconds after which a round ends in any case.
const ROUND_MILLIS: u64 = 2 * ANSWER_MILLIS;
/// Milliseconds before the next round, where one led no further: a voter that is down comes back without a sign.
const RETRY_MILLIS: u64 = 300;

/// The attestations of one answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    attestations: Vec<SignedAttestation>,
    more: bool,
}

impl Page {
    /// The attestations of an answer that names `newest` as the number of the newest attestation.
    pub fn of(attestations: Vec<SignedAttestation>, newest: u64) -> Self {
        let more = attestations.last().is_some_and(|last| last.attestation.number < newest);
        Self { attestations, more }
    }

    /// The attestations, each the successor of the one before.
    pub fn attestations(&self) -> &[SignedAttestation] {
        &self.attestations
    }

    /// Whether the newest attestation that the answer names lies beyond them: to be asked for from the last of these.
    pub const fn has_more(&self) -> bool {
        self.more
    }
}

/// The attestations that pages have led to. They prove themselves; as an answer to a nonce they do not count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct History {
    /// The newest of them.
    pub newest: Arc<Attestation>,
    /// The members that they evict.
    pub evicted: BTreeSet<NodeId>,
}

impl History {
    /// Begins with an attestation that is known.
    pub const fn from(newest: Arc<Attestation>) -> Self {
        Self { newest, evicted: BTreeSet::new() }
    }

    /// Goes on by one page, or stays where it is.
    ///
    /// # Errors
    /// The page does not lead on from the newest attestation.
    pub fn follow(&mut self, page: &Page) -> Result<(), ChainBroken> {
        let (newest, evicted) = follow(&self.newest, &page.attestations)?;
        self.newest = newest;
        self.evicted.extend(evicted);
        Ok(())
    }
}

/// What a member answers to another that was away.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The newest attestation that it knows.
    pub claim: AttestationClaim,
    /// The attestations that lead there, or the first of them.
    pub page: Page,
    /// Its signature of `claim`; none where the page does not lead there.
    pub signature: Option<[u8; 64]>,
    /// Where it says that voters are.
    pub voters: Vec<(NodeId, Address)>,
}

/// What a member shows to one that knows less. It is taken out of the state so that applying does not wait for a
/// signature.
#[derive(Debug, Clone)]
pub struct Excerpt {
    page: Vec<SignedAttestation>,
    newest: Arc<Attestation>,
}

impl Excerpt {
    /// The first page of `chain`, which leads to the attestation `newest`, or is empty.
    pub fn of<'a>(chain: impl IntoIterator<Item = &'a SignedAttestation>, newest: &Arc<Attestation>) -> Self {
        let page = chain.into_iter().take(ATTESTATIONS_PER_ANSWER_MAX).cloned().collect();
        Self { page, newest: Arc::clone(newest) }
    }

    /// The answer of `node` to this nonce. `view` has the voters' addresses.
    pub fn answer(self, node: NodeId, identity: &SecretKey, nonce: &[u8; 32], view: &View) -> Answer {
        let claim = AttestationClaim::of(node, &self.newest);
        let page = Page::of(self.page, claim.number);
        // An answer is about the newest attestation, or it would pass off the past as the present: before the last page
        // there is none.
        let signature = (!page.more).then(|| claim.sign(identity, nonce));
        let voters = view.members.voters().filter_map(|voter| Some((voter.id, voter.addresses.first()?.clone())));
        Answer { claim, page, signature, voters: voters.collect() }
    }
}

/// Why an answer does not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UncountedAnswer {
    /// It is of another voter than the one asked.
    #[error("it is of another voter than the one asked")]
    Another,
    /// It leads to the newest attestation, and does not sign it.
    #[error("it is not signed")]
    Unsigned,
    /// What it shows is not believed.
    #[error(transparent)]
    Answer(#[from] AnswerError),
}

/// A question to one voter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// The voter.
    pub voter: NodeId,
    /// Where to dial it.
    pub address: Address,
    /// To be signed with the answer.
    pub nonce: [u8; 32],
    /// The number of the newest attestation that is known here.
    pub known: u64,
}

/// The asking member: what it signs with, and what it knows itself.
#[derive(Debug, Clone, Copy)]
pub struct Asker<'a> {
    /// Its identity key.
    pub identity: &'a SecretKey,
    /// Its view, which has voters' addresses.
    pub view: &'a View,
}

/// What a cluster has become, as a majority of its voters has attested.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecognizedCluster {
    /// The newest attestation, which says whose stores count.
    pub newest: Arc<Attestation>,
    /// The other members that were evicted since: they are refused before anything else is believed.
    pub refused: BTreeSet<NodeId>,
    /// Whether this member was evicted.
    pub is_evicted: bool,
}

/// A round under way.
#[derive(Debug)]
struct Round {
    nonce: [u8; 32],
    asked: Arc<Attestation>,
    recognition: Recognition,
    waiting: BTreeSet<NodeId>,
    until: BootMillis,
}

/// A member that recognizes its cluster. It is made for one recognition, and lost with the process.
#[derive(Debug)]
pub struct Recognizer {
    node: NodeId,
    known: History,
    /// Where voters say that voters are.
    hints: BTreeMap<NodeId, Address>,
    /// Which of a voter's addresses is dialed.
    turn: usize,
    round: Option<Round>,
    /// When the next round begins.
    due: BootMillis,
    recognized: bool,
}

impl Recognizer {
    /// `node` begins with the attestation of its stored view.
    pub const fn new(node: NodeId, known: Arc<Attestation>) -> Self {
        Self {
            node,
            known: History::from(known),
            hints: BTreeMap::new(),
            turn: 0,
            round: None,
            due: BootMillis(0),
            recognized: false,
        }
    }

    /// Whether a round is to begin at `now`, with a fresh nonce. One that takes too long has ended.
    pub fn poll_round(&mut self, now: BootMillis) -> bool {
        let late = self.round.as_ref().map(|round| round.until).filter(|until| *until <= now);
        if let Some(until) = late {
            self.end_round(until);
        }
        !self.recognized && self.round.is_none() && self.due <= now
    }

    /// Begins a round with a nonce that no member has seen. Returns the questions to send: none to voters that are
    /// `denied` here or of which no address is known.
    pub fn begin_round(
        &mut self,
        nonce: [u8; 32],
        asker: Asker<'_>,
        denied: impl Fn(NodeId) -> bool,
        now: BootMillis,
    ) -> Vec<Question> {
        let asked = Arc::clone(&self.known.newest);
        let mut recognition = Recognition::new(Arc::clone(&asked), nonce);
        if asked.voters.contains_key(&self.node) {
            // It knows what it asks from.
            let claim = AttestationClaim::of(self.node, &asked);
            let _ = recognition.answer(&asked, &claim, &[], &claim.sign(asker.identity, &nonce));
        }
        let others = asked.voters.keys().copied().filter(|voter| *voter != self.node && !denied(*voter));
        let question = |voter| {
            let address = self.address_of(voter, asker.view)?;
            Some(Question { voter, address, nonce, known: asked.number })
        };
        let questions: Vec<Question> = others.filter_map(question).collect();
        let waiting = questions.iter().map(|question| question.voter).collect();
        self.round = Some(Round { nonce, asked, recognition, waiting, until: now.plus(ROUND_MILLIS) });
        self.end_if_complete(now);
        questions
    }

    /// Where to ask: the addresses on record here and what voters say, each in its turn.
    fn address_of(&self, voter: NodeId, view: &View) -> Option<Address> {
        let recorded = view.members.get(&voter).into_iter().flat_map(|member| &member.addresses);
        let all: Vec<&Address> = recorded.chain(self.hints.get(&voter)).collect();
        all.get(self.turn.checked_rem(all.len())?).map(|address| (*address).clone())
    }

    /// The answer of `voter` to the question with this nonce came. One that the round under way does not wait for is
    /// ignored.
    ///
    /// # Errors
    /// Why it does not count. The round goes on without it.
    pub fn handle_answer(
        &mut self,
        nonce: &[u8; 32],
        voter: NodeId,
        answer: Answer,
        now: BootMillis,
    ) -> Result<(), UncountedAnswer> {
        let Some(round) = self.round.as_mut().filter(|round| round.nonce == *nonce) else { return Ok(()) };
        if !round.waiting.remove(&voter) {
            return Ok(());
        }
        let counted = round.count(voter, &answer);
        if counted.is_ok() {
            self.hints.extend(answer.voters);
        }
        match counted {
            Ok(Some(History { newest, evicted })) => {
                // All are asked on from here: answers about what is behind it say nothing of what is after.
                let advanced = newest.number != self.known.newest.number;
                self.known.newest = newest;
                self.known.evicted.extend(evicted);
                self.leave_round(advanced, now);
                Ok(())
            }
            Ok(None) => {
                self.end_if_complete(now);
                Ok(())
            }
            Err(why) => {
                self.end_if_complete(now);
                Err(why)
            }
        }
    }

    /// `voter` gave no answer to the question with this nonce.
    pub fn handle_failure(&mut self, nonce: &[u8; 32], voter: NodeId, now: BootMillis) {
        if let Some(round) = self.round.as_mut().filter(|round| round.nonce == *nonce) {
            round.waiting.remove(&voter);
            self.end_if_complete(now);
        }
    }

    fn end_if_complete(&mut self, now: BootMillis) {
        let complete = |round: &Round| round.waiting.is_empty() || round.recognition.recognized().is_some();
        if self.round.as_ref().is_some_and(complete) {
            self.end_round(now);
        }
    }

    /// Takes over what the round led to.
    fn end_round(&mut self, now: BootMillis) {
        let Some(Round { recognition, asked, .. }) = &self.round else { return };
        self.recognized = recognition.recognized().is_some();
        self.known.newest = Arc::clone(recognition.newest());
        self.known.evicted.extend(recognition.evicted());
        let advanced = self.known.newest.number != asked.number;
        self.leave_round(advanced, now);
    }

    fn leave_round(&mut self, advanced: bool, now: BootMillis) {
        self.round = None;
        self.turn = self.turn.wrapping_add(1);
        self.due = if advanced { now } else { now.plus(RETRY_MILLIS) };
    }

    /// When [`Self::poll_round`] may begin a round, if no answer comes first; none once the cluster is recognized.
    pub fn poll_timeout(&self) -> Option<BootMillis> {
        (!self.recognized).then(|| self.round.as_ref().map_or(self.due, |round| round.until))
    }

    /// What the cluster has become; none before a majority has answered.
    pub fn recognized(&self) -> Option<RecognizedCluster> {
        self.recognized.then(|| {
            let History { newest, evicted } = &self.known;
            let refused = evicted.iter().copied().filter(|node| *node != self.node).collect();
            RecognizedCluster { newest: Arc::clone(newest), refused, is_evicted: evicted.contains(&self.node) }
        })
    }
}

impl Round {
    /// Counts an answer, or follows a page that is not the last.
    fn count(&mut self, voter: NodeId, answer: &Answer) -> Result<Option<History>, UncountedAnswer> {
        let Answer { claim, page, signature, .. } = answer;
        if claim.node != voter {
            return Err(UncountedAnswer::Another);
        }
        if page.more {
            let mut history = History::from(Arc::clone(&self.asked));
            history.follow(page).map_err(AnswerError::from)?;
            return Ok(Some(history));
        }
        let signature = signature.as_ref().ok_or(UncountedAnswer::Unsigned)?;
        self.recognition.answer(&self.asked, claim, &page.attestations, signature)?;
        Ok(None)
    }
}

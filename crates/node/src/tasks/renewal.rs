//! Renewal: a new leaf key and certificate well before the old one ends, without a restart.
//!
//! The next key is stored before it is asked for, the certificate beside its key in one file before anybody sees it, and
//! the cluster takes either certificate until this member says that it uses the new one. So whatever step it is killed at,
//! it comes back with a certificate that its peers accept, and the same renewal goes on.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use countersign_core::id::{Generation, KeyId};
use countersign_core::key::Endorsement;
use countersign_core::time::{UnixMillis, Validity};
use countersign_core::trust::command::{AdoptLeaf, Command, Renew};
use countersign_core::trust::outcome::Outcome;
use countersign_net::{Credential, CredentialError, CredentialRefused};

use crate::identity::datadir::DataDirError;
use crate::identity::keys::{KeysError, NextLeaf, random};
use crate::identity::local::Local;
use crate::peers::Peers;
use crate::trust::machine::SharedState;
use crate::trust::propose::{CommandError, Proposer};

/// The wall clock may be set while this waits, so it looks again at least this often.
const LOOK_AGAIN: Duration = Duration::from_secs(30);
/// Milliseconds for each member over which renewals are spread when the hosts of all certificates change.
const HOSTS_SPREAD_MILLIS: u64 = 20;
/// How long to wait for the renewal to be applied here; it is committed by then.
const APPLIED_DEADLINE: Duration = Duration::from_secs(10);

/// What became of this member's renewals since its start, for whoever watches.
#[derive(Debug, Default)]
pub struct Renewals {
    done: AtomicU64,
    failed: AtomicU64,
    /// Zero: not known yet, or never.
    due_millis: AtomicU64,
}

impl Renewals {
    /// How many were made.
    pub fn done(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }

    /// How many attempts failed.
    pub fn failed(&self) -> u64 {
        self.failed.load(Ordering::Relaxed)
    }

    /// When the next is due; none where it is not known yet, or certificates are made elsewhere.
    pub fn due(&self) -> Option<UnixMillis> {
        Some(UnixMillis(self.due_millis.load(Ordering::Relaxed))).filter(|due| due.0 > 0)
    }
}

/// Why a certificate was not renewed this time. The one in use stays in use.
#[derive(Debug, thiserror::Error)]
enum RenewalError {
    #[error(transparent)]
    Keys(#[from] KeysError),
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    #[error(transparent)]
    Command(#[from] CommandError),
    #[error("the new certificate does not fit its key")]
    Credential(#[from] CredentialError),
    #[error("the new certificate does not pass this node's own verifier")]
    Verifier(#[from] CredentialRefused),
    #[error("the renewal was not applied here in time")]
    NotApplied,
    #[error("this node is not on record")]
    NotAMember,
}

/// When to renew: at one point between 50 and 80 % of the certificate's life, so that members made together do not come
/// together. `drawn` is uniform over all values.
fn due(validity: Validity, drawn: u16) -> UnixMillis {
    // Backdated for peers whose clocks are behind: its life began later.
    let begin = validity.not_before.plus_secs(countersign_core::limits::SKEW_SECS).min(validity.not_after);
    let life = validity.not_after.0.saturating_sub(begin.0);
    let share = 500 + u64::from(drawn) * 300 / u64::from(u16::MAX);
    UnixMillis(begin.0.saturating_add((u128::from(life) * u128::from(share) / 1000) as u64))
}

/// When to renew a certificate that does not hold the hosts that it should, as seen at `now`: soon, but not once for each of
/// several changes, and not all members at once when something changed for all of them.
fn due_for_hosts(now: UnixMillis, members: usize, drawn: u16) -> UnixMillis {
    let spread =
        (members as u64).saturating_mul(HOSTS_SPREAD_MILLIS).saturating_mul(u64::from(drawn)) / u64::from(u16::MAX);
    UnixMillis(now.plus_secs(1).0.saturating_add(spread))
}

/// How long to wait after a failure: often enough for a certificate that lives seconds, seldom for one that lives days.
fn retry(validity: Validity) -> Duration {
    let life = validity.not_after.0.saturating_sub(validity.not_before.0);
    Duration::from_millis((life / 200).clamp(200, 30_000))
}

/// Without randomness: the middle.
fn draw() -> u16 {
    random::<2>().map_or(u16::MAX / 2, |bytes| u16::from_be_bytes(*bytes.expose()))
}

/// The task that renews this member's certificate for as long as it runs.
pub(crate) struct Renewal {
    pub(crate) local: Arc<Local>,
    pub(crate) state: SharedState,
    pub(crate) peers: Peers,
    pub(crate) proposer: Arc<Proposer>,
    pub(crate) renewals: Arc<Renewals>,
}

impl Renewal {
    /// Runs until the member stops; ends at once where certificates are made elsewhere, and renewed there.
    pub(crate) async fn run(self) {
        if self.local.keys.leaf.foreign().is_some() {
            return;
        }
        let mut last = self.local.shown_key();
        let mut drawn = draw();
        let (mut adopted, mut for_hosts) = (false, None);
        let mut applied = self.state.applied();
        loop {
            applied.mark_unchanged();
            // A return by the identity key changes it as well.
            let shown = self.local.shown_key();
            if shown != last {
                (last, drawn, adopted, for_hosts) = (shown, draw(), false, None);
            }
            let record = self.local.endpoint.trust().load().view.members.get(&self.local.node).cloned();
            let leaf = record.as_ref().and_then(|record| record.leaf_of(shown)).cloned();
            let Some(leaf) = leaf else {
                // why: evicted, or the view is behind; nothing tells when it catches up
                tokio::time::sleep(Duration::from_secs(1)).await;
                continue;
            };
            if !adopted {
                // Of an earlier start, maybe: said again, it changes nothing.
                let adopt = Command::AdoptLeaf(AdoptLeaf { node: self.local.node, renewal: leaf.renewal });
                adopted = leaf.renewal == record.map_or(0, |record| record.leaf.renewal)
                    || self.proposer.own_command(adopt, &[]).await.is_ok();
            }
            let now = self.local.now();
            let differ = self.hosts_differ(shown);
            for_hosts = differ.then(|| for_hosts.unwrap_or_else(|| due_for_hosts(now, self.members(), drawn)));
            let due = due(leaf.validity, drawn);
            let due = for_hosts.map_or(due, |for_hosts| for_hosts.min(due));
            self.renewals.due_millis.store(due.0, Ordering::Relaxed);
            if now < due {
                let wait = Duration::from_millis(due.0 - now.0).min(LOOK_AGAIN);
                tokio::select! {
                    // why: a certificate ages by the passing of time alone
                    () = tokio::time::sleep(wait) => {}
                    _ = applied.changed() => {}
                }
                continue;
            }
            match self.renew(shown).await {
                Ok(()) => {
                    self.renewals.done.fetch_add(1, Ordering::Relaxed);
                }
                Err(error) => {
                    self.renewals.failed.fetch_add(1, Ordering::Relaxed);
                    tracing::warn!(error = %crate::chain(&error), "certificate not renewed yet, will be tried again");
                    // why: a leader may be missing, and nothing covers a lost message
                    tokio::time::sleep(retry(leaf.validity)).await;
                }
            }
        }
    }

    /// Whether the certificate in use holds other hosts than it would if it were issued now: names were added or taken away,
    /// or this member was found where it is now.
    fn hosts_differ(&self, in_use: KeyId) -> bool {
        let trust = self.local.endpoint.trust().load();
        let Some(record) = trust.view.members.get(&self.local.node) else { return false };
        let next = record.renewed.as_ref().filter(|next| next.leaf.key == in_use);
        let held = next.map_or(&record.hosts, |next| &next.hosts);
        *held != trust.view.leaf_hosts(record)
    }

    fn members(&self) -> usize {
        self.local.endpoint.trust().load().view.members.len()
    }

    /// Renews once, from whatever step an earlier attempt reached, and shows the new certificate from now on.
    async fn renew(&self, in_use: KeyId) -> Result<(), RenewalError> {
        let NextLeaf { key } = self.local.next_leaf(in_use)?;
        let (cluster, number) = {
            let trust = self.local.endpoint.trust().load();
            let record = trust.view.members.get(&self.local.node).ok_or(RenewalError::NotAMember)?;
            let again =
                record.leaf_of(key.id()).filter(|leaf| !leaf.has_ended(self.local.now())).map(|leaf| leaf.renewal);
            (trust.view.cluster, again.unwrap_or(record.renewal().saturating_add(1)))
        };
        let endorsement = Endorsement::sign(&self.local.keys.identity, cluster, key.id(), number);
        let command = Command::Renew(Renew { node: self.local.node, key: key.id(), endorsement });
        let done = self.proposer.own_command(command, &key.spki()).await?;
        let Outcome::Renewed(renewed) = done.outcome else { return Err(CommandError::Unknown.into()) };
        self.applied_here(renewed.generation).await?;
        let chain: Vec<Vec<u8>> = done.chain.iter().map(|der| der.to_vec()).collect();
        let credential = Arc::new(Credential::new(chain.iter().cloned(), &key)?);
        // As any peer will: only then does anything rely on it.
        self.local.endpoint.check_own(&credential, self.local.node)?;
        crate::identity::keys::store_leaf(&self.local.data, &key, &chain)?;
        self.local.endpoint.publish_credential(credential);
        self.peers.redial();
        tracing::info!(renewal = number, key = %key.id(), "certificate renewed");
        Ok(())
    }

    async fn applied_here(&self, generation: Generation) -> Result<(), RenewalError> {
        let mut applied = self.state.applied();
        let reached = applied.wait_for(|applied| *applied >= generation);
        match tokio::time::timeout(APPLIED_DEADLINE, reached).await {
            Ok(Ok(_)) => Ok(()),
            _ => Err(RenewalError::NotApplied),
        }
    }
}

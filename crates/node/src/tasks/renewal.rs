//! Renewal: a new leaf key and certificate well before the old one ends, without a restart.
//!
//! The next key is stored before it is asked for, the certificate beside its key in one file before anybody sees it,
//! and the cluster takes either certificate until this member says that it uses the new one. So whatever step it is
//! killed at, it comes back with a certificate that its peers accept, and the same renewal goes on. When a renewal is
//! due, the [`CertificateKeeper`] decides.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use countersign_core::id::{Generation, KeyId};
use countersign_core::key::Endorsement;
use countersign_core::member::renewal::{Action, CertificateKeeper, renewal_number};
use countersign_core::time::UnixMillis;
use countersign_core::trust::command::{Command, Renew};
use countersign_core::trust::outcome::Outcome;
use countersign_net::{Credential, CredentialError, CredentialRefused};

use crate::boot::boot_now;
use crate::identity::datadir::DataDirError;
use crate::identity::keys::{KeysError, NextLeaf, random};
use crate::identity::local::Local;
use crate::peers::Peers;
use crate::time::ClusterTime;
use crate::trust::machine::SharedState;
use crate::trust::propose::{CommandError, Proposer};

/// How long to wait for the renewal to be applied here; it is committed by then.
const APPLIED_DEADLINE: Duration = Duration::from_secs(10);

/// What became of this member's renewals since its start, for its metrics and its status.
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
    pub(crate) time: Arc<ClusterTime>,
    pub(crate) renewals: Arc<Renewals>,
}

impl Renewal {
    /// Runs until the member stops; ends at once where certificates are made elsewhere, and renewed there.
    pub(crate) async fn run(self) {
        if self.local.keys.leaf.foreign().is_some() {
            return;
        }
        let mut keeper = CertificateKeeper::new(self.local.node);
        let mut applied = self.state.applied();
        loop {
            applied.mark_unchanged();
            // A return by the identity key changes it as well.
            keeper.handle_certificate(self.local.shown_key(), draw());
            if let Some(stamp) = self.time.stamp_told() {
                keeper.handle_stamp(stamp);
            }
            let action = keeper.poll_action(&self.local.view(), self.local.now(), boot_now());
            self.renewals.due_millis.store(keeper.due().map_or(0, |due| due.0), Ordering::Relaxed);
            match action {
                Some(Action::Adopt(adopt)) => match self.proposer.own_command(Command::AdoptLeaf(adopt), &[]).await {
                    Ok(_) => keeper.handle_adopted(),
                    Err(error) => {
                        tracing::debug!(
                            error = %crate::chain(&error),
                            "the cluster does not know yet which certificate is in use"
                        );
                        keeper.handle_not_adopted(boot_now());
                    }
                },
                Some(Action::Renew { in_use }) => match self.renew(in_use).await {
                    Ok(()) => {
                        self.renewals.done.fetch_add(1, Ordering::Relaxed);
                        keeper.handle_renewed(boot_now());
                    }
                    Err(error) => {
                        self.renewals.failed.fetch_add(1, Ordering::Relaxed);
                        tracing::warn!(
                            error = %crate::chain(&error),
                            "certificate not renewed yet, will be tried again"
                        );
                        keeper.handle_failure(boot_now());
                    }
                },
                None => {
                    let wait = Duration::from_millis(keeper.poll_timeout().since(boot_now()).max(1));
                    tokio::select! {
                        // why: a certificate ages by the passing of time alone
                        () = tokio::time::sleep(wait) => {}
                        _ = applied.changed() => {}
                    }
                }
            }
        }
    }

    /// Renews once, from whatever step an earlier attempt reached, and shows the new certificate from now on.
    async fn renew(&self, in_use: KeyId) -> Result<(), RenewalError> {
        let NextLeaf { key } = self.local.next_leaf(in_use)?;
        let view = self.local.view();
        let member = view.members.get(&self.local.node).ok_or(RenewalError::NotAMember)?;
        let (cluster, number) = (view.cluster, renewal_number(member, key.id(), self.local.now()));
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

//! The task that keeps this member's own record in the trust state right: the level that its binary knows, its copy of
//! the CA key, its signature under what the cluster becomes, its addresses, its client port.

use std::sync::Arc;
use std::time::Duration;

use countersign_core::trust::addresses_transcript;
use countersign_core::trust::client_ports::CLIENT_PORTS_LEVEL;
use countersign_core::trust::command::{
    BindDataStore, Command, ConfirmAuthority, ReportClientPort, ReportFeatureLevel, SetAddresses, SignAttestation,
};
use countersign_core::trust::placement::PLACEMENT_LEVEL;
use countersign_raft::Group;

use crate::identity::endpoints::OwnEndpoints;
use crate::identity::local::Local;
use crate::peers::Peers;
use crate::trust::authority::{KeyHolder, SignError};
use crate::trust::machine::SharedState;
use crate::trust::propose::{CommandError, Proposer};

/// A step that did not succeed is tried again after this time; a lost message leaves nothing to wait for.
const TICK: Duration = Duration::from_secs(1);

/// Why a step did not succeed this time.
#[derive(Debug, thiserror::Error)]
enum StepError {
    #[error(transparent)]
    Sign(#[from] SignError),
    #[error(transparent)]
    Command(#[from] CommandError),
}

/// The task.
pub(crate) struct OwnRecord {
    pub(crate) local: Arc<Local>,
    pub(crate) state: SharedState,
    pub(crate) group: Group,
    pub(crate) peers: Peers,
    pub(crate) proposer: Arc<Proposer>,
    pub(crate) key_holder: Arc<KeyHolder>,
    pub(crate) endpoints: Arc<OwnEndpoints>,
}

impl OwnRecord {
    /// Runs until the member stops.
    pub(crate) async fn run(self) {
        let mut evictions = 0;
        let mut applied = self.state.applied();
        let mut status = self.group.watch();
        loop {
            // What changes from here on is seen below, also while a step is under way.
            applied.mark_unchanged();
            status.mark_unchanged();
            self.forget_evicted(&mut evictions);
            match self.correct().await {
                Ok(true) => continue,
                Ok(false) => {}
                Err(error) => {
                    tracing::debug!(
                        error = %crate::chain(&error),
                        "this member's record is not right yet, will be tried again"
                    );
                }
            }
            // why: a step whose message was lost is tried again, though nothing has changed
            let retry = tokio::time::sleep(TICK);
            tokio::select! {
                _ = applied.changed() => {}
                _ = status.changed() => {}
                () = retry => {}
            }
        }
    }

    /// Closes the channels to members that are gone, once more members are evicted than `known`.
    fn forget_evicted(&self, known: &mut usize) {
        let trust = self.local.endpoint.trust().load();
        let evictions = trust.view.evicted.len();
        if core::mem::replace(known, evictions) != evictions {
            self.peers.retain(|node| trust.view.members.contains_key(&node));
        }
    }

    /// Takes each step that is due; true if there may be another at once.
    async fn correct(&self) -> Result<bool, StepError> {
        // A refused step stops no other: addresses may be refused for good, and others wait for this member's level and
        // signature.
        let level = self.report_level().await;
        let authority = self.open_authority().await;
        let signed = self.sign_attestation().await;
        let addresses = self.correct_addresses().await;
        let data_store = self.bind_data_store().await;
        let client_port = self.report_client_port().await;
        level.and(authority)?;
        let signed = signed?;
        addresses?;
        data_store?;
        client_port?;
        Ok(signed)
    }

    /// Tells the cluster in which store this member keeps all groups but the trust group.
    async fn bind_data_store(&self) -> Result<(), StepError> {
        let (node, store) = (self.local.node, self.local.data_store);
        let wanted = {
            let state = self.state.read();
            let member = state.view().is_some_and(|view| view.members.contains_key(&node));
            member && state.level() >= PLACEMENT_LEVEL && state.placement().data_store(node) != Some(store)
        };
        if wanted {
            self.proposer.own_command(Command::BindDataStore(BindDataStore { node, store }), &[]).await?;
        }
        Ok(())
    }

    /// Tells the cluster where clients reach this member, when that is another address than is on record.
    async fn report_client_port(&self) -> Result<(), StepError> {
        let (node, address) = (self.local.node, self.endpoints.client_address());
        let wanted = {
            let state = self.state.read();
            let member = state.view().is_some_and(|view| view.members.contains_key(&node));
            member && state.level() >= CLIENT_PORTS_LEVEL && state.client_port(node) != address.as_ref()
        };
        if wanted {
            self.proposer.own_command(Command::ReportClientPort(ReportClientPort { node, address }), &[]).await?;
        }
        Ok(())
    }

    /// Tells the cluster which level this member's binary knows, when that is another than is on record.
    async fn report_level(&self) -> Result<(), StepError> {
        let state = self.state.read();
        let Some(member) = state.view().and_then(|view| view.members.get(&self.local.node)) else { return Ok(()) };
        let level = state.known();
        if member.feature_level != level {
            self.proposer
                .own_command(Command::ReportFeatureLevel(ReportFeatureLevel { node: self.local.node, level }), &[])
                .await?;
        }
        Ok(())
    }

    /// Opens this member's copy of the CA key, and shows the cluster that it did.
    async fn open_authority(&self) -> Result<(), StepError> {
        let to_confirm = {
            let state = self.state.read();
            self.key_holder.follow(&state, self.local.node, &self.local.keys.sealing)?;
            let Some(view) = state.view().cloned() else { return Ok(()) };
            let Some((authority, _)) = view.active_authority() else { return Ok(()) };
            let copy = state.sealed().get(&(authority, self.local.node)).filter(|copy| !copy.opened);
            copy.map(|copy| (view, authority, copy.ciphertext.clone()))
        };
        if let Some((view, authority, ciphertext)) = to_confirm {
            let signature = self.key_holder.confirm(authority, &view, (self.local.node, &ciphertext))?;
            self.proposer
                .own_command(
                    Command::ConfirmAuthority(ConfirmAuthority { authority, node: self.local.node, signature }),
                    &[],
                )
                .await?;
        }
        Ok(())
    }

    /// Signs the first attestation that lacks this member's signature and awaits it.
    async fn sign_attestation(&self) -> Result<bool, StepError> {
        let attestation = self.state.read().to_sign(self.local.node).cloned();
        let Some(attestation) = attestation else { return Ok(false) };
        let signature = self.local.keys.identity.sign(&attestation.transcript());
        let command =
            Command::SignAttestation(SignAttestation { number: attestation.number, node: self.local.node, signature });
        self.proposer.own_command(command, &[]).await?;
        Ok(true)
    }

    /// Tells the cluster where this member is reached, when it moved.
    async fn correct_addresses(&self) -> Result<(), StepError> {
        let advertised = self.endpoints.advertised();
        let view = self.state.read().view().cloned();
        let Some(view) = view else { return Ok(()) };
        let Some(member) = view.members.get(&self.local.node) else { return Ok(()) };
        if member.addresses == advertised {
            return Ok(());
        }
        let signature = self.local.keys.identity.sign(&addresses_transcript(&view, self.local.node, &advertised));
        let command = Command::SetAddresses(SetAddresses { node: self.local.node, addresses: advertised, signature });
        self.proposer.own_command(command, &[]).await?;
        Ok(())
    }
}

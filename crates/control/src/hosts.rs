//! Names and addresses in certificates, of one member and of all; and the settings and the level of the whole cluster.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use countersign_api::admin::{ClusterSettings, GuardLevel, MemberLevel};
use countersign_api::cluster::GuardsRequest;
use countersign_api::cluster::members_client::MembersClient;
use countersign_core::id::NodeId;
use countersign_core::name::Host;
use countersign_core::trust::command::{ClusterSetting, Command, EditHosts, RaiseLevel};
use countersign_core::trust::member::Member;
use countersign_core::trust::view::View;
use countersign_node::Peers;

use crate::others::{ask_others, names};
use crate::{Control, ControlError};

/// How long a member may take to say which guards follow it.
const ANSWER_DEADLINE: Duration = Duration::from_secs(3);

impl Control {
    /// Adds hosts to what certificates of a member hold, or takes them away. Returns the view that shows it, in force
    /// here.
    ///
    /// # Errors
    /// [`ControlError::Command`], [`ControlError::Behind`].
    pub async fn edit_hosts(&self, node: NodeId, add: Vec<Host>, remove: Vec<Host>) -> Result<Arc<View>, ControlError> {
        self.change_cluster(Command::EditHosts(EditHosts { node, add, remove })).await?;
        Ok(self.view())
    }

    /// Sets the hosts that certificates of all members hold, and that clients may dial.
    ///
    /// # Errors
    /// [`ControlError::Command`], [`ControlError::Behind`].
    pub async fn set_client_names(&self, names: Vec<Host>) -> Result<(), ControlError> {
        self.change_cluster(Command::SetCluster(ClusterSetting::ClientNames(names))).await
    }

    /// Sets whether the leader raises the cluster's level by itself.
    ///
    /// # Errors
    /// [`ControlError::Command`], [`ControlError::Behind`].
    pub async fn set_level_auto(&self, auto: bool) -> Result<(), ControlError> {
        self.change_cluster(Command::SetCluster(ClusterSetting::LevelAuto(auto))).await
    }

    /// Raises the cluster's level to the newest that this member knows, without waiting for the learners in `without`.
    /// Where other members know less, the refusal names them.
    ///
    /// # Errors
    /// [`ControlError::Command`], [`ControlError::Behind`].
    pub async fn raise_level(&self, without: BTreeSet<NodeId>) -> Result<(), ControlError> {
        let level = self.parts.state.read().known();
        self.change_cluster(Command::RaiseLevel(RaiseLevel { level, without, by_itself: false })).await
    }

    /// The settings of the cluster, with the levels that its members and the remote guards know. Each other member is
    /// asked which guards follow it.
    pub async fn cluster_settings(&self) -> ClusterSettings {
        let view = self.view();
        let answers = ask_others(&self.parts.local, &self.parts.peers, &view, guards_of).await;
        let unheard = answers.iter().filter(|(_, guards)| guards.is_none()).map(|(id, _)| *id);
        let guards_unheard = names(&view, unheard);
        let own = self.parts.lease.delegated.below(u32::MAX).into_iter();
        let own = own.map(|(name, level)| GuardLevel { name, level });
        let guards = own.chain(answers.into_values().flatten().flatten()).collect();
        let state = self.parts.state.read();
        let known =
            |m: &Member| MemberLevel { name: m.name.to_string(), level: m.feature_level, since: m.level_since.secs() };
        let behind = |m: &&Member| m.hosts.shared.iter().ne(&view.client_names);
        // Where certificates are made elsewhere, nothing is known of what they hold.
        let renewing = view.members.scan().values().filter(behind).filter(|_| !view.key_is_elsewhere());
        ClusterSettings {
            cluster: view.name.to_string(),
            cluster_id: view.cluster.to_string(),
            trust_domain: view.trust_domain.to_string(),
            generation: view.generation.0,
            client_names: view.client_names.iter().map(ToString::to_string).collect(),
            renewing: renewing.map(|m| m.name.to_string()).collect(),
            level: state.level(),
            level_auto: state.level_auto(),
            levels: view.members.scan().values().map(known).collect(),
            guards,
            guards_unheard,
        }
    }

    /// Has the command applied here before anything is answered.
    async fn change_cluster(&self, command: Command) -> Result<(), ControlError> {
        let generation = self.carry_out(command).await?;
        self.applied(generation).await
    }
}

/// The guards that follow a member; none if it does not say so in time.
async fn guards_of(peers: Peers, of: NodeId) -> Option<Vec<GuardLevel>> {
    let mut client = MembersClient::new(peers.channel(of)?);
    let reply = tokio::time::timeout(ANSWER_DEADLINE, client.guards(GuardsRequest {})).await;
    let guards = reply.ok()?.ok()?.into_inner().guards.into_iter();
    Some(guards.map(|guard| GuardLevel { name: guard.name, level: guard.level }).collect())
}

/// Hosts that a member advertises and nothing proves.
pub fn unproved(view: &View, member: &Member) -> Vec<String> {
    if view.key_is_elsewhere() {
        return vec![];
    }
    let mut hosts: Vec<String> = member.unproved().map(|address| address.host.to_string()).collect();
    hosts.dedup();
    hosts
}

/// What an operator should know of hosts that nothing proves.
pub(crate) fn warning(view: &View, member: &Member) -> Option<String> {
    let unproved = unproved(view, member);
    let (first, name) = (unproved.first()?, &member.name);
    Some(format!(
        "certificates of {name} do not hold `{}`: no voter finds it there, and no join token names it; try: \
         `countersign node hosts {name} add {first}`",
        unproved.join("`, `")
    ))
}

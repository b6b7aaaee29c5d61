//! The leader looks for running members at what they advertise and nothing proves: members that moved, and those that
//! could not be found while they enrolled.
//!
//! A member that runs needs no answer of its own kind: who ends the handshake of the peer protocol as this very member
//! is found. An address that it was seen to connect from needs no dial.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use countersign_core::enroll::host_checks::{HostCheck, HostChecks};
use countersign_core::id::NodeId;
use countersign_core::name::{Address, Host};
use countersign_core::principal::Role;
use countersign_core::trust::command::{Command, ProveHosts};
use countersign_core::trust::hosts::Witness;
use countersign_core::trust::view::View;
use countersign_net::{Alpn, Dialer};
use countersign_raft::{Group, GroupState};
use tokio::task::JoinSet;

use super::look::{PATIENCE, targets};
use crate::boot::boot_now;
use crate::identity::local::Local;
use crate::trust::propose::Proposer;

/// How often the leader checks whether a member must be looked for.
const TICK: Duration = Duration::from_secs(1);

/// The leader's task that looks for members.
#[derive(Clone)]
pub(crate) struct HostLookup {
    pub(crate) local: Arc<Local>,
    pub(crate) group: Group,
    pub(crate) proposer: Arc<Proposer>,
}

impl HostLookup {
    /// Runs until the member stops.
    pub(crate) async fn run(self) {
        let mut checks = HostChecks::default();
        loop {
            if self.group.status().state == GroupState::Leader {
                let view = self.local.view();
                let mut looking = JoinSet::new();
                for check in checks.due(&view, boot_now()) {
                    let (this, view) = (self.clone(), Arc::clone(&view));
                    looking.spawn(async move { this.check_hosts(&view, check).await });
                }
                while looking.join_next().await.is_some() {}
            } else {
                // Another leader looks; once this one leads again, it begins from the start.
                checks = HostChecks::default();
            }
            // why: whether a member can be reached is told by nothing
            tokio::time::sleep(TICK).await;
        }
    }

    /// Looks for one member, and has recorded where it was found.
    async fn check_hosts(&self, view: &View, HostCheck { node, addresses }: HostCheck) {
        let sources = self.sources(node);
        let mut hosts = Vec::new();
        for address in addresses {
            let seen = matches!(&address.host, Host::Ip(ip) if sources.contains(ip));
            if seen || self.is_reached(view, node, &address).await {
                hosts.push(address.host);
            }
        }
        if hosts.is_empty() {
            return;
        }
        let witness = Witness { by: self.local.node, hosts };
        if let Err(error) = self.proposer.own_command(Command::ProveHosts(ProveHosts { node, witness }), &[]).await {
            tracing::debug!(%node, error = %crate::chain(&error), "where the member was found is not recorded yet");
        }
    }

    /// Where the member connects from now.
    fn sources(&self, node: NodeId) -> BTreeSet<IpAddr> {
        let connections = self.local.endpoint.registry().connections();
        let its =
            connections.iter().filter(|c| !c.dialed && c.alpn == Alpn::Peer && c.principal.role == Role::Node(node));
        its.map(|connection| connection.remote.ip().to_canonical()).collect()
    }

    /// Whether the member alone answers wherever the address leads.
    async fn is_reached(&self, view: &View, node: NodeId, address: &Address) -> bool {
        let look = async {
            let targets = targets(view, Some(node), address, None).await?;
            for target in targets {
                let target = Address { host: Host::Ip(target.ip().to_canonical()), port: target.port() };
                let dialer = Dialer::new(self.local.endpoint.clone()).with_deadline(PATIENCE);
                drop(dialer.dial_peer(&target, node).await.ok()?);
            }
            Some(())
        };
        tokio::time::timeout(PATIENCE, look).await.is_ok_and(|found| found.is_some())
    }
}

//! Hosts of members: found by a voter, or added and taken away by an admin. No host of another member is added.

use serde::{Deserialize, Serialize};

use super::operation::{Applied, Checked, Effect, Entry, Operation, Precondition};
use crate::authz::Affected;
use crate::codec::FIRST_LEVEL;
use crate::id::NodeId;
use crate::limits::{EVENT_LIST_LEN_MAX, NODE_HOSTS_LEN_MAX, NODE_HOSTS_MAX};
use crate::name::Host;
use crate::time::UnixMillis;
use crate::trust::author::Authorship;
use crate::trust::event::{Account, Draft};
use crate::trust::hosts::{HostProof, Witness, check_limit};
use crate::trust::member::Suffrage;
use crate::trust::outcome::{Limited, Outcome, Refused};
use crate::trust::state::TrustState;
use crate::trust::view::View;

/// A voter found a member at hosts that it advertises: its certificates may hold them from now on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProveHosts {
    /// The member.
    pub node: NodeId,
    /// The hosts, and the voter that looked.
    pub witness: Witness,
}

/// Adds hosts to what certificates of a member hold, or takes away what an admin, its token or its founding gave. All
/// or none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EditHosts {
    /// The member.
    pub node: NodeId,
    /// Hosts to add.
    pub add: Vec<Host>,
    /// Hosts to take away.
    pub remove: Vec<Host>,
}

impl Operation for ProveHosts {
    fn level(&self) -> u32 {
        FIRST_LEVEL
    }

    fn authorship(&self) -> Authorship {
        Authorship::Witness(self.witness.by)
    }

    fn effect(&self) -> Effect<'_> {
        Effect::Nothing
    }

    fn precondition(&self) -> Precondition {
        Precondition::None
    }

    fn affects(&self, _: &View) -> Affected {
        Affected::identities()
    }

    fn unchanged(&self, state: &TrustState, _: UnixMillis) -> Checked {
        let Self { node, witness } = self;
        let view = state.current()?;
        let member = state.member(*node)?;
        if state.member(witness.by)?.suffrage != Suffrage::Voter {
            return Err(Refused::NotAVoter(witness.by));
        }
        for host in &witness.hosts {
            if !view.witnessed(witness, &member.addresses).any(|seen| seen == host) {
                return Err(Refused::HostNotAdvertised { host: host.clone(), node: *node });
            }
            view.check_host_free(Some(*node), host)?;
        }
        let known = witness.hosts.iter().all(|host| host.is_loopback() || member.proved.contains_key(host));
        Ok(known.then_some(Outcome::Done(view.generation)))
    }

    fn apply(&self, state: &mut TrustState, _: &Entry<'_>) -> Applied {
        let Self { node, witness } = self;
        state.change(|view| {
            view.members.update(node, |member| {
                for host in witness.hosts.iter().filter(|host| !host.is_loopback()) {
                    // What proves it already is not weakened.
                    member.proved.entry(host.clone()).or_insert(HostProof::Voter(witness.by));
                }
            });
        })
    }

    fn event(&self, draft: &Draft<'_>) -> Account {
        let Self { node, witness } = self;
        let details = draft.node(*node).number("found_by", witness.by.0);
        ("node.hosts_proved", details.texts("hosts", &witness.hosts, EVENT_LIST_LEN_MAX))
    }
}

impl Operation for EditHosts {
    fn level(&self) -> u32 {
        FIRST_LEVEL
    }

    fn authorship(&self) -> Authorship {
        Authorship::Voter
    }

    fn effect(&self) -> Effect<'_> {
        Effect::Nothing
    }

    fn precondition(&self) -> Precondition {
        Precondition::None
    }

    fn affects(&self, _: &View) -> Affected {
        Affected::identities()
    }

    fn unchanged(&self, _: &TrustState, _: UnixMillis) -> Checked {
        Ok(None)
    }

    fn apply(&self, state: &mut TrustState, _: &Entry<'_>) -> Applied {
        let Self { node, add, remove } = self;
        let node = *node;
        let view = state.current()?;
        let mut member = state.member(node)?.clone();
        for host in remove {
            match member.proved.get(host) {
                Some(HostProof::Admin | HostProof::Token | HostProof::Founder) => drop(member.proved.remove(host)),
                // It would come back at once.
                Some(HostProof::Voter(_)) => return Err(Refused::HostNotAdded { host: host.clone(), node }),
                None => {}
            }
        }
        for host in add {
            view.check_host_free(Some(node), host)?;
            member.proved.insert(host.clone(), HostProof::Admin);
        }
        let added = member.proved.iter().filter(|(_, proof)| **proof == HostProof::Admin);
        let added: Vec<&Host> = added.map(|(host, _)| host).collect();
        check_limit(Limited::NodeHosts, &added, NODE_HOSTS_MAX, NODE_HOSTS_LEN_MAX)?;
        if state.member(node)?.proved == member.proved {
            return Ok(Outcome::Done(view.generation));
        }
        state.change(|view| view.members.insert(node, member))
    }

    fn event(&self, draft: &Draft<'_>) -> Account {
        let Self { node, add, remove } = self;
        let details = draft.node(*node).texts("added", add, EVENT_LIST_LEN_MAX);
        ("node.hosts_changed", details.texts("removed", remove, EVENT_LIST_LEN_MAX))
    }
}

//! Where members are reached. A member signs a change of its addresses, and no host of another member is among them.

use serde::{Deserialize, Serialize};

use super::operation::{Applied, Checked, Effect, Entry, Operation, Precondition};
use crate::authz::Affected;
use crate::codec::FIRST_LEVEL;
use crate::id::{Generation, NodeId};
use crate::limits::{ADDRESSES_MAX, EVENT_LIST_LEN_MAX};
use crate::name::{Address, Host};
use crate::principal::Role;
use crate::time::UnixMillis;
use crate::transcript::Transcript;
use crate::trust::author::Authorship;
use crate::trust::event::{Account, Draft};
use crate::trust::hosts::HostProof;
use crate::trust::outcome::{Limited, Outcome, Refused, Signer};
use crate::trust::state::TrustState;
use crate::trust::view::View;

/// A member changes its addresses; signed with its identity key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetAddresses {
    /// The member.
    pub node: NodeId,
    /// Its new addresses.
    pub addresses: Vec<Address>,
    /// Over [`addresses_transcript`].
    #[serde(with = "crate::codec::bytes64")]
    pub signature: [u8; 64],
}

/// What a member signs with its identity key to change its addresses. Good for one change: it names the one before.
pub fn addresses_transcript(view: &View, node: NodeId, addresses: &[Address]) -> Transcript {
    let last = view.members.get(&node).map_or(0, |member| member.addresses_changed.0);
    let transcript = Transcript::new(b"member addresses")
        .fixed(&view.cluster.0)
        .fixed(&node.0.to_be_bytes())
        .fixed(&last.to_be_bytes())
        .fixed(&(addresses.len() as u64).to_be_bytes());
    addresses.iter().fold(transcript, |t, address| t.variable(address.to_string().as_bytes()))
}

impl Operation for SetAddresses {
    fn level(&self) -> u32 {
        FIRST_LEVEL
    }

    fn authorship(&self) -> Authorship {
        Authorship::Member { node: self.node, in_recovery: false }
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
        let Self { node, addresses, signature } = self;
        let member = state.member(*node)?;
        let view = state.current()?;
        check_addresses(addresses)?;
        member
            .keys
            .identity
            .verify(&addresses_transcript(view, *node, addresses), signature)
            .map_err(|_| Refused::Signature(Signer::Identity))?;
        if member.addresses == *addresses {
            return Ok(Some(Outcome::Done(view.generation)));
        }
        check_addresses_free(view, Some(*node), addresses).map(|()| None)
    }

    fn apply(&self, state: &mut TrustState, _: &Entry<'_>) -> Applied {
        let addresses = self.addresses.clone();
        state.change(|view| {
            let generation = Generation(view.generation.0.saturating_add(1));
            view.members.update(&self.node, |member| {
                // A voter found it there, and it has left that host.
                let stays = |host: &Host| addresses.iter().any(|address| address.host == *host);
                member.proved.retain(|host, proof| !matches!(proof, HostProof::Voter(_)) || stays(host));
                member.addresses = addresses;
                member.addresses_changed = generation;
            });
        })
    }

    fn event(&self, draft: &Draft<'_>) -> Account {
        ("node.moved", draft.node(self.node).texts("addresses", &self.addresses, EVENT_LIST_LEN_MAX))
    }
}

pub(super) fn check_addresses(addresses: &[Address]) -> Result<(), Refused> {
    if addresses.is_empty() {
        return Err(Refused::NoAddress);
    }
    if addresses.len() > ADDRESSES_MAX {
        return Err(Refused::Limit { what: Limited::Addresses, max: ADDRESSES_MAX as u64 });
    }
    Ok(())
}

/// Whether a member may be reached at `addresses`. What another member holds is refused by its address.
pub(super) fn check_addresses_free(view: &View, except: Option<NodeId>, addresses: &[Address]) -> Result<(), Refused> {
    addresses.iter().try_for_each(|address| match view.check_host_free(except, &address.host) {
        Err(Refused::HostTaken { by: Role::Node(node), .. }) => {
            Err(Refused::AddressTaken { address: address.clone(), node })
        }
        checked => checked,
    })
}

/// The hosts of addresses, each once and in order.
pub(super) fn hosts_of(addresses: &[Address]) -> Vec<Host> {
    let mut hosts: Vec<Host> = addresses.iter().map(|a| a.host.clone()).collect();
    hosts.sort();
    hosts.dedup();
    hosts
}

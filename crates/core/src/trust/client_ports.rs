//! Where clients reach members: a member that cannot answer a client names others by it.
//!
//! An address is its member's own word. It admits no host to a certificate, so a client that follows a false one meets
//! a server that it does not accept.

use super::state::TrustState;
use crate::id::NodeId;
use crate::name::Address;
use crate::table::Table;

/// The level from which on client ports are on record.
pub const CLIENT_PORTS_LEVEL: u32 = 3;

/// The client port of each member that said where it serves one.
pub type ClientPorts = Table<NodeId, Address>;

impl TrustState {
    /// Where clients reach `node`; none while it has not said so, and below [`CLIENT_PORTS_LEVEL`].
    pub fn client_port(&self, node: NodeId) -> Option<&Address> {
        self.client_ports.get(&node)
    }

    /// Where clients reach voters, by the voters' numbers.
    pub fn client_ports_of_voters(&self) -> impl Iterator<Item = &Address> {
        let voters = self.view().into_iter().flat_map(|view| view.members.voters());
        voters.filter_map(|voter| self.client_port(voter.id))
    }

    /// Records where clients reach a member, or that it serves none.
    pub(super) fn set_client_port(&mut self, node: NodeId, address: Option<&Address>) {
        match address {
            Some(address) => {
                self.client_ports.insert(node, address.clone());
            }
            None => {
                self.client_ports.remove(&node);
            }
        }
        self.revise();
    }

    /// Forgets a member that was evicted.
    pub(super) fn close_client_port(&mut self, node: NodeId) {
        if self.client_ports.contains_key(&node) {
            self.set_client_port(node, None);
        }
    }
}

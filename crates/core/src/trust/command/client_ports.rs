//! A member says where clients reach it.

use serde::{Deserialize, Serialize};

use super::operation::{Applied, Checked, Effect, Entry, Operation, Precondition};
use crate::authz::Affected;
use crate::id::NodeId;
use crate::name::Address;
use crate::time::UnixMillis;
use crate::trust::author::Authorship;
use crate::trust::client_ports::CLIENT_PORTS_LEVEL;
use crate::trust::event::{Account, Draft};
use crate::trust::outcome::Outcome;
use crate::trust::state::TrustState;
use crate::trust::view::View;

/// A member says where clients reach it. No host of another member is taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReportClientPort {
    /// The member.
    pub node: NodeId,
    /// The address of its client port; none if it serves no clients.
    pub address: Option<Address>,
}

impl Operation for ReportClientPort {
    fn level(&self) -> u32 {
        CLIENT_PORTS_LEVEL
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
        Affected::default()
    }

    fn unchanged(&self, state: &TrustState, _: UnixMillis) -> Checked {
        let Self { node, address } = self;
        let view = state.current()?;
        state.member(*node)?;
        if let Some(address) = address {
            view.check_host_free(Some(*node), &address.host)?;
        }
        Ok((state.client_port(*node) == address.as_ref()).then_some(Outcome::Done(view.generation)))
    }

    fn apply(&self, state: &mut TrustState, _: &Entry<'_>) -> Applied {
        let generation = state.current()?.generation;
        state.set_client_port(self.node, self.address.as_ref());
        Ok(Outcome::Done(generation))
    }

    fn event(&self, draft: &Draft<'_>) -> Account {
        let details = draft.node(self.node);
        (
            "node.client_port",
            match &self.address {
                Some(address) => details.text("address", address),
                None => details,
            },
        )
    }
}

//! What is clear before anything is proposed. The leader asks, so that members write nothing into the log that would change
//! nothing; `apply` decides again, by the same functions.

use super::command::Command;
use super::outcome::{Outcome, Refused};
use super::state::TrustState;
use crate::id::NodeId;
use crate::time::UnixMillis;

/// `Some`: there is nothing to change, and this is the answer.
pub(super) type Checked = Result<Option<Outcome>, Refused>;

impl TrustState {
    /// What `apply` would answer at `time` without a change: a refusal, or the answer to what was done before. `None` where
    /// the command must be applied to tell. Only of what any member may have proposed for itself, and of clients' renewals.
    pub fn answered(&self, command: &Command, time: UnixMillis) -> Option<Outcome> {
        let checked = match command {
            Command::Admit(admission) => self.check_admission(&admission.request).map(|()| None),
            Command::ProveHosts { node, witness } => self.check_proof(*node, witness),
            Command::ReportFeatureLevel { node, level } => self.check_level(*node, *level),
            Command::SetAddresses { node, addresses, signature } => self.check_move(*node, addresses, signature),
            Command::Renew { node, key, endorsement } => {
                self.check_renewal(*node, *key, endorsement, self.time().max(time))
            }
            Command::AdoptLeaf { node, renewal } => self.check_adoption(*node, *renewal),
            Command::ReturnStore(request) => self.check_store_return(request),
            Command::SignStatement { number, node, signature } => self.check_signature(*number, *node, signature),
            Command::RenewPrincipal { role, in_use, spki } => {
                self.check_principal_renewal(role, *in_use, spki, self.time().max(time))
            }
            _ => Ok(None),
        };
        checked.unwrap_or_else(|why| Some(Outcome::Refused(why)))
    }

    /// Whether the member may report this level; `Some` where it has already.
    pub(super) fn check_level(&self, node: NodeId, level: u32) -> Checked {
        let generation = self.current()?.generation;
        Ok((self.member(node)?.feature_level == level).then_some(Outcome::Done(generation)))
    }
}

//! Who may have a command proposed. Forwarding carries no authority: what a member passes on is judged as that member.

use super::command::Command;
use super::member::Suffrage;
use super::view::View;
use crate::id::NodeId;

/// On whose word the leader proposes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Author {
    /// An operator whom this very member identified, on its own socket or by an admin certificate.
    Operator,
    /// The member that passed the command on.
    Member(NodeId),
}

/// A member passed on what it may not ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("node {0} is not a voter and may not administer the cluster")]
pub struct NotPermitted(pub NodeId);

/// Decides whether `author` may have `command` proposed. An admission carries its own proof, the token's signature, so any
/// member may sponsor one; a member speaks for itself; all else needs a voter.
pub fn permit(view: &View, author: Author, command: &Command) -> Result<(), NotPermitted> {
    let Author::Member(from) = author else { return Ok(()) };
    let member = view.members.get(&from).ok_or(NotPermitted(from))?;
    let allowed = match command {
        Command::Bootstrap(_) => false,
        Command::Admit(_) => true,
        Command::ConfirmAuthority { node, .. }
        | Command::ReportFeatureLevel { node, .. }
        | Command::Renew { node, .. }
        | Command::AdoptLeaf { node, .. }
        | Command::SignStatement { node, .. }
        | Command::SetAddresses { node, .. } => *node == from || member.suffrage == Suffrage::Voter,
        Command::AddJoinToken(_)
        | Command::RevokeJoinToken(_)
        | Command::RotateClusterToken(_)
        | Command::SealAuthority { .. }
        | Command::SetSuffrage { .. }
        | Command::Evict { .. }
        | Command::IssuePrincipal { .. }
        | Command::RevokeKey(_)
        | Command::RevokePrincipal(_)
        | Command::AssignGroup { .. } => member.suffrage == Suffrage::Voter,
    };
    if allowed { Ok(()) } else { Err(NotPermitted(from)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trust::tests::rig::{Rig, bootstrap, record, request};

    #[test]
    fn a_learner_sponsors_and_speaks_for_itself_but_administers_nothing() {
        let mut rig = Rig::three_voters();
        rig.apply(Command::AddJoinToken(record(5, 1)));
        rig.apply(Command::Admit(Box::new(request(4, 5))));
        let view = rig.0.view().unwrap();
        let ask = |from, command: &Command| permit(view, Author::Member(NodeId(from)), command).is_ok();
        let own = |node| Command::ReportFeatureLevel { node: NodeId(node), level: 1 };
        assert!(ask(4, &Command::Admit(Box::new(request(7, 5)))) && ask(4, &own(4)));
        let administering = [
            own(1),
            bootstrap(),
            Command::AddJoinToken(record(6, 1)),
            Command::RotateClusterToken(record(6, 1)),
            Command::Evict { node: NodeId(1), compromised: false, keep_authority: true },
            Command::SetSuffrage { node: NodeId(4), suffrage: Suffrage::Voter, keep_authority: true },
            Command::RevokeKey(crate::id::KeyId([0; 32])),
        ];
        for command in &administering {
            assert!(!ask(4, command), "{command:?}");
            assert!(!ask(99, command), "a stranger: {command:?}");
        }
        assert!(ask(2, &own(1)) && !ask(2, &bootstrap()));
        assert!(!ask(99, &Command::Admit(Box::new(request(7, 5)))));
    }
}

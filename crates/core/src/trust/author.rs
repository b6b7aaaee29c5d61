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
        // Signed by the member itself, whichever member passes it on.
        Command::Admit(_) | Command::ReturnStore(_) => true,
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
        | Command::RenewPrincipal { .. }
        | Command::RevokeKey(_)
        | Command::RevokePrincipal(_)
        | Command::StagePolicy { .. }
        | Command::ChangePolicy(_)
        | Command::Label { .. }
        | Command::BindStore { .. }
        | Command::AssignGroup { .. } => member.suffrage == Suffrage::Voter,
    };
    if allowed { Ok(()) } else { Err(NotPermitted(from)) }
}

/// A member whose certificate has expired, or one that asks such a member, wants more than recovery.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a certificate has expired: until it is renewed, node {0} may only renew and speak for itself")]
pub struct RecoveryOnly(pub NodeId);

/// Decides whether `from` may pass `command` on while its own certificate or the other end's has expired: what renews it and
/// what a cluster that was off needs to form again, of the member itself. Asked besides [`permit`].
pub fn permit_in_recovery(from: NodeId, command: &Command) -> Result<(), RecoveryOnly> {
    let own = match command {
        Command::Renew { node, .. }
        | Command::AdoptLeaf { node, .. }
        | Command::SignStatement { node, .. }
        | Command::ConfirmAuthority { node, .. } => *node == from,
        _ => false,
    };
    if own { Ok(()) } else { Err(RecoveryOnly(from)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authz::change::ChangeId;
    use crate::id::{AuthorityId, KeyId};
    use crate::key::Endorsement;
    use crate::principal::Role;
    use crate::trust::tests::rig::{CLUSTER, Rig, bootstrap, key, record, request};

    #[test]
    fn in_recovery_a_member_speaks_for_itself_alone() {
        let endorsement = Endorsement::sign(&key(2), CLUSTER, KeyId([1; 32]), 1);
        let of = |node: u64| {
            let node = NodeId(node);
            [
                Command::Renew { node, key: KeyId([1; 32]), endorsement: endorsement.clone() },
                Command::AdoptLeaf { node, renewal: 1 },
                Command::SignStatement { number: 1, node, signature: [0; 64] },
                Command::ConfirmAuthority { authority: AuthorityId([1; 32]), node, signature: vec![] },
            ]
        };
        for (own, others) in of(2).iter().zip(&of(3)) {
            assert_eq!(permit_in_recovery(NodeId(2), own), Ok(()), "{own:?}");
            assert_eq!(permit_in_recovery(NodeId(2), others), Err(RecoveryOnly(NodeId(2))), "{others:?}");
        }
        for command in [
            bootstrap(),
            Command::Admit(Box::new(request(7, 5))),
            Command::AddJoinToken(record(6, 1)),
            Command::ReportFeatureLevel { node: NodeId(2), level: 1 },
            Command::SetAddresses { node: NodeId(2), addresses: vec![], signature: [0; 64] },
            Command::Evict { node: NodeId(2), compromised: false, keep_authority: true },
            Command::SealAuthority { authority: AuthorityId([1; 32]), node: NodeId(2), sealed: vec![] },
            Command::RevokeKey(KeyId([0; 32])),
        ] {
            assert_eq!(permit_in_recovery(NodeId(2), &command), Err(RecoveryOnly(NodeId(2))), "{command:?}");
        }
    }

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
            Command::RevokeKey(KeyId([0; 32])),
            Command::ChangePolicy(Box::default()),
            Command::StagePolicy { change: ChangeId([0; 16]), part: 0, remove: vec![], put: vec![] },
            Command::Label { role: Role::Node(NodeId(4)), edits: vec![] },
        ];
        for command in &administering {
            assert!(!ask(4, command), "{command:?}");
            assert!(!ask(99, command), "a stranger: {command:?}");
        }
        assert!(ask(2, &own(1)) && !ask(2, &bootstrap()));
        assert!(!ask(99, &Command::Admit(Box::new(request(7, 5)))));
    }
}

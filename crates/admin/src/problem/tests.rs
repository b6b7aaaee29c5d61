//! The status and the code of each error: programs go by them, so that none changes unseen.

use countersign_core::authz::RuleId;
use countersign_core::authz::change::PolicyLimit;
use countersign_core::authz::label::LabelError;
use countersign_core::authz::rule::RuleError;
use countersign_core::codec::CodecError;
use countersign_core::id::{AuthorityId, Generation, KeyId, NodeId, TokenId};
use countersign_core::name::{Address, Host};
use countersign_core::principal::Role;
use countersign_core::trust::author::NotPermitted;
use countersign_core::trust::clocks::StampError;
use countersign_core::trust::member::Suffrage;
use countersign_core::trust::outcome::{Limited, Signer};
use countersign_node::datadir::DataDirError;
use countersign_node::{Busy, KeysError, SignError};

use super::*;

const NODE: NodeId = NodeId(3);

/// Each error with the status and the code that a caller is told, and something to try next.
fn are_told<E: Into<AdminError>>(errors: impl IntoIterator<Item = (E, u16, &'static str)>) {
    for (error, status, code) in errors {
        let told: AdminError = error.into();
        let Problem { code: told_code, message, next, .. } = &told.problem;
        assert_eq!((told.status.as_u16(), told_code.as_str()), (status, code), "{message}");
        assert!(!message.is_empty() && next.as_ref().is_some_and(|next| !next.is_empty()), "{told:?}");
    }
}

fn n3() -> Name {
    Name::parse("n3").unwrap()
}

#[test]
fn use_case_that_failed_has_a_status_and_a_code() {
    are_told([
        (ControlError::Command(CommandError::NoLeader), 503, "no-leader"),
        (ControlError::UnknownNode { text: "n9".to_owned(), known: vec![n3()] }, 404, "unknown-node"),
        (ControlError::EvictsItself(n3()), 409, "evicts-itself"),
        (ControlError::QuarantinesItself(n3()), 409, "quarantines-itself"),
        (ControlError::NoQuorum { node: n3(), unreached: vec!["n2".to_owned()] }, 503, "no-quorum"),
        (ControlError::NotConverged { node: n3() }, 503, "not-converged"),
        (ControlError::NotAttested { node: n3(), unsigned: vec!["n2".to_owned()] }, 503, "not-attested"),
        (ControlError::NotStored(DataDirError::InUse { path: "data".into() }), 503, "not-stored"),
        (ControlError::Behind { wanted: Generation(2), applied: Generation(1) }, 503, "behind"),
        (ControlError::NoAuthority, 409, "no-authority"),
        (ControlError::Random(KeysError::Random), 500, "random"),
        (ControlError::UnknownKey(KeyId([0; 32])), 404, "unknown-key"),
        (ControlError::CertificateOfNode { node: "n3".to_owned() }, 409, "of-a-node"),
        (ControlError::TokenForgotten(TokenId([0; 8])), 503, "behind"),
        (ControlError::BrokeOff, 500, "internal"),
    ]);
}

#[test]
fn command_that_failed_has_a_status_and_a_code() {
    are_told([
        (CommandError::Refused(Refused::NoSuchNode(NODE)), 404, "unknown-node"),
        (CommandError::NoLeader, 503, "no-leader"),
        (CommandError::Clock(StampError::Skewed { off_secs: 9 }), 503, "clock"),
        (CommandError::Unknown, 503, "outcome-unknown"),
        (CommandError::OtherOutcome, 500, "internal"),
        (CommandError::NotPermitted(NotPermitted(NODE)), 403, "not-a-voter"),
        (CommandError::Busy(Busy::Commands), 503, "busy"),
        (CommandError::TooLong { got: 9 }, 422, "limit"),
        (CommandError::Overloaded, 503, "overloaded"),
        (CommandError::Shutdown, 503, "shutdown"),
        (CommandError::Sign(SignError::NoAuthority), 503, "cannot-sign"),
        (CommandError::Keys(KeysError::Random), 500, "random"),
        (CommandError::Codec(CodecError::Empty), 500, "internal"),
    ]);
}

#[test]
fn refusal_of_the_state_machine_has_a_status_and_a_code() {
    let role = || Role::parse("client/pay").unwrap();
    let host = || Host::parse("n3.example").unwrap();
    let address = Address::parse("n3.example:7001").unwrap();
    let elsewhere = AdminError::from(CommandError::Refused(Refused::KeyElsewhere(AuthorityId([0; 32]))));
    assert!(elsewhere.problem.next.is_some_and(|next| next.contains("your own CA")));
    let refused = [
        (Refused::NoSuchNode(NODE), 404, "unknown-node"),
        (Refused::AlreadyEvicted(NODE), 409, "already-evicted"),
        (Refused::NoSuchToken(TokenId([0; 8])), 404, "unknown-token"),
        (Refused::LastVoter(NODE), 409, "last-voter"),
        (Refused::StateDiffers { node: NODE, index: 256 }, 409, "state-differs"),
        (Refused::KeepAuthority(NODE), 409, "keep-authority"),
        (Refused::SignatureMissing { node: NODE, number: 1 }, 409, "not-attested"),
        (Refused::Unchanged(NODE, Suffrage::Voter), 409, "unchanged"),
        (Refused::KeyElsewhere(AuthorityId([0; 32])), 409, "ca-key-elsewhere"),
        (Refused::NoSuchPrincipal(role()), 404, "unknown-principal"),
        (Refused::NotIssued(Role::Node(NODE)), 409, "of-a-node"),
        (Refused::KeyOfNode(NODE), 409, "of-a-node"),
        (Refused::HostTaken { host: host(), by: role() }, 409, "host-taken"),
        (Refused::AddressTaken { address, node: NODE }, 409, "host-taken"),
        (Refused::HostShared(host()), 409, "host-shared"),
        (Refused::HostNotAdded { host: host(), node: NODE }, 409, "host-not-added"),
        (Refused::Label(LabelError::TooMany), 422, "label"),
        (Refused::Limit { what: Limited::Tokens, max: 1 }, 422, "limit"),
        (Refused::Signature(Signer::Token), 403, "signature"),
        (Refused::KeyRevoked, 422, "refused"),
        (Refused::RenewedBefore { until: 1 }, 422, "refused"),
    ];
    are_told(refused.map(|(why, status, code)| (CommandError::Refused(why), status, code)));
}

#[test]
fn refused_change_of_rules_has_a_status_and_a_code() {
    let id = || RuleId::parse("web").unwrap();
    let refused = [
        (PolicyError::Changed { changed: Generation(2), expected: Generation(1) }, 409, "changed"),
        (PolicyError::Rule { id: id(), why: RuleError::NoAction }, 422, "rule"),
        (PolicyError::RuleExists(id()), 409, "rule-exists"),
        (PolicyError::NoSuchRule(id()), 404, "unknown-rule"),
        (PolicyError::EverybodySuper, 422, "everybody-super"),
        (PolicyError::SuperUser("x".to_owned()), 422, "rule"),
        (PolicyError::Requirement("x".to_owned()), 422, "rule"),
        (PolicyError::Limit { what: PolicyLimit::Rules, max: 1 }, 422, "limit"),
        (PolicyError::PartsMissing, 409, "parts-missing"),
    ];
    are_told(refused.map(|(why, status, code)| (CommandError::Refused(Refused::Policy(why)), status, code)));
}

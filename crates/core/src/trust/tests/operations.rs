//! What each command answers besides what it changes: one line for each, so that no answer changes unnoticed.

use std::collections::{BTreeMap, BTreeSet};

use super::golden::{COMMANDS, logged, name_of};
use super::rig::*;
use crate::authz::Affected;
use crate::id::NodeId;
use crate::key::Endorsement;
use crate::trust::author::Authorship;
use crate::trust::command::{Command, Effect, LEVEL_FOR_TESTING, NoteForTesting, Precondition, Renew, Revoked};

const ANSWERS: &str = "
AddJoinToken: level 1, of a voter, no effect, affects nothing
Admit: level 1, of a joiner, certifies a node, affects who and node/*
AdoptLeaf: level 1, of node 2, also in recovery, no effect, affects who
AssignGroup: level 1, of a voter, no effect, affects who
BindStore: level 1, of a voter, binds a store, affects who
Bootstrap: level 1, of the founder, binds a store, affects everybody and who
ChangePolicy: level 1, of a voter, no effect, affects everybody
ConfirmAuthority: level 1, of node 3, also in recovery, no effect, affects who
EditHosts: level 1, of a voter, no effect, affects who
Evict: level 1, of a voter, evicts node 3, after a quorum, affects who and node/3
IssuePrincipal: level 1, of a voter, certifies a principal, affects who
Label: level 1, of a voter, no effect, affects client/shop
ProveHosts: level 1, of witness 1, no effect, affects who
RaiseLevel: level 1, of a voter, no effect, affects who
Renew: level 1, of node 2, also in recovery, certifies a node, affects who
RenewPrincipal: level 1, of a voter, certifies a principal, affects who
ReportFeatureLevel: level 1, of node 2, no effect, affects who
ReturnStore: level 1, of a returner, no effect, after a quorum and silence of node 2, affects who
RevokeJoinToken: level 1, of a voter, no effect, affects nothing
RevokeKey: level 1, of a voter, revokes a key, affects who
RevokePrincipal: level 1, of a voter, revokes client/pay, affects who and client/pay
RotateClusterToken: level 1, of a voter, no effect, affects who
SealAuthority: level 1, of a voter, no effect, affects who
SetAddresses: level 1, of node 2, no effect, affects who
SetCluster: level 1, of a voter, no effect, affects who
SetSuffrage: level 1, of a voter, no effect, after a quorum and what node 4 says of its state, affects who
SignAttestation: level 1, of node 1, also in recovery, no effect, affects who
StagePolicy: level 1, of a voter, no effect, affects nothing
";

fn author_of(command: &Command) -> String {
    match command.operation().authorship() {
        Authorship::Founder => "the founder".to_owned(),
        Authorship::Joiner { witness: None, .. } => "a joiner".to_owned(),
        Authorship::Joiner { witness: Some(by), .. } => format!("a joiner and witness {by}"),
        Authorship::Returner => "a returner".to_owned(),
        Authorship::Member { node, in_recovery: false } => format!("node {node}"),
        Authorship::Member { node, in_recovery: true } => format!("node {node}, also in recovery"),
        Authorship::Witness(by) => format!("witness {by}"),
        Authorship::Voter => "a voter".to_owned(),
    }
}

fn effect_of(command: &Command) -> String {
    match command.effect() {
        Effect::Nothing => "no effect".to_owned(),
        Effect::BindsStore { .. } => "binds a store".to_owned(),
        Effect::Revokes(Revoked::Principal(role)) => format!("revokes {role}"),
        Effect::Evicts(node) => format!("evicts node {node}"),
        Effect::Revokes(Revoked::Key(_)) => "revokes a key".to_owned(),
        Effect::CertifiesNode(_) => "certifies a node".to_owned(),
        Effect::CertifiesPrincipal(_) => "certifies a principal".to_owned(),
    }
}

fn affected_by(command: &Command, rig: &Rig) -> String {
    let Affected { everybody, principals, who } = Affected::by(command, rig.0.view().map(|view| &**view));
    let words = everybody.then(|| "everybody".to_owned()).into_iter().chain(who.then(|| "who".to_owned()));
    let words: Vec<String> = words.chain(principals.iter().map(ToString::to_string)).collect();
    if words.is_empty() { "nothing".to_owned() } else { words.join(" and ") }
}

fn answers(command: &Command, rig: &Rig) -> String {
    let level = command.level();
    let first = match command.precondition() {
        Precondition::None => String::new(),
        Precondition::Quorum => ", after a quorum".to_owned(),
        Precondition::Away(node) => format!(", after a quorum and silence of node {node}"),
        Precondition::Agrees(node) => format!(", after a quorum and what node {node} says of its state"),
    };
    let (author, effect, affected) = (author_of(command), effect_of(command), affected_by(command, rig));
    format!("level {level}, of {author}, {effect}{first}, affects {affected}")
}

#[test]
fn each_command_answers_as_it_did() {
    let rig = logged();
    // The last of each kind in the golden log.
    let said = rig.2.iter().filter_map(|logged| {
        let command = &logged.stamped.command;
        Some((name_of(command)?, answers(command, &rig)))
    });
    let said: BTreeMap<&str, String> = said.collect();
    assert_eq!(said.len(), COMMANDS);
    let lines: Vec<String> = said.iter().map(|(name, answers)| format!("{name}: {answers}")).collect();
    assert_eq!(lines.join("\n"), ANSWERS.trim());
    let note = Command::NoteForTesting(NoteForTesting("late".to_owned()));
    assert_eq!(note.level(), LEVEL_FOR_TESTING);
}

#[test]
fn certificate_of_a_node_is_signed_for_the_endorsed_key() {
    let leaf = leaf_key(9);
    let endorsement = Endorsement::sign(&key(2), CLUSTER, leaf, 1);
    let renew = Command::Renew(Renew { node: NodeId(2), key: leaf, endorsement: endorsement.clone() });
    assert_eq!(renew.effect(), Effect::CertifiesNode(&endorsement));
    let request = request(4, 5);
    let admit = Command::Admit(Box::new(request.clone().into()));
    assert_eq!(admit.effect(), Effect::CertifiesNode(&request.endorsement));
}

#[test]
fn what_is_answered_before_is_answered_when_applied_and_changes_nothing() {
    let mut rig = logged();
    let commands: Vec<Command> = rig.2.iter().map(|logged| logged.stamped.command.clone()).collect();
    let mut answered = BTreeSet::new();
    for command in commands {
        let before = rig.0.answered(&command, NOW);
        let events = rig.1.len();
        let outcome = rig.apply(command.clone());
        if let Some(before) = before {
            assert_eq!((&before, events), (&outcome, rig.1.len()), "{command:?}");
            answered.insert(name_of(&command).unwrap());
        }
    }
    assert!(answered.contains("AdoptLeaf") && answered.contains("Renew"), "{answered:?}");
    assert!(!answered.contains("Evict") && !answered.contains("RevokeKey"), "written in any case: {answered:?}");
}

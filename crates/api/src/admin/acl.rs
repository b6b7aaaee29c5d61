//! Rules as JSON: listed, changed, asked about. A rule is written as in a policy file.

use std::collections::BTreeMap;

use countersign_core::authz::text::{PolicyText, RuleText};
use serde::{Deserialize, Serialize};

use super::{Enforcement, MadeInfo};

/// Who may do what.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AclPolicy {
    /// The generation that is in force on the answering member.
    pub generation: u64,
    /// The generation in which the policy last changed.
    pub changed: u64,
    /// The policy.
    pub policy: PolicyText,
    /// Who put each rule in, by the rule's id.
    pub made: BTreeMap<String, MadeInfo>,
}

/// A rule to be added.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AclAdd {
    /// The rule.
    pub rule: RuleText,
    /// Answer once every member decides by it, or serves no client.
    #[serde(default)]
    pub wait: bool,
}

/// A policy to be put in place of the one that is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AclApply {
    /// All of it.
    pub policy: PolicyText,
    /// Only if the policy has not changed since this generation.
    #[serde(default)]
    pub if_generation: Option<u64>,
    /// Answer once every member decides by it, or serves no client.
    #[serde(default)]
    pub wait: bool,
}

/// What a change of rules did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AclChanged {
    /// The generation that shows it.
    pub generation: u64,
    /// Rules put in; none if that was so before.
    pub put: u64,
    /// Rules taken out.
    pub removed: u64,
    /// The rule that was named, if one was.
    pub rules: Vec<RuleText>,
    /// Where it is in force by now, if that was waited for.
    pub enforcement: Option<Enforcement>,
}

/// What a change of the policy would do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AclPlan {
    /// The generation that it is reckoned from.
    pub generation: u64,
    /// Rules that would be put in.
    pub add: Vec<RuleText>,
    /// Rules that would be taken out.
    pub remove: Vec<RuleText>,
    /// The super-users that there would be, if others than now.
    pub super_users: Option<Vec<String>>,
    /// What tasks would require, if something else than now.
    pub required_capabilities: Option<BTreeMap<String, Vec<String>>>,
    /// Requests of late, of any member, that would be decided otherwise.
    pub flips: Vec<AclFlip>,
    /// Members whose requests of late were not tried, by name: they did not tell them, or there were too many.
    pub unheard: Vec<String>,
    /// What would be odd about the rules.
    pub lint: Vec<AclFinding>,
}

/// A request that would be decided otherwise.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AclFlip {
    /// The request.
    pub request: AclAsk,
    /// The decision now.
    pub before: AclDecision,
    /// What would be.
    pub after: AclDecision,
}

/// A question.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AclAsk {
    /// Who, such as `client/pay`.
    pub principal: String,
    /// Would do what.
    pub action: String,
    /// To what kind of thing.
    pub kind: String,
    /// Of which name.
    pub name: String,
    /// From which address; from nowhere that is known if it is left out.
    #[serde(default)]
    pub from: Option<String>,
    /// Not before the answering member has applied this generation.
    #[serde(default)]
    pub min_generation: Option<u64>,
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AclDecision {
    /// Whether it may be done.
    pub allowed: bool,
    /// Why, for people.
    pub reason: String,
    /// The rule that decided, if one did.
    pub rule: Option<RuleText>,
    /// The generation that it was decided under.
    pub generation: u64,
}

/// An answer, with all that was weighed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AclExplanation {
    /// The answer.
    pub decision: AclDecision,
    /// Whose roles and attributes these are.
    pub principal: String,
    /// The roles that it has.
    pub roles: Vec<String>,
    /// The attributes that it has.
    pub attributes: BTreeMap<String, String>,
    /// What the task requires, if it requires something: the expressions of which one must be met.
    pub required: Vec<String>,
    /// Every rule about who asks and what is asked, the weightiest first.
    pub rules: Vec<AclWeighed>,
}

/// A rule that was weighed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AclWeighed {
    /// The rule.
    pub rule: RuleText,
    /// Whether it is the one that decided.
    pub decides: bool,
    /// Which of its conditions do not hold; it does not count then.
    pub unmet: Vec<String>,
}

/// Who may?
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AclWho {
    /// Do what.
    pub action: String,
    /// To what kind of thing.
    pub kind: String,
    /// Of which name.
    pub name: String,
}

/// The principals that may.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AclWhoCan {
    /// The generation that it was decided under.
    pub generation: u64,
    /// Members, and brokers, clients and admins on record.
    pub principals: Vec<AclHolder>,
}

/// A principal that may.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AclHolder {
    /// Who.
    pub principal: String,
    /// Why.
    pub decision: AclDecision,
    /// From these networks alone; from anywhere if there are none.
    pub only_from: Vec<String>,
}

/// The oddities of the rules.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AclLint {
    /// The generation that was looked at.
    pub generation: u64,
    /// The findings.
    pub findings: Vec<AclFinding>,
}

/// One thing that is odd.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AclFinding {
    /// The id of the rule.
    pub rule: String,
    /// What about it.
    pub finding: String,
}

/// Labels to be changed: all of them or none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LabelChange {
    /// What.
    pub edits: Vec<LabelEdit>,
    /// Answer once every member decides by it, or serves no client.
    #[serde(default)]
    pub wait: bool,
}

/// One label to be changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LabelEdit {
    /// Its name; a job such as Worker is the label `role`.
    pub name: String,
    /// What it becomes; none takes it away.
    pub value: Option<String>,
}

/// The labels of a principal from now on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Labelled {
    /// Who, such as `node/2` or `client/pay`.
    pub principal: String,
    /// The generation that shows it.
    pub generation: u64,
    /// Its labels; a job such as Worker is the label `role`.
    pub labels: BTreeMap<String, String>,
    /// Where it is in force by now, if that was waited for.
    pub enforcement: Option<Enforcement>,
}

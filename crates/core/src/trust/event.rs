//! Events: what each change of the state was, as one line of JSON for people and programs.
//!
//! Every member makes the same line of the same entry, and the state chains their bytes ([`super::chain`]). So what an event
//! says changes only with the feature level. Names of events and fields are a contract (`docs/AUDIT.md`): fields may be
//! added, none is renamed. Nothing secret is in an event: no token's secret, no request's body, no certificate request.

use std::collections::BTreeSet;

use super::author::Author;
use super::chain::{Head, line};
use super::command::{Bootstrap, Command, Stamped};
use super::hosts::ClusterSetting;
use super::join_token::{TokenRecord, token_id};
use super::member::Leaf;
use super::outcome::{Grant, Outcome};
use super::state::TrustState;
use crate::authz::Rule;
use crate::authz::change::{Changed, PolicyChange};
use crate::authz::label::LabelEdit;
use crate::authz::text::RuleText;
use crate::enroll::EnrollmentRequest;
use crate::id::{AuthorityId, Generation, KeyId, NodeId};
use crate::json::Object;
use crate::limits::EVENT_LIST_LEN_MAX;
use crate::principal::Role;

/// A change that was applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Its place in the chain; the first is 1.
    pub number: u64,
    /// The head of the chain after it.
    pub head: Head,
    /// What happened, such as `node.evicted`.
    pub name: &'static str,
    /// The generation after it.
    pub generation: Generation,
    /// What changed, as JSON.
    pub details: String,
    chained: String,
}

impl Event {
    pub(super) fn new(number: u64, head: Head, text: Text) -> Self {
        let Text { name, generation, details, chained } = text;
        Self { number, head, name, generation, details, chained }
    }

    /// Its line in an events file, without the line feed; [`EVENT_LEN_MAX`](crate::limits::EVENT_LEN_MAX) bytes at most.
    pub fn line(&self) -> String {
        line(&self.chained, self.head)
    }
}

/// What an event says, before it is chained.
pub(super) struct Text {
    name: &'static str,
    generation: Generation,
    details: String,
    pub(super) chained: String,
}

/// What an event is made of: the command, its outcome, and the state after it.
pub(super) struct Draft<'a> {
    pub(super) state: &'a TrustState,
    pub(super) stamped: &'a Stamped,
    pub(super) outcome: &'a Outcome,
}

impl Draft<'_> {
    pub(super) fn text(&self) -> Text {
        let (name, details) = self.what();
        let generation = self.state.view().map_or(Generation(0), |view| view.generation);
        let shown = details.clone().end();
        let chained = Object::default()
            .number("number", self.state.chain().count().saturating_add(1))
            .number("time_millis", self.state.time().0)
            .number("generation", generation.0)
            .text("event", name)
            .object("author", author(&self.stamped.author))
            .object("details", details)
            .open();
        Text { name, generation, details: shown, chained }
    }

    fn what(&self) -> (&'static str, Object) {
        match &self.stamped.command {
            Command::Bootstrap(bootstrap) => ("cluster.founded", self.founded(bootstrap)),
            Command::AddJoinToken(record) => ("token.created", token(record)),
            Command::RevokeJoinToken(id) => ("token.revoked", Object::default().text("token", id)),
            Command::RotateClusterToken(record) => ("token.rotated", token(record)),
            Command::Admit(admission) => ("node.admitted", self.admitted(&admission.request)),
            Command::ProveHosts { node, witness } => {
                let details = self.node(*node).number("found_by", witness.by.0);
                ("node.hosts_proved", details.texts("hosts", &witness.hosts, EVENT_LIST_LEN_MAX))
            }
            Command::EditHosts { node, add, remove } => {
                let details = self.node(*node).texts("added", add, EVENT_LIST_LEN_MAX);
                ("node.hosts_changed", details.texts("removed", remove, EVENT_LIST_LEN_MAX))
            }
            Command::SetCluster(ClusterSetting::ClientNames(names)) => {
                ("cluster.set", Object::default().texts("client_names", names, EVENT_LIST_LEN_MAX))
            }
            Command::SetCluster(ClusterSetting::LevelAuto(auto)) => {
                ("cluster.set", Object::default().flag("level_auto", *auto))
            }
            Command::SealAuthority { authority, node, .. } => {
                ("authority.sealed", self.of_authority(*authority, *node))
            }
            Command::ConfirmAuthority { authority, node, .. } => {
                ("authority.opened", self.of_authority(*authority, *node))
            }
            Command::SetSuffrage { node, suffrage, keep_authority } => {
                let details = self.node(*node).text("role", suffrage).flag("keep_authority", *keep_authority);
                ("node.role_changed", details)
            }
            Command::Evict { node, compromised, keep_authority } => {
                let revoked = match self.outcome {
                    Outcome::Evicted { tokens_revoked, .. } => count(tokens_revoked.len()),
                    _ => 0,
                };
                let details = self.node(*node).flag("compromised", *compromised);
                let details = details.flag("keep_authority", *keep_authority).number("tokens_revoked", revoked);
                ("node.evicted", details)
            }
            Command::IssuePrincipal { role, spki, .. } => ("certificate.issued", self.issued(role, spki)),
            Command::RenewPrincipal { role, in_use, spki } => {
                ("certificate.renewed", self.issued(role, spki).text("renewed_from", in_use))
            }
            Command::RevokeKey(key) => {
                ("key.revoked", Object::default().text("key", key).number("keys", self.revoked()))
            }
            Command::RevokePrincipal(role) => {
                ("principal.revoked", Object::default().text("principal", role).number("keys", self.revoked()))
            }
            Command::AssignGroup { group, members } => {
                let details = Object::default().number("group", group.0).number("members_count", count(members.len()));
                ("group.assigned", details.texts("members", members, EVENT_LIST_LEN_MAX))
            }
            Command::ReportFeatureLevel { node, level } => {
                ("node.level_reported", self.node(*node).number("level", u64::from(*level)))
            }
            Command::RaiseLevel { level, without, by_itself } => {
                let details = Object::default().number("level", u64::from(*level)).flag("by_itself", *by_itself);
                let details = details.number("without_count", count(without.len()));
                ("cluster.level_raised", details.texts("without", without, EVENT_LIST_LEN_MAX))
            }
            Command::NoteForTesting(note) => ("note.kept", Object::default().texts("note", [note], EVENT_LIST_LEN_MAX)),
            Command::SetAddresses { node, addresses, .. } => {
                ("node.moved", self.node(*node).texts("addresses", addresses, EVENT_LIST_LEN_MAX))
            }
            Command::Renew { node, .. } => ("leaf.renewed", self.renewed(*node)),
            Command::AdoptLeaf { node, renewal } => ("leaf.adopted", self.node(*node).number("renewal", *renewal)),
            Command::SignStatement { number, node, .. } => {
                ("attestation.signed", self.node(*node).number("attestation", *number))
            }
            Command::StagePolicy { change, part, remove, put } => {
                let details = Object::default().text("change", change).number("part", u64::from(*part));
                let details = details.number("put", count(put.len())).number("removed", count(remove.len()));
                ("policy.staged", details)
            }
            Command::ChangePolicy(change) => ("policy.changed", self.policy(change)),
            Command::ReturnStore(request) => {
                let details = self.node(request.node).text("replaces", request.replaces);
                ("node.returned", details.text("store", request.store))
            }
            Command::BindStore { node, store } => ("node.store_bound", self.node(*node).text("store", store)),
            Command::Label { role, edits } => {
                let details = Object::default().text("principal", role).number("labels_count", count(edits.len()));
                ("labels.changed", details.texts("labels", edits.iter().map(label), EVENT_LIST_LEN_MAX))
            }
        }
    }

    fn founded(&self, b: &Bootstrap) -> Object {
        let node = match self.outcome {
            Outcome::Admitted(admitted) => admitted.node,
            _ => NodeId(0),
        };
        let details = Object::default().text("cluster", b.cluster).text("name", &b.name);
        let details = details.text("trust_domain", &b.trust_domain);
        let details = details.text("authority", AuthorityId::of_certificate(&b.authority)).flag("imported", b.imported);
        let details = details.number("node", node.0).text("node_name", &b.node_name);
        let details = details.text("identity", b.keys.identity.id()).text("leaf", b.leaf_key);
        details.maybe("token", b.token.as_ref().map(|record| token_id(record.verifier)))
    }

    fn admitted(&self, request: &EnrollmentRequest) -> Object {
        let Outcome::Admitted(admitted) = self.outcome else { return Object::default() };
        let details = self.node(admitted.node).text("role", admitted.suffrage).text("token", request.token);
        let details = details.texts("addresses", &request.addresses, EVENT_LIST_LEN_MAX);
        leaf(details.text("identity", request.keys.identity.id()), &admitted.leaf)
    }

    fn renewed(&self, node: NodeId) -> Object {
        match self.outcome {
            Outcome::Renewed(renewed) => leaf(self.node(node), &renewed.leaf),
            _ => self.node(node),
        }
    }

    fn issued(&self, role: &Role, spki: &[u8]) -> Object {
        let details = Object::default().text("principal", role).text("key", KeyId::of_spki(spki));
        let Outcome::Issued(grant) = self.outcome else { return details };
        let Grant { authority, serial, validity, .. } = &**grant;
        let details = details.text("serial", data_encoding::HEXLOWER.encode(serial)).text("authority", authority);
        let details = details.number("not_before_millis", validity.not_before.0);
        details.number("not_after_millis", validity.not_after.0)
    }

    const fn revoked(&self) -> u64 {
        match self.outcome {
            Outcome::Revoked { keys, .. } => *keys as u64,
            _ => 0,
        }
    }

    fn policy(&self, change: &PolicyChange) -> Object {
        let Changed { put, removed } = match self.outcome {
            Outcome::Policy { changed, .. } => *changed,
            _ => Changed::default(),
        };
        let details = Object::default().maybe("change", change.staged.map(|staged| staged.change));
        let details = details.number("put", put).number("removed", removed);
        let details = details.objects("rules", change.put.iter().map(rule), EVENT_LIST_LEN_MAX);
        // A rule that another takes the place of is taken out first.
        let put_again: BTreeSet<_> = change.put.iter().map(|rule| &rule.id).collect();
        let gone = change.remove.iter().filter(|id| !put_again.contains(id));
        let details = details.texts("removed_rules", gone, EVENT_LIST_LEN_MAX);
        let details = match &change.super_users {
            Some(users) => details.texts("super_users", users, EVENT_LIST_LEN_MAX),
            None => details,
        };
        match &change.requirements {
            Some(required) => details.number("required_capabilities", count(required.len())),
            None => details,
        }
    }

    /// A member, with its name if it has one.
    fn node(&self, node: NodeId) -> Object {
        let view = self.state.view();
        let member = view.and_then(|view| view.members.get(&node)).map(|member| &member.name);
        let name = member.or_else(|| view.and_then(|view| view.evicted.get(&node)).map(|evicted| &evicted.name));
        Object::default().number("node", node.0).maybe("name", name)
    }

    fn of_authority(&self, authority: AuthorityId, node: NodeId) -> Object {
        self.node(node).text("authority", authority)
    }
}

fn count(n: usize) -> u64 {
    n as u64
}

fn author(author: &Author) -> Object {
    let Author { actor, taken_by, source, request } = author;
    Object::default().text("by", actor).number("taken_by", taken_by.0).maybe("source", *source).text("request", request)
}

fn token(record: &TokenRecord) -> Object {
    let TokenRecord { verifier, pin, suffrage, uses, not_after, name, role, attributes, hosts, .. } = record;
    let details = Object::default().text("token", token_id(*verifier)).text("authority", pin);
    let details = details.text("role", suffrage).number("uses", u64::from(*uses));
    let details = details.number("not_after_millis", not_after.0).maybe("name", name.as_ref());
    let labels = role.iter().map(|role| format!("role={role}"));
    let labels = labels.chain(attributes.iter().map(|(key, value)| format!("{key}={value}")));
    details.texts("labels", labels, EVENT_LIST_LEN_MAX).texts("hosts", hosts, EVENT_LIST_LEN_MAX)
}

fn leaf(details: Object, leaf: &Leaf) -> Object {
    let details = details.text("leaf", leaf.key).number("renewal", leaf.renewal);
    let details = details.text("serial", data_encoding::HEXLOWER.encode(&leaf.serial));
    let details = details.maybe("authority", leaf.issued.authority);
    let details = details.number("not_before_millis", leaf.validity.not_before.0);
    details.number("not_after_millis", leaf.validity.not_after.0)
}

/// As `node label` takes it: `NAME=VALUE`, or `NAME=` for one that is taken away.
fn label(edit: &LabelEdit) -> String {
    format!("{}={}", edit.name, edit.value.as_deref().unwrap_or_default())
}

/// As `acl list --json` shows it.
fn rule(rule: &Rule) -> Object {
    let text = RuleText::of(rule);
    let object = Object::default().text("id", &rule.id).text("effect", rule.effect).text("principal", text.principal);
    let object = object.texts("actions", text.actions, EVENT_LIST_LEN_MAX);
    let object = object.maybe("resource", text.resource).maybe("resource_prefix", text.resource_prefix);
    let object = object.maybe("resource_any", text.resource_any).maybe("network", text.network);
    match text.not_after {
        Some(not_after) => object.number("not_after", not_after),
        None => object,
    }
}

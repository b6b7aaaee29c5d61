//! All rules of a cluster at one generation. Two generations share what did not change between them.

use core::fmt;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use rpds::RedBlackTreeMapSync;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser};

use super::floor::Prefixes;
use super::resource::{Kind, NamePattern};
use super::rule::{PrincipalPattern, Requirement, Rule, RuleId};
use super::subject::Subject;
use crate::id::Generation;
use crate::table::{Sum, Table};
use crate::trust::author::Made;

/// The rules of one principal pattern, by the resource that they are about. It is a value of its own, so that a caller
/// that compiled it can compare it with the current one.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Group {
    rules: RedBlackTreeMapSync<(Kind, NamePattern), Arc<[Arc<Rule>]>>,
}

impl Group {
    /// Its rules by kind and pattern, in the order of these.
    pub fn iter(&self) -> impl Iterator<Item = (&(Kind, NamePattern), &Arc<[Arc<Rule>]>)> {
        self.rules.iter()
    }

    /// The rules that are about a resource of this name.
    pub fn about<'a>(&'a self, kind: &'a Kind, name: &'a str) -> impl Iterator<Item = &'a Arc<Rule>> {
        let at = |pattern: NamePattern| self.rules.get(&(kind.clone(), pattern)).into_iter();
        let floor = |text: &str| {
            let from = (kind.clone(), NamePattern::Prefix("".into()));
            let upto = (kind.clone(), NamePattern::Prefix(text.into()));
            let ((_, pattern), rules) = self.rules.range(from..=upto).next_back()?;
            Some((pattern.text(), rules))
        };
        let prefixed = Prefixes::of(name, floor);
        at(NamePattern::Any).chain(at(NamePattern::Exact(name.into()))).chain(prefixed).flat_map(|rules| rules.iter())
    }

    /// Puts rules in that are about the same.
    fn put(&mut self, about: (&Kind, &NamePattern), more: &[&Arc<Rule>]) {
        let key = (about.0.clone(), about.1.clone());
        let there = self.rules.get(&key).into_iter().flat_map(|rules| rules.iter());
        let mut rules: Vec<Arc<Rule>> = there.chain(more.iter().copied()).cloned().collect();
        rules.sort_unstable_by(|a, b| a.id.cmp(&b.id));
        self.rules.insert_mut(key, rules.into());
    }

    /// Takes rules out that are about the same.
    fn remove(&mut self, about: (&Kind, &NamePattern), gone: &[&Arc<Rule>]) {
        let key = (about.0.clone(), about.1.clone());
        let gone: BTreeSet<&RuleId> = gone.iter().map(|rule| &rule.id).collect();
        let there = self.rules.get(&key).into_iter().flat_map(|rules| rules.iter());
        let rules: Vec<Arc<Rule>> = there.filter(|rule| !gone.contains(&rule.id)).cloned().collect();
        if rules.is_empty() {
            self.rules.remove_mut(&key);
        } else {
            self.rules.insert_mut(key, rules.into());
        }
    }
}

/// Rules by principal pattern, then by resource.
type Places<'a> = BTreeMap<&'a PrincipalPattern, BTreeMap<(&'a Kind, &'a NamePattern), Vec<&'a Arc<Rule>>>>;

fn places<'a>(rules: impl IntoIterator<Item = &'a Arc<Rule>>) -> Places<'a> {
    let mut places = Places::new();
    for rule in rules {
        let group = places.entry(&rule.principal).or_default();
        group.entry((&rule.kind, &rule.pattern)).or_default().push(rule);
    }
    places
}

/// Who may do what, as far as rules say.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Policy {
    super_users: BTreeSet<PrincipalPattern>,
    requirements: BTreeMap<String, Requirement>,
    rules: Table<RuleId, Arc<Rule>>,
    /// The same rules by principal pattern.
    groups: RedBlackTreeMapSync<PrincipalPattern, Arc<Group>>,
    /// Bytes that the rules take in a snapshot, about.
    weight: usize,
    /// Who put a rule in, and when. A policy that is no cluster's has no authors.
    made: Table<RuleId, Arc<Made>>,
    /// Rules that end by themselves.
    timed: usize,
    /// The generation of the last change.
    changed: Generation,
    /// Rules that this build cannot evaluate. Only a policy from a newer build has any. While there are any, only
    /// super-users may do anything.
    unevaluable: BTreeSet<RuleId>,
}

impl Policy {
    /// The policy of a new cluster: admins may do everything, other principals nothing.
    pub fn initial() -> Self {
        Self { super_users: BTreeSet::from([PrincipalPattern::Prefix("admin/".into())]), ..Self::default() }
    }

    /// A policy of these rules. Of two with one id the later counts.
    pub fn of(super_users: impl IntoIterator<Item = PrincipalPattern>, rules: impl IntoIterator<Item = Rule>) -> Self {
        let mut policy = Self { super_users: super_users.into_iter().collect(), ..Self::default() };
        policy.extend(rules.into_iter().map(Arc::new));
        policy
    }

    /// How many rules there are.
    pub fn len(&self) -> usize {
        self.rules.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// Bytes that the rules take in a snapshot, or somewhat less than these.
    pub const fn weight(&self) -> usize {
        self.weight
    }

    /// The digests of the rules and of their authors; the rest is [`Policy::super_users`], [`Policy::requirements`] and
    /// [`Policy::changed`].
    pub const fn sums(&self) -> [Sum; 2] {
        [self.rules.sum(), self.made.sum()]
    }

    /// Whether no rule ends by itself.
    pub const fn is_timeless(&self) -> bool {
        self.timed == 0
    }

    /// How many groups of rules there are.
    pub fn group_count(&self) -> usize {
        self.groups.size()
    }

    /// How many sorts of principal rules name by a role.
    pub fn role_patterns(&self) -> usize {
        self.roles().count()
    }

    /// The groups of rules about roles. They come last in the order.
    fn roles(&self) -> impl Iterator<Item = (&PrincipalPattern, &Arc<Group>)> {
        self.groups.iter().rev().take_while(|(pattern, _)| matches!(pattern, PrincipalPattern::Role(_)))
    }

    /// The rules, by id.
    pub fn rules(&self) -> impl Iterator<Item = &Arc<Rule>> {
        self.rules.scan().values()
    }

    /// The rule of this id.
    pub fn rule(&self, id: &RuleId) -> Option<&Arc<Rule>> {
        self.rules.get(id)
    }

    /// Who put the rule of this id in, and when.
    pub fn made(&self, id: &RuleId) -> Option<&Made> {
        self.made.get(id).map(|made| &**made)
    }

    /// Records who put rules in, of those among `ids` that have no author yet.
    pub(crate) fn record<'a>(&mut self, ids: impl IntoIterator<Item = &'a RuleId>, made: &Arc<Made>) {
        for id in ids {
            if self.rules.contains_key(id) && !self.made.contains_key(id) {
                self.weight = self.weight.saturating_add(made.weight());
                self.made.insert(id.clone(), Arc::clone(made));
            }
        }
    }

    /// The principals that may do everything, whatever rules say.
    pub const fn super_users(&self) -> &BTreeSet<PrincipalPattern> {
        &self.super_users
    }

    /// The roles that a task requires of its runner, by task.
    pub const fn requirements(&self) -> &BTreeMap<String, Requirement> {
        &self.requirements
    }

    /// The generation in which it last changed; zero if it never did.
    pub const fn changed(&self) -> Generation {
        self.changed
    }

    /// Rules that cannot be evaluated here.
    pub const fn unevaluable(&self) -> &BTreeSet<RuleId> {
        &self.unevaluable
    }

    /// The same, with rules that this build cannot evaluate: only super-users may do anything.
    #[must_use]
    pub fn with_unevaluable(self, ids: impl IntoIterator<Item = RuleId>) -> Self {
        Self { unevaluable: ids.into_iter().collect(), ..self }
    }

    /// The same, with these requirements.
    #[must_use]
    pub fn with_requirements(self, requirements: BTreeMap<String, Requirement>) -> Self {
        Self { requirements, ..self }
    }

    /// The rules by principal pattern.
    pub fn groups(&self) -> impl Iterator<Item = (&PrincipalPattern, &Arc<Group>)> {
        self.groups.iter()
    }

    /// The rules about exactly these.
    pub fn group(&self, principal: &PrincipalPattern) -> Option<&Arc<Group>> {
        self.groups.get(principal)
    }

    /// The groups of rules that are about `subject`: exactly those whose pattern matches it.
    pub fn groups_of<'a>(
        &'a self,
        subject: &'a Subject,
    ) -> impl Iterator<Item = (&'a PrincipalPattern, &'a Arc<Group>)> {
        let at = |pattern: &PrincipalPattern| self.groups.get_key_value(pattern).into_iter();
        let floor = |text: &str| {
            let from = PrincipalPattern::Prefix("".into());
            let upto = PrincipalPattern::Prefix(text.into());
            let found = self.groups.range(from..=upto).next_back()?;
            let PrincipalPattern::Prefix(prefix) = found.0 else { return None };
            Some((&**prefix, found))
        };
        at(&PrincipalPattern::Any)
            .chain(at(&PrincipalPattern::Exact(subject.name.as_str().into())))
            .chain(Prefixes::of(&subject.name, floor))
            // Each expression is asked: there are not many.
            .chain(self.roles().filter(|(pattern, _)| pattern.matches(subject)))
    }

    /// Whether `subject` may do everything.
    pub fn is_super(&self, subject: &Subject) -> bool {
        self.super_users.iter().any(|pattern| pattern.matches(subject))
    }

    /// Puts rules in, in place of those with their ids. Those that are about the same come in together: one at a time,
    /// each would copy all before it.
    pub(super) fn extend(&mut self, rules: impl IntoIterator<Item = Arc<Rule>>) {
        let rules: BTreeMap<RuleId, Arc<Rule>> = rules.into_iter().map(|rule| (rule.id.clone(), rule)).collect();
        self.remove(rules.keys());
        for (principal, group) in places(rules.values()) {
            let mut changed = self.groups.get(principal).map(|group| Group::clone(group)).unwrap_or_default();
            group.iter().for_each(|(about, rules)| changed.put(*about, rules));
            self.groups.insert_mut(principal.clone(), Arc::new(changed));
        }
        for (id, rule) in rules {
            self.weight = self.weight.saturating_add(rule.weight());
            self.timed = self.timed.saturating_add(usize::from(rule.not_after.is_some()));
            self.rules.insert(id, rule);
        }
    }

    /// Takes rules out; an id that no rule has is passed over.
    pub(super) fn remove<'a>(&mut self, ids: impl IntoIterator<Item = &'a RuleId>) {
        let mut gone = Vec::new();
        for id in ids {
            if let Some(rule) = self.rules.get(id).cloned() {
                self.rules.remove(id);
                let made = self.made.get(id).map_or(0, |made| made.weight());
                self.made.remove(id);
                self.weight = self.weight.saturating_sub(rule.weight()).saturating_sub(made);
                self.timed = self.timed.saturating_sub(usize::from(rule.not_after.is_some()));
                gone.push(rule);
            }
        }
        for (principal, group) in places(&gone) {
            let Some(changed) = self.groups.get_mut(principal).map(Arc::make_mut) else { continue };
            group.iter().for_each(|(about, rules)| changed.remove(*about, rules));
            if changed.rules.is_empty() {
                self.groups.remove_mut(principal);
            }
        }
    }

    pub(super) fn set_super_users(&mut self, super_users: BTreeSet<PrincipalPattern>) {
        self.super_users = super_users;
    }

    pub(super) fn set_requirements(&mut self, requirements: BTreeMap<String, Requirement>) {
        self.requirements = requirements;
    }

    pub(super) const fn set_changed(&mut self, generation: Generation) {
        self.changed = generation;
    }
}

impl fmt::Debug for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Policy({} rules, changed {})", self.len(), self.changed)
    }
}

impl fmt::Debug for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Group({} patterns)", self.rules.size())
    }
}

/// The stored fields of a policy: the rest follows from them.
#[derive(Serialize, Deserialize)]
struct Stored {
    super_users: BTreeSet<PrincipalPattern>,
    requirements: Vec<Requirement>,
    rules: Vec<Arc<Rule>>,
    /// In the order of the rules.
    made: Vec<Option<Arc<Made>>>,
    changed: Generation,
}

impl Serialize for Policy {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // Stored without them it would allow what they may deny.
        if let Some(id) = self.unevaluable.first() {
            return Err(ser::Error::custom(format_args!(
                "rule `{id}` cannot be evaluated here, so it cannot be stored"
            )));
        }
        let stored = Stored {
            super_users: self.super_users.clone(),
            requirements: self.requirements.values().cloned().collect(),
            rules: self.rules().cloned().collect(),
            made: self.rules().map(|rule| self.made.get(&rule.id).cloned()).collect(),
            changed: self.changed,
        };
        stored.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Policy {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let stored = Stored::deserialize(deserializer)?;
        // A rule that cannot count is never passed over: it may be a deny.
        for rule in &stored.rules {
            rule.check().map_err(|why| de::Error::custom(format_args!("rule `{}` {why}", rule.id)))?;
        }
        let mut policy = Self { super_users: stored.super_users, changed: stored.changed, ..Self::default() };
        policy.requirements = stored.requirements.into_iter().map(|r| (r.task.clone(), r)).collect();
        if stored.made.len() != stored.rules.len() {
            return Err(de::Error::custom("rules and their authors are not equally many"));
        }
        let ids: Vec<RuleId> = stored.rules.iter().map(|rule| rule.id.clone()).collect();
        policy.extend(stored.rules);
        let mut last: Option<Arc<Made>> = None;
        for (id, made) in ids.iter().zip(stored.made) {
            // Rules that one change put in share its record.
            let Some(made) = made else { continue };
            let shared = last.take().filter(|last| **last == *made).unwrap_or(made);
            policy.record([id], &shared);
            last = Some(shared);
        }
        Ok(policy)
    }
}

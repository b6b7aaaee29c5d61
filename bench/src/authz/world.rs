//! A cluster's rules as a broker would have them, a guard that decides by them, and a writer that changes them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use countersign_core::authz::change::{PolicyChange, StagedRules};
use countersign_core::authz::label::Labels;
use countersign_core::authz::{NamePattern, Policy, PrincipalPattern, Rule, RuleId};
use countersign_core::id::{Generation, KeyId, NodeId, RequestId};
use countersign_core::lease::{Holder, LeaseClock, LeaseLength};
use countersign_core::name::Name;
use countersign_core::peer::{CertificateClaims, CertificateProof, Proof, VerifiedPeer, Wanted, verify};
use countersign_core::principal::{Principal, Role};
use countersign_core::time::{BootMillis, UnixMillis, Validity};
use countersign_core::trust::author::{Author, Made};
use countersign_core::trust::member::Issued;
use countersign_core::trust::view::{IssuedKey, View};
use countersign_guard::{Action, ActionSet, Effect, Guard, Kind, Publisher, Session, Time};
use countersign_net::{Clock, SystemClock};

use crate::cluster::Cluster;

const RULES_PER_PRINCIPAL: usize = 100;
const TOPICS: usize = 500;
const ROLES: usize = 8;
const DAY: u64 = 86_400;

/// What a guard is told the time by.
#[derive(Clone, Copy)]
pub(crate) enum Clocks {
    /// The clocks of this machine, read as a member reads them.
    Real,
    /// A clock that stands: valgrind does not bear how the other is read.
    Still,
}

impl Time for Clocks {
    fn boot(&self) -> BootMillis {
        if matches!(self, Self::Still) {
            return BootMillis(0);
        }
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        let millis = now.tv_sec.saturating_mul(1000).saturating_add(now.tv_nsec / 1_000_000);
        BootMillis(u64::try_from(millis).unwrap_or(0))
    }

    fn clock(&self) -> UnixMillis {
        SystemClock.now()
    }

    fn now(&self) -> UnixMillis {
        SystemClock.now()
    }
}

/// How many principals `rules` rules are about.
pub(crate) fn principals(rules: usize) -> usize {
    (rules / RULES_PER_PRINCIPAL).max(1)
}

pub(crate) fn principal(number: usize) -> String {
    format!("client/p{number}")
}

/// A topic that a rule names in full.
fn topic(principal: usize, place: usize) -> String {
    format!("orders.eu.{:04}", (principal * 37 + place) % TOPICS)
}

/// Rule `number`. Most are about one principal and one topic; of each hundred a few are about prefixes, deny, or are
/// about a role; two are about everybody.
pub(crate) fn rule(number: usize) -> Result<Rule> {
    let (of, place) = (number / RULES_PER_PRINCIPAL, number % RULES_PER_PRINCIPAL);
    let read_write = ActionSet::from_iter([Action::Read, Action::Write]);
    let own = principal(of);
    let exact = |name: String| NamePattern::Exact(name.into());
    let prefix = |text: String| NamePattern::Prefix(text.into());
    let (effect, principal, actions, pattern) = match (place, of) {
        (0, _) => (Effect::Allow, own, read_write, prefix(format!("logs.p{of}."))),
        (1, _) => (Effect::Deny, own, Action::Write.into(), exact(format!("logs.p{of}.secret"))),
        (2, _) => (Effect::Deny, own, ActionSet::ALL, prefix(format!("logs.p{of}.private."))),
        (3, ..ROLES) => (Effect::Allow, role(of), Action::Read.into(), prefix(format!("shared.{of}."))),
        (3, _) => (Effect::Allow, role(of), Action::Read.into(), exact(format!("common.{of}"))),
        (4, 0) => (Effect::Deny, "*".to_owned(), ActionSet::ALL, prefix("__".to_owned())),
        (5, 0) => (Effect::Allow, "client/*".to_owned(), Action::Describe.into(), NamePattern::Any),
        (6, _) => (Effect::Allow, own, Action::Read.into(), prefix(format!("audit.p{of}."))),
        (7, _) => (Effect::Allow, own, Action::Read.into(), exact(format!("readers.p{of}"))),
        _ => (Effect::Allow, own, read_write, exact(topic(of, place))),
    };
    let kind = if place == 7 { Kind::GROUP } else { Kind::TOPIC };
    let (id, principal) = (RuleId::parse(&format!("r{number}"))?, principal.parse()?);
    Ok(Rule { id, effect, principal, actions, kind, pattern, network: None, not_after: None })
}

fn role(of: usize) -> String {
    format!("role:worker-{}", of % ROLES)
}

/// Topics that principal 0 may read by rules that name them.
pub(crate) fn exact_topics(rules: usize) -> Vec<String> {
    (8..RULES_PER_PRINCIPAL.min(rules)).map(|place| topic(0, place)).collect()
}

/// Topics that principal 0 may read by a prefix alone.
pub(crate) fn prefixed_topics(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("logs.p0.{number:04}")).collect()
}

/// Topics that no rule lets principal 0 read.
pub(crate) fn other_topics(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("payroll.{number:04}")).collect()
}

/// The rules, with the principals that they are about, and a guard.
pub(crate) struct World {
    pub(crate) guard: Guard,
    pub(crate) view: Arc<View>,
}

/// Puts one rule of the last principal in and takes it out again.
pub(crate) struct Writer {
    publisher: Publisher,
    view: Arc<View>,
    rule: Rule,
}

/// The cost of one change to its writer.
pub(crate) struct Cost {
    pub(crate) applied: Duration,
    pub(crate) published: Duration,
}

pub(crate) fn build(rules: usize, clocks: Clocks) -> Result<(World, Writer)> {
    let rule: Result<Vec<Rule>> = (0..rules).map(rule).collect();
    with(rules, Policy::of(["admin/*".parse()?], rule?), clocks)
}

pub(crate) fn with(rules: usize, policy: Policy, clocks: Clocks) -> Result<(World, Writer)> {
    let count = principals(rules);
    let (mut keys, mut labels) = (BTreeMap::new(), BTreeMap::new());
    for number in 0..count {
        let valid = validity();
        let made = Made::new(&Author::of_member(NodeId(1), RequestId([0; 16])), valid.not_before);
        let issued = Issued { authority: None, made };
        let issued = IssuedKey {
            not_after: valid.not_after,
            not_before: valid.not_before,
            ttl_secs: DAY,
            renewed_from: None,
            issued,
        };
        keys.insert(client(number)?, BTreeMap::from([(key(number), issued)]));
        let role = Some(format!("worker-{}", number % ROLES));
        labels.insert(client(number)?, Labels { role, ..Labels::default() });
    }
    let view = Arc::new(View {
        principals: keys.into_iter().collect(),
        labels: labels.into(),
        policy: Arc::new(policy),
        ..Cluster::of(1)?.into_view()
    });
    let (guard, publisher) = guard(&view, clocks)?;
    let last = count.saturating_sub(1);
    let rule = Rule {
        id: RuleId::parse("changing")?,
        effect: Effect::Allow,
        principal: PrincipalPattern::Exact(principal(last).into()),
        actions: Action::Read.into(),
        kind: Kind::TOPIC,
        pattern: NamePattern::Exact("changing".into()),
        network: None,
        not_after: None,
    };
    Ok((World { guard, view: Arc::clone(&view) }, Writer { publisher, view, rule }))
}

/// A guard that has compiled nothing yet.
pub(crate) fn guard(view: &Arc<View>, clocks: Clocks) -> Result<(Guard, Publisher)> {
    let (lease, time) = (Arc::new(LeaseClock::default()), Arc::new(clocks));
    let mut holder = Holder::default();
    holder.granted(time.boot(), Generation(0), LeaseLength::from_secs(3600)?);
    lease.follow(&holder);
    let (guard, publisher) = Guard::of_member(lease, time);
    publisher.publish(view);
    Ok((guard, publisher))
}

fn validity() -> Validity {
    let now = SystemClock.now();
    Validity { not_before: now.minus_secs(DAY), not_after: now.plus_secs(DAY) }
}

fn client(number: usize) -> Result<Role> {
    Ok(Role::Client(Name::parse(&format!("p{number}"))?))
}

fn key(number: usize) -> KeyId {
    let mut id = [9; 32];
    id.iter_mut().zip(number.to_be_bytes()).for_each(|(byte, of)| *byte = of);
    KeyId(id)
}

impl World {
    /// A principal as its handshake would prove it.
    pub(crate) fn peer(&self, number: usize) -> Result<VerifiedPeer> {
        let proof = Proof::Certificate(CertificateProof::asserted(CertificateClaims {
            principal: Principal { trust_domain: self.view.trust_domain.clone(), role: client(number)? },
            key: key(number),
            authority: *self.view.authorities.keys().next().context("no authority")?,
            cluster: Some(self.view.cluster),
            endorsement: None,
            validity: validity(),
        }));
        Ok(verify(&proof, &self.view, Wanted::AnyPrincipal, SystemClock.now())?)
    }

    pub(crate) fn session(&self, number: usize) -> Result<Session> {
        Ok(self.guard.session(&self.peer(number)?, None)?)
    }
}

impl Writer {
    pub(crate) fn change(&mut self) -> Result<Cost> {
        let there = self.view.policy.rule(&self.rule.id).is_some();
        let remove = there.then(|| self.rule.id.clone()).into_iter().collect();
        let put = (!there).then(|| self.rule.clone()).into_iter().collect();
        let change = PolicyChange { remove, put, ..PolicyChange::default() };
        let generation = Generation(self.view.generation.0 + 1);
        let begun = Instant::now();
        let (policy, _) =
            self.view.policy.changed_by(&change, StagedRules::NONE, generation)?.context("nothing changed")?;
        let applied = begun.elapsed();
        let view = Arc::new(View { generation, policy: Arc::new(policy), ..View::clone(&self.view) });
        let begun = Instant::now();
        self.publisher.publish(&view);
        let published = begun.elapsed();
        self.view = view;
        Ok(Cost { applied, published })
    }
}

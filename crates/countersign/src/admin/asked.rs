//! Questions about the rules: what is decided and why, who may, what is odd. Nothing here changes anything.

use std::net::IpAddr;
use std::time::Duration;

use axum::Json;
use axum::extract::rejection::JsonRejection;
use countersign_api::admin::{
    AclAsk, AclDecision, AclExplanation, AclFinding, AclFlip, AclLint, AclWeighed, AclWho, AclWhoCan,
};
use countersign_core::authz::text::RuleText;
use countersign_core::authz::{
    Action, Decision, Effect, Kind, Policy, Question, Reason, Requirement, Rule, Subject, decide,
};
use countersign_core::id::Generation;
use countersign_core::principal::Role;
use countersign_core::time::UnixMillis;
use countersign_core::trust::view::View;

use super::access::Permitted;
use super::acl::{aside, in_force};
use super::apply::applied;
use super::problem::AdminError;
use super::tokens::parsed;
use crate::member::Inner;

/// How long a question may wait for the generation that it asks for.
const BEHIND_MAX: Duration = Duration::from_secs(3);

/// A question whose every word was understood.
struct Query {
    role: Role,
    subject: Subject,
    action: Action,
    kind: Kind,
    name: String,
    from: Option<IpAddr>,
    now: UnixMillis,
}

impl Query {
    fn read(member: &Inner, view: &View, ask: &AclAsk) -> Result<Self, AdminError> {
        let (action, kind) = what(&ask.action, &ask.kind)?;
        let from = ask.from.as_deref().map(|text| {
            let wrong = |_| AdminError::invalid(format!("`{text}` is no address"), "give one such as 10.0.0.1");
            text.parse::<IpAddr>().map_err(wrong)
        });
        let role = role(view, &ask.principal)?;
        let subject = Subject::of(view, &role);
        Ok(Self { role, subject, action, kind, name: ask.name.clone(), from: from.transpose()?, now: member.now() })
    }

    fn question(&self) -> Question<'_> {
        let Self { subject, action, kind, name, from, now, .. } = self;
        Question { subject, action: *action, kind, name, from: *from, now: *now }
    }

    fn decided(&self, view: &View) -> Decision {
        decide(&view.policy, view.generation, &self.question())
    }
}

fn what(action: &str, kind: &str) -> Result<(Action, Kind), AdminError> {
    let parsed = action.parse::<Action>().map_err(|error| AdminError::invalid(error.to_string(), "name one action"))?;
    let wrong = |error| AdminError::invalid(format!("kind `{kind}`: {error}"), "name a kind such as topic or service");
    Ok((parsed, Kind::parse(kind).map_err(wrong)?))
}

/// A principal; a node by its name, too.
fn role(view: &View, text: &str) -> Result<Role, AdminError> {
    let named = text.strip_prefix("node/").and_then(|name| view.members.values().find(|m| m.name.as_str() == name));
    if let Some(member) = named {
        return Ok(Role::Node(member.id));
    }
    let next = "name one principal: client/NAME, broker/HOST, admin/NAME or node/NUMBER";
    Role::parse(text).map_err(|error| AdminError::invalid(format!("`{text}`: {error}"), next))
}

/// The view to answer by: one of at least the generation that was asked for.
async fn view_for(member: &Inner, ask: &AclAsk) -> Result<std::sync::Arc<View>, AdminError> {
    if let Some(generation) = ask.min_generation {
        applied(member, Generation(generation), BEHIND_MAX).await?;
    }
    Ok(in_force(member))
}

pub(crate) async fn check(
    admin: Permitted,
    body: Result<Json<AclAsk>, JsonRejection>,
) -> Result<Json<AclDecision>, AdminError> {
    let ask = parsed(body)?;
    let member = admin.member()?;
    let view = view_for(&member, &ask).await?;
    let query = Query::read(&member, &view, &ask)?;
    Ok(Json(shown(&view.policy, &query.decided(&view))))
}

pub(crate) async fn explain(
    admin: Permitted,
    body: Result<Json<AclAsk>, JsonRejection>,
) -> Result<Json<AclExplanation>, AdminError> {
    let ask = parsed(body)?;
    let member = admin.member()?;
    let view = view_for(&member, &ask).await?;
    let query = Query::read(&member, &view, &ask)?;
    Ok(Json(explained(&view, &query)))
}

fn explained(view: &View, query: &Query) -> AclExplanation {
    let Query { role, subject, action, kind, name, .. } = query;
    let decision = query.decided(view);
    let groups = view.policy.groups_of(subject);
    let about = groups.flat_map(|(_, group)| group.about(kind, name)).filter(|rule| rule.decides().contains(*action));
    let mut rules: Vec<&Rule> = about.map(|rule| &**rule).collect();
    // Denies before allows; among equals the one whose id comes first, as it is decided.
    rules.sort_unstable_by(|a, b| (b.effect, &a.id).cmp(&(a.effect, &b.id)));
    let weighed = |rule: &Rule| AclWeighed {
        rule: RuleText::of(rule),
        decides: matches!(&decision.reason, Reason::Rule(id) if *id == rule.id),
        unmet: unmet(rule, query),
    };
    let requirement = view.policy.requirements().get(name).filter(|_| *kind == Kind::TASK);
    let expressions = |r: &Requirement| r.any_of.iter().map(ToString::to_string).collect();
    AclExplanation {
        decision: shown(&view.policy, &decision),
        principal: role.to_string(),
        roles: subject.roles.iter().cloned().collect(),
        attributes: subject.attributes.clone(),
        required: requirement.map(expressions).unwrap_or_default(),
        rules: rules.into_iter().map(weighed).collect(),
    }
}

/// Why a rule that is about the question does not count: asked of the rule itself, without one condition and the other.
fn unmet(rule: &Rule, query: &Query) -> Vec<String> {
    let Query { from, now, .. } = query;
    let there = Rule { not_after: None, ..rule.clone() }.holds(*from, *now);
    let then = Rule { network: None, ..rule.clone() }.holds(*from, *now);
    let place = from.map_or_else(|| "an unknown place".to_owned(), |from| from.to_string());
    let network = rule.network.filter(|_| !there).map(|network| format!("{place} is not within {network}"));
    let ended =
        rule.not_after.filter(|_| !then).map(|last| format!("it ended at {} (seconds since 1970)", last.secs()));
    network.into_iter().chain(ended).collect()
}

pub(crate) async fn who_can(
    admin: Permitted,
    body: Result<Json<AclWho>, JsonRejection>,
) -> Result<Json<AclWhoCan>, AdminError> {
    let AclWho { action, kind, name } = parsed(body)?;
    let (action, kind) = what(&action, &kind)?;
    let member = admin.member()?;
    let (view, now) = (in_force(&member), member.now());
    let found = aside(move || holders(&view, action, &kind, &name, now));
    Ok(Json(found.await?))
}

pub(crate) async fn lint(admin: Permitted) -> Result<Json<AclLint>, AdminError> {
    let member = admin.member()?;
    let (view, now) = (in_force(&member), member.now());
    let found = aside(move || AclLint { generation: view.generation.0, findings: findings(&view, now) });
    Ok(Json(found.await?))
}

/// A decision with the rule that made it.
fn shown(policy: &Policy, decision: &Decision) -> AclDecision {
    let rule = match &decision.reason {
        Reason::Rule(id) => policy.rule(id).map(|rule| RuleText::of(rule)),
        _ => None,
    };
    let (allowed, reason) = (decision.effect == Effect::Allow, decision.reason.to_string());
    AclDecision { allowed, reason, rule, generation: decision.generation.0 }
}

fn holders(view: &View, action: Action, kind: &Kind, name: &str, now: UnixMillis) -> AclWhoCan {
    let _ = (action, kind, name, now);
    AclWhoCan { generation: view.generation.0, principals: vec![] }
}

/// What is odd about the rules of a view.
pub(super) fn findings(view: &View, now: UnixMillis) -> Vec<AclFinding> {
    let _ = (view, now);
    vec![]
}

/// Requests that were decided here of late.
pub(super) fn recorded(_: &Inner) -> Vec<()> {
    vec![]
}

/// Those of them that another policy would decide otherwise.
pub(super) fn flips(view: &View, policy: &Policy, recorded: &[()], now: UnixMillis) -> Vec<AclFlip> {
    let _ = (view, policy, recorded, now);
    vec![]
}

//! Questions about the rules: decisions and their reasons, who may, and oddities. Nothing here changes anything.

use std::net::IpAddr;
use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::JsonRejection;
use countersign_api::admin::{
    AclAsk, AclDecision, AclExplanation, AclFinding, AclFlip, AclHolder, AclLint, AclWeighed, AclWho, AclWhoCan,
};
use countersign_core::authz::text::RuleText;
use countersign_core::authz::{
    Access, Action, Decision, Effect, Flip, Kind, Lint, Policy, Question, Reason, Requirement, Rule, Subject, decide,
};
use countersign_core::id::Generation;
use countersign_core::name::Name;
use countersign_core::principal::Role;
use countersign_core::time::UnixMillis;
use countersign_core::trust::view::View;

use crate::access::Permitted;
use crate::acl::answered;
use crate::problem::AdminError;
use crate::tokens::parsed;

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
    fn read(now: UnixMillis, view: &View, ask: &AclAsk) -> Result<Self, AdminError> {
        let (action, kind) = what(&ask.action, &ask.kind)?;
        let from = ask.from.as_deref().map(|text| {
            let wrong = |_| AdminError::invalid(format!("`{text}` is no address"), "give one such as 10.0.0.1");
            text.parse::<IpAddr>().map_err(wrong)
        });
        let role = role(view, &ask.principal)?;
        let subject = Subject::of(view, &role);
        Ok(Self { role, subject, action, kind, name: ask.name.clone(), from: from.transpose()?, now })
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
    let named = text.strip_prefix("node/").and_then(|name| view.member_named(&Name::parse(name).ok()?));
    if let Some(member) = named {
        return Ok(Role::Node(member.id));
    }
    let next = "name one principal: client/NAME, broker/HOST, admin/NAME or node/NUMBER";
    Role::parse(text).map_err(|error| AdminError::invalid(format!("`{text}`: {error}"), next))
}

/// The question, and the view to answer it by: one of at least the generation that was asked for.
async fn asked(admin: &Permitted, body: Result<Json<AclAsk>, JsonRejection>) -> Result<(Arc<View>, Query), AdminError> {
    let ask = parsed(body)?;
    let control = admin.control()?;
    let view = match ask.min_generation {
        Some(generation) => control.view_from(Generation(generation)).await?,
        None => control.view(),
    };
    let query = Query::read(control.now(), &view, &ask)?;
    Ok((view, query))
}

pub(crate) async fn check(
    admin: Permitted,
    body: Result<Json<AclAsk>, JsonRejection>,
) -> Result<Json<AclDecision>, AdminError> {
    let (view, query) = asked(&admin, body).await?;
    Ok(Json(rendered(&view.policy, &query.decided(&view))))
}

pub(crate) async fn explain(
    admin: Permitted,
    body: Result<Json<AclAsk>, JsonRejection>,
) -> Result<Json<AclExplanation>, AdminError> {
    let (view, query) = asked(&admin, body).await?;
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
        decision: rendered(&view.policy, &decision),
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
    let (view, now) = (member.local.view(), member.local.now());
    let found = answered(&admin, move || holders(&view, action, &kind, &name, now));
    Ok(Json(found.await?))
}

pub(crate) async fn lint(admin: Permitted) -> Result<Json<AclLint>, AdminError> {
    let member = admin.member()?;
    let (view, now) = (member.local.view(), member.local.now());
    let found = answered(&admin, move || AclLint {
        generation: view.generation.0,
        findings: findings(countersign_core::authz::lint(&view, now)),
    });
    Ok(Json(found.await?))
}

/// A decision with the rule that made it.
fn rendered(policy: &Policy, decision: &Decision) -> AclDecision {
    let rule = match &decision.reason {
        Reason::Rule(id) => policy.rule(id).map(|rule| RuleText::of(rule)),
        Reason::SuperUser | Reason::Requirement(_) | Reason::NoRule | Reason::NameTooLong | Reason::Unevaluable(_) => {
            None
        }
    };
    let (allowed, reason) = (decision.effect == Effect::Allow, decision.reason.to_string());
    AclDecision { allowed, reason, rule, generation: decision.generation.0 }
}

fn holders(view: &View, action: Action, kind: &Kind, name: &str, now: UnixMillis) -> AclWhoCan {
    let holder = |access: Access| AclHolder {
        principal: access.principal.to_string(),
        decision: rendered(&view.policy, &access.decision),
        only_from: access.only_from.iter().map(ToString::to_string).collect(),
    };
    let found = countersign_core::authz::who_can(view, action, kind, name, now);
    AclWhoCan { generation: view.generation.0, principals: found.into_iter().map(holder).collect() }
}

/// The oddities of rules.
pub(super) fn findings(found: Vec<Lint>) -> Vec<AclFinding> {
    found
        .into_iter()
        .map(|lint| AclFinding { rule: lint.rule.to_string(), finding: lint.finding.to_string() })
        .collect()
}

/// Requests that one policy decides otherwise than the policy before it.
pub(super) fn flips(before: &Policy, after: &Policy, flips: Vec<Flip>) -> Vec<AclFlip> {
    let shown_flip = |flip: Flip| AclFlip {
        request: AclAsk {
            principal: flip.request.principal.to_string(),
            action: flip.request.action.to_string(),
            kind: flip.request.kind.to_string(),
            name: flip.request.name,
            from: flip.request.from.map(|from| from.to_string()),
            min_generation: None,
        },
        before: rendered(before, &flip.before),
        after: rendered(after, &flip.after),
    };
    flips.into_iter().map(shown_flip).collect()
}

#[cfg(test)]
mod tests {
    use countersign_core::authz::text::PolicyText;

    use super::*;
    use countersign_core::authz::{Recorded, dry_run};
    use countersign_node::testing::founded;

    fn policy(rules: &[(&str, &str, Effect, Option<&str>)]) -> Policy {
        let rule = |(id, principal, effect, network): &(&str, &str, Effect, Option<&str>)| RuleText {
            id: Some((*id).to_owned()),
            effect: Some(*effect),
            principal: (*principal).to_owned(),
            actions: vec!["read".to_owned()],
            topic: Some("t".to_owned()),
            network: network.map(str::to_owned),
            ..RuleText::default()
        };
        PolicyText { rule: rules.iter().map(rule).collect(), ..PolicyText::default() }.policy().unwrap()
    }

    #[tokio::test]
    async fn an_explanation_weighs_denies_first_and_says_which_condition_does_not_hold() {
        let data = tempfile::tempdir().unwrap();
        let running = founded(data.path()).await.unwrap();
        let view = View::clone(&running.local.view());
        let ten = Some("10.0.0.0/8");
        let with = |policy: Policy| View { policy: Arc::new(policy), ..view.clone() };
        let ask = |principal: &str, from: Option<&str>| AclAsk {
            principal: principal.to_owned(),
            action: "read".to_owned(),
            kind: "topic".to_owned(),
            name: "t".to_owned(),
            from: from.map(str::to_owned),
            min_generation: None,
        };
        let before = with(policy(&[
            ("b", "client/pay", Effect::Allow, None),
            ("a", "client/*", Effect::Allow, None),
            ("z", "*", Effect::Deny, ten),
            ("other", "client/other", Effect::Deny, None),
        ]));
        for (from, decides, unmet) in
            [(Some("10.1.1.1"), "z", ""), (None, "z", ""), (Some("11.1.1.1"), "a", "11.1.1.1 is not within 10.0.0.0/8")]
        {
            let query = Query::read(running.local.now(), &before, &ask("client/pay", from)).unwrap();
            let told = explained(&before, &query);
            let ids: Vec<_> = told.rules.iter().map(|weighed| weighed.rule.id.clone().unwrap()).collect();
            assert_eq!(ids, ["z", "a", "b"]);
            let decided: Vec<_> = told.rules.iter().filter(|weighed| weighed.decides).collect();
            assert_eq!(decided.len(), 1);
            assert_eq!(decided[0].rule.id.as_deref(), Some(decides));
            assert_eq!(told.rules[0].unmet.join(""), unmet);
        }
        // A node is known by its name, too; a text that is no principal or no address is refused.
        assert_eq!(role(&view, "node/n1").unwrap(), Role::Node(running.local.node));
        for (principal, from) in [("pay", None), ("node/n9", None), ("client/*", None), ("client/pay", Some("here"))] {
            assert!(Query::read(running.local.now(), &before, &ask(principal, from)).is_err(), "{principal} {from:?}");
        }

        // Of the recent requests, those whose decision changes are told, with the rule on either side.
        let recorded = |from: &str| Recorded {
            principal: Role::parse("client/pay").unwrap(),
            action: Action::Read,
            kind: Kind::TOPIC,
            name: "t".to_owned(),
            from: Some(from.parse().unwrap()),
        };
        let after = policy(&[("c", "client/pay", Effect::Allow, ten)]);
        let flips = flips(
            &before.policy,
            &after,
            dry_run(&before, &after, &[recorded("10.1.1.1"), recorded("11.1.1.1")], running.local.now()),
        );
        let rule = |decision: &AclDecision| decision.rule.as_ref().and_then(|rule| rule.id.clone());
        assert_eq!((rule(&flips[0].before), rule(&flips[0].after)), (Some("z".to_owned()), Some("c".to_owned())));
        assert_eq!((rule(&flips[1].before), rule(&flips[1].after)), (Some("a".to_owned()), None));
        assert_eq!(flips.len(), 2);
        running.shutdown().await;
    }

    #[tokio::test]
    async fn few_questions_about_all_rules_are_answered_at_once() {
        use axum::body::Bytes;
        use countersign_core::limits::ACL_QUESTIONS_MAX;

        use crate::{acl, apply};

        let data = tempfile::tempdir().unwrap();
        let running = founded(data.path()).await.unwrap();
        let admin = Permitted::for_testing(&running, "test");
        let asked = async || {
            let who = || AclWho { action: "read".to_owned(), kind: "topic".to_owned(), name: "t".to_owned() };
            [
                lint(admin.again()).await.map(drop),
                who_can(admin.again(), Ok(Json(who()))).await.map(drop),
                apply::plan(admin.again(), Bytes::from_static(b"{\"policy\": {}}")).await.map(drop),
                acl::list(admin.again()).await.map(drop),
            ]
        };
        let mut places: Vec<_> = (0..ACL_QUESTIONS_MAX).map(|_| admin.question().unwrap()).collect();
        for refused in asked().await {
            let refused = refused.unwrap_err();
            assert_eq!((refused.status.as_u16(), refused.problem.code.as_str()), (503, "busy"));
        }
        places.pop();
        for answered in asked().await {
            answered.unwrap();
        }
        running.shutdown().await;
    }
}

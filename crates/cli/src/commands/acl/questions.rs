//! Questions about the rules, and answers that name the rule that decided.

use countersign_api::admin::{AclAsk, AclDecision, AclExplanation, AclLint, AclWho, AclWhoCan};
use countersign_core::authz::Action;
use countersign_core::authz::text::split;

use super::{said, unreadable};
use crate::admin_client::AdminClient;
use crate::args::{AclQuestion, AclWhoCanArgs};
use crate::failure::{Exit, Failure};
use crate::output::Output;

/// The thing that is asked about: its kind and its name.
fn about(topic: Option<&String>, resource: Option<&String>) -> Result<(String, String), Failure> {
    match (topic, resource) {
        (Some(topic), _) => Ok(("topic".to_owned(), topic.clone())),
        (None, Some(resource)) => {
            let (kind, name) = split("--resource", resource).map_err(|error| unreadable(&error))?;
            Ok((kind.to_string(), name.to_owned()))
        }
        (None, None) => Err(Failure::usage("nothing is asked about", "add --topic T or --resource KIND:NAME")),
    }
}

fn one_action(text: &str) -> Result<String, Failure> {
    let action = text.parse::<Action>().map_err(|error| Failure::usage(error, "name one action, such as read"))?;
    Ok(action.to_string())
}

fn asked(question: &AclQuestion) -> Result<AclAsk, Failure> {
    let (kind, name) = about(question.topic.as_ref(), question.resource.as_ref())?;
    Ok(AclAsk {
        principal: question.principal.clone(),
        action: one_action(&question.action)?,
        kind,
        name,
        from: question.from.map(|from| from.to_string()),
        min_generation: question.min_generation,
    })
}

/// A question in words.
pub(super) fn rendered(ask: &AclAsk) -> String {
    let AclAsk { principal, action, kind, name, from, .. } = ask;
    let from = from.as_ref().map(|from| format!(" from {from}")).unwrap_or_default();
    format!("{principal} {action} {kind} `{name}`{from}")
}

/// An answer in words, with the rule.
pub(super) fn answered(decision: &AclDecision) -> String {
    let word = if decision.allowed { "ALLOW" } else { "DENY" };
    let rule = decision.rule.as_ref().map(|rule| format!(": {}", said(rule))).unwrap_or_default();
    format!("{word} ({}, generation {}){rule}", decision.reason, decision.generation)
}

/// A denial is an answer, and no success: scripts ask by the exit code.
pub(super) async fn check(client: &AdminClient, question: &AclQuestion, output: Output) -> Result<(), Failure> {
    let ask = asked(question)?;
    let decision: AclDecision = client.post("/v1/acl/check", &ask).await?;
    output.show(&decision, |text| text.line(&answered(&decision)))?;
    if decision.allowed {
        return Ok(());
    }
    let reason = format!("denied: {}: {}", rendered(&ask), decision.reason);
    Err(Failure::new(Exit::Refused, reason, "ask why with `countersign acl explain`, and the same words"))
}

pub(super) async fn explain(client: &AdminClient, question: &AclQuestion, output: Output) -> Result<(), Failure> {
    let ask = asked(question)?;
    let explanation: AclExplanation = client.post("/v1/acl/explain", &ask).await?;
    output.show(&explanation, |text| {
        let AclExplanation { decision, principal, roles, attributes, required, rules } = &explanation;
        text.line(&answered(decision));
        let attributes: Vec<String> = attributes.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let none = |list: &[String]| if list.is_empty() { "none".to_owned() } else { list.join(", ") };
        text.line(&format!("{principal} has the roles: {}; attributes: {}", none(roles), none(&attributes)));
        if !required.is_empty() {
            text.line(&format!("task {} requires {}", ask.name, required.join(" or ")));
        }
        if rules.is_empty() {
            text.line("no rule is about this");
        }
        for weighed in rules {
            let standing = match (weighed.decides, weighed.unmet.as_slice()) {
                (true, _) => "decides".to_owned(),
                (false, []) => "agrees, or is outweighed".to_owned(),
                (false, unmet) => format!("does not count: {}", unmet.join("; ")),
            };
            text.line(&format!("{}  [{standing}]", said(&weighed.rule)));
        }
    })
}

pub(super) async fn who_can(client: &AdminClient, who: &AclWhoCanArgs, output: Output) -> Result<(), Failure> {
    let (kind, name) = about(who.topic.as_ref(), who.resource.as_ref())?;
    let body = AclWho { action: one_action(&who.action)?, kind, name };
    let found: AclWhoCan = client.post("/v1/acl/who-can", &body).await?;
    output.show(&found, |text| {
        text.table(
            &["PRINCIPAL", "BY", "ONLY FROM"],
            found.principals.iter().map(|holder| {
                let from = if holder.only_from.is_empty() { "-".to_owned() } else { holder.only_from.join(",") };
                vec![holder.principal.clone(), holder.decision.reason.clone(), from]
            }),
        );
    })
}

pub(super) async fn lint(client: &AdminClient, output: Output) -> Result<(), Failure> {
    let lint: AclLint = client.get("/v1/acl/lint").await?;
    output.show(&lint, |text| match lint.findings.as_slice() {
        [] => text.line("nothing is odd about the rules"),
        findings => findings.iter().for_each(|found| text.line(&format!("{}: {}", found.rule, found.finding))),
    })?;
    match lint.findings.len() {
        0 => Ok(()),
        found => Err(Failure::new(
            Exit::Refused,
            format!("findings about rules: {found}"),
            "see a rule with `countersign acl list`, and mend or remove it",
        )),
    }
}

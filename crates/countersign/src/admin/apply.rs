//! A whole policy in place of another: planned, or carried out in one step however long it is.
//!
//! What is carried out is reckoned from the policy that this member has applied, and counts only if that is the one which is
//! changed. So nobody's change is undone that was made meanwhile.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Bytes;
use axum::http::StatusCode;
use countersign_api::admin::{AclApply, AclChanged, AclPlan};
use countersign_core::authz::change::{ChangeId, Changed, PolicyChange, PolicyError};
use countersign_core::authz::text::{PolicyText, RuleText};
use countersign_core::authz::{Policy, Rule};
use countersign_core::codec;
use countersign_core::id::Generation;
use countersign_core::limits::COMMAND_LEN_MAX;
use countersign_core::trust::command::Command;
use countersign_core::trust::outcome::{Outcome, Refused};
use countersign_core::trust::view::View;

use super::access::Permitted;
use super::acl::{answered, aside, command, in_force, overtaken, shown_change};
use super::asked;
use super::problem::AdminError;
use crate::keys::random;
use crate::member::Inner;
use crate::propose::CommandError;

/// Bytes of rules in one command; the rest is for what stands around them.
const PART_LEN: usize = COMMAND_LEN_MAX - 4 * 1024;
/// How long this member may take to apply what is asked about.
pub(super) const BEHIND_MAX: Duration = Duration::from_secs(5);
/// How often a change is reckoned anew that others overtook.
const ATTEMPTS: usize = 5;

struct Wanted {
    policy: Arc<Policy>,
    if_generation: Option<Generation>,
    wait: bool,
}

/// Reads a body that may be long.
fn wanted(body: &[u8]) -> Result<Wanted, AdminError> {
    let read: Result<AclApply, _> = serde_json::from_slice(body);
    let AclApply { policy, if_generation, wait } =
        read.map_err(|error| AdminError::invalid(error.to_string(), "see `/v1/openapi.json`"))?;
    let policy = policy.policy().map_err(|error| AdminError::invalid(error.to_string(), "correct the policy"))?;
    Ok(Wanted { policy: Arc::new(policy), if_generation: if_generation.map(Generation), wait })
}

/// What would change, and what would follow from it. Changes nothing.
pub(crate) async fn plan(admin: Permitted, body: Bytes) -> Result<Json<AclPlan>, AdminError> {
    let Wanted { policy, if_generation, .. } = answered(&admin, move || wanted(&body)).await??;
    let member = admin.member()?;
    let view = expected(&member, if_generation).await?;
    let (recorded, now) = (member.recorded(), member.now());
    let plan = answered(&admin, move || {
        let change = view.policy.plan(&policy);
        let texts = PolicyText::of(&policy);
        AclPlan {
            generation: view.generation.0,
            add: change.put.iter().map(RuleText::of).collect(),
            remove: change.remove.iter().filter_map(|id| view.policy.rule(id)).map(|rule| RuleText::of(rule)).collect(),
            super_users: change.super_users.map(|_| texts.super_users),
            required_capabilities: change.requirements.map(|_| texts.required_capabilities),
            flips: asked::flips(&view, &policy, &recorded, now),
            lint: asked::findings(&View { policy: Arc::clone(&policy), ..View::clone(&view) }, now),
        }
    });
    Ok(Json(plan.await?))
}

pub(crate) async fn apply(admin: Permitted, body: Bytes) -> Result<Json<AclChanged>, AdminError> {
    let Wanted { policy, if_generation, wait } = aside(move || wanted(&body)).await??;
    let member = admin.member()?;
    let (generation, changed) = carried_out(&member, &policy, if_generation).await?;
    Ok(Json(shown_change(&member, generation, changed, vec![], wait).await))
}

/// The view in force, if the policy has not changed since `if_generation`.
async fn expected(member: &Inner, if_generation: Option<Generation>) -> Result<Arc<View>, AdminError> {
    if let Some(expected) = if_generation {
        applied(member, expected, BEHIND_MAX).await?;
    }
    let view = in_force(member);
    let changed = view.policy.changed();
    match if_generation.filter(|expected| changed > *expected) {
        Some(expected) => Err(overtaken(changed, expected)),
        None => Ok(view),
    }
}

async fn carried_out(
    member: &Inner,
    policy: &Arc<Policy>,
    if_generation: Option<Generation>,
) -> Result<(Generation, Changed), AdminError> {
    let mut attempts = 0;
    loop {
        attempts += 1;
        let view = expected(member, if_generation).await?;
        let (before, after, generation) = (Arc::clone(&view.policy), Arc::clone(policy), view.generation);
        let change = aside(move || PolicyChange { if_generation: Some(generation), ..before.plan(&after) }).await?;
        match proposed(member, change).await {
            // This member was behind, or somebody was faster: neither is undone.
            Err(Failed::Command(CommandError::Refused(Refused::Policy(PolicyError::Changed { changed, .. }))))
                if attempts < ATTEMPTS =>
            {
                applied(member, changed, BEHIND_MAX).await?;
            }
            Err(Failed::Command(error)) => return Err(error.into()),
            Err(Failed::Admin(error)) => return Err(error),
            Ok(done) => return Ok(done),
        }
    }
}

enum Failed {
    Command(CommandError),
    Admin(AdminError),
}

impl From<CommandError> for Failed {
    fn from(error: CommandError) -> Self {
        Self::Command(error)
    }
}

/// Proposes a change, in parts if it is too long for one command: until the last of them nothing has changed.
async fn proposed(member: &Inner, mut change: PolicyChange) -> Result<(Generation, Changed), Failed> {
    if encoded_len(&change)? > PART_LEN {
        let id = random::<16>().map_err(|error| {
            let next = "repeat the command";
            Failed::Admin(AdminError::new(StatusCode::INTERNAL_SERVER_ERROR, "random", error.to_string(), next))
        })?;
        let id = ChangeId(*id.expose());
        for (part, put) in parts(core::mem::take(&mut change.put)).into_iter().enumerate() {
            let part = u32::try_from(part).map_err(|_| CommandError::Overloaded)?;
            let done = member.command(Command::StagePolicy { change: id, part, put }, &[]).await?;
            let Outcome::Staged = done.outcome else { return Err(CommandError::Unknown.into()) };
        }
        change.staged = Some(id);
        if encoded_len(&change)? > PART_LEN {
            return Err(Failed::Admin(AdminError::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                "limit",
                format!("{} rules are too many to be taken out at once", change.remove.len()),
                "apply policies in between that take out some thousand rules each",
            )));
        }
    }
    Ok(command(member, change).await?)
}

fn encoded_len(change: &PolicyChange) -> Result<usize, CommandError> {
    // Rules alone are many: a long change need not be encoded to be known as one.
    let rules: usize = change.put.iter().map(Rule::weight).sum();
    if rules > PART_LEN { Ok(rules) } else { Ok(codec::encode(change)?.len()) }
}

/// The rules in their order, as many together as fit. A weight is no more than what a rule takes encoded, by little.
fn parts(rules: Vec<Rule>) -> Vec<Vec<Rule>> {
    let (mut parts, mut len) = (Vec::new(), usize::MAX);
    for rule in rules {
        let weight = codec::encode(&rule).map_or(PART_LEN, |encoded| encoded.len());
        if len.saturating_add(weight) > PART_LEN {
            parts.push(Vec::new());
            len = 0;
        }
        len += weight;
        if let Some(part) = parts.last_mut() {
            part.push(rule);
        }
    }
    parts
}

/// Waits until `generation` is in force here.
pub(super) async fn applied(member: &Inner, generation: Generation, patience: Duration) -> Result<(), AdminError> {
    let mut applied = member.state.applied();
    let reached = tokio::time::timeout(patience, applied.wait_for(|applied| *applied >= generation)).await;
    if matches!(reached, Ok(Ok(_))) || in_force(member).generation >= generation {
        return Ok(());
    }
    Err(AdminError::new(
        StatusCode::SERVICE_UNAVAILABLE,
        "behind",
        format!("generation {generation} is not in force here, which has {}", in_force(member).generation),
        "see `countersign status`, and repeat the command, on another member if this one does not catch up",
    ))
}

#[cfg(test)]
mod tests {
    use countersign_core::authz::change::PolicyLimit;

    use super::*;
    use crate::propose::tests::founded;

    fn policy(rules: usize, topic: &str) -> Arc<Policy> {
        let rule = |at: usize| RuleText {
            principal: format!("client/c{at}"),
            actions: vec!["read".to_owned()],
            topic: Some(format!("{topic}-{at}")),
            ..RuleText::default()
        };
        let super_users = vec!["admin/*".to_owned()];
        let text = PolicyText { super_users, rule: (0..rules).map(rule).collect(), ..PolicyText::default() };
        Arc::new(text.policy().unwrap())
    }

    #[test]
    fn no_part_is_longer_than_a_command_and_none_is_lost() {
        let rules: Vec<Rule> = policy(5000, "a").rules().map(|rule| Rule::clone(rule)).collect();
        let parts = parts(rules.clone());
        assert!(parts.len() > 1);
        for put in &parts {
            let command = Command::StagePolicy { change: ChangeId([0xff; 16]), part: u32::MAX, put: put.clone() };
            let len = codec::encode(&command).unwrap().len();
            assert!(len + 1024 < COMMAND_LEN_MAX && !put.is_empty(), "{len}");
        }
        assert_eq!(parts.concat(), rules);
    }

    #[tokio::test]
    async fn a_policy_of_many_commands_is_put_in_place_in_one_step_and_not_over_another_s_change() {
        let data = tempfile::tempdir().unwrap();
        let running = founded(&data).await;
        let member = &running.0;
        let before = in_force(member).generation;
        let (generation, changed) = carried_out(member, &policy(3000, "a"), None).await.unwrap();
        assert_eq!((generation.0, changed.put, changed.removed), (before.0 + 1, 3000, 0));
        assert_eq!(in_force(member).policy.len(), 3000);
        // What was planned before that is refused.
        let late = carried_out(member, &policy(1, "b"), Some(before)).await.unwrap_err();
        assert_eq!((late.status, late.problem.code.as_str()), (StatusCode::CONFLICT, "changed"));
        assert_eq!(in_force(member).policy.len(), 3000);
        let (again, changed) = carried_out(member, &policy(3000, "a"), Some(generation)).await.unwrap();
        assert_eq!((again, changed), (generation, Changed::default()));
        // What is refused leaves everything as it was, however many parts were sent.
        let super_users = (0..65).map(|at| format!("admin/a{at}").parse().unwrap()).collect::<Vec<_>>();
        let many = Arc::new(Policy::of(super_users, policy(3000, "b").rules().map(|rule| Rule::clone(rule))));
        let refused = carried_out(member, &many, None).await.unwrap_err();
        assert_eq!(refused.problem.message, PolicyError::Limit { what: PolicyLimit::SuperUsers, max: 64 }.to_string());
        assert_eq!(in_force(member).generation, generation);
        running.shutdown().await;
    }
}

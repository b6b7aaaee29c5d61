//! A whole policy in place of another: planned, or carried out in one step however long it is.

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use countersign_api::admin::{AclApply, AclChanged, AclPlan};
use countersign_control::PolicyPlan;
use countersign_core::authz::Policy;
use countersign_core::authz::text::{PolicyText, RuleText};
use countersign_core::id::Generation;

use crate::access::Permitted;
use crate::acl::{answered, aside, rendered_change};
use crate::asked;
use crate::problem::AdminError;

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
    let plan = admin.control()?.plan_policy(Arc::clone(&policy), if_generation, admin.question()?).await?;
    answered(&admin, move || rendered(&policy, plan)).await.map(Json)
}

fn rendered(policy: &Policy, plan: PolicyPlan) -> AclPlan {
    let PolicyPlan { view, change, flips, unheard, lint } = plan;
    let texts = PolicyText::of(policy);
    AclPlan {
        generation: view.generation.0,
        add: change.put.iter().map(RuleText::of).collect(),
        remove: change.remove.iter().filter_map(|id| view.policy.rule(id)).map(|rule| RuleText::of(rule)).collect(),
        super_users: change.super_users.map(|_| texts.super_users),
        required_capabilities: change.requirements.map(|_| texts.required_capabilities),
        flips: asked::flips(&view.policy, policy, flips),
        unheard,
        lint: asked::findings(lint),
    }
}

pub(crate) async fn apply(admin: Permitted, body: Bytes) -> Result<Json<AclChanged>, AdminError> {
    let Wanted { policy, if_generation, wait } = aside(move || wanted(&body)).await??;
    let control = admin.control()?;
    let changed = control.apply_policy(&policy, if_generation).await?;
    Ok(Json(rendered_change(&control, changed, vec![], wait).await))
}

#[cfg(test)]
mod tests {
    use countersign_core::limits::{ACTION_WORDS_MAX, REQUIREMENTS_MAX, SUPER_USERS_MAX};

    use super::*;

    #[test]
    fn a_list_in_a_body_is_read_up_to_its_limit_and_no_further() {
        let words = |word: &str, len: usize| serde_json::json!(vec![word; len]);
        let rule = |actions| serde_json::json!({"principal": "*", "actions": actions, "topic": "t"});
        let tasks = |len| (0..len).map(|at| (format!("t{at}"), words("R", 1))).collect::<serde_json::Map<_, _>>();
        let read = |policy: serde_json::Value| {
            let body = serde_json::json!({ "policy": policy }).to_string();
            wanted(body.as_bytes()).map(drop).map_err(|error| error.problem.message)
        };
        type Told<'a> = &'a dyn Fn(usize) -> serde_json::Value;
        let lists: [(usize, Told<'_>); 4] = [
            (SUPER_USERS_MAX, &|len| serde_json::json!({"super_users": words("admin/x", len)})),
            (REQUIREMENTS_MAX, &|len| serde_json::json!({"required_capabilities": {"t": words("R", len)}})),
            (REQUIREMENTS_MAX, &|len| serde_json::json!({"required_capabilities": tasks(len)})),
            (ACTION_WORDS_MAX, &|len| serde_json::json!({"rule": [rule(words("read", len))]})),
        ];
        for (max, policy) in lists {
            assert_eq!(read(policy(max)), Ok(()));
            let error = read(policy(max + 1)).unwrap_err();
            assert!(error.contains(&format!("a list is longer than {max}")), "{error}");
        }
    }
}

//! Cedar: the same rules, one policy each. A request names a resource that carries its name as an attribute, for
//! prefixes.

use std::collections::{HashMap, HashSet};
use std::fmt::Write;
use std::str::FromStr;

use anyhow::{Result, anyhow};
use cedar_policy::{
    Authorizer, Context, Decision, Entities, Entity, EntityUid, PolicySet, Request, RestrictedExpression,
};
use countersign_core::authz::{NamePattern, PrincipalPattern, Rule};
use countersign_guard::Effect;

use super::asked::{Pass, pass};
use super::world::{World, principal};

fn policies(world: &World) -> Result<PolicySet> {
    let mut text = String::new();
    for rule in world.view.policy.rules() {
        policy(&mut text, rule)?;
    }
    PolicySet::from_str(&text).map_err(|error| anyhow!("cedar: {error}"))
}

/// Rules about roles are about members of a group.
fn policy(text: &mut String, rule: &Rule) -> Result<()> {
    let effect = match rule.effect {
        Effect::Allow => "permit",
        Effect::Deny => "forbid",
    };
    let principal = match &rule.principal {
        PrincipalPattern::Any | PrincipalPattern::Prefix(_) => "principal".to_owned(),
        PrincipalPattern::Exact(name) => format!("principal == User::\"{name}\""),
        PrincipalPattern::Role(role) => format!("principal in Role::\"{}\"", role.role()),
    };
    let actions: Vec<String> = rule.actions.iter().map(|action| format!("Action::\"{}\"", action.word())).collect();
    let actions = actions.join(", ");
    let kind = rule.kind.as_str();
    let (what, when) = match &rule.pattern {
        NamePattern::Any => (format!("resource is {kind}"), String::new()),
        NamePattern::Exact(name) => (format!("resource == {kind}::\"{name}\""), String::new()),
        NamePattern::Prefix(prefix) => {
            (format!("resource is {kind}"), format!(" when {{ resource.name like \"{prefix}*\" }}"))
        }
    };
    writeln!(text, "{effect}({principal}, action in [{actions}], {what}){when};")?;
    Ok(())
}

pub(crate) fn ask(world: &World, name: &str) -> Result<Pass> {
    let policies = policies(world)?;
    let uid = |kind: &str, name: &str| EntityUid::from_str(&format!("{kind}::\"{name}\""));
    let (who, action, what) = (uid("User", &principal(0))?, uid("Action", "read")?, uid("topic", name)?);
    let role = uid("Role", "worker-0")?;
    let named = HashMap::from([("name".to_owned(), RestrictedExpression::new_string(name.to_owned()))]);
    let entities = Entities::from_entities(
        [
            Entity::with_uid(role.clone()),
            Entity::new(who.clone(), HashMap::new(), HashSet::from([role]))?,
            Entity::new(what.clone(), named, HashSet::new())?,
        ],
        None,
    )?;
    let request = Request::new(who, action, what, Context::empty(), None)?;
    let authorizer = Authorizer::new();
    pass(&world.guard, vec![request], 1, true, move |_, request| {
        authorizer.is_authorized(request, &policies, &entities).decision() == Decision::Allow
    })
}

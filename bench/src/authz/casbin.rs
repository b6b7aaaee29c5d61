//! casbin, with and without its cache: the rules about single principals, with deny before allow.

use anyhow::{Result, anyhow};
use casbin::{CachedEnforcer, CoreApi, DefaultModel, Enforcer, MemoryAdapter, MgmtApi};
use countersign_core::authz::{NamePattern, PrincipalPattern, Rule};
use countersign_guard::Guard;

use super::asked::{Pass, pass};
use super::questions::QUESTIONS;
use super::world::{World, principal};

const MODEL: &str = r#"
[request_definition]
r = sub, obj, act

[policy_definition]
p = sub, obj, act, eft

[policy_effect]
e = some(where (p.eft == allow)) && !some(where (p.eft == deny))

[matchers]
m = r.sub == p.sub && r.act == p.act && keyMatch(r.obj, p.obj)
"#;

/// One line for each action of each rule about one principal.
fn lines(world: &World) -> Vec<Vec<String>> {
    world.view.policy.rules().flat_map(|rule| lines_of(rule)).collect()
}

fn lines_of(rule: &Rule) -> Vec<Vec<String>> {
    let PrincipalPattern::Exact(principal) = &rule.principal else { return Vec::new() };
    let object = match &rule.pattern {
        NamePattern::Any => "*".to_owned(),
        NamePattern::Exact(name) => String::from(&**name),
        NamePattern::Prefix(prefix) => format!("{prefix}*"),
    };
    let line =
        |action: &str| vec![String::from(&**principal), object.clone(), action.to_owned(), rule.effect.to_string()];
    rule.actions.iter().map(|action| line(action.word())).collect()
}

pub(crate) async fn ask_cached(world: &World, names: &[String]) -> Result<Pass> {
    let enforcer = CachedEnforcer::new(DefaultModel::from_str(MODEL).await?, MemoryAdapter::default()).await?;
    ask(&world.guard, filled(enforcer, world).await?, names.to_vec(), QUESTIONS)
}

pub(crate) async fn ask_uncached(world: &World, names: &[String]) -> Result<Pass> {
    let enforcer = Enforcer::new(DefaultModel::from_str(MODEL).await?, MemoryAdapter::default()).await?;
    ask(&world.guard, filled(enforcer, world).await?, names.iter().take(1).cloned().collect(), 1)
}

async fn filled<E: MgmtApi>(mut enforcer: E, world: &World) -> Result<E> {
    let added = enforcer.add_policies(lines(world)).await?;
    if added { Ok(enforcer) } else { Err(anyhow!("casbin has taken no rule")) }
}

fn ask<E: CoreApi + Send + 'static>(guard: &Guard, enforcer: E, names: Vec<String>, questions: usize) -> Result<Pass> {
    let own = principal(0);
    pass(guard, names, questions, true, move |_, name| {
        enforcer.enforce((own.as_str(), name.as_str(), "read")).unwrap_or(false)
    })
}

//! Questions to a guard's session: by handle and by name, of things that are granted and of things that are not.

use anyhow::Result;
use countersign_guard::{Action, Kind, Resource};

use super::asked::{Pass, pass};
use super::world::{World, exact_topics, other_topics, prefixed_topics};

/// Of each pass, at least.
pub(crate) const QUESTIONS: usize = 1024;
/// Resources that a session remembers all of.
pub(crate) const FEW: usize = 16;
/// Resources of which a session remembers some.
pub(crate) const MANY: usize = 1000;

/// By handle: `count` topics that may be read.
pub(crate) fn by_handle(world: &World, rules: usize, count: usize, questions: usize) -> Result<Pass> {
    let names = exact_topics(rules).into_iter().chain(prefixed_topics(count)).take(count);
    handles(world, names, questions, true)
}

/// By handle: topics that may not.
pub(crate) fn by_handle_denied(world: &World) -> Result<Pass> {
    handles(world, other_topics(FEW).into_iter(), QUESTIONS, false)
}

fn handles(world: &World, names: impl Iterator<Item = String>, questions: usize, granted: bool) -> Result<Pass> {
    let session = world.session(0)?;
    let resources: Vec<Resource> = names.map(|name| Resource::new(Kind::TOPIC, &name)).collect();
    pass(&world.guard, resources, questions, granted, move |fresh, resource| {
        session.authorize(fresh, Action::Read, resource).is_ok()
    })
}

/// By name, all of which are granted or none.
pub(crate) fn by_name(world: &World, names: Vec<String>, questions: usize, granted: bool) -> Result<Pass> {
    let session = world.session(0)?;
    pass(&world.guard, names, questions, granted, move |fresh, name| {
        session.authorize_named(fresh, Action::Read, &Kind::TOPIC, name).is_ok()
    })
}

/// Proof that the rules in force are fresh, asked for with each question.
pub(crate) fn fresh(world: &World) -> Result<Pass> {
    let guard = world.guard.clone();
    pass(&world.guard, vec![()], QUESTIONS, true, move |_, ()| guard.fresh().is_ok())
}

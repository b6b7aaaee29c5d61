//! Peers that remember answers and know no rules: a map, and a cache with a time to live. Both are filled beforehand,
//! and neither learns that rules changed.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use countersign_core::authz::{NamePattern, PrincipalPattern};
use countersign_guard::{Action, Guard};
use moka::sync::Cache;

use super::asked::{Pass, pass};
use super::questions::QUESTIONS;
use super::world::{World, principal};

/// Principal, name, action.
type Key = (String, String, Action);

const TTL: Duration = Duration::from_secs(300);

fn key(name: &str) -> Key {
    (principal(0), name.to_owned(), Action::Read)
}

/// The answer of each rule about one principal and one name.
fn answers(world: &World) -> impl Iterator<Item = Key> {
    world.view.policy.rules().filter_map(|rule| match (&rule.principal, &rule.pattern) {
        (PrincipalPattern::Exact(principal), NamePattern::Exact(name)) => {
            Some((String::from(&**principal), String::from(&**name), Action::Read))
        }
        _ => None,
    })
}

pub(crate) fn map(world: &World) -> Arc<HashMap<Key, bool>> {
    Arc::new(answers(world).map(|key| (key, true)).collect())
}

/// With keys that were made beforehand.
pub(crate) fn ask_map(guard: &Guard, map: &Arc<HashMap<Key, bool>>, names: &[String]) -> Result<Pass> {
    let map = Arc::clone(map);
    let keys: Vec<Key> = names.iter().map(|name| key(name)).collect();
    pass(guard, keys, QUESTIONS, true, move |_, key| map.get(key).copied().unwrap_or(false))
}

/// With a key that is made for each question.
pub(crate) fn ask_map_by_new_keys(guard: &Guard, map: &Arc<HashMap<Key, bool>>, names: &[String]) -> Result<Pass> {
    let map = Arc::clone(map);
    pass(guard, names.to_vec(), QUESTIONS, true, move |_, name| map.get(&key(name)).copied().unwrap_or(false))
}

pub(crate) fn cache(world: &World) -> Cache<Key, bool> {
    let room = world.view.policy.len() as u64 * 2 + 1000;
    let cache = Cache::builder().max_capacity(room).time_to_live(TTL).build();
    answers(world).for_each(|key| cache.insert(key, true));
    cache.run_pending_tasks();
    cache
}

/// With keys that were made beforehand. An entry that has outlived its time is answered by its maker; here it is put in
/// again.
pub(crate) fn ask_cache(guard: &Guard, cache: &Cache<Key, bool>, names: &[String]) -> Result<Pass> {
    let cache = cache.clone();
    let keys: Vec<Key> = names.iter().map(|name| key(name)).collect();
    pass(guard, keys, QUESTIONS, true, move |_, key| {
        cache.get(key).unwrap_or_else(|| {
            cache.insert(key.clone(), true);
            true
        })
    })
}

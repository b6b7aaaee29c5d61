//! The effect that a change of the rules would have on requests that were made.

use core::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::action::Action;
use super::decide::{Decision, Question, decide};
use super::policy::Policy;
use super::resource::Kind;
use super::subject::Subject;
use crate::id::Generation;
use crate::principal::Role;
use crate::time::UnixMillis;
use crate::trust::view::View;

/// A request that was made.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Recorded {
    /// The principal that made it.
    pub principal: Role,
    /// The action.
    pub action: Action,
    /// The kind of the thing.
    pub kind: Kind,
    /// The name of the thing.
    pub name: String,
    /// The address that it came from; none if that was not known.
    pub from: Option<IpAddr>,
}

/// A request that would be decided differently.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flip {
    /// The request.
    pub request: Recorded,
    /// The decision now.
    pub before: Decision,
    /// The decision under the wanted rules.
    pub after: Decision,
}

/// The requests that `wanted` would decide the other way than the rules of `view`, in their order. Both decisions are
/// made at `now` for the principal as `view` knows it; the decision of that time does not count.
pub fn dry_run(view: &View, wanted: &Policy, recorded: &[Recorded], now: UnixMillis) -> Vec<Flip> {
    let next = Generation(view.generation.0.saturating_add(1));
    let flip = |request: &Recorded| {
        let Recorded { principal, action, kind, name, from } = request;
        let subject = Subject::of(view, principal);
        let question = Question { subject: &subject, action: *action, kind, name, from: *from, now };
        let (before, after) = (decide(&view.policy, view.generation, &question), decide(wanted, next, &question));
        (before.effect != after.effect).then(|| Flip { request: request.clone(), before, after })
    };
    recorded.iter().filter_map(flip).collect()
}

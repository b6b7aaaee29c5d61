//! What a change of the rules would change for requests that were made.

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
    /// By whom.
    pub principal: Role,
    /// To do what.
    pub action: Action,
    /// To what kind of thing.
    pub kind: Kind,
    /// Of which name.
    pub name: String,
    /// From where; none if that was not known.
    pub from: Option<IpAddr>,
}

/// A request that would be decided differently.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flip {
    /// The request.
    pub request: Recorded,
    /// What is decided now.
    pub before: Decision,
    /// What would be decided.
    pub after: Decision,
}

/// The requests, in their order, of which what is allowed now would be denied under `wanted`, or the other way round.
/// Each is asked anew at `now` and as whoever made it is known now, not as it was decided then.
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

//! Settings of the whole cluster. No name that all members share is one member's own.

use serde::{Deserialize, Serialize};

use super::operation::{Applied, Checked, Effect, Entry, Operation, Precondition};
use crate::authz::Affected;
use crate::codec::FIRST_LEVEL;
use crate::json::Object;
use crate::limits::{CLIENT_NAMES_LEN_MAX, CLIENT_NAMES_MAX, EVENT_LIST_LEN_MAX};
use crate::name::Host;
use crate::principal::Role;
use crate::time::UnixMillis;
use crate::trust::author::Authorship;
use crate::trust::event::{Account, Draft};
use crate::trust::hosts::{check_limit, holds_alone};
use crate::trust::outcome::{Limited, Outcome, Refused};
use crate::trust::state::TrustState;
use crate::trust::view::View;

/// A setting of the whole cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ClusterSetting {
    /// Names that all members share, such as that of a load balancer. They replace those before.
    ClientNames(Vec<Host>),
    /// Whether the leader raises the level by itself.
    LevelAuto(bool),
}

impl Operation for ClusterSetting {
    fn level(&self) -> u32 {
        FIRST_LEVEL
    }

    fn authorship(&self) -> Authorship {
        Authorship::Voter
    }

    fn effect(&self) -> Effect<'_> {
        Effect::Nothing
    }

    fn precondition(&self) -> Precondition {
        Precondition::None
    }

    fn affects(&self, _: &View) -> Affected {
        Affected::identities()
    }

    fn unchanged(&self, _: &TrustState, _: UnixMillis) -> Checked {
        Ok(None)
    }

    fn apply(&self, state: &mut TrustState, _: &Entry<'_>) -> Applied {
        match self {
            Self::ClientNames(names) => set_client_names(state, names),
            Self::LevelAuto(auto) => set_level_auto(state, *auto),
        }
    }

    fn event(&self, _: &Draft<'_>) -> Account {
        let details = Object::default();
        let details = match self {
            Self::ClientNames(names) => details.texts("client_names", names, EVENT_LIST_LEN_MAX),
            Self::LevelAuto(auto) => details.flag("level_auto", *auto),
        };
        ("cluster.set", details)
    }
}

fn set_client_names(state: &mut TrustState, names: &[Host]) -> Applied {
    let view = state.current()?;
    check_limit(Limited::ClientNames, &names.iter().collect::<Vec<_>>(), CLIENT_NAMES_MAX, CLIENT_NAMES_LEN_MAX)?;
    for name in names.iter().filter(|name| !name.is_loopback()) {
        if let Some(member) = view.members.with_host(name).find(|member| holds_alone(member, name)) {
            return Err(Refused::HostTaken { host: name.clone(), by: Role::Node(member.id) });
        }
        view.check_no_broker(name)?;
    }
    let names = names.iter().cloned().collect();
    if view.client_names == names {
        return Ok(Outcome::Done(view.generation));
    }
    state.change(|view| view.client_names = names)
}

fn set_level_auto(state: &mut TrustState, auto: bool) -> Applied {
    let generation = state.current()?.generation;
    if state.level_auto == auto {
        return Ok(Outcome::Done(generation));
    }
    state.level_auto = auto;
    state.change(|_| {})
}

//! The principals on record that may do something, and from where.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::collections::BTreeSet;

use ipnet::{IpNet, Ipv4Subnets, Ipv6Subnets};
use serde::{Deserialize, Serialize};

use super::action::Action;
use super::decide::{Decision, Question, decide};
use super::lint::on_record;
use super::resource::Kind;
use super::rule::Effect;
use super::subject::Subject;
use crate::principal::Role;
use crate::time::UnixMillis;
use crate::trust::view::View;

/// A principal that may.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Access {
    /// The principal.
    pub principal: Role,
    /// The decision, with its reason.
    pub decision: Decision,
    /// The networks that it must come from; any address if empty.
    pub only_from: Vec<IpNet>,
}

/// Every principal on record that may do `action` to the thing of this kind and name at `now`: members, brokers,
/// clients and admins. A principal that an authority made elsewhere has certified is not on record, unless it has
/// labels.
pub fn who_can(view: &View, action: Action, kind: &Kind, name: &str, now: UnixMillis) -> Vec<Access> {
    let may = |principal: Role| {
        let subject = Subject::of(view, &principal);
        let question = Question { subject: &subject, action, kind, name, from: None, now };
        // A principal that may from an unknown address may from every address.
        let decision = decide(&view.policy, view.generation, &question);
        if decision.effect == Effect::Allow {
            return Some(Access { principal, decision, only_from: Vec::new() });
        }
        let (decision, only_from) = from_somewhere(view, &question)?;
        Some(Access { principal, decision, only_from })
    };
    on_record(view).into_iter().filter_map(may).collect()
}

/// Where from it is allowed, by asking once for each stretch of addresses that no network divides.
fn from_somewhere(view: &View, question: &Question<'_>) -> Option<(Decision, Vec<IpNet>)> {
    let groups = view.policy.groups_of(question.subject);
    let about = groups.flat_map(|(_, group)| group.about(question.kind, question.name));
    let deciding = about.filter(|rule| rule.decides().contains(question.action));
    let networks: Vec<IpNet> = deciding.filter_map(|rule| rule.network).collect();
    if networks.is_empty() {
        return None;
    }
    let (mut first, mut allowed) = (None, Vec::new());
    for (from, to) in stretches(&networks) {
        let decision = decide(&view.policy, view.generation, &Question { from: Some(from), ..*question });
        if decision.effect == Effect::Allow {
            match (from, to) {
                (IpAddr::V4(from), IpAddr::V4(to)) => allowed.extend(Ipv4Subnets::new(from, to, 0).map(IpNet::V4)),
                (IpAddr::V6(from), IpAddr::V6(to)) => allowed.extend(Ipv6Subnets::new(from, to, 0).map(IpNet::V6)),
                _ => {}
            }
            first = first.or(Some(decision));
        }
    }
    Some((first?, IpNet::aggregate(&allowed)))
}

/// All addresses, cut wherever one of the networks begins or ends: first and last of each stretch.
fn stretches(networks: &[IpNet]) -> Vec<(IpAddr, IpAddr)> {
    let mut v4 = BTreeSet::from([0_u64]);
    // IPv4 addresses written as IPv6 ones are IPv4 addresses.
    let mapped = (u128::from(Ipv4Addr::UNSPECIFIED.to_ipv6_mapped()), u128::from(Ipv4Addr::BROADCAST.to_ipv6_mapped()));
    let mut v6 = BTreeSet::from([0, mapped.0, mapped.1 + 1]);
    for network in networks {
        match network {
            IpNet::V4(net) => {
                v4.insert(u32::from(net.network()).into());
                v4.insert(u64::from(u32::from(net.broadcast())) + 1);
            }
            IpNet::V6(net) => {
                v6.insert(net.network().into());
                v6.extend(u128::from(net.broadcast()).checked_add(1));
            }
        }
    }
    let v4_end = u64::from(u32::MAX) + 1;
    let ends = v4.iter().skip(1).copied().chain([v4_end]);
    let narrow = |at: u64| u32::try_from(at).ok().map(|at| IpAddr::V4(Ipv4Addr::from(at)));
    let v4 = v4.iter().zip(ends).filter(|(from, end)| *from < end);
    let v4 = v4.filter_map(|(from, end)| narrow(*from).zip(narrow(end.saturating_sub(1))));
    let lasts = v6.iter().skip(1).map(|next| next.saturating_sub(1)).chain([u128::MAX]);
    let wide = |at: u128| IpAddr::V6(Ipv6Addr::from(at));
    let v6 = v6.iter().zip(lasts).filter(|(from, _)| **from != mapped.0);
    v4.chain(v6.map(|(from, last)| (wide(*from), wide(last)))).collect()
}

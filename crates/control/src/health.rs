//! How this member and its cluster are, for people and for monitoring. Nothing is changed or decided by it.

use std::sync::Arc;
use std::time::Duration;

use countersign_api::admin::{
    AuthorityStatus, CertificateStatus, ChangesStatus, EvictedStatus, IssuedInfo, MadeInfo, MemberStatus,
    PendingMember, RaftStatus, Status, labels,
};
use countersign_core::limits::SKEW_SECS;
use countersign_core::receipt::Answer;
use countersign_core::time::{UnixMillis, Validity};
use countersign_core::trust::member::{Member, Suffrage};
use countersign_core::trust::view::View;
use countersign_node::{
    Barriers, ClusterTime, Denylist, Divergence, KeyHolder, LeaderContact, Leasehold, Local, Node, Peers, RefusalLog,
    Renewals, SharedState, StoreWarnings, Stores,
};
use countersign_pki::key_kind::{KeyKind, shut_out};
use countersign_raft::{Group, GroupState, GroupStatus};

use crate::hosts;

/// How long a leader, or a leader's followers, may be silent: ten heartbeats.
const SILENCE_MAX: Duration = Duration::from_secs(3);

/// The rest of a certificate's life, in shares of it, when its renewal is known to fail: renewal begins before this.
const RENEWAL_FAILS_SHARE: u64 = 5;
/// The rest, in shares, when this member is not ready any more: monitoring learns it before the service ends.
const NOT_READY_SHARE: u64 = 20;

/// Says how a member is. Clones are of the same member.
#[derive(Clone)]
pub struct Health {
    pub(crate) local: Arc<Local>,
    pub(crate) state: SharedState,
    pub(crate) group: Group,
    pub(crate) peers: Peers,
    pub(crate) barriers: Barriers,
    pub(crate) time: Arc<ClusterTime>,
    pub(crate) lease: Arc<Leasehold>,
    pub(crate) key_holder: Arc<KeyHolder>,
    pub(crate) renewals: Arc<Renewals>,
    pub(crate) refusals: Arc<RefusalLog>,
    pub(crate) denylist: Arc<Denylist>,
    pub(crate) divergence: Arc<Divergence>,
    pub(crate) stores: StoreWarnings,
    pub(crate) own_stores: Arc<Stores>,
    pub(crate) leader_contact: Arc<LeaderContact>,
}

impl Health {
    /// Of this member.
    pub fn of(node: &Node) -> Self {
        Self {
            local: Arc::clone(&node.local),
            state: node.state.clone(),
            group: node.group.clone(),
            peers: node.peers.clone(),
            barriers: node.barriers.clone(),
            time: Arc::clone(&node.time),
            lease: Arc::clone(&node.lease),
            key_holder: Arc::clone(&node.key_holder),
            renewals: Arc::clone(&node.renewals),
            refusals: Arc::clone(&node.refusals),
            denylist: Arc::clone(&node.denylist),
            divergence: Arc::clone(&node.divergence),
            stores: node.store_warnings(),
            own_stores: Arc::clone(&node.stores),
            leader_contact: Arc::clone(&node.leader_contact),
        }
    }

    /// The members of the cluster, as this member knows them.
    pub fn members(&self) -> Vec<MemberStatus> {
        self.members_of(&self.local.view(), &self.group.status())
    }

    /// Members that have not said that they enforce the newest generation.
    async fn waiting_for(&self) -> Vec<PendingMember> {
        let view = self.local.view();
        let Some(barrier) = self.barriers.now(view.generation).await else { return vec![] };
        let pending = barrier.answers.iter().filter_map(|(node, answer)| match answer {
            Answer::Enforced(_) => None,
            Answer::Absent(absence) => Some(PendingMember {
                node: node.0,
                name: view.members.get(node)?.name.to_string(),
                generation: view.generation.0,
                lease_ends_millis: absence.lease_ends.0,
            }),
        });
        pending.collect()
    }

    /// Whether this member takes part: it follows or is a leader, Raft counts it in, it holds a lease to serve by, and
    /// its certificate lasts for some time yet.
    pub fn is_ready(&self) -> bool {
        let status = self.group.status();
        let counted = status.voters.contains(&self.local.node) || status.learners.contains(&self.local.node);
        let heard = match status.state {
            // A leader that lost its quorum keeps its state for a while; its followers' silence gives it away.
            GroupState::Leader => {
                let silent = u128::from(status.millis_since_quorum_ack.unwrap_or(u64::MAX));
                status.voters.len() == 1 || silent < SILENCE_MAX.as_millis()
            }
            GroupState::Follower | GroupState::Learner => {
                status.leader.is_some() && self.leader_contact.lately(SILENCE_MAX)
            }
            GroupState::Candidate | GroupState::Stopped => false,
        };
        let lasts =
            self.local.certificate().is_none_or(|validity| left(validity, self.local.now(), NOT_READY_SHARE).is_some());
        counted && heard && lasts && self.lease.fresh().is_ok()
    }

    /// The answer of a member that is ready, with the dangers that will end that unless an operator acts.
    pub fn readiness(&self) -> String {
        let now = self.local.now();
        let failing = self.local.certificate().filter(|validity| left(*validity, now, RENEWAL_FAILS_SHARE).is_none());
        let failing = failing.map(|validity| {
            format!("warning: certificate expires in {} and is not renewed\n", span(validity.not_after.secs_since(now)))
        });
        format!("ready\n{}", failing.unwrap_or_default())
    }

    /// What this member says of itself and of its cluster. The leader is asked which members have not said that they
    /// enforce the newest generation.
    pub async fn status(&self) -> Status {
        let waiting_for = self.waiting_for().await;
        let trust = self.local.endpoint.trust().load();
        let view = &trust.view;
        let raft = self.group.status();
        let shown = self.local.certificate();
        let (authority_id, authority) = match view.active_authority() {
            Some((id, authority)) => (id.to_string(), Some(authority)),
            None => (String::new(), None),
        };
        let [leaf_key, authority_key] = self.key_kinds();
        Status {
            node: self.local.node.0,
            name: self.local.file.name.to_string(),
            cluster: view.name.to_string(),
            cluster_id: view.cluster.to_string(),
            trust_domain: view.trust_domain.to_string(),
            generation: view.generation.0,
            ready: self.is_ready(),
            lease_millis_left: self.lease.millis_left(),
            lease_secs: self.state.read().lease().unwrap_or_default().millis() / 1000,
            waiting_for,
            members: self.members_of(view, &raft),
            evicted: view
                .evicted
                .scan()
                .iter()
                .map(|(id, e)| EvictedStatus { node: id.0, name: e.name.to_string(), generation: e.generation.0 })
                .collect(),
            authority: AuthorityStatus {
                fingerprint: authority_id,
                not_after: authority.map_or(0, |a| a.validity.not_after.secs()),
                imported: authority.is_some_and(|a| a.imported),
                key: authority_key.map(|kind| kind.to_string()),
            },
            certificate: CertificateStatus {
                principal: format!("spiffe://{}/node/{}", view.trust_domain, self.local.node),
                not_before: shown.map_or(0, |validity| validity.not_before.secs()),
                not_after: shown.map_or(0, |validity| validity.not_after.secs()),
                renews_at: self.renewals.due().map(UnixMillis::secs),
                key: leaf_key.map(|kind| kind.to_string()),
            },
            can_issue: self.key_holder.holds(),
            key_protection: key_protection(view).to_owned(),
            connections: self.local.endpoint.registry().connections().len(),
            changes: self.changes(),
            differing: self.divergence.differing(),
            warnings: self.warnings(view, &raft),
            raft: RaftStatus {
                state: state_label(raft.state).to_owned(),
                leader: raft.leader.map(|id| id.0),
                term: raft.term,
                last_index: raft.last_log.unwrap_or(0),
                applied_index: raft.applied.map_or(0, |at| at.index),
                voters: raft.voters.iter().map(|id| id.0).collect(),
                learners: raft.learners.iter().map(|id| id.0).collect(),
            },
        }
    }

    fn changes(&self) -> ChangesStatus {
        let state = self.state.read();
        let chain = state.chain();
        ChangesStatus { count: chain.count(), head: chain.head().to_string() }
    }

    /// The kinds of key in the certificate that this member shows and in that of the active authority.
    fn key_kinds(&self) -> [Option<KeyKind>; 2] {
        let trust = self.local.endpoint.trust().load();
        let leaf = trust.credential.as_ref().and_then(|credential| credential.chain().next());
        let authority = trust.view.active_authority().map(|(_, authority)| authority.certificate.as_slice());
        [leaf, authority].map(|certificate| certificate.and_then(KeyKind::of_certificate))
    }

    fn members_of(&self, view: &View, raft: &GroupStatus) -> Vec<MemberStatus> {
        let state = self.state.read();
        let authority = view.active_authority().map(|(id, _)| id);
        let opened =
            |m: &Member| authority.and_then(|a| state.sealed().get(&(a, m.id))).is_some_and(|copy| copy.opened);
        let status = |m: &Member| MemberStatus {
            node: m.id.0,
            name: m.name.to_string(),
            role: m.suffrage,
            converged: match m.suffrage {
                Suffrage::Voter => raft.voters.contains(&m.id),
                Suffrage::Learner => raft.learners.contains(&m.id) && !raft.voters.contains(&m.id),
            },
            addresses: m.addresses.iter().map(ToString::to_string).collect(),
            client_address: state.client_port(m.id).map(ToString::to_string),
            hosts: m.hosts.all().iter().map(ToString::to_string).collect(),
            unproved: hosts::unproved(view, m),
            labels: labels(m.role.as_ref(), &m.attributes),
            holds_authority: opened(m),
            certificate_not_after: m.leaf.validity.not_after.secs(),
            certificate_issued: IssuedInfo::of(&m.leaf.issued),
            admitted_by: m.admitted_by.map(|token| token.to_string()),
            admitted_at_millis: m.admitted_at.0,
            token_made: m.token_made.as_ref().map(MadeInfo::of),
            identity: m.keys.identity.id().to_string(),
            this: m.id == self.local.node,
        };
        view.members.scan().values().map(status).collect()
    }

    fn warnings(&self, view: &View, raft: &GroupStatus) -> Vec<String> {
        let mut warnings = Vec::new();
        warnings.extend(self.time.warning());
        for node in self.denylist.quarantined() {
            let name = view.members.get(&node).map_or_else(|| node.to_string(), |m| m.name.to_string());
            warnings.push(format!(
                "{name} is in quarantine here, refused by this member alone: evict it, or `countersign node quarantine \
                 --lift {name}`"
            ));
        }
        warnings.extend(self.divergence.warnings(view));
        warnings.extend(self.stores.of(view));
        let [leaf, authority] = self.key_kinds();
        warnings.extend(shut_out(leaf, authority));
        let now = self.local.now();
        if raft.voters.len() == 1 && view.members.len() > 1 {
            warnings.push("one voter only: if it fails, the cluster cannot change; promote others".to_owned());
        }
        if raft.voters.len() == 2 {
            warnings.push("two voters: if either fails, the cluster cannot change; promote a third".to_owned());
        }
        for m in view.members.scan().values() {
            let validity = match self.local.foreign_validity() {
                None => Some(m.leaf.validity),
                Some(foreign) if m.id == self.local.node => Some(foreign),
                // A certificate that was issued again for the same key is not told: its holder warns of it.
                Some(_) => None,
            };
            warnings.extend(validity.and_then(|validity| expiry(m, validity, now)));
            if m.id != self.local.node
                && let Some(failure) = self.peers.failure(m.id)
            {
                warnings.push(format!("{} is not reached: {}", m.name, countersign_node::chain(&*failure)));
            }
        }
        warnings.extend(view.members.scan().values().filter_map(|m| hosts::warning(view, m)));
        let level = self.state.read().level();
        warnings.extend(self.lease.delegated.below(level).into_iter().map(|(principal, knows)| {
            format!(
                "a guard of {principal} knows level {knows}, the cluster is at {level}: update it, or rules that it \
                 does not know make it deny"
            )
        }));
        if self.lease.millis_left().is_none() {
            warnings.push("no lease: this node serves no client until a leader with a quorum is heard".to_owned());
        }
        if matches!(raft.state, GroupState::Follower | GroupState::Learner) && !self.leader_contact.lately(SILENCE_MAX)
        {
            warnings.push("the leader is silent: it is down, out of reach, or this node was evicted".to_owned());
        }
        if !view.members.contains_key(&self.local.node) {
            warnings
                .push("this node was evicted: it joins again with a new token and another --data directory".to_owned());
        }
        warnings
    }
}

/// Seconds left of a certificate, unless that is less than a `share`-th of its life.
fn left(validity: Validity, now: UnixMillis, share: u64) -> Option<u64> {
    // Backdated for peers whose clocks are behind: its life began later.
    let begin = validity.not_before.plus_secs(SKEW_SECS).min(validity.not_after);
    let (life, left) = (validity.not_after.0.saturating_sub(begin.0), validity.not_after.0.saturating_sub(now.0));
    (left > life / share).then_some(left / 1000)
}

/// Seconds for people, in the largest unit that fits.
fn span(secs: u64) -> String {
    let units = [("d", 86_400), ("h", 3600), ("m", 60)];
    let unit = units.into_iter().find(|(_, unit)| secs >= *unit);
    unit.map_or_else(|| format!("{secs}s"), |(name, unit)| format!("{}{name}", secs / unit))
}

const fn state_label(state: GroupState) -> &'static str {
    match state {
        GroupState::Leader => "leader",
        GroupState::Follower => "follower",
        GroupState::Learner => "learner",
        GroupState::Candidate => "candidate",
        GroupState::Stopped => "stopped",
    }
}

fn key_protection(view: &View) -> &'static str {
    if view.key_is_elsewhere() {
        return "CA key held elsewhere: this cluster issues no certificates";
    }
    "CA key sealed to each voter (HPKE); sealing keys protected by file permissions only"
}

/// What there is to say about a member's certificate; nothing while it is renewed in time.
fn expiry(of: &Member, validity: Validity, now: UnixMillis) -> Option<String> {
    let name = &of.name;
    let foreign = of.mapped.is_some();
    if validity.not_after < now {
        let next =
            if foreign { "issue it again for the same key" } else { "it is renewed once the node is up and reached" };
        return Some(format!("certificate of {name} has expired: {next}"));
    }
    if left(validity, now, RENEWAL_FAILS_SHARE).is_some() {
        return None;
    }
    let next =
        if foreign { "issue it again for the same key" } else { "it should be renewed by now, see that node's log" };
    Some(format!("certificate of {name} expires in {}: {next}", span(validity.not_after.secs_since(now))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_is_reckoned_by_the_life_that_a_certificate_has() {
        let at = UnixMillis::from_secs;
        for life in [10, 86_400, 90 * 86_400] {
            let issued = 1_000_000;
            let validity = Validity { not_before: at(issued - SKEW_SECS), not_after: at(issued + life) };
            for (now, share, some) in [
                (issued, RENEWAL_FAILS_SHARE, true),
                (issued + life * 4 / 5 - 1, RENEWAL_FAILS_SHARE, true),
                (issued + life * 4 / 5, RENEWAL_FAILS_SHARE, false),
                (issued + life * 4 / 5, NOT_READY_SHARE, true),
                (issued + life, NOT_READY_SHARE, false),
                (issued + life + 1, NOT_READY_SHARE, false),
            ] {
                assert_eq!(left(validity, at(now), share).is_some(), some, "{life} {now}");
            }
        }
        // Shorter than its own backdating: it has no life to speak of, and is not taken for a fresh one.
        let dead = Validity { not_before: at(0), not_after: at(10) };
        assert_eq!(left(dead, at(10), NOT_READY_SHARE), None);
    }

    #[test]
    fn spans_are_written_in_the_largest_unit() {
        let spans = [0, 59, 60, 3599, 3600, 86_399, 86_400 * 18].map(span);
        assert_eq!(spans, ["0s", "59s", "1m", "59m", "1h", "23h", "18d"]);
    }
}

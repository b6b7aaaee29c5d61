//! What monitoring reads. Made when asked: nothing is counted that is not known already.

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::Health;

impl Health {
    /// The metrics in OpenMetrics' text format.
    pub fn metrics(&self) -> String {
        let mut registry = Registry::with_prefix("countersign");
        let status = self.group.status();
        let trust = self.local.endpoint.trust().load();
        let view = &trust.view;
        let expiry = self.local.certificate().map_or(0, |validity| validity.not_after.secs());
        let authority = view.active_authority().map_or(0, |(_, a)| a.validity.not_after.secs());
        gauge(&mut registry, "trust_generation", "Generation of the trust view in force", view.generation.0);
        gauge(&mut registry, "members", "Members of the cluster", view.members.len() as u64);
        gauge(&mut registry, "voters", "Voters of the trust group", status.voters.len() as u64);
        gauge(&mut registry, "raft_term", "Raft term of the trust group", status.term);
        gauge(&mut registry, "raft_applied_index", "Last applied entry", status.applied.map_or(0, |at| at.index));
        gauge(&mut registry, "raft_leads", "1 if this member leads", u64::from(status.leader == Some(self.local.node)));
        gauge(&mut registry, "ready", "1 if this member takes part", u64::from(self.is_ready()));
        gauge(
            &mut registry,
            "connections",
            "Live authenticated connections",
            self.local.endpoint.registry().connections().len() as u64,
        );
        gauge(&mut registry, "certificate_expiry_seconds", "End of this member's certificate, Unix time", expiry);
        let left = expiry.saturating_sub(self.local.now().secs());
        gauge(&mut registry, "certificate_seconds_left", "Seconds until this member's certificate expires", left);
        gauge(&mut registry, "authority_expiry_seconds", "End of the authority's certificate, Unix time", authority);
        gauge(&mut registry, "authority_held", "1 if this member can sign", u64::from(self.key_holder.holds()));
        let unreachable = view
            .members
            .scan()
            .keys()
            .filter(|id| **id != self.local.node && self.peers.failure(**id).is_some())
            .count();
        gauge(&mut registry, "members_unreachable", "Members not reached at the last attempt", unreachable as u64);
        let differing = self.divergence.report().is_some();
        gauge(
            &mut registry,
            "states_differ",
            "1 while no lease is granted because states differ",
            u64::from(differing),
        );
        let lease = self.lease.millis_left().unwrap_or(0);
        gauge(&mut registry, "lease_millis_left", "Milliseconds until this member's lease ends, 0 without one", lease);
        gauge(&mut registry, "evicted", "Former members that are refused", view.evicted.len() as u64);
        gauge(&mut registry, "revoked_keys", "Keys that are refused permanently", view.revoked_keys.len() as u64);
        let (failed, missing) = self.state.event_counts();
        counter(&mut registry, "events_failed", "Lines of the events file that could not be written", failed);
        counter(&mut registry, "events_missing", "Events that this member's events file does not have", missing);
        counter(&mut registry, "renewals", "Renewals of this member's certificate", self.renewals.done());
        counter(&mut registry, "renewals_failed", "Attempts at one that failed", self.renewals.failed());
        let refused = self.own_stores.refusals();
        counter(&mut registry, "store_refusals", "Votes, answers and lease requests refused for their store", refused);
        let refusals = Family::<[(&str, &str); 1], Counter>::default();
        for (reason, count) in self.refusals.counts() {
            refusals.get_or_create(&[("reason", reason)]).inc_by(count);
        }
        registry.register("refusals", "Refused connections and enrollments", refusals);
        let mut text = String::new();
        if encode(&mut text, &registry).is_err() {
            text.clear(); // writing into a String does not fail
        }
        text
    }
}

fn gauge(registry: &mut Registry, name: &str, help: &str, value: u64) {
    let gauge = Gauge::<i64>::default();
    gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
    registry.register(name, help, gauge);
}

/// Since the start. Its name is told with `_total` behind it.
fn counter(registry: &mut Registry, name: &str, help: &str, value: u64) {
    let counter = Counter::<u64>::default();
    counter.inc_by(value);
    registry.register(name, help, counter);
}

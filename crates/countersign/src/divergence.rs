//! Members whose states differ: what this member knows of them, as leader or from its leader, and what it says of them.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use countersign_api::admin::DifferingStatus;
use countersign_api::cluster::RevocationsRequest;
use countersign_api::cluster::members_client::MembersClient;
use countersign_api::convert::decoded;
use countersign_core::codec;
use countersign_core::id::{NodeId, StateDigest, StoreId};
use countersign_core::limits::REVOCATIONS_PAGE_MAX;
use countersign_core::locked::{Locked, Order};
use countersign_core::trust::agreement::{Agreement, Report, Revocation, RevocationsCompared, Said, Speaker, Uneven};
use countersign_core::trust::command::Command;
use countersign_core::trust::digest::DigestAt;
use countersign_core::trust::member::Suffrage;
use countersign_core::trust::outcome::Refused;
use countersign_core::trust::view::View;
use countersign_raft::GroupState;
use tokio::sync::watch;

use crate::datadir::{DamageReason, DataDir, DataDirError, file};
use crate::member::Inner;

/// How long a voter may take to say which revocations it holds.
const COMPARE_DEADLINE: Duration = Duration::from_secs(30);
/// How long to wait before those are asked again that did not answer.
const ASK_AGAIN: Duration = Duration::from_secs(10);
/// Characters of a digest in a line for people.
const DIGEST_SHOWN: usize = 16;

#[derive(Default)]
struct Known {
    agreement: Agreement,
    /// The alarm that stands, as this member found it as leader or heard it from its leader. For a learner: that it differs.
    report: Option<Report>,
}

/// What this member knows of members whose states differ. It outlives a restart.
pub(crate) struct Divergence {
    /// Held while the own digests are looked at.
    known: Locked<Known>,
    /// Wakes those who find out what the difference is.
    raised: watch::Sender<()>,
}

impl Divergence {
    /// As it was at the last stop.
    pub(crate) fn open(data: &DataDir) -> Result<Self, DataDirError> {
        let agreement = match data.read(file::DIVERGENCE)? {
            None => Agreement::default(),
            Some(bytes) => codec::decode(&bytes).map_err(|_| DataDirError::Damaged {
                path: data.file(file::DIVERGENCE),
                reason: DamageReason::Parse,
            })?,
        };
        let known = Locked::of(Order::Middle, Known { agreement, report: None });
        Ok(Self { known, raised: watch::Sender::new(()) })
    }

    /// The alarm that stands.
    pub(crate) fn report(&self) -> Option<Report> {
        self.known.lock().report.clone()
    }

    /// What `me` and `speaker` said of their states where these are known to differ.
    pub(crate) fn between(&self, me: NodeId, speaker: Speaker) -> Option<Report> {
        self.known.lock().agreement.between(me, speaker)
    }

    /// Keeps what is known for the next start. What cannot be kept is said; the alarm stands until then all the same.
    fn keep(&self, data: &DataDir) {
        let agreement = self.known.lock().agreement.clone();
        let kept = match codec::encode(&agreement) {
            Ok(_) if agreement.is_empty() => data.remove(file::DIVERGENCE),
            Ok(bytes) => data.write(file::DIVERGENCE, &bytes),
            Err(error) => return tracing::error!(error = %crate::chain(&error), "disagreements cannot be encoded"),
        };
        if let Err(error) = kept {
            tracing::error!(error = %crate::chain(&error), "that members' states differ could not be written down");
        }
    }

    /// Puts `report` in place of the one that stood. True if it is about something else.
    fn stands(&self, report: Option<Report>) -> bool {
        let mut known = self.known.lock();
        let about = |report: &Option<Report>| report.as_ref().map(|report| report.disagreements.clone());
        let news = about(&known.report) != about(&report);
        if news {
            known.report = report;
        }
        news
    }
}

impl Inner {
    /// As leader: compares what `from` says of its state, and decides whether it may have a lease. A report if not.
    pub(crate) fn compare_states(&self, from: NodeId, store: StoreId, said: Option<DigestAt>) -> Option<Report> {
        let (me, speaker) = ((self.node, self.own_store()), (from, store));
        let view = self.state.read().view().cloned()?;
        let quarantined = self.overlay.quarantined();
        let (alarm, changed) = {
            let mut known = self.divergence.known.lock();
            let changed = match said {
                Some(said) if from != self.node => {
                    self.state.with_digests(|own| known.agreement.compare(me, own, speaker, said))
                }
                Some(_) | None => false,
            };
            (known.agreement.alarm(&view, &quarantined), changed)
        };
        if changed {
            self.divergence.keep(&self.data);
        }
        if self.divergence.stands(alarm.clone()) {
            match &alarm {
                None => {
                    tracing::info!("the states of the voters that count do not differ any more: leases are granted");
                }
                Some(report) => {
                    tracing::error!(report = %lines(report, &view).join("; "), "the states of voters differ: no lease is granted");
                }
            }
            self.divergence.raised.send_replace(());
        }
        if alarm.is_some() {
            return self.divergence.report();
        }
        let report = self.divergence.between(self.node, speaker)?;
        if changed {
            tracing::error!(report = %lines(&report, &view).join("; "), "the state of a learner differs");
        }
        Some(report)
    }

    /// As leader: why a command may not make a voter of a member whose state is known to differ.
    pub(crate) fn check_state_of_new_voter(&self, command: &Command) -> Option<Refused> {
        let Command::SetSuffrage { node, suffrage: Suffrage::Voter, .. } = command else { return None };
        let store = self.state.read().view()?.members.get(node)?.store;
        let index = *self.divergence.between(self.node, (*node, store))?.disagreements.keys().next()?;
        Some(Refused::StateDiffers { node: *node, index })
    }

    /// The leader grants no lease, for this reason.
    pub(crate) fn states_differ(&self, report: &Report) {
        let Some(view) = self.state.read().view().cloned() else { return };
        let votes = view.members.get(&self.node).is_some_and(|member| member.suffrage == Suffrage::Voter);
        // A learner never leads, and what is only about itself ends with its store.
        if votes && self.divergence.known.lock().agreement.take_up(report) {
            self.divergence.keep(&self.data);
        }
        let news = self.divergence.stands(Some(report.clone()));
        // What the leader has found out since it raised the alarm.
        self.divergence.known.lock().report = Some(report.clone());
        if news {
            tracing::error!(report = %lines(report, &view).join("; "), "the leader grants no lease: states differ");
        }
    }

    /// The leader grants leases: it knows of no voters that differ.
    pub(crate) fn states_agree(&self) {
        if self.divergence.known.lock().agreement.clear() {
            self.divergence.keep(&self.data);
        }
        if self.divergence.stands(None) {
            tracing::info!("the leader grants leases again");
        }
    }

    /// Lines for people about states that differ; none while they agree as far as is known.
    pub(crate) fn divergence_warnings(&self, view: &View) -> Vec<String> {
        let mut warnings = self.divergence.report().map(|report| lines(&report, view)).unwrap_or_default();
        for member in view.members.values().filter(|member| member.suffrage == Suffrage::Learner) {
            let differs = self.divergence.between(self.node, (member.id, member.store));
            warnings.extend(differs.iter().flat_map(|report| lines(report, view)));
        }
        warnings
    }

    /// The alarm that stands, for programs.
    pub(crate) fn differing(&self) -> Vec<DifferingStatus> {
        let report = self.divergence.report().unwrap_or_default();
        let with = |who: fn(&Uneven) -> &BTreeSet<NodeId>, node: &NodeId| {
            let of = report.uneven.iter().filter(|(_, uneven)| who(uneven).contains(node));
            of.map(|(revocation, _)| revocation.to_string()).collect()
        };
        let status = |index: u64, node: &NodeId, said: &Said| DifferingStatus {
            index,
            node: node.0,
            digest: said.digest.to_string(),
            holds: with(|uneven| &uneven.held_by, node),
            lacks: with(|uneven| &uneven.lacked_by, node),
        };
        let all = report.disagreements.iter();
        all.flat_map(|(index, by)| by.iter().map(|(node, said)| status(*index, node, said))).collect()
    }

    /// One page of what is refused here for good, from behind `after` on, and whether it is the last one.
    pub(crate) fn revocations_page(&self, after: Option<&Revocation>) -> (Vec<Revocation>, bool) {
        let Some(view) = self.state.read().view().cloned() else { return (Vec::new(), true) };
        let mut page: Vec<Revocation> = view.revocations(after).take(REVOCATIONS_PAGE_MAX + 1).collect();
        let last = page.len() <= REVOCATIONS_PAGE_MAX;
        page.truncate(REVOCATIONS_PAGE_MAX);
        (page, last)
    }

    /// Finds out which revocations the voters of the alarm hold that others of them lack.
    async fn find_uneven(&self) {
        let leads = self.group.status().state == GroupState::Leader;
        let Some(mut report) = self.divergence.report().filter(|_| leads) else { return };
        let Some(ours) = self.state.read().view().cloned() else { return };
        let mut compared = Vec::new();
        let others: BTreeSet<NodeId> = report.voters().into_iter().filter(|node| *node != self.node).collect();
        report.unheard.clear();
        for node in others {
            match tokio::time::timeout(COMPARE_DEADLINE, self.compared_with(node, &ours)).await {
                Ok(Some(with)) => compared.push((node, with)),
                Ok(None) | Err(_) => drop(report.unheard.insert(node)),
            }
        }
        report.unlisted = 0;
        report.enter(self.node, &ours, compared.iter().map(|(node, with)| (*node, with)));
        let mut known = self.divergence.known.lock();
        let Some(stands) = known.report.as_mut().filter(|r| r.disagreements == report.disagreements) else { return };
        if *stands != report {
            *stands = report.clone();
            drop(known);
            tracing::error!(report = %lines(&report, &ours).join("; "), "the states of voters differ in this");
        }
    }

    async fn compared_with<'a>(&self, node: NodeId, ours: &'a View) -> Option<RevocationsCompared<'a>> {
        let mut client = MembersClient::new(self.peers.channel(node)?);
        let mut compared = RevocationsCompared::new(ours);
        loop {
            let after = compared.after().map(codec::encode).transpose().ok()?.unwrap_or_default();
            let reply = client.revocations(RevocationsRequest { after: Bytes::from(after) }).await.ok()?.into_inner();
            let page: Vec<Revocation> = decoded("revocations", &reply.page).ok()?;
            if page.is_empty() && !reply.last {
                return None; // it would never end
            }
            compared.page(page, reply.last).ok()?;
            if reply.last {
                return Some(compared);
            }
        }
    }
}

/// Finds out what the difference is whenever an alarm is raised, until the member stops.
pub(crate) fn spawn(member: &Arc<Inner>) {
    let this = Arc::clone(member);
    member.spawn(async move {
        let mut raised = this.divergence.raised.subscribe();
        loop {
            this.find_uneven().await;
            if this.divergence.report().is_none() {
                if raised.changed().await.is_err() {
                    return;
                }
            } else {
                // why: a voter that was out of reach may answer later, and nothing tells so
                let _ = tokio::time::timeout(ASK_AGAIN, raised.changed()).await;
            }
        }
    });
}

/// What a report says, line by line.
fn lines(report: &Report, view: &View) -> Vec<String> {
    let name = |node: &NodeId| view.members.get(node).map_or_else(|| format!("node {node}"), |m| m.name.to_string());
    let names = |nodes: &BTreeSet<NodeId>| nodes.iter().map(name).collect::<Vec<_>>().join(" and ");
    let votes = |node: &NodeId| view.members.get(node).is_some_and(|member| member.suffrage == Suffrage::Voter);
    let mut lines = Vec::new();
    for (index, by) in &report.disagreements {
        if let Some(learner) = by.keys().find(|node| !votes(node)) {
            lines.push(learner_line(&name(learner), *index));
            continue;
        }
        let said: Vec<String> =
            by.iter().map(|(node, said)| format!("{} {}", name(node), short(said.digest))).collect();
        lines.push(format!(
            "states of voters differ at log index {index} ({}): no lease is granted, so nobody serves clients; find out whose \
             state is wrong, stop that node and run `countersign server --return-as-learner` there, or go on without it: \
             `countersign node quarantine NODE` on every other voter; a command that unites the states is not in this version",
            said.join(", ")
        ));
    }
    lines.extend(report.uneven.iter().map(|(revocation, uneven)| {
        format!("{revocation}: held by {}, lacked by {}", names(&uneven.held_by), names(&uneven.lacked_by))
    }));
    if report.unlisted > 0 {
        lines.push(format!("up to {} more revocations are held by some voters alone", report.unlisted));
    }
    if !report.unheard.is_empty() {
        lines.push(format!("not compared yet are the revocations of {}", names(&report.unheard)));
    }
    lines
}

fn learner_line(name: &str, index: u64) -> String {
    format!(
        "the state of {name} differs from the leader's at log index {index}: it gets no lease; stop it and run `countersign \
         server --return-as-learner` there"
    )
}

fn short(digest: StateDigest) -> String {
    digest.to_string().chars().take(DIGEST_SHOWN).collect()
}

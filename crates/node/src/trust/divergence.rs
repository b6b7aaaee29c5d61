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
use countersign_core::trust::agreement::{
    Agreement, Judge, News, Report, Revocation, RevocationsCompared, Said, Speaker, Uneven,
};
use countersign_core::trust::digest::DigestAt;
use countersign_core::trust::member::Suffrage;
use countersign_core::trust::outcome::Refused;
use countersign_core::trust::view::View;
use countersign_raft::{Group, GroupState};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::identity::datadir::{DataDir, DataDirError, file};
use crate::identity::local::Local;
use crate::peers::Peers;
use crate::trust::denylist::Denylist;
use crate::trust::machine::SharedState;
use crate::trust::replica::Replica;
use crate::trust::stores::Stores;

/// How long a voter may take to say which revocations it holds.
const COMPARE_DEADLINE: Duration = Duration::from_secs(10);
/// How long to wait before those are asked again that did not answer.
const ASK_AGAIN: Duration = Duration::from_secs(10);
/// How long to wait before something is noted again.
const NOTE_AGAIN: Duration = Duration::from_secs(1);
/// Characters of a digest in a line for people.
const DIGEST_SHOWN: usize = 16;

/// What a member says of its state with a request for a lease.
#[derive(Debug, Clone, Default)]
pub(crate) struct Compared {
    /// The newest digest of it, if it has one.
    pub(crate) digest: Option<DigestAt>,
    /// What it knows of voters' disagreements.
    pub(crate) disputed: Option<Report>,
}

/// What outlives a restart.
#[derive(Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Kept {
    agreement: Agreement,
    /// This learner's own store, if its leader says that what it holds differs.
    differs: Option<StoreId>,
}

impl Kept {
    /// As it is stored; none where there is nothing to store.
    fn encoded(&self) -> Option<Vec<u8>> {
        let nothing = self.agreement.is_empty() && self.differs.is_none();
        let encoded = (!nothing).then(|| codec::encode(self))?;
        encoded
            .inspect_err(|error| tracing::error!(error = %crate::chain(error), "what differs cannot be encoded"))
            .ok()
    }
}

#[derive(Default)]
struct Known {
    kept: Kept,
    /// The alarm that stands, as this member found it as leader or heard it from its leader. For a learner: that it
    /// differs.
    report: Option<Report>,
}

/// What this member knows of members whose states differ.
pub struct Divergence {
    local: Arc<Local>,
    state: SharedState,
    group: Group,
    peers: Peers,
    stores: Arc<Stores>,
    denylist: Arc<Denylist>,
    /// Held while the own digests are looked at.
    known: Locked<Known>,
    /// Wakes the task that finds out what the difference is.
    raised: watch::Sender<()>,
    /// Wakes the task that writes down what is to outlive a restart.
    changed: watch::Sender<()>,
}

impl Divergence {
    /// As it was at the last stop. A file that cannot be read is as good as lost: the leader finds it again.
    pub(crate) fn open(
        local: Arc<Local>,
        replica: &Replica,
        stores: Arc<Stores>,
        denylist: Arc<Denylist>,
    ) -> Result<Self, DataDirError> {
        let data = &local.data;
        let kept = data.read(file::DIVERGENCE)?.map_or_else(Kept::default, |bytes| {
            codec::decode(&bytes).unwrap_or_else(|error| {
                let path = data.file(file::DIVERGENCE);
                tracing::error!(path = %path.display(), error = %crate::chain(&error), "what differs cannot be read");
                Kept::default()
            })
        });
        let known = Locked::of(Order::Middle, Known { kept, report: None });
        let (state, group, peers) = (replica.state.clone(), replica.group.clone(), replica.peers.clone());
        let (raised, changed) = (watch::Sender::new(()), watch::Sender::new(()));
        Ok(Self { local, state, group, peers, stores, denylist, known, raised, changed })
    }

    /// The alarm that stands.
    pub fn report(&self) -> Option<Report> {
        self.known.lock().report.clone()
    }

    /// What is known of voters' disagreements, to be told to a leader; none if there is nothing.
    pub(crate) fn disputed(&self) -> Option<Report> {
        let known = self.known.lock();
        (!known.kept.agreement.is_empty()).then(|| known.kept.agreement.known())
    }
}

impl Known {
    /// Puts `report` in place of the one that stood. True if it is about something else; if not, what was found out
    /// stays.
    fn stands(&mut self, report: Option<Report>) -> bool {
        let about = |report: &Option<Report>| {
            report.as_ref().map(|report| (report.disagreements.clone(), report.conflicts.clone()))
        };
        let news = about(&self.report) != about(&report);
        if news {
            self.report = report;
        }
        news
    }
}

/// Whether this member was told that what `store` holds differs, so that it may return with another although its store
/// is whole.
pub(crate) fn is_known_to_differ(data: &DataDir, store: StoreId) -> Result<bool, DataDirError> {
    let kept = data.read(file::DIVERGENCE)?.and_then(|bytes| codec::decode::<Kept>(&bytes).ok());
    Ok(kept.is_some_and(|kept| kept.differs == Some(store)))
}

impl Divergence {
    /// Compares with this member's own digests, as `with` says. None before there is a view.
    fn judge<T>(&self, with: impl FnOnce(&mut Known, Judge<'_>) -> T) -> Option<T> {
        let view = self.state.read().view().cloned()?;
        let applied = self.group.status().applied.map_or(0, |at| at.index);
        let me = (self.local.node, self.local.store);
        let mut known = self.known.lock();
        let before = known.kept.clone();
        let done = self.state.with_digests(|own| with(&mut known, Judge { me, own, applied, view: &view }));
        if known.kept != before {
            self.changed.send_replace(());
        }
        Some(done)
    }

    /// As leader: compares what `from` says of its state, and decides whether it may have a lease. A report if not.
    pub(crate) fn compare_states(&self, from: Speaker, said: &Compared) -> Option<Report> {
        let quarantined = self.denylist.quarantined();
        let conflicts = self.stores.conflicts(self.group.status().term);
        let (alarm, news, learner) = self.judge(|known, by| {
            let agreement = &mut known.kept.agreement;
            // A learner is believed about itself alone.
            if let Some(disputed) = said.disputed.as_ref().filter(|_| by.is_voter(from.0, from.1)) {
                agreement.merge(by, disputed);
            }
            let news = match said.digest {
                Some(digest) if from != by.me => agreement.compare(by, from, digest),
                Some(_) | None => {
                    agreement.refresh(by);
                    News::None
                }
            };
            let (alarm, learner) = (agreement.alarm(by, &conflicts, &quarantined), agreement.learner(by.me.0, from));
            let changed = known.stands(alarm.clone());
            // With what was found out about it.
            (if alarm.is_some() { known.report.clone() } else { None }, (news, changed), learner)
        })?;
        let view = self.state.read().view().cloned()?;
        let (news, changed) = news;
        match &alarm {
            Some(report) if changed => {
                tracing::error!(
                    report = %lines(report, &view).join("; "),
                    "the states of voters differ: no lease is granted"
                );
            }
            None if changed => tracing::info!("the states of the voters that count do not differ any more"),
            Some(_) | None => {}
        }
        if changed {
            self.raised.send_replace(());
        }
        if let (News::Learner, Some(report)) = (news, &learner) {
            tracing::error!(report = %lines(report, &view).join("; "), "the state of a learner differs");
        }
        alarm.or(learner)
    }

    /// As leader: why `node` may not become a voter, where its state is known to differ.
    pub(crate) fn check_state_of_new_voter(&self, node: NodeId) -> Option<Refused> {
        let store = self.state.read().view()?.members.get(&node)?.store;
        let report = self.known.lock().kept.agreement.learner(self.local.node, (node, store))?;
        let index = *report.disagreements.keys().next()?;
        Some(Refused::StateDiffers { node, index })
    }

    /// The leader grants no lease, for the reason in its report, if that can be read.
    pub(crate) fn states_differ(&self, report: Option<Report>) {
        let Some(report) = report else {
            tracing::error!(
                "the leader grants no lease, since states differ; its report cannot be read by this binary"
            );
            return;
        };
        let news = self.judge(|known, by| {
            let learns = by.view.members.get(&by.me.0).is_none_or(|member| member.suffrage == Suffrage::Learner);
            let mine = report.disagreements.values().any(|words| words.contains_key(&by.me.0));
            let lacked = report.conflicts.contains(&by.me.0);
            known.kept.differs = (lacked || (learns && mine)).then_some(by.me.1);
            let news = known.stands(Some(report.clone()));
            // What the leader has found out since it raised the alarm.
            known.report = Some(report.clone());
            news
        });
        if news == Some(true)
            && let Some(view) = self.state.read().view()
        {
            tracing::error!(report = %lines(&report, view).join("; "), "the leader grants no lease: states differ");
        }
    }

    /// The leader granted a lease.
    pub(crate) fn states_agree(&self) {
        let ended = self.judge(|known, _| {
            known.kept.differs = None;
            known.stands(None)
        });
        if ended == Some(true) {
            tracing::info!("the leader grants leases again");
        }
    }

    /// What the leader knows of voters' disagreements, whether it lets them count or not. A voter keeps it.
    pub(crate) fn follow_leader(&self, disputed: &Report) {
        self.judge(|known, by| {
            // A learner never leads, and no member asks it.
            let votes = by.view.members.get(&by.me.0).is_some_and(|member| member.suffrage == Suffrage::Voter);
            let nothing = Report::default();
            known.kept.agreement.follow(by, if votes { disputed } else { &nothing });
        });
    }

    /// Lines for people about states that differ; none while they agree as far as is known.
    pub fn warnings(&self, view: &View) -> Vec<String> {
        let (report, learners) = {
            let known = self.known.lock();
            let agreement = &known.kept.agreement;
            let of = |node: NodeId| Some((node, view.members.get(&node)?.store));
            let learners = agreement.learners().filter_map(|node| agreement.learner(self.local.node, of(node)?));
            (known.report.clone(), learners.collect::<Vec<Report>>())
        };
        let mut warnings = report.map(|report| lines(&report, view)).unwrap_or_default();
        warnings.extend(learners.iter().flat_map(|report| lines(report, view)));
        if learners.len() > 1 {
            warnings.push(
                "several learners differ from this leader: its own state may be the wrong one; restart it, and see \
                 whether they still differ, before any of them returns"
                    .to_owned(),
            );
        }
        warnings
    }

    /// The alarm that stands, for programs.
    pub fn differing(&self) -> Vec<DifferingStatus> {
        let report = self.report().unwrap_or_default();
        let with = |who: fn(&Uneven) -> &BTreeSet<NodeId>, node: &NodeId| {
            let of = report.uneven.iter().filter(|(_, uneven)| who(uneven).contains(node));
            of.map(|(revocation, _)| revocation.to_string()).collect()
        };
        let status = |index: u64, node: &NodeId, said: &Said| DifferingStatus {
            index: Some(index),
            node: node.0,
            digest: Some(said.digest.to_string()),
            holds: with(|uneven| &uneven.held_by, node),
            lacks: with(|uneven| &uneven.lacked_by, node),
        };
        let ahead = report.conflicts.iter().map(|node| DifferingStatus {
            index: None,
            node: node.0,
            digest: None,
            holds: with(|uneven| &uneven.held_by, node),
            lacks: with(|uneven| &uneven.lacked_by, node),
        });
        let all = report.disagreements.iter();
        let all = all.flat_map(|(index, by)| by.iter().map(|(node, said)| status(*index, node, said)));
        all.chain(ahead).collect()
    }

    /// One page of what is refused here for good, from behind `after` on, and whether it is the last one.
    pub(crate) fn revocations_page(&self, after: Option<&Revocation>) -> (Vec<Revocation>, bool) {
        let Some(view) = self.state.read().view().cloned() else { return (Vec::new(), true) };
        let mut page: Vec<Revocation> = view.revocations(after).take(REVOCATIONS_PAGE_MAX + 1).collect();
        let last = page.len() <= REVOCATIONS_PAGE_MAX;
        page.truncate(REVOCATIONS_PAGE_MAX);
        (page, last)
    }

    /// Finds out which revocations the voters of the alarm hold that others of them lack. True if all of them have
    /// said.
    async fn find_uneven(&self) -> bool {
        let leads = self.group.status().state == GroupState::Leader;
        let Some(mut report) = self.report().filter(|_| leads) else { return true };
        let Some(ours) = self.state.read().view().cloned() else { return true };
        let others: Vec<NodeId> = report.voters().into_iter().filter(|node| *node != self.local.node).collect();
        let mut answers = Vec::new();
        for node in others {
            let asked = tokio::time::timeout(COMPARE_DEADLINE, self.compared_with(node, &ours)).await;
            answers.push((node, asked.ok().flatten()));
        }
        report.unheard = answers.iter().filter(|(_, with)| with.is_none()).map(|(node, _)| *node).collect();
        let compared = answers.iter().filter_map(|(node, with)| Some((*node, with.as_ref()?)));
        report.enter(self.local.node, &ours, compared);
        let mut known = self.known.lock();
        let same = |r: &&mut Report| r.disagreements == report.disagreements && r.conflicts == report.conflicts;
        let Some(stands) = known.report.as_mut().filter(same) else { return true };
        let news = *stands != report;
        *stands = report.clone();
        drop(known);
        if news {
            tracing::error!(report = %lines(&report, &ours).join("; "), "the states of voters differ in this");
        }
        report.unheard.is_empty()
    }

    async fn compared_with<'a>(&self, node: NodeId, ours: &'a View) -> Option<RevocationsCompared<'a>> {
        let mut client = MembersClient::new(self.peers.channel(node)?);
        let mut compared = RevocationsCompared::new(ours);
        loop {
            let after = compared.after().map(codec::encode).transpose().ok()?.unwrap_or_default();
            let reply = client.revocations(RevocationsRequest { after: Bytes::from(after) }).await.ok()?.into_inner();
            let page: Vec<Revocation> = decoded("revocations", &reply.page).ok()?;
            compared.page(page, reply.last).ok()?;
            if reply.last {
                return Some(compared);
            }
        }
    }

    /// Task: finds out what the difference is, whenever an alarm is raised.
    pub(crate) async fn run_comparing(self: Arc<Self>) {
        let mut raised = self.raised.subscribe();
        loop {
            if self.find_uneven().await {
                if raised.changed().await.is_err() {
                    return;
                }
            } else {
                // why: a voter that was out of reach may answer later, and nothing tells so
                let _ = tokio::time::timeout(ASK_AGAIN, raised.changed()).await;
            }
        }
    }

    /// Task: notes that a leader lacks what is committed here.
    pub(crate) async fn run_noting(self: Arc<Self>) {
        let mut contradicted = self.stores.contradicted();
        while contradicted.wait_for(|contradicted| *contradicted).await.is_ok() {
            // No leader tells it: this member follows none that contradicts it.
            if self.judge(|known, by| known.kept.differs = Some(by.me.1)).is_some() {
                self.stores.noted();
            }
            // why: before there is a view, nothing can be noted; and a leader that is refused comes again at once
            tokio::time::sleep(NOTE_AGAIN).await;
        }
    }

    /// Task: writes down what is to outlive a restart.
    pub(crate) async fn run_writing(self: Arc<Self>) {
        let mut changed = self.changed.subscribe();
        let kept = || self.known.lock().kept.encoded();
        // Not what was read: that may have changed before this began.
        let mut written = None;
        loop {
            let kept = kept();
            if written.as_ref() == Some(&kept) {
                if changed.changed().await.is_err() {
                    return;
                }
                continue;
            }
            let done = match &kept {
                None => self.local.data.remove(file::DIVERGENCE),
                Some(bytes) => self.local.data.write(file::DIVERGENCE, bytes),
            };
            match done {
                Ok(()) => written = Some(kept),
                Err(error) => {
                    tracing::error!(
                        error = %crate::chain(&error),
                        "that members' states differ could not be written down"
                    );
                    // why: nothing tells when there is room again
                    tokio::time::sleep(NOTE_AGAIN).await;
                }
            }
        }
    }
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
            "states of voters differ at log index {index} ({}): no lease is granted, so no member serves clients; \
             find out whose state is wrong and demote that node (`countersign node demote NODE --keep-authority`), \
             then stop it and run `countersign server --return-as-learner` there; one that cannot be demoted: \
             `countersign node quarantine NODE` on every other voter; a command that unites the states is not in \
             this version",
            said.join(", ")
        ));
    }
    for node in &report.conflicts {
        let name = name(node);
        lines.push(format!(
            "{name} holds committed entries that the leader's log lacks: voters were restored from older copies; \
             no lease is granted, so no member serves clients; revoke again what {name} holds and others lack, then \
             stop {name} and run `countersign server --return-as-learner` there; a command that unites the states is \
             not in this version"
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
        "the state of {name} differs from the leader's at log index {index}: it gets no lease; stop it and run \
         `countersign server --return-as-learner` there"
    )
}

fn short(digest: StateDigest) -> String {
    digest.to_string().chars().take(DIGEST_SHOWN).collect()
}

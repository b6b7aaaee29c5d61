//! Refused connections: logged once, counted by reason, and kept so that `explain` can answer on this member.
//!
//! The file is bounded: unauthenticated callers cannot fill the disk.

use std::collections::{BTreeMap, VecDeque};
use std::fs::OpenOptions;
use std::io::Write;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use countersign_api::admin::RefusalInfo;
use countersign_core::id::FailureId;
use countersign_core::locked::{LockGuard, Locked};
use countersign_core::peer::Refusal;
use countersign_core::time::UnixMillis;
use countersign_core::trust::outcome::Refused;
use countersign_net::{Clock, LoggedRefusals, RefusalRecord, Refusals, SystemClock};

use crate::service::io::UnauthenticatedCaller;

/// Refusals kept; the oldest is forgotten.
const KEPT_MAX: usize = 1024;
/// Bytes of the file at which it is written again, with the refusals that are kept.
const FILE_LEN_MAX: u64 = 1024 * 1024;

/// Refusals that are listed at once.
const LISTED_MAX: usize = 100;

/// Whose refusals are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefusedSource {
    /// Those of an address, whatever the port.
    Ip(IpAddr),
    /// That of one connection.
    Address(SocketAddr),
}

impl RefusedSource {
    /// Whether a recorded source, `IP:PORT`, is meant.
    fn is_of(self, recorded: &str) -> bool {
        let Ok(recorded) = recorded.parse::<SocketAddr>() else { return false };
        let ip = recorded.ip().to_canonical();
        match self {
            Self::Ip(wanted) => ip == wanted,
            Self::Address(wanted) => ip == wanted.ip().to_canonical() && recorded.port() == wanted.port(),
        }
    }
}

/// The member's memory of refusals.
pub struct RefusalLog {
    logged: LoggedRefusals,
    kept: Locked<Kept>,
}

struct Kept {
    path: PathBuf,
    recent: VecDeque<RefusalInfo>,
    enrollments: BTreeMap<&'static str, u64>,
}

impl RefusalLog {
    pub(crate) fn open(path: &Path) -> Self {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        let mut recent: VecDeque<_> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        while recent.len() > KEPT_MAX {
            recent.pop_front();
        }
        let kept = Kept { path: path.to_owned(), recent, enrollments: BTreeMap::new() };
        Self { logged: LoggedRefusals::default(), kept: Locked::new(kept) }
    }

    /// The refusal of this failure id, if this member recorded it.
    pub fn find(&self, id: FailureId) -> Option<RefusalInfo> {
        let id = id.to_string();
        self.lock().recent.iter().rev().find(|info| info.failure_id == id).cloned()
    }

    /// The newest refusals of a source that are no older than `secs`, the oldest first, 100 at most.
    pub fn of_source(&self, source: RefusedSource, secs: u64) -> Vec<RefusalInfo> {
        let begin = SystemClock.now().minus_secs(secs).0;
        let kept = self.lock();
        let newest = kept.recent.iter().rev().filter(|info| info.at_millis >= begin && source.is_of(&info.source));
        let mut listed: Vec<RefusalInfo> = newest.take(LISTED_MAX).cloned().collect();
        listed.reverse();
        listed
    }

    /// Refusals by reason, since the start: of connections, and of enrollments.
    pub fn counts(&self) -> Vec<(&'static str, u64)> {
        let mut counts: Vec<_> = self.logged.counts().into_iter().map(|(r, n)| (r.label(), n)).collect();
        counts.extend(self.lock().enrollments.iter().map(|(label, n)| (*label, *n)));
        counts
    }

    /// Counts a refused enrollment, and keeps it unless its source has failed too often.
    pub(crate) fn enrollment(&self, caller: &UnauthenticatedCaller, why: &Refused) {
        *self.lock().enrollments.entry("enrollment").or_default() += 1;
        if caller.repeated {
            return;
        }
        self.keep(RefusalInfo {
            failure_id: caller.attempt.to_string(),
            at_millis: SystemClock.now().0,
            source: caller.remote.to_string(),
            protocol: Some("enroll".to_owned()),
            principal: None,
            reason: "enrollment".to_owned(),
            message: why.to_string(),
            detail: None,
            next: advice_enrollment(why).to_owned(),
        });
    }

    fn keep(&self, info: RefusalInfo) {
        let mut kept = self.lock();
        if kept.recent.len() >= KEPT_MAX {
            kept.recent.pop_front();
        }
        kept.recent.push_back(info);
        if let Err(error) = kept.append() {
            tracing::debug!(%error, "cannot record a refusal");
        }
    }

    fn lock(&self) -> LockGuard<'_, Kept> {
        self.kept.lock()
    }
}

impl Kept {
    fn append(&self) -> std::io::Result<()> {
        let too_long = std::fs::metadata(&self.path).is_ok_and(|m| m.len() > FILE_LEN_MAX);
        let mut options = OpenOptions::new();
        options.create(true).mode(0o600);
        let (mut file, lines): (_, Vec<_>) = if too_long {
            (options.write(true).truncate(true).open(&self.path)?, self.recent.iter().collect())
        } else {
            (options.append(true).open(&self.path)?, self.recent.back().into_iter().collect())
        };
        for line in lines {
            writeln!(file, "{}", serde_json::to_string(line)?)?;
        }
        Ok(())
    }
}

impl Refusals for RefusalLog {
    fn record(&self, record: RefusalRecord) {
        self.logged.record(record.clone());
        if record.repeated {
            return;
        }
        let at: UnixMillis = SystemClock.now();
        self.keep(RefusalInfo {
            failure_id: record.failure_id.to_string(),
            at_millis: at.0,
            source: record.source.to_string(),
            protocol: record.alpn.map(|alpn| alpn.to_string()),
            principal: record.principal.as_ref().map(ToString::to_string),
            reason: record.refusal.label().to_owned(),
            message: record.refusal.to_string(),
            detail: record.detail.clone(),
            next: advice(record.refusal).to_owned(),
        });
    }
}

/// What an operator can do about a refusal.
pub const fn advice(refusal: Refusal) -> &'static str {
    match refusal {
        Refusal::TrustDomain | Refusal::Cluster => {
            "the peer belongs to another cluster: check the address it dials, or join it here with a token"
        }
        Refusal::Authority => "use a certificate of this cluster: `countersign cert issue`",
        Refusal::NotYetValid => "compare the clocks of both hosts",
        Refusal::Expired => {
            "issue a client a new certificate: `countersign cert issue`; a node renews its own: see its log; check the \
             clocks of both hosts"
        }
        Refusal::KeyRevoked | Refusal::Evicted => {
            "if the host may come back, join it again with another --data directory: `countersign token create`"
        }
        Refusal::NotAMember => "join it with a token: `countersign token create`",
        Refusal::KeyUnknown | Refusal::Endorsement => {
            "another holder's certificate names this node: if you did not cause this, treat the CA key as stolen"
        }
        Refusal::Superseded => {
            "the peer uses an earlier certificate: restart it, or look for a copy of its data directory"
        }
        Refusal::NotANode => "clients call the client port; only nodes may speak to nodes",
        Refusal::WrongNode => "another node answers at this address: check `countersign node list`",
        Refusal::PrincipalUnknown => "issue a certificate on this cluster: `countersign cert issue --client NAME`",
        Refusal::Handshake => "the peer needs a certificate of this cluster, and TLS 1.3",
        Refusal::Protocol => "the peer does not speak countersign: check what dials this port",
        Refusal::Overloaded => "wait a minute; look for a peer that retries in a loop",
        Refusal::Deadline => "check the network between the hosts",
        Refusal::PrincipalRevoked => "issue it a new certificate, if it may come back: `countersign cert issue`",
        Refusal::Quarantined => "evict it from the cluster: `countersign node evict`, or lift the quarantine",
        Refusal::Connections => "have the client close connections that it does not use, or use one for many requests",
        Refusal::NoLease => "see `countersign status` there: it hears from no leader with a quorum",
        Refusal::NotReady => "try again when `countersign status` says ready",
    }
}

/// What an operator can do about a refused enrollment.
pub fn advice_enrollment(why: &Refused) -> &'static str {
    match why {
        Refused::Token(_) => "make a new join token on a voter: `countersign token create`",
        Refused::NameTaken { .. } | Refused::NameNotAdmitted(_) => "choose another name with --name",
        Refused::AddressTaken { .. } | Refused::HostTaken { .. } | Refused::HostShared(_) | Refused::NoAddress => {
            "choose another address with --advertise-addr"
        }
        Refused::KeyRevoked | Refused::EvictedSince(_) => {
            "choose another directory with --data, so that new keys are made"
        }
        Refused::CertificateMissing => {
            "start with --inter-broker-tls-cert, --inter-broker-tls-key and --inter-broker-tls-ca"
        }
        Refused::BelowLevel { .. } => {
            "install the release that the cluster's members run, then repeat the same command"
        }
        Refused::AboveLevel { .. } => {
            "update the members that are behind, then repeat the command; `countersign cluster level` shows what each \
             knows"
        }
        Refused::Later(_) => "install the release that the cluster's members run, then repeat the same command",
        Refused::LevelNeedsVoter(_) => "update that voter, or demote or evict it: `countersign node list`",
        Refused::CertificateUnwanted => "leave the --inter-broker-tls flags out",
        Refused::MappedTaken { .. } => {
            "have a certificate made for a name of its own, or evict the node that has this one"
        }
        Refused::Limit { .. } => "see `countersign node list`; use a learner token, or evict what is gone",
        Refused::NoCluster
        | Refused::ClusterExists
        | Refused::TokenExists
        | Refused::Signature(_)
        | Refused::KeyTaken(_)
        | Refused::KeyReused
        | Refused::RequestReused
        | Refused::KeyElsewhere(_)
        | Refused::NoSuchNode(_)
        | Refused::AlreadyEvicted(_)
        | Refused::NoSuchToken(_)
        | Refused::NoSuchAuthority(_)
        | Refused::NotSealed(_)
        | Refused::StillVotes(_)
        | Refused::StillInGroup(_)
        | Refused::Returning(_)
        | Refused::NotReturning { .. }
        | Refused::OtherStore { .. }
        | Refused::StoreTaken(_)
        | Refused::Alive { .. }
        | Refused::StateDiffers { .. }
        | Refused::NoQuorumOfOthers { .. }
        | Refused::LastVoter(_)
        | Refused::KeepAuthority(_)
        | Refused::Unchanged(..)
        | Refused::NotIssued(_)
        | Refused::KeyOfNode(_)
        | Refused::RenewalOutOfOrder { .. }
        | Refused::NoSuchPrincipal(_)
        | Refused::NotASigner { .. }
        | Refused::SignatureMissing { .. }
        | Refused::RenewedBefore { .. }
        | Refused::KeyUnsuitable(_)
        | Refused::Policy(_)
        | Refused::Label(_)
        | Refused::HostNotAdvertised { .. }
        | Refused::HostNotAdded { .. }
        | Refused::NotAVoter(_)
        | Refused::NoSuchGroup(_)
        | Refused::GroupWithoutMembers => {
            "repeat the join; if it fails again, join with a new token and another directory: --data"
        }
    }
}

//! The JSON that people and tools speak, on the local socket and on the HTTPS port. Described by `openapi.json`.

mod acl;
mod certificates;
mod cluster;
mod made;

use std::collections::BTreeMap;

use countersign_core::trust::member::Suffrage;
use serde::{Deserialize, Serialize};

pub use certificates::{CertificateInfo, CertificateIssued, CertificateRequest, CertificateRevoked};
pub use made::{IssuedInfo, MadeInfo};

pub use acl::{
    AclAdd, AclApply, AclAsk, AclChanged, AclDecision, AclExplanation, AclFinding, AclFlip, AclHolder, AclLint,
    AclPlan, AclPolicy, AclWeighed, AclWho, AclWhoCan, LabelChange, LabelEdit, Labelled,
};
pub use cluster::{ClusterChange, ClusterSettings, GuardLevel, LevelRaise, MemberLevel};

/// The OpenAPI 3.1 document of the admin API.
pub const OPENAPI: &str = include_str!("../openapi.json");

/// Why a request was not carried out, with what to do next.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// A stable word, such as `unknown-node`.
    pub code: String,
    /// The fault, for people.
    pub message: String,
    /// What to try next.
    #[serde(rename = "try", skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
    /// The leader's HTTPS port, `HOST:PORT`, where the request belongs there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leader: Option<String>,
    /// The request, as in the header `x-request-id` of the answer and in the log of the member that took it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<String>,
}

/// The cluster as one member sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The answering member.
    pub node: u64,
    /// Its name.
    pub name: String,
    /// The cluster's name.
    pub cluster: String,
    /// The cluster's id, 32 hexadecimal digits.
    pub cluster_id: String,
    /// The namespace of its principals.
    pub trust_domain: String,
    /// The trust generation in force here.
    pub generation: u64,
    /// Whether the cluster can commit, as far as this member knows.
    pub ready: bool,
    /// Milliseconds until its lease ends unless it is renewed; none without one, when it serves no client.
    pub lease_millis_left: Option<u64>,
    /// Seconds that a lease lasts: a revocation waits so long for a member that does not answer.
    pub lease_secs: u64,
    /// Raft, as this member sees it.
    pub raft: RaftStatus,
    /// The members.
    pub members: Vec<MemberStatus>,
    /// The evicted nodes.
    pub evicted: Vec<EvictedStatus>,
    /// Members that do not enforce the newest generation yet, as the leader knows; empty if no leader answers.
    pub waiting_for: Vec<PendingMember>,
    /// The authority that issues certificates.
    pub authority: AuthorityStatus,
    /// The answering member's certificate.
    pub certificate: CertificateStatus,
    /// Whether this member can issue certificates: it opened its sealed copy of the CA key.
    pub can_issue: bool,
    /// How the CA key and the member's own keys are protected.
    pub key_protection: String,
    /// Live authenticated connections.
    pub connections: usize,
    /// The chain over all changes, as far as this member has applied them.
    pub changes: ChangesStatus,
    /// What members said of their states where these differ, which is why no lease is granted; empty while they agree.
    pub differing: Vec<DifferingStatus>,
    /// What an operator should know.
    pub warnings: Vec<String>,
}

/// Where the chain over all changes stands. Members with the same count have the same head.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangesStatus {
    /// How many changes there were.
    pub count: u64,
    /// The hash over all of them, 64 hexadecimal digits.
    pub head: String,
}

/// What one member said of its state at an index of the log at which others said something else; or, without index and
/// digest, a voter that holds committed entries which the leader's log lacks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DifferingStatus {
    /// The index.
    pub index: Option<u64>,
    /// The member.
    pub node: u64,
    /// The digest of its state: BLAKE3, 64 hexadecimal digits.
    pub digest: Option<String>,
    /// Revocations that it holds and another voter lacks, as far as they were compared.
    pub holds: Vec<String>,
    /// Revocations that it lacks and another voter holds.
    pub lacks: Vec<String>,
}

/// Raft, as one member sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RaftStatus {
    /// `leader`, `follower`, `learner` or `candidate`.
    pub state: String,
    /// The leader, if known.
    pub leader: Option<u64>,
    /// The term.
    pub term: u64,
    /// Index of the last log entry.
    pub last_index: u64,
    /// Index of the last applied entry.
    pub applied_index: u64,
    /// The voters of now.
    pub voters: Vec<u64>,
    /// The members that receive the log without a vote.
    pub learners: Vec<u64>,
}

/// The label that holds a job, such as Worker. All other labels are attributes.
pub const JOB_LABEL: &str = "role";

/// The labels of a principal, as one map.
pub fn labels(job: Option<&String>, attributes: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let job = job.map(|job| (JOB_LABEL.to_owned(), job.clone()));
    attributes.clone().into_iter().chain(job).collect()
}

/// The job and the attributes that `labels` hold.
pub fn job_and_attributes(mut labels: BTreeMap<String, String>) -> (Option<String>, BTreeMap<String, String>) {
    (labels.remove(JOB_LABEL), labels)
}

/// One member.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberStatus {
    /// Its number.
    pub node: u64,
    /// Its name.
    pub name: String,
    /// Its role: voter or learner, as it is meant to be.
    pub role: Suffrage,
    /// Whether Raft has converged on that role.
    pub converged: bool,
    /// Its addresses.
    pub addresses: Vec<String>,
    /// Where clients reach it; null if it serves none, or has not said so.
    pub client_address: Option<String>,
    /// The hosts that its certificate holds.
    pub hosts: Vec<String>,
    /// Hosts that it advertises and nothing proves: its certificates do not hold them.
    pub unproved: Vec<String>,
    /// Its labels; a job such as Worker is the label `role`.
    pub labels: BTreeMap<String, String>,
    /// Whether it opened its sealed copy of the CA key.
    pub holds_authority: bool,
    /// When its certificate expires: seconds since the Unix epoch.
    pub certificate_not_after: u64,
    /// How its certificate came to be.
    pub certificate_issued: IssuedInfo,
    /// The token that admitted it; null for the founder.
    pub admitted_by: Option<String>,
    /// When it was admitted: milliseconds since the Unix epoch.
    pub admitted_at_millis: u64,
    /// Who made that token; null for the founder.
    pub token_made: Option<MadeInfo>,
    /// SHA-256 of its identity key.
    pub identity: String,
    /// Whether it is the answering member.
    pub this: bool,
}

/// A former member.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EvictedStatus {
    /// Its number.
    pub node: u64,
    /// Its name.
    pub name: String,
    /// The generation from which it is refused.
    pub generation: u64,
}

/// A member that does not enforce the newest generation yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PendingMember {
    /// Its number.
    pub node: u64,
    /// Its name.
    pub name: String,
    /// The generation that it is to enforce.
    pub generation: u64,
    /// When the last lease that it may hold from before it ends, in milliseconds since the Unix epoch: it serves no
    /// client after.
    pub lease_ends_millis: u64,
}

/// The authority that issues certificates.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuthorityStatus {
    /// SHA-256 of its certificate: what join tokens pin.
    pub fingerprint: String,
    /// When it expires: seconds since the Unix epoch.
    pub not_after: u64,
    /// Whether it was made outside of the cluster.
    pub imported: bool,
    /// The kind of its key, such as `P-256`; none where it is not known.
    pub key: Option<String>,
}

/// A certificate's validity.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificateStatus {
    /// Its principal.
    pub principal: String,
    /// First moment of validity: seconds since the Unix epoch.
    pub not_before: u64,
    /// Last moment of validity: seconds since the Unix epoch.
    pub not_after: u64,
    /// When it is renewed: seconds since the Unix epoch; none where it is made elsewhere, or just after a start.
    pub renews_at: Option<u64>,
    /// The kind of its key, such as `P-256`; none where it is not known.
    pub key: Option<String>,
}

/// A join token to be made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenCreate {
    /// What its joiners become: voters or learners.
    pub role: Suffrage,
    /// Seconds that it lives.
    pub ttl_secs: u64,
    /// How often it may be used.
    pub uses: u32,
    /// The only name that it admits.
    #[serde(default)]
    pub name: Option<String>,
    /// Hosts that the certificates of its joiners may hold, if they advertise them.
    #[serde(default)]
    pub hosts: Vec<String>,
    /// The labels that it gives; a job such as Worker is the label `role`.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
}

/// A new join token. No `Debug`: this answer alone holds the secret.
#[derive(Clone, Serialize, Deserialize)]
pub struct TokenCreated {
    /// Its id.
    pub id: String,
    /// `<secret>:<sha256 of the CA certificate>`.
    pub token: String,
    /// When it expires: seconds since the Unix epoch.
    pub not_after: u64,
    /// How often it may be used.
    pub uses: u32,
    /// What its joiners become: voters or learners.
    pub role: Suffrage,
    /// Where to join: the answering member's address.
    pub join_addr: String,
}

/// A join token on record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenInfo {
    /// Its id.
    pub id: String,
    /// What its joiners become: voters or learners.
    pub role: Suffrage,
    /// How often it could be used.
    pub uses: u32,
    /// How often it can still be used.
    pub uses_left: u32,
    /// When it expires: seconds since the Unix epoch.
    pub not_after: u64,
    /// The only name that it admits.
    pub name: Option<String>,
    /// Hosts that the certificates of its joiners may hold, if they advertise them.
    pub hosts: Vec<String>,
    /// The labels that it gives; a job such as Worker is the label `role`.
    pub labels: BTreeMap<String, String>,
    /// `usable`, `used-up`, `expired` or `revoked`.
    pub state: String,
    /// Whether it is the reusable cluster token.
    pub cluster_token: bool,
    /// Who made it.
    pub made: MadeInfo,
}

/// A member to be demoted or evicted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeRemove {
    /// Its keys are in wrong hands.
    #[serde(default)]
    pub compromised: bool,
    /// The authority stays although a voter leaves: its machine was wiped.
    #[serde(default)]
    pub keep_authority: bool,
}

/// What changed about a member.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeChanged {
    /// Which.
    pub node: u64,
    /// Its name.
    pub name: String,
    /// The generation that shows it.
    pub generation: u64,
    /// Tokens that ended with it.
    pub tokens_revoked: Vec<String>,
    /// Where it is refused by now; none where nothing was revoked.
    pub enforcement: Option<Enforcement>,
}

/// Hosts to add to a member's certificates, or to take away.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeHostsChange {
    /// Names or IP addresses to add.
    #[serde(default)]
    pub add: Vec<String>,
    /// Names or IP addresses to take away.
    #[serde(default)]
    pub remove: Vec<String>,
}

/// The hosts of a member.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeHosts {
    /// Which.
    pub node: u64,
    /// Its name.
    pub name: String,
    /// The generation that shows them.
    pub generation: u64,
    /// The hosts that its next certificate holds, each with what proves it.
    pub hosts: Vec<NodeHost>,
    /// Hosts that it advertises and nothing proves: its certificates do not hold them.
    pub unproved: Vec<String>,
}

/// A host of a member.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeHost {
    /// A name or an IP address.
    pub host: String,
    /// `admin`, `join token`, `founder`, `reached by node N`, `loopback` or `client_names`.
    pub proof: String,
}

/// A member that the answering one refuses by itself, or does so no more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeQuarantined {
    /// Which.
    pub node: u64,
    /// Its name.
    pub name: String,
    /// Whether it is refused.
    pub quarantined: bool,
    /// Connections that were closed for it.
    pub connections_closed: u64,
}

/// How far the cluster is with a revocation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Enforcement {
    /// The revocation's id: the generation that it made.
    pub generation: u64,
    /// Whether no member serves a principal that it revokes any more: each member enforces it, or its lease has run
    /// out.
    pub complete: bool,
    /// By member.
    pub members: Vec<EnforcedBy>,
}

/// How far one member is with a revocation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnforcedBy {
    /// Which.
    pub node: u64,
    /// Its name.
    pub name: String,
    /// `enforced`, `lapsed` (it did not answer, and its lease has run out: it serves no client), `pending`, or
    /// `evicted` (it is no member any more and not waited for, but may serve by itself until its lease ends).
    pub state: String,
    /// When an absent member's lease ends, in milliseconds since the Unix epoch.
    pub lease_ends_millis: Option<u64>,
    /// Its receipt; none from a member that learned of the revocation by a snapshot, or did not answer.
    pub receipt: Option<ReceiptInfo>,
    /// The leader's signature over an absence, hexadecimal.
    pub absence_signature: Option<String>,
}

/// A member's signed word that it enforces a revocation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReceiptInfo {
    /// Connections that it closed.
    pub connections_closed: u64,
    /// When it had closed the last, by its clock, in milliseconds since the Unix epoch.
    pub at_millis: u64,
    /// Drawn at each start of that member, hexadecimal.
    pub boot: String,
    /// By its identity key over all of this, hexadecimal.
    pub signature: String,
}

/// A refused connection, as this member recorded it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusalInfo {
    /// The same on both ends.
    pub failure_id: String,
    /// When: milliseconds since the Unix epoch.
    pub at_millis: u64,
    /// From where.
    pub source: String,
    /// Which protocol was asked for, if any.
    pub protocol: Option<String>,
    /// The principal that the certificate named, if there was one.
    pub principal: Option<String>,
    /// A stable word.
    pub reason: String,
    /// What it means.
    pub message: String,
    /// The precise reason.
    pub detail: Option<String>,
    /// What to do about it.
    #[serde(rename = "try")]
    pub next: String,
}

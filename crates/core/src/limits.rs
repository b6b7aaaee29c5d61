//! Every limit of the protocol, by name. A limit that is not here does not exist.
//!
//! Each has a test at the limit and one past it, beside the code that enforces it.

/// Bytes of a node, client or admin name: one DNS label (RFC 1035 §2.3.4).
pub const NAME_LEN_MAX: usize = 63;
/// Bytes of a DNS name (RFC 1035 §2.3.4).
pub const DNS_NAME_LEN_MAX: usize = 253;
/// Bytes of a SPIFFE trust domain (SPIFFE-ID §2.1).
pub const TRUST_DOMAIN_LEN_MAX: usize = 255;
/// Bytes of a whole SPIFFE id (SPIFFE-ID §2.3).
pub const SPIFFE_ID_LEN_MAX: usize = 2048;
/// Advertised addresses of one member.
pub const ADDRESSES_MAX: usize = 8;
/// Hosts that one join token may name.
pub const TOKEN_HOSTS_MAX: usize = 64;
/// Hosts that admins may add to one member.
pub const NODE_HOSTS_MAX: usize = 16;
/// Bytes of those hosts together: with all others they fit into one certificate.
pub const NODE_HOSTS_LEN_MAX: usize = 1024;
/// Names that all members share.
pub const CLIENT_NAMES_MAX: usize = 16;
/// Bytes of those names together.
pub const CLIENT_NAMES_LEN_MAX: usize = 1024;
/// Milliseconds that a voter takes to look for a joiner at its addresses, if it does not find it at all of them.
pub const DIAL_BACK_MILLIS: u64 = 3_000;
/// IP addresses that one name may lead to, if a voter is to look for its owner there; all of them must answer.
pub const DIAL_BACK_ADDRESSES_MAX: usize = 4;
/// Joiners that a member looks for at once; others are not found.
pub const DIAL_BACKS_IN_FLIGHT_MAX: usize = 16;
/// Addresses at which a member looks within a minute because of one join token.
pub const DIAL_BACKS_PER_TOKEN_MINUTE_MAX: u32 = 64;
/// Addresses at which a member looks within a minute because of one source.
pub const DIAL_BACKS_PER_SOURCE_MINUTE_MAX: u32 = 64;
/// Tokens and sources that are counted; past it, none that is new is looked for.
pub const DIAL_BACK_ACCOUNTS_MAX: usize = 4096;
/// Questions that a joiner answers at once.
pub const DIAL_BACK_ANSWERS_MAX: usize = 8;
/// Members that a leader looks for at once because they advertise what nothing proves.
pub const HOST_CHECKS_MAX: usize = 8;
/// Seconds until a leader looks again for a member that it did not find.
pub const HOST_CHECK_SECS_MAX: u64 = 300;
/// Members that a cluster may have, evicted ones not counted.
pub const MEMBERS_MAX: usize = 4096;
/// Voters of the trust group. Raft's cost grows with each; seven survive three failures.
pub const VOTERS_MAX: usize = 7;
/// Join tokens on record, used-up and expired ones not counted.
pub const TOKENS_MAX: usize = 4096;
/// Uses of one join token.
pub const TOKEN_USES_MAX: u32 = 10_000;
/// Seconds that a join token may live: one year.
pub const TOKEN_TTL_SECS_MAX: u64 = 366 * 86_400;
/// Live keys of one broker, client or admin.
pub const PRINCIPAL_KEYS_MAX: usize = 16;
/// Brokers, clients and admins on record.
#[cfg(not(feature = "danger-scale-bench"))]
pub const PRINCIPALS_MAX: usize = 100_000;
#[cfg(feature = "danger-scale-bench")]
pub use scale_bench::PRINCIPALS_MAX;
/// Seconds that a broker's, client's or admin's certificate may live: ten years.
pub const PRINCIPAL_TTL_SECS_MAX: u64 = 3660 * 86_400;
/// Attributes of one member or token.
pub const ATTRIBUTES_MAX: usize = 32;
/// Bytes of one attribute's key or value, or of a role's name.
pub const ATTRIBUTE_LEN_MAX: usize = 63;
/// Authorities that a trust bundle may hold at once.
pub const AUTHORITIES_MAX: usize = 8;
/// Raft groups that one trust state assigns.
pub const GROUPS_MAX: usize = 65_536;
/// Bytes of one replicated trust command, encoded.
pub const COMMAND_LEN_MAX: usize = 64 * 1024;
/// Seconds for which all members must have known a level before the leader raises it by itself: a day, in which a bad
/// release shows and can be taken back.
pub const LEVEL_PROVEN_SECS: u64 = 86_400;
/// Bytes of the author of one replicated trust command, encoded: a broker's name, an address and a few numbers.
pub const AUTHOR_LEN_MAX: usize = 320;
/// Events between two checkpoints of the chain over changes.
pub const EVENTS_PER_CHECKPOINT: u64 = 1024;
/// Bytes of one event, as a line of JSON.
pub const EVENT_LEN_MAX: usize = 32 * 1024;
/// Bytes of one list in an event; what goes beyond is left out, and a count says how many there were.
pub const EVENT_LIST_LEN_MAX: usize = 8 * 1024;
/// Commands that the proposer puts into one Raft entry.
pub const COMMANDS_PER_ENTRY_MAX: usize = 256;
/// Commands of one author that a leader holds at once, waiting or under way; past it that author is told to come again.
pub const COMMANDS_PER_AUTHOR_MAX: usize = 128;
/// Bytes of one author's commands that a leader holds at once.
pub const COMMAND_BYTES_PER_AUTHOR_MAX: usize = 1024 * 1024;
/// Requests that one member may have under way at another, over all its connections.
pub const PEER_REQUESTS_MAX: usize = 256;
/// Bytes of those requests that are held at once, snapshots not counted.
pub const PEER_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Snapshots that one member may be sending to another at once.
pub const PEER_SNAPSHOTS_MAX: usize = 1;
/// Bytes of any frame read before a peer is authenticated.
pub const PREAUTH_FRAME_LEN_MAX: usize = 16 * 1024;
/// Bytes that a peer may send before its handshake ends; rustls alone would buffer 64 KiB.
pub const PREAUTH_BYTES_MAX: u64 = 24 * 1024;
/// Milliseconds from accept to `Welcome`.
pub const HANDSHAKE_MILLIS_MAX: u64 = 10_000;
/// Bytes of the body of an admin's request over HTTPS.
pub const ADMIN_BODY_LEN_MAX: usize = 64 * 1024;
/// Bytes of the body of a request that puts a whole policy in place of another.
pub const POLICY_BODY_LEN_MAX: usize = 128 * 1024 * 1024;
/// Requests over HTTPS at once whose bodies are longer than `ADMIN_BODY_LEN_MAX`; others are told to come again.
pub const LONG_BODIES_MAX: usize = 2;
/// Questions about all rules that one port of the admin API answers at once; past it they are told to come again.
pub const ACL_QUESTIONS_MAX: usize = 2;
/// Requests of late that a change of rules is tried on; members whose requests come on top of that are named as not
/// heard.
pub const RECENT_REQUESTS_MAX: usize = 65_536;
/// Milliseconds that a request's body may take to arrive, and if it is long one more second for each MiB that it may
/// have.
pub const ADMIN_BODY_MILLIS_MAX: u64 = 10_000;
/// Handshakes of members and principals under way at once.
pub const HANDSHAKES_IN_FLIGHT_MAX: usize = 256;
/// Connections of one source to the HTTPS port at once.
pub const HTTPS_PER_SOURCE_MAX: usize = 64;
/// Enrollment connections under way at once.
pub const ENROLLMENTS_IN_FLIGHT_MAX: usize = 64;
/// Enrollment connections of one source under way at once; the rest is for joiners elsewhere.
pub const ENROLLMENTS_PER_SOURCE_MAX: usize = 48;
/// Requests of one enrollment connection; a member that returns needs a few.
pub const ENROLLMENT_REQUESTS_MAX: usize = 16;
/// Answers to unauthenticated callers' nonces that a member makes at once; past it they wait.
pub const VIEWS_IN_FLIGHT_MAX: usize = 4;
/// Attestations in one answer to an unauthenticated caller; a caller that lacks more asks on from the last of them.
pub const ATTESTATIONS_PER_ANSWER_MAX: usize = 64;
/// Connection attempts of one source that may fail within a minute; past it, it is let in only while half the places
/// are free.
pub const FAILURES_PER_SOURCE_MINUTE_MAX: u32 = 120;
/// Sources whose attempts are counted; past it the oldest is forgotten.
pub const SOURCES_MAX: usize = 4096;
/// Rules that map the names of certificates made elsewhere.
pub const MAPPING_RULES_MAX: usize = 32;
/// Bytes of one such rule.
pub const MAPPING_RULE_LEN_MAX: usize = 512;
/// Connections that one client, broker or admin may have open to a member; one certificate must not take all
/// descriptors.
pub const CONNECTIONS_PER_PRINCIPAL_MAX: usize = 64;
/// Refused callers that the client port keeps connected at once to tell them why; past it they are cut untold.
pub const REFUSED_IN_FLIGHT_MAX: usize = 64;
/// The same for one source.
pub const REFUSED_PER_SOURCE_MAX: usize = 8;
/// Requests that one connection to the client port may have under way.
pub const CLIENT_STREAMS_MAX: u32 = 128;
/// Requests that one principal may have under way on one member, over all its connections to the client port.
pub const REQUESTS_PER_PRINCIPAL_MAX: usize = 256;
/// Bytes that one HTTP/2 connection of a client may have sent and a member not read, where no setting says otherwise.
pub const CLIENT_UNREAD_BYTES_MAX: u32 = 512 * 1024;
/// Denials of one principal that a guard logs within a minute; the others are counted.
pub const DENIALS_LOGGED_PER_PRINCIPAL_MAX: u32 = 60;
/// The same of all principals together.
pub const DENIALS_LOGGED_MAX: usize = 1200;
/// Bytes of one message to a service of ours on the client port. An embedder chooses its own bound.
pub const CLIENT_MESSAGE_LEN_MAX: usize = 64 * 1024;
/// Connections that all clients, brokers and admins together may have open to a member; the rest is for members.
pub const SERVICE_CONNECTIONS_MAX: usize = 4096;
/// Certificates in a presented chain, leaf included.
pub const CHAIN_LEN_MAX: usize = 6;
/// Bytes of one DER certificate.
pub const CERTIFICATE_LEN_MAX: usize = 8 * 1024;
/// Bytes of a DER certificate signing request.
pub const CSR_LEN_MAX: usize = 4 * 1024;
/// Verified chains remembered.
pub const CHAIN_MEMORY_MAX: usize = 4096;
/// Seconds by which clocks may differ; leaves are backdated by it.
pub const SKEW_SECS: u64 = 60;
/// Seconds that a lease may last: an hour. That long a member that hears nothing may still serve a revoked client.
pub const LEASE_SECS_MAX: u64 = 3600;
/// Thousandths by which the clocks of two machines may run apart while a lease lasts; crystals are off by less than
/// one.
pub const LEASE_DRIFT_PERMILLE: u64 = 10;
/// Seconds after which a voter's reported clock counts no more: a few leases.
pub const CLOCK_REPORT_SECS_MAX: u64 = 60;
/// Entries of the log after which each member digests its state again, to compare it with the others'.
pub const DIGEST_EVERY: u64 = 16;
/// Digests of its own state that a member keeps: a member that is further behind is not compared.
pub const DIGESTS_MAX: usize = 1024;
/// Revocations in one answer, where members whose states differ compare them.
pub const REVOCATIONS_PAGE_MAX: usize = 4096;
/// Revocations that such an answer has at least, unless it is the last one.
pub const REVOCATIONS_PAGE_MIN: usize = 1024;
/// Revocations of one voter that are compared; past it they are not, and the report says so.
pub const REVOCATIONS_COMPARED_MAX: usize = 2_000_000;
/// Revocations that the report about differing states lists.
pub const REVOCATIONS_LISTED_MAX: usize = 64;
/// Bytes of a resource's name. A Kafka topic has 249 at most, an HTTP route may have more.
pub const RESOURCE_NAME_LEN_MAX: usize = 512;
/// Bytes of a rule's id.
pub const RULE_ID_LEN_MAX: usize = 63;
/// Rules of a policy.
pub const RULES_MAX: usize = 1_000_000;
/// Words for actions in the text of one rule: several times as many as there are.
pub const ACTION_WORDS_MAX: usize = 64;
/// Bytes of all rules: a snapshot, which holds these and as many that wait for their change, has 128 MiB at most.
pub const POLICY_WEIGHT_MAX: usize = 48 * 1024 * 1024;
/// Expressions over roles that rules name; each is asked when a principal is decided about for the first time.
pub const ROLE_PATTERNS_MAX: usize = 1024;
/// Patterns of super-users.
pub const SUPER_USERS_MAX: usize = 64;
/// Required capabilities, and expressions of one.
pub const REQUIREMENTS_MAX: usize = 256;
/// Comparisons of rules that a lint makes; past it some rules are not compared with others, and it says so.
pub const LINT_STEPS_MAX: usize = 20_000_000;
/// Changes of policy that have been sent in part; past it the oldest is forgotten.
pub const STAGED_CHANGES_MAX: usize = 4;
/// Seconds that a part waits for the next.
pub const STAGED_SECS_MAX: u64 = 600;
/// Rules about one principal that a service outside the cluster is told; past it, it is told nothing and denies.
pub const SLICE_RULES_MAX: usize = 65_536;
/// Bytes of a message to such a service; rules, or a view, take half of it at most.
pub const SLICE_LEN_MAX: usize = 32 * 1024 * 1024;
/// Principals whose rules such a service keeps; past it the one unused for longest is forgotten.
pub const SLICES_MAX: usize = 16_384;
/// Bytes of the rules that it keeps of all of them, about.
pub const SLICES_WEIGHT_MAX: usize = 256 * 1024 * 1024;
/// Services outside the cluster that one member leases to at once.
pub const DELEGATED_LEASES_MAX: usize = 256;
/// How many of these places one principal may hold: a service that lost its connection may be counted a while longer.
pub const DELEGATED_LEASES_PER_PRINCIPAL_MAX: usize = 4;
/// Questions of such services about principals that one member answers at once; past it they wait, and not for long.
pub const FETCHES_MAX: usize = 32;
/// Answers to such questions that one principal may leave unread; past it its questions wait, and not for long.
pub const UNREAD_PER_PRINCIPAL_MAX: usize = 4;
/// Seconds that such a service may keep what it was told of a principal: a day.
pub const CACHE_TTL_SECS_MAX: u64 = 86_400;

/// Limits at which only a benchmark runs.
#[cfg(feature = "danger-scale-bench")]
mod scale_bench {
    /// More than `cargo xtask bench scale` puts on record.
    pub const PRINCIPALS_MAX: usize = 2_000_000;
}

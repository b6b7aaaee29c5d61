//! Every file that a member makes in its data directory, by name.

/// Who this directory belongs to.
pub const MEMBER: &str = "member.json";
/// Held by the running process.
pub const LOCK: &str = "lock";
/// The member's certificate chain.
pub const LEAF: &str = "leaf.pem";
/// The view that enrollment brought, until Raft has caught up.
pub const VIEW: &str = "view.bin";
/// A bootstrap under way.
pub const BOOTSTRAP: &str = "bootstrap.bin";
/// An enrollment under way.
pub const JOIN: &str = "join.json";
/// The cluster token made at bootstrap.
pub const CLUSTER_TOKEN: &str = "cluster-token";
/// Bound addresses.
pub const ENDPOINTS: &str = "endpoints.json";
/// The admin socket.
pub const SOCKET: &str = "admin.sock";
/// Refused connections.
pub const REFUSALS: &str = "refusals.jsonl";
/// Changes, as they were applied.
pub const EVENTS: &str = "events.jsonl";
/// Those before them.
pub const EVENTS_OLDER: &str = "events.1.jsonl";
/// Members that an operator has this one refuse.
pub const QUARANTINE: &str = "quarantine.json";
/// The database.
pub const STORE: &str = "store";
/// What the store has confirmed, to tell an older copy of it.
pub const CONFIRMED: &str = "store.confirmed";
/// The database of all groups but the trust group.
pub const DATA_STORE: &str = "data-store";
/// What that store has confirmed.
pub const DATA_CONFIRMED: &str = "data-store.confirmed";
/// There once leases were given to services outside of the cluster.
pub const DELEGATED: &str = "subleased";
/// A return with a new store, under way.
pub const RETURN: &str = "return.json";
/// The store that other members refuse, if they do.
pub const STORE_REFUSED: &str = "store.refused";
/// Members whose states differ.
pub const DIVERGENCE: &str = "divergence.bin";
/// Stores that others have taken the place of.
pub const REPLACED: &str = "replaced";
/// The keys' directory.
pub const KEYS: &str = "keys";
/// Everything that may stand at the top of a data directory.
pub const ALL: [&str; 23] = [
    MEMBER,
    LOCK,
    LEAF,
    VIEW,
    BOOTSTRAP,
    JOIN,
    CLUSTER_TOKEN,
    ENDPOINTS,
    SOCKET,
    REFUSALS,
    EVENTS,
    EVENTS_OLDER,
    QUARANTINE,
    STORE,
    CONFIRMED,
    DATA_STORE,
    DATA_CONFIRMED,
    DELEGATED,
    RETURN,
    STORE_REFUSED,
    DIVERGENCE,
    REPLACED,
    KEYS,
];

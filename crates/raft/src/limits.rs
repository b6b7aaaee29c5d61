//! Every limit of replication, by name. A limit that is not here or in `countersign_core::limits` does not exist.

/// Bytes of all commands in one log entry, and so of one command. A follower must hold and fsync an entry within one
/// heartbeat, which is also the deadline of the message that carries it.
pub const ENTRY_LEN_MAX: usize = 1024 * 1024;
/// Bytes of entries put into one AppendEntries message; a single larger entry still travels alone.
pub const REPLICATE_LEN_MAX: usize = 1024 * 1024;
/// Commands waiting to be proposed in one group; past it a caller is told to come back later.
pub const PROPOSALS_MAX: usize = 4096;
/// Bytes of commands waiting to be proposed in one group. The trust group has as much whatever the data groups hold.
pub const PROPOSAL_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Bytes of commands waiting to be proposed in all data groups of one member.
pub const DATA_PROPOSAL_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Bytes of a Vote request.
pub const VOTE_LEN_MAX: usize = 256;
/// Bytes of an AppendEntries request: one entry at its limit, its framing, and a membership of every member.
pub const APPEND_LEN_MAX: usize = 2 * 1024 * 1024;
/// Bytes of a machine's snapshot, which travels as one message.
pub const SNAPSHOT_LEN_MAX: usize = 128 * 1024 * 1024;
/// Bytes of a snapshot message: the snapshot, its membership and its framing.
pub const SNAPSHOT_MESSAGE_LEN_MAX: usize = SNAPSHOT_LEN_MAX + 256 * 1024;
/// Bytes of a TimeoutNow request.
pub const TIMEOUT_NOW_LEN_MAX: usize = 96;
/// Terms by which one message may run ahead. Honest terms grow by one per election; without a bound a single message
/// could exhaust the counter and end the group for good.
pub const TERM_JUMP_MAX: u64 = 1 << 32;
/// The largest log index that a message may name: beyond it arithmetic on indexes could overflow.
pub const INDEX_MAX: u64 = 1 << 62;
/// Bytes of recent entries that each group keeps in memory once they are durable.
pub const TAIL_BYTES_MAX: usize = 2 * 1024 * 1024;
/// The same for all data groups of one member together. The trust group keeps its own beside it.
pub const DATA_TAIL_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Bytes of queued writes that one fsync covers; what exceeds it waits for the next. A single larger write goes alone.
pub const WRITE_BATCH_BYTES_MAX: usize = 16 * 1024 * 1024;
/// The same for the bulk store while the trust store has something queued or in an fsync: so long does a small
/// proposal of the trust group wait for the other store at most. No smaller than an entry, which goes in one piece.
pub const YIELDING_BATCH_BYTES_MAX: usize = 1024 * 1024;
/// Keys of a removed group that are deleted in one write.
pub const REMOVED_KEYS_MAX: usize = 4096;
/// Bytes of committed entries that one read returns; a single larger entry is returned alone.
pub const READ_BYTES_MAX: usize = 4 * 1024 * 1024;

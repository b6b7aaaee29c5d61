//! Many Raft groups on one authenticated transport, one durable store.

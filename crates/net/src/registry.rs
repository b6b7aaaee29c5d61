//! The connections that are open now, accepted and dialed, so that trust reaches them when it changes.
//!
//! Each entry holds a handle of its own on the connection, so the holder of the stream cannot keep it open against the
//! registry. A connection is entered *before* it is judged: a change of trust either is seen by its judgement, or finds
//! it here. An entry vanishes with its stream.

use std::collections::{BTreeSet, HashMap};
use std::net::{Shutdown, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use countersign_core::id::{KeyId, NodeId};
use countersign_core::limits::{CONNECTIONS_PER_PRINCIPAL_MAX, SERVICE_CONNECTIONS_MAX};
use countersign_core::locked::{LockGuard, Locked};
use countersign_core::peer::{Proof, Refusal, Scope, VerifiedPeer, Wanted, verify_again};
use countersign_core::principal::Principal;
use countersign_core::time::UnixMillis;
use countersign_core::trust::view::View;
use tokio::sync::Notify;

use crate::alpn::Alpn;
use crate::quic;

/// Ends a connection from outside.
pub(crate) enum Closer {
    /// A duplicate of the stream's descriptor.
    Tcp(socket2::Socket),
    /// Another handle on the connection.
    Quic(quinn::Connection),
}

impl Closer {
    fn close(&self, refusal: Refusal) {
        match self {
            // An error says that the other end was faster.
            Self::Tcp(socket) => drop(socket.shutdown(Shutdown::Both)),
            Self::Quic(connection) => quic::close(connection, refusal, None),
        }
    }
}

/// Tells the holder of the stream that it was closed. Bytes that had arrived before the shutdown could still be read
/// from the socket, so the stream asks here before every read and write.
#[derive(Debug, Default)]
pub(crate) struct Closed {
    refusal: OnceLock<Refusal>,
    notify: Notify,
}

impl Closed {
    /// Why the registry closed the connection; none while it is open.
    pub(crate) fn refusal(&self) -> Option<Refusal> {
        self.refusal.get().copied()
    }

    fn set(&self, refusal: Refusal) {
        // Set twice, the first reason stands.
        let _ = self.refusal.set(refusal);
        self.notify.notify_waiters();
    }

    /// Ends when the registry closes the connection, with the reason.
    pub(crate) async fn wait(&self) -> Refusal {
        loop {
            let notified = self.notify.notified();
            if let Some(refusal) = self.refusal() {
                return refusal;
            }
            notified.await;
        }
    }
}

/// The entry for one connection.
pub(crate) struct Connection {
    pub(crate) proof: Proof,
    pub(crate) wanted: Wanted,
    pub(crate) alpn: Alpn,
    pub(crate) remote: SocketAddr,
    pub(crate) dialed: bool,
    pub(crate) closer: Closer,
}

impl Connection {
    /// Whether a member whose proof has expired may have it.
    pub(crate) const fn recovers(&self) -> bool {
        match self.closer {
            Closer::Tcp(_) => self.alpn.recovers(),
            Closer::Quic(_) => false,
        }
    }

    /// Whether this end serves a principal on it.
    pub(crate) const fn serves_principal(&self) -> bool {
        self.alpn.serves_principals() && !self.dialed
    }
}

struct Entry {
    connection: Arc<Connection>,
    closed: Arc<Closed>,
    /// What its judgement allows; the least until there is one.
    scope: Scope,
    /// The last moment at which its proof counts: the end of the certificate, or that of the record if it is earlier.
    not_after: UnixMillis,
}

impl Entry {
    fn close(&self, refusal: Refusal) {
        // First the word, then the shutdown: a task that the shutdown wakes finds the reason.
        self.closed.set(refusal);
        self.connection.closer.close(refusal);
    }
}

#[derive(Default)]
struct Entries {
    last_id: u64,
    by_id: HashMap<u64, Entry>,
    /// Last second of the proof, then id; of those of full scope. Proofs count whole seconds, the last one included.
    /// In recovery the end of the proof ends nothing.
    by_expiry: BTreeSet<(u64, u64)>,
    /// Connections on which this end serves principals.
    services: usize,
    /// The same by principal; none that has none.
    by_principal: HashMap<Principal, usize>,
}

impl Entries {
    /// Takes a place for a connection on which this end serves `principal`.
    fn take_place(&mut self, principal: &Principal, (services_max, own_max): (usize, usize)) -> Result<(), Refusal> {
        if self.services >= services_max {
            return Err(Refusal::Overloaded);
        }
        let own = self.by_principal.entry(principal.clone()).or_default();
        if *own >= own_max {
            return Err(Refusal::Connections);
        }
        *own += 1;
        self.services += 1;
        Ok(())
    }

    fn give_place(&mut self, principal: &Principal) {
        self.services = self.services.saturating_sub(1);
        if let Some(own) = self.by_principal.get_mut(principal) {
            *own = own.saturating_sub(1);
            if *own == 0 {
                self.by_principal.remove(principal);
            }
        }
    }

    fn remove(&mut self, id: u64) -> Option<Entry> {
        let entry = self.by_id.remove(&id)?;
        self.by_expiry.remove(&(entry.not_after.secs(), id));
        if entry.connection.serves_principal() {
            self.give_place(entry.connection.proof.principal());
        }
        Some(entry)
    }
}

/// A connection that the registry has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClosedConnection {
    /// The principal at the other end.
    pub principal: Principal,
    /// With which key.
    pub key: KeyId,
    /// Why.
    pub refusal: Refusal,
}

/// A connection that is open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LiveConnection {
    /// The principal at the other end.
    pub principal: Principal,
    /// With which key.
    pub key: KeyId,
    /// The last moment at which its proof counts; the connection ends then if it is of full scope.
    pub not_after: UnixMillis,
    /// What it is for.
    pub alpn: Alpn,
    /// Where the other end is.
    pub remote: SocketAddr,
    /// Whether this end dialed.
    pub dialed: bool,
    /// What the other end may ask for.
    pub scope: Scope,
}

struct Shared {
    entries: Locked<Entries>,
    /// Wakes the expiry task: an earlier expiry was entered.
    changed: Notify,
    services_max: AtomicUsize,
    /// Of one principal.
    own_max: AtomicUsize,
}

impl Default for Shared {
    fn default() -> Self {
        let services_max = AtomicUsize::new(SERVICE_CONNECTIONS_MAX);
        let own_max = AtomicUsize::new(CONNECTIONS_PER_PRINCIPAL_MAX);
        Self { entries: Locked::default(), changed: Notify::default(), services_max, own_max }
    }
}

/// The open connections of one endpoint.
#[derive(Clone, Default)]
pub struct Registry(Arc<Shared>);

impl Registry {
    fn lock(&self) -> LockGuard<'_, Entries> {
        self.0.entries.lock()
    }

    /// Enters a connection, if there is room for it. To be done before it is judged.
    pub(crate) fn register(&self, connection: Connection) -> Result<Registration, Refusal> {
        let closed = Arc::new(Closed::default());
        let mut entries = self.lock();
        if connection.serves_principal() {
            let max = (self.0.services_max.load(Ordering::Relaxed), self.0.own_max.load(Ordering::Relaxed));
            entries.take_place(connection.proof.principal(), max)?;
        }
        entries.last_id = entries.last_id.wrapping_add(1);
        let id = entries.last_id;
        let (not_after, scope) = (connection.proof.not_after(), Scope::Recovery);
        let entry = Entry { connection: Arc::new(connection), closed: Arc::clone(&closed), scope, not_after };
        entries.by_id.insert(id, entry);
        drop(entries);
        Ok(Registration { registry: self.clone(), id, closed })
    }

    /// The connection was judged to be of full scope: it ends at `not_after`, with its proof.
    fn widen(&self, id: u64, not_after: UnixMillis) {
        let mut entries = self.lock();
        let Some(entry) = entries.by_id.get_mut(&id) else { return };
        (entry.scope, entry.not_after) = (Scope::Full, not_after);
        let expiry = (not_after.secs(), id);
        entries.by_expiry.insert(expiry);
        let earliest = entries.by_expiry.first() == Some(&expiry);
        drop(entries);
        if earliest {
            self.0.changed.notify_one();
        }
    }

    /// Judges every open connection under `view` and closes those that it refuses.
    ///
    /// A connection whose key has been renewed since stays ([`verify_again`]): the new proof may be on its way over
    /// this very connection. It ends with the old proof, or when its key is revoked. One in recovery does not stay: its
    /// proof has no end left to wait for.
    pub fn rejudge(&self, view: &View, now: UnixMillis) -> Vec<ClosedConnection> {
        // Judging may verify signatures; handshakes do not wait for it.
        let open: Vec<(u64, Scope, Arc<Connection>)> =
            self.lock().by_id.iter().map(|(id, entry)| (*id, entry.scope, Arc::clone(&entry.connection))).collect();
        let refused = open.into_iter().filter_map(|(id, scope, connection)| {
            let Connection { proof, wanted, .. } = &*connection;
            verify_again(proof, scope, view, *wanted, now).err().map(|refusal| (id, refusal))
        });
        refused.filter_map(|(id, refusal)| self.close(id, refusal)).collect()
    }

    /// Closes every connection of full scope whose proof has expired.
    pub fn expire(&self, now: UnixMillis) -> Vec<ClosedConnection> {
        let over: Vec<u64> =
            self.lock().by_expiry.iter().take_while(|(last, _)| *last < now.secs()).map(|(_, id)| *id).collect();
        over.into_iter().filter_map(|id| self.close(id, Refusal::Expired)).collect()
    }

    /// Closes every connection of `principal`.
    pub fn close_principal(&self, principal: &Principal, refusal: Refusal) -> Vec<ClosedConnection> {
        let entries = self.lock();
        let of = entries.by_id.iter().filter(|(_, e)| e.connection.proof.principal() == principal);
        let ids: Vec<u64> = of.map(|(id, _)| *id).collect();
        drop(entries);
        ids.into_iter().filter_map(|id| self.close(id, refusal)).collect()
    }

    /// Closes every connection of the member `node`.
    pub(crate) fn close_node(&self, node: NodeId, refusal: Refusal) -> Vec<ClosedConnection> {
        let entries = self.lock();
        let is = |entry: &Entry| entry.connection.proof.principal().role.node_id() == Some(node);
        let ids: Vec<u64> = entries.by_id.iter().filter(|(_, entry)| is(entry)).map(|(id, _)| *id).collect();
        drop(entries);
        ids.into_iter().filter_map(|id| self.close(id, refusal)).collect()
    }

    /// Closes every connection that was accepted on the client port: this end serves no client any more.
    pub fn close_services(&self, refusal: Refusal) -> Vec<ClosedConnection> {
        let entries = self.lock();
        let serving = entries.by_id.iter().filter(|(_, entry)| entry.connection.serves_principal());
        let ids: Vec<u64> = serving.map(|(id, _)| *id).collect();
        drop(entries);
        ids.into_iter().filter_map(|id| self.close(id, refusal)).collect()
    }

    fn close(&self, id: u64, refusal: Refusal) -> Option<ClosedConnection> {
        let entry = self.lock().remove(id)?;
        entry.close(refusal);
        let proof = &entry.connection.proof;
        Some(ClosedConnection { principal: proof.principal().clone(), key: proof.key(), refusal })
    }

    /// The connections that are open, for people.
    pub fn connections(&self) -> Vec<LiveConnection> {
        let entries = self.lock();
        let mut live: Vec<_> = entries.by_id.iter().collect();
        live.sort_unstable_by_key(|(id, _)| **id);
        let shown = live.into_iter().map(|(_, entry)| {
            let (connection, proof) = (&entry.connection, &entry.connection.proof);
            LiveConnection {
                principal: proof.principal().clone(),
                key: proof.key(),
                not_after: entry.not_after,
                alpn: connection.alpn,
                remote: connection.remote,
                dialed: connection.dialed,
                scope: entry.scope,
            }
        });
        shown.collect()
    }

    /// Another bound than [`CONNECTIONS_PER_PRINCIPAL_MAX`]. Connections that are open beyond it stay.
    pub fn bound_principals(&self, max: usize) {
        self.0.own_max.store(max, Ordering::Relaxed);
    }

    /// Another bound than [`SERVICE_CONNECTIONS_MAX`], which takes more descriptors than a test has.
    pub fn bound_services_for_testing(&self, max: usize) {
        self.0.services_max.store(max, Ordering::Relaxed);
    }

    /// How many connections are open.
    pub fn count(&self) -> usize {
        self.lock().by_id.len()
    }

    /// The first moment at which the proof of some open connection has expired.
    pub(crate) fn next_expiry(&self) -> Option<UnixMillis> {
        self.lock().by_expiry.first().map(|(last, _)| UnixMillis::from_secs(last.saturating_add(1)))
    }

    /// Ends when a connection was entered that expires before all others.
    pub(crate) async fn changed(&self) {
        self.0.changed.notified().await;
    }
}

/// A connection's place in the registry; given up when dropped.
pub(crate) struct Registration {
    registry: Registry,
    id: u64,
    closed: Arc<Closed>,
}

impl Registration {
    pub(crate) const fn closed(&self) -> &Arc<Closed> {
        &self.closed
    }

    /// Takes note of what the connection was judged to be.
    pub(crate) fn judged(&self, peer: &VerifiedPeer) {
        if peer.scope() == Scope::Full {
            self.registry.widen(self.id, peer.not_after());
        }
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        // Dropped once the lock is free: it may be the last handle on a connection, which gives up more than this
        // place.
        let entry = self.registry.lock().remove(self.id);
        drop(entry);
    }
}

//! Live trust: what a handshake judges by, replaced whole by one swap, so that no reader ever sees half of a change.

use std::sync::Arc;

use arc_swap::ArcSwap;
use countersign_core::id::Generation;
use countersign_core::locked::Locked;
use countersign_core::time::UnixMillis;
use countersign_core::trust::view::{AuthorityPhase, View};
use countersign_pki::verify::{Bundle, BundleError};
use tokio::sync::watch;

use crate::credential::Credential;

/// All that one handshake needs to know.
#[derive(Clone)]
pub struct Trust {
    /// What the cluster is.
    pub view: Arc<View>,
    /// The authorities of that view, ready for verifying.
    pub bundle: Arc<Bundle>,
    /// This member's own certificate and key; none while it waits for one.
    pub credential: Option<Arc<Credential>>,
    /// The newest time that the log has stamped: this member's own clock may be behind it, its judgement never is.
    pub last_applied: UnixMillis,
}

impl Trust {
    /// Trust as `view` has it: every authority that is not tainted.
    pub fn of_view(
        view: Arc<View>,
        credential: Option<Arc<Credential>>,
        last_applied: UnixMillis,
    ) -> Result<Self, BundleError> {
        let bundle = read_bundle(&view)?;
        Ok(Self { view, bundle, credential, last_applied })
    }

    /// The bundle of another view. Most views change a member, not an authority: the bundle stays as it is.
    pub(crate) fn bundle_of(&self, view: &View) -> Result<Arc<Bundle>, BundleError> {
        if view.authorities == self.view.authorities { Ok(Arc::clone(&self.bundle)) } else { read_bundle(view) }
    }

    /// The later of a clock's reading and the last applied time.
    pub fn at(&self, clock: UnixMillis) -> UnixMillis {
        clock.max(self.last_applied)
    }
}

/// Every authority that is not tainted, parsed.
fn read_bundle(view: &View) -> Result<Arc<Bundle>, BundleError> {
    let trusted = view.authorities.values().filter(|a| a.phase != AuthorityPhase::Tainted);
    Ok(Arc::new(Bundle::new(trusted.map(|a| a.certificate.as_slice()))?))
}

/// A trust of an older generation than the current one was to be published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("generation {got} is older than the current one, {current}")]
pub struct StaleGeneration {
    /// The generation that was to be published.
    pub got: Generation,
    /// The generation in force.
    pub current: Generation,
}

/// The trust in force. Read without locks by every handshake; written seldom.
pub struct LiveTrust {
    current: ArcSwap<Trust>,
    /// Serialises writers, so that two of them do not lose each other's part.
    writing: Locked<()>,
    generation: watch::Sender<Generation>,
}

impl LiveTrust {
    /// Starts with `trust`.
    pub fn new(trust: Trust) -> Self {
        let generation = watch::Sender::new(trust.view.generation);
        Self { current: ArcSwap::from_pointee(trust), writing: Locked::new(()), generation }
    }

    /// The trust in force now.
    pub fn load(&self) -> Arc<Trust> {
        self.current.load_full()
    }

    /// Replaces the view and its bundle, keeps the credential. The time never runs backwards. Only `Endpoint::publish`
    /// calls this: a view in force whose refusals are still connected would be half a change.
    pub(crate) fn publish(
        &self,
        view: Arc<View>,
        bundle: Arc<Bundle>,
        applied: UnixMillis,
    ) -> Result<(), StaleGeneration> {
        let _writing = self.writing.lock();
        let current = self.load();
        let (got, have) = (view.generation, current.view.generation);
        if got < have {
            return Err(StaleGeneration { got, current: have });
        }
        let last_applied = applied.max(current.last_applied);
        self.current.store(Arc::new(Trust { view, bundle, credential: current.credential.clone(), last_applied }));
        self.generation.send_replace(got);
        Ok(())
    }

    /// Replaces this member's credential: handshakes begun from now on show it.
    pub fn publish_credential(&self, credential: Arc<Credential>) {
        let _writing = self.writing.lock();
        let current = self.load();
        self.current.store(Arc::new(Trust { credential: Some(credential), ..Trust::clone(&current) }));
    }

    /// Follows the generation.
    pub fn generations(&self) -> watch::Receiver<Generation> {
        self.generation.subscribe()
    }
}

//! Rules from the replicated state of a member.

use std::sync::Arc;

use countersign_core::authz::Subject;
use countersign_core::locked::Locked;
use countersign_core::peer::{VerifiedPeer, still_known};
use countersign_core::time::{BootMillis, UnixMillis};
use countersign_core::trust::view::View;

use crate::permit::Denial;
use crate::source::{Fetching, Source, Standing};

/// The view in force on this member; none before the first.
#[derive(Default)]
pub(crate) struct Replica(Locked<Option<Arc<View>>>);

impl Replica {
    /// Takes up a view; false if it is older than the one that is here, which stays.
    pub(crate) fn replace(&self, view: &Arc<View>) -> bool {
        let mut current = self.0.lock();
        let newer = current.as_ref().is_none_or(|current| current.generation <= view.generation);
        if newer {
            *current = Some(Arc::clone(view));
        }
        newer
    }

    pub(crate) fn view(&self) -> Option<Arc<View>> {
        self.0.lock().clone()
    }
}

impl Source for Replica {
    fn standing(&self, peer: &VerifiedPeer, now: UnixMillis) -> Result<Standing, Denial> {
        let view = self.view().ok_or(Denial::Unfetched)?;
        still_known(&view, peer, now).map_err(Denial::Refused)?;
        Ok(Standing {
            generation: view.generation,
            policy: Arc::clone(&view.policy),
            subject: Subject::of(&view, &peer.principal().role),
            compiled: None,
            until: BootMillis(u64::MAX),
        })
    }

    /// It is all here.
    fn fetch(self: Arc<Self>, _: &VerifiedPeer) -> Fetching {
        Box::pin(core::future::ready(Ok(())))
    }
}

//! The identity of this member, and the authorities that it trusts. Both are fixed while the member runs, but for the
//! trust and the certificate that its endpoint publishes. It decides nothing.

use std::sync::Arc;

use countersign_core::id::{AuthorityId, KeyId, NodeId, StoreId};
use countersign_core::locked::Locked;
use countersign_core::time::{UnixMillis, Validity};
use countersign_core::trust::view::View;
use countersign_net::Endpoint;
use countersign_pki::key::KeyAlgorithm;

use crate::identity::datadir::{DataDir, MemberFile};
use crate::identity::files::ForeignIdentity;
use crate::identity::keys::{Keys, KeysError, NextLeaf};

/// This member's identity: its number, its keys, where it keeps them, and the endpoint that shows its certificate.
pub struct Local {
    /// Its number.
    pub node: NodeId,
    /// What `member.json` says.
    pub file: MemberFile,
    /// The id of its store of the trust group.
    pub store: StoreId,
    /// The id of its store of all other groups.
    pub data_store: StoreId,
    /// Its data directory.
    pub data: DataDir,
    /// Its keys.
    pub(crate) keys: Keys,
    /// Its certificate and the trust in force.
    pub endpoint: Endpoint,
    /// The algorithm of its next leaf keys.
    pub(crate) algorithm: KeyAlgorithm,
    /// Held while a next leaf key is made.
    pub(crate) making: Locked<()>,
}

impl Local {
    /// The later of this host's clock and the last applied time.
    pub fn now(&self) -> UnixMillis {
        self.endpoint.now()
    }

    /// The trust view in force here.
    pub fn view(&self) -> Arc<View> {
        Arc::clone(&self.endpoint.trust().load().view)
    }

    /// The key in the certificate that this member shows.
    pub(crate) fn shown_key(&self) -> KeyId {
        let trust = self.endpoint.trust().load();
        trust.credential.as_ref().and_then(|credential| credential.key()).unwrap_or_else(|| self.keys.leaf.id())
    }

    /// When the certificate that this member shows is valid.
    pub fn certificate(&self) -> Option<Validity> {
        let trust = self.endpoint.trust().load();
        let recorded = || trust.view.members.get(&self.node).map(|member| member.leaf.validity);
        self.foreign_validity().or_else(recorded)
    }

    /// When this member's certificate is valid, if it is made elsewhere.
    pub fn foreign_validity(&self) -> Option<Validity> {
        self.keys.leaf.foreign().map(ForeignIdentity::validity)
    }

    /// The authority that issued the certificate which this member shows.
    pub(crate) fn authority(&self) -> Option<AuthorityId> {
        let trust = self.endpoint.trust().load();
        trust.credential.as_ref()?.chain().last().map(AuthorityId::of_certificate)
    }

    /// Whether the certificate that this member shows has expired.
    pub(crate) fn leaf_expired(&self) -> bool {
        let trust = self.endpoint.trust().load();
        let validity = trust.credential.as_ref().and_then(|credential| credential.validity());
        validity.is_none_or(|validity| self.now().secs() > validity.not_after.secs())
    }

    /// The key of the next certificate: one and the same for a renewal and a return that are under way at once.
    pub(crate) fn next_leaf(&self, in_use: KeyId) -> Result<NextLeaf, KeysError> {
        let _alone = self.making.lock();
        NextLeaf::load_or_make(&self.data, in_use, self.algorithm)
    }

    /// Has another key made for the next certificate: this one was revoked.
    pub(crate) fn discard_next_leaf(&self) -> Result<(), KeysError> {
        let _alone = self.making.lock();
        NextLeaf::discard(&self.data)
    }
}

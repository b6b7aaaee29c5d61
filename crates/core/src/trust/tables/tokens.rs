//! Join tokens, found by id and by whether and until when they may be used.

use core::ops::Deref;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::id::TokenId;
use crate::map::Set;
use crate::table::Table;
use crate::time::UnixMillis;
use crate::trust::join_token::Token;

/// The tokens of which each has uses left until the end that it has on record.
type ByEnd = Set<(UnixMillis, TokenId)>;

/// Join tokens by id. Each way of changing them keeps the indexes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tokens {
    by_id: Table<TokenId, Token>,
    /// Those that are neither revoked nor spent.
    open: ByEnd,
    /// Cluster tokens among these.
    open_of_cluster: ByEnd,
    /// Those that are revoked or spent.
    closed: Set<TokenId>,
}

impl Tokens {
    /// Enters a token in place of the one before.
    pub fn insert(&mut self, id: TokenId, token: Token) {
        self.remove(&id);
        self.enter(id, &token);
        self.by_id.insert(id, token);
    }

    /// Takes a token out.
    pub fn remove(&mut self, id: &TokenId) -> Option<Token> {
        let token = self.by_id.remove(id)?;
        let open = (token.record.not_after, *id);
        self.open.remove(&open);
        self.open_of_cluster.remove(&open);
        self.closed.remove(id);
        Some(token)
    }

    /// Changes a token. None if there is none of this id.
    pub fn update<T>(&mut self, id: &TokenId, change: impl FnOnce(&mut Token) -> T) -> Option<T> {
        let mut token = self.remove(id)?;
        let done = change(&mut token);
        self.insert(*id, token);
        Some(done)
    }

    /// The tokens that may be used at `now`, in their order.
    pub fn usable(&self, now: UnixMillis) -> Vec<TokenId> {
        from(&self.open, now)
    }

    /// The cluster tokens that may be used at `now`, in their order.
    pub fn usable_of_cluster(&self, now: UnixMillis) -> Vec<TokenId> {
        from(&self.open_of_cluster, now)
    }

    /// The tokens that cannot be used at `now` or later.
    pub fn unusable(&self, now: UnixMillis) -> impl Iterator<Item = TokenId> {
        let expired = self.open.range(..(now, FIRST)).map(|(_, id)| *id);
        self.closed.iter().copied().chain(expired)
    }

    fn enter(&mut self, id: TokenId, token: &Token) {
        let record = &token.record;
        if record.revoked || record.uses_left == 0 {
            self.closed.insert(id);
            return;
        }
        self.open.insert((record.not_after, id));
        if record.cluster_token {
            self.open_of_cluster.insert((record.not_after, id));
        }
    }
}

const FIRST: TokenId = TokenId([0; 8]);

fn from(open: &ByEnd, now: UnixMillis) -> Vec<TokenId> {
    let mut ids: Vec<TokenId> = open.range((now, FIRST)..).map(|(_, id)| *id).collect();
    ids.sort();
    ids
}

impl Deref for Tokens {
    type Target = Table<TokenId, Token>;

    fn deref(&self) -> &Table<TokenId, Token> {
        &self.by_id
    }
}

impl Serialize for Tokens {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.by_id.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Tokens {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let by_id = Table::<TokenId, Token>::deserialize(deserializer)?;
        let mut all = Self::default();
        for (id, token) in by_id.scan() {
            all.enter(*id, token);
        }
        Ok(Self { by_id, ..all })
    }
}

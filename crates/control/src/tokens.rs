//! Join tokens: made, listed, revoked, rotated. The secret of a token is in the outcome of making it and nowhere else.

use std::collections::BTreeMap;

use countersign_core::id::TokenId;
use countersign_core::name::{Address, Host, Name};
use countersign_core::trust::command::{AddJoinToken, Command, RevokeJoinToken, RotateClusterToken};
use countersign_core::trust::join_token::{JoinToken, Token, TokenRecord};
use countersign_core::trust::member::Suffrage;
use countersign_node::{ClusterToken, random};

use crate::{Control, ControlError};

/// What a new token is to admit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewToken {
    /// What the joiner becomes.
    pub suffrage: Suffrage,
    /// How often it may be used.
    pub uses: u32,
    /// Seconds that it lives.
    pub ttl_secs: u64,
    /// The one name that the joiner may have; any if none is given.
    pub name: Option<Name>,
    /// Hosts that the joiner's certificate holds without another proof.
    pub hosts: Vec<Host>,
    /// The joiner's role in rules.
    pub role: Option<String>,
    /// The joiner's attributes in rules.
    pub attributes: BTreeMap<String, String>,
}

/// A token that was made.
pub struct CreatedToken {
    /// The token, with its secret.
    pub token: JoinToken,
    /// The record of it.
    pub record: TokenRecord,
    /// Where the joiner may ask: what this member advertises first.
    pub join_addr: Option<Address>,
}

impl Control {
    /// Makes a join token. About the one node that it admits; without a name it admits any.
    ///
    /// # Errors
    /// [`ControlError`]: no authority can issue certificates, a limit is exceeded, or the command was not carried out.
    pub async fn create_token(&self, wanted: NewToken) -> Result<CreatedToken, ControlError> {
        let (token, record) = self.make_token(wanted)?;
        self.command(Command::AddJoinToken(AddJoinToken(record.clone())), &[]).await?;
        Ok(self.created(token, record))
    }

    /// Ends the cluster token and makes its successor.
    ///
    /// # Errors
    /// As [`Control::create_token`].
    pub async fn rotate_cluster_token(&self) -> Result<CreatedToken, ControlError> {
        let ClusterToken { uses, ttl_secs, suffrage } = ClusterToken::default();
        let (name, role, hosts, attributes) = (None, None, vec![], BTreeMap::new());
        let (token, record) = self.make_token(NewToken { suffrage, uses, ttl_secs, name, hosts, role, attributes })?;
        let record = TokenRecord { cluster_token: true, ..record };
        self.command(Command::RotateClusterToken(RotateClusterToken(record.clone())), &[]).await?;
        Ok(self.created(token, record))
    }

    /// The tokens on record, as applied here.
    pub fn tokens(&self) -> Vec<(TokenId, Token)> {
        self.parts.state.read().tokens().scan().iter().map(|(id, token)| (*id, token.clone())).collect()
    }

    /// Ends a token. Returns its record.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn revoke_token(&self, token: TokenId) -> Result<Token, ControlError> {
        // Before and after: a record that was ended may be forgotten at once, and this member may be behind the leader.
        let known = || self.parts.state.read().tokens().get(&token).cloned();
        let before = known();
        self.command(Command::RevokeJoinToken(RevokeJoinToken(token)), &[]).await?;
        before.or_else(known).ok_or(ControlError::TokenForgotten(token))
    }

    fn make_token(&self, wanted: NewToken) -> Result<(JoinToken, TokenRecord), ControlError> {
        let NewToken { suffrage, uses, ttl_secs, name, hosts, role, attributes } = wanted;
        let view = self.view();
        let (authority, _) = view.active_authority().ok_or(ControlError::NoAuthority)?;
        let token = JoinToken::new(random::<32>().map_err(ControlError::Random)?, authority);
        let record = TokenRecord {
            verifier: token.key().public(),
            pin: authority,
            suffrage,
            uses,
            uses_left: uses,
            not_after: self.now().plus_secs(ttl_secs),
            name,
            hosts,
            role,
            attributes,
            revoked: false,
            cluster_token: false,
        };
        Ok((token, record))
    }

    fn created(&self, token: JoinToken, record: TokenRecord) -> CreatedToken {
        let join_addr = self.parts.endpoints.advertised().into_iter().next();
        CreatedToken { token, record, join_addr }
    }
}

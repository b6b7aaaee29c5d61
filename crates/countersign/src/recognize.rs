//! Recognizing the cluster: this member's signatures under what the cluster becomes, its answers to members that were away,
//! and its own questions when it was.

use bytes::Bytes;
use countersign_api::cluster::{ViewReply, ViewRequest};
use countersign_core::codec;
use countersign_core::trust::command::Command;
use countersign_core::trust::recognition::Shown;
use tonic::Status;

use crate::member::Inner;
use crate::propose::CommandError;

impl Inner {
    /// Signs the first statement that lacks this member's signature and awaits it.
    pub(crate) async fn sign_statement(&self) -> Result<bool, CommandError> {
        let statement = self.state.read().to_sign(self.node).cloned();
        let Some(statement) = statement else { return Ok(false) };
        let signature = self.keys.identity.sign(&statement.transcript());
        let command = Command::SignStatement { number: statement.number, node: self.node, signature };
        self.command(command, &[]).await?;
        Ok(true)
    }

    /// What this member knows that whoever asks does not: for anybody, lease or not, so that a cold cluster does not wait for
    /// itself.
    pub(crate) fn show(&self, request: &ViewRequest) -> Result<ViewReply, Status> {
        if request.nonce.is_empty() {
            return Ok(ViewReply::default());
        }
        let nonce =
            request.nonce.as_ref().try_into().map_err(|_| Status::invalid_argument("nonce of another length"))?;
        let state = self.state.read();
        let view = state.view().ok_or_else(|| Status::unavailable("nothing is known here yet"))?;
        let newest = state.newest_shown().unwrap_or(&view.statement);
        let shown = Shown::of(self.node, newest);
        let chain = state.chain_after(request.known);
        let statements = chain.iter().filter_map(|signed| codec::encode(signed).ok()).map(Bytes::from).collect();
        Ok(ViewReply {
            node: self.node.0,
            statements,
            number: shown.number,
            digest: Bytes::copy_from_slice(&shown.digest),
            signature: Bytes::copy_from_slice(&shown.sign(&self.keys.identity, nonce)),
            ..ViewReply::default()
        })
    }
}

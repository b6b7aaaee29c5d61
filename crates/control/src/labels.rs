//! Roles and attributes in rules: given by an admin, never claimed by the principal that they describe.

use countersign_core::authz::label::LabelEdit;
use countersign_core::id::Generation;
use countersign_core::principal::Role;
use countersign_core::trust::command::{Command, Label};

use crate::{Control, ControlError};

impl Control {
    /// Edits a principal's role and attributes, in this order, all or none. Returns once this member decides by them,
    /// with their generation.
    ///
    /// # Errors
    /// [`ControlError::Command`]; [`ControlError::Behind`] if this member has not applied it in time.
    pub async fn label(&self, role: Role, edits: Vec<LabelEdit>) -> Result<Generation, ControlError> {
        let generation = self.carry_out(Command::Label(Label { role, edits })).await?;
        self.applied(generation).await?;
        Ok(generation)
    }
}

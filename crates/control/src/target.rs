//! The member that a text names. Whatever a member may be named by is asked here: the member that a request is judged
//! about must be the member that is acted on.

use countersign_core::id::NodeId;
use countersign_core::name::Name;
use countersign_core::trust::member::Member;
use countersign_core::trust::outcome::Refused;
use countersign_core::trust::view::View;
use countersign_node::CommandError;

use crate::{Control, ControlError};

/// The member of a name or, where no member has it as a name, of a number: a name may be a number, and is a name then.
pub fn named<'a>(view: &'a View, text: &str) -> Option<&'a Member> {
    let name = Name::parse(text).ok();
    let by_name = name.and_then(|name| view.members.named(&name));
    by_name.or_else(|| view.members.get(&NodeId(text.parse().ok()?)))
}

impl Control {
    /// The member of a name or, where no member has it as a name, of a number.
    ///
    /// # Errors
    /// [`ControlError::UnknownNode`], or that it was evicted.
    pub fn find(&self, text: &str) -> Result<NodeId, ControlError> {
        self.member(text).map(|member| member.id)
    }

    /// The record of that member.
    ///
    /// # Errors
    /// As [`Control::find`].
    pub fn member(&self, text: &str) -> Result<Member, ControlError> {
        let published = self.view();
        let state = self.parts.state.read();
        let view = state.view().unwrap_or(&published);
        if let Some(found) = named(view, text) {
            return Ok(found.clone());
        }
        let number = text.parse().ok().map(NodeId).filter(|id| view.evicted.contains_key(id));
        let name = Name::parse(text).ok().and_then(|name| view.evicted.named(&name));
        if let Some(id) = number.into_iter().chain(name).min() {
            return Err(CommandError::Refused(Refused::AlreadyEvicted(id)).into());
        }
        let known = view.members.scan().values().map(|member| member.name.clone()).collect();
        Err(ControlError::UnknownNode { text: text.to_owned(), known })
    }

    /// The member of a number, as it is now.
    pub(crate) fn target(&self, node: NodeId) -> Result<Member, ControlError> {
        let published = self.view();
        let state = self.parts.state.read();
        // Before its log is here, a member knows the others by the view that it was admitted under.
        let view = state.view().unwrap_or(&published);
        if let Some(member) = view.members.get(&node) {
            return Ok(member.clone());
        }
        let gone = view.evicted.contains_key(&node);
        let why = if gone { Refused::AlreadyEvicted(node) } else { Refused::NoSuchNode(node) };
        Err(CommandError::Refused(why).into())
    }
}

#[cfg(test)]
mod tests {
    use countersign_node::testing::founded;

    use super::*;

    #[tokio::test]
    async fn name_comes_before_a_number() {
        let data = tempfile::tempdir().unwrap();
        let running = founded(data.path()).await.unwrap();
        let mut odd = View::clone(&running.local.view());
        let member = odd.members[&NodeId(1)].clone();
        for (id, name) in [(2, "3"), (3, "n3")] {
            let (id, name) = (NodeId(id), Name::parse(name).unwrap());
            odd.members.insert(id, Member { id, name, ..member.clone() });
        }
        let id = |text: &str| named(&odd, text).map(|member| member.id.0);
        assert_eq!([id("3"), id("2"), id("n3"), id("1"), id("4")], [Some(2), Some(2), Some(3), Some(1), None]);
        running.shutdown().await;
    }
}

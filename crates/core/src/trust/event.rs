//! Events: what each change of the state was, as one line of JSON for people and programs.
//!
//! Every member makes the same line of the same entry, and the state chains their bytes ([`super::chain`]). So what an
//! event says changes only with the feature level. Names of events and fields are a contract (`docs/AUDIT.md`): fields
//! may be added, none is renamed. Nothing secret is in an event: no token's secret, no request's body, no certificate
//! request.

use super::author::Author;
use super::chain::{Head, line};
use super::command::Stamped;
use super::member::Leaf;
use super::outcome::Outcome;
use super::state::TrustState;
use crate::id::{Generation, NodeId};
use crate::json::Object;

/// A change that was applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Its place in the chain; the first is 1.
    pub number: u64,
    /// The head of the chain after it.
    pub head: Head,
    /// What happened, such as `node.evicted`.
    pub name: &'static str,
    /// The generation after it.
    pub generation: Generation,
    /// What changed, as JSON.
    pub details: String,
    chained: String,
}

impl Event {
    pub(super) fn new(number: u64, head: Head, text: Text) -> Self {
        let Text { name, generation, details, chained } = text;
        Self { number, head, name, generation, details, chained }
    }

    /// Its line in an events file, without the line feed; [`EVENT_LEN_MAX`](crate::limits::EVENT_LEN_MAX) bytes at
    /// most.
    pub fn line(&self) -> String {
        line(&self.chained, self.head)
    }
}

/// What an event says, before it is chained.
pub(super) struct Text {
    name: &'static str,
    generation: Generation,
    details: String,
    pub(super) chained: String,
}

/// What a command tells of itself: the name of its event, such as `node.evicted`, and the details.
pub(crate) type Account = (&'static str, Object);

/// What an event is made of: the command, its outcome, and the state after it.
pub(crate) struct Draft<'a> {
    pub(super) state: &'a TrustState,
    pub(super) stamped: &'a Stamped,
    pub(super) outcome: &'a Outcome,
}

impl Draft<'_> {
    pub(super) fn text(&self) -> Text {
        let (name, details) = self.stamped.command.operation().event(self);
        let generation = self.state.view().map_or(Generation(0), |view| view.generation);
        let shown = details.clone().end();
        let chained = Object::default()
            .number("number", self.state.chain().count().saturating_add(1))
            .number("time_millis", self.state.time().0)
            .number("generation", generation.0)
            .text("event", name)
            .object("author", author(&self.stamped.author))
            .object("details", details)
            .open();
        Text { name, generation, details: shown, chained }
    }

    /// A member, with its name if it has one.
    pub(crate) fn node(&self, node: NodeId) -> Object {
        let view = self.state.view();
        let member = view.and_then(|view| view.members.get(&node)).map(|member| &member.name);
        let name = member.or_else(|| view.and_then(|view| view.evicted.get(&node)).map(|evicted| &evicted.name));
        Object::default().number("node", node.0).maybe("name", name)
    }
}

/// A number of things, as an event tells it.
pub(crate) const fn count(n: usize) -> u64 {
    n as u64
}

fn author(author: &Author) -> Object {
    let Author { actor, taken_by, source, request } = author;
    Object::default().text("by", actor).number("taken_by", taken_by.0).maybe("source", *source).text("request", request)
}

/// Appends the certificate that a member has from now on.
pub(crate) fn leaf(details: Object, leaf: &Leaf) -> Object {
    let details = details.text("leaf", leaf.key).number("renewal", leaf.renewal);
    let details = details.text("serial", data_encoding::HEXLOWER.encode(&leaf.serial));
    let details = details.maybe("authority", leaf.issued.authority);
    let details = details.number("not_before_millis", leaf.validity.not_before.0);
    details.number("not_after_millis", leaf.validity.not_after.0)
}

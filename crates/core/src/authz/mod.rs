//! Who may do what: rules, and the one function that decides by them.
//!
//! [`decide`] is the decision. Everything that is faster or further away (compiled tables, caches, answers on the wire) must
//! agree with it, which property tests check against a search through all rules. Default deny; a deny wins over every allow
//! in whatever order they were made; what cannot be evaluated denies.
//!
//! Read [`rule`] for what a rule says, [`policy`] for where rules are kept, [`decide`] for how they count.

pub mod action;
mod affected;
pub mod change;
mod decide;
mod dry_run;
mod floor;
pub mod label;
pub mod policy;
pub mod resource;
pub mod role_expr;
pub mod rule;
pub mod subject;
pub mod text;

pub use action::{Action, ActionSet};
pub use affected::Affected;
pub use decide::{Decision, Question, Reason, decide};
pub use dry_run::Recorded;
pub use policy::{Group, Policy};
pub use resource::{Kind, NamePattern};
pub use role_expr::RoleExpr;
pub use rule::{Effect, PrincipalPattern, Requirement, Rule, RuleId};
pub use subject::Subject;

#[cfg(test)]
mod tests;

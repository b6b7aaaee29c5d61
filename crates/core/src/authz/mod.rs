//! Who may do what: rules, and the one function that decides by them.
//!
//! [`decide`] is the decision. Everything that is faster or further away (compiled tables, caches, answers on the wire)
//! must agree with it; property tests compare them with a search through all rules. The default is to deny. A deny wins
//! over every allow, in whatever order they were made. A rule that cannot be evaluated denies.
//!
//! Read [`rule`] for what a rule says, [`policy`] for where rules are kept, [`decide`] for how they count.
//! [`lint`](fn@lint), [`who_can`](fn@who_can) and [`dry_run`](fn@dry_run) are for people.

pub mod action;
mod affected;
mod bounded;
pub mod change;
mod decide;
mod dry_run;
mod floor;
pub mod label;
mod lint;
pub mod policy;
pub mod resource;
pub mod role_expr;
pub mod rule;
pub mod subject;
pub mod text;
mod who_can;

pub use action::{Action, ActionSet};
pub use affected::Affected;
pub use decide::{Decision, Question, Reason, decide};
pub use dry_run::{Flip, Recorded, dry_run};
pub use lint::{Finding, Lint, NeverWhy, lint};
pub use policy::{Group, Policy};
pub use resource::{Kind, NamePattern};
pub use role_expr::RoleExpr;
pub use rule::{Effect, PrincipalPattern, Requirement, Rule, RuleId};
pub use subject::Subject;
pub use who_can::{Access, who_can};

#[cfg(test)]
mod tests;

//! Rules and policies, short to write in a test. Each is read as the text of an operator is.

use countersign_core::authz::text::RuleText;
use countersign_core::authz::{Policy, Rule};

/// Allows one action. The resource is `KIND:NAME`, `KIND:PREFIX*`, or `KIND` for any of that kind.
pub fn rule(id: &str, principal: &str, action: &str, resource: &str) -> Rule {
    let text = RuleText {
        id: Some(id.to_owned()),
        principal: principal.to_owned(),
        actions: vec![action.to_owned()],
        ..RuleText::default()
    };
    let text = match (resource.contains(':'), resource.strip_suffix('*')) {
        (false, _) => RuleText { resource_any: Some(resource.to_owned()), ..text },
        (true, Some(prefix)) => RuleText { resource_prefix: Some(prefix.to_owned()), ..text },
        (true, None) => RuleText { resource: Some(resource.to_owned()), ..text },
    };
    text.rule().unwrap()
}

pub fn policy(super_users: &[&str], rules: impl IntoIterator<Item = Rule>) -> Policy {
    Policy::of(super_users.iter().map(|user| user.parse().unwrap()), rules)
}

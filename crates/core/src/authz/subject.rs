//! Who asks, as rules see it: the name that was proven, and the roles and attributes that an admission or an admin
//! gave.

use std::collections::BTreeSet;

use crate::principal::Role;
use crate::trust::member::Attributes;
use crate::trust::view::View;

/// The principal that asks. The view gave all of it; the principal claimed none of it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Subject {
    /// The principal without its trust domain, such as `client/pay`.
    pub name: String,
    /// Its roles, such as `Worker`.
    pub roles: BTreeSet<String>,
    /// Its attributes, such as `gpu=true`.
    pub attributes: Attributes,
}

impl Subject {
    /// The principal as the view knows it. An unknown principal has no roles.
    pub fn of(view: &View, principal: &Role) -> Self {
        let (role, attributes) = match principal {
            Role::Node(id) => match view.members.get(id) {
                Some(member) => (member.role.clone(), member.attributes.clone()),
                None => Default::default(),
            },
            Role::Broker(_) | Role::Client(_) | Role::Admin(_) => match view.labels.get(principal) {
                Some(labels) => (labels.role.clone(), labels.attributes.clone()),
                None => Default::default(),
            },
        };
        Self { name: principal.to_string(), roles: role.into_iter().collect(), attributes }
    }
}

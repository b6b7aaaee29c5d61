//! Roles and attributes of a broker, client or admin; a member has its own.

use serde::{Deserialize, Serialize};

use super::role_expr::is_word;
use crate::limits::ATTRIBUTES_MAX;
use crate::trust::member::Attributes;

/// What an admin said that a principal is.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Labels {
    /// Its role.
    pub role: Option<String>,
    /// Its attributes.
    pub attributes: Attributes,
}

/// One change of a role or an attribute.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LabelEdit {
    /// `role`, or an attribute's name.
    pub name: String,
    /// What it becomes; none removes it.
    pub value: Option<String>,
}

/// Why labels are not changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum LabelError {
    /// A word that no expression could spell.
    #[error("`{0}` cannot be a role, an attribute or its value: letters, digits, `-`, `_` and `.`, at most 63 of them")]
    Word(String),
    /// Too many attributes.
    #[error("at most {ATTRIBUTES_MAX} attributes are allowed")]
    TooMany,
}

impl Labels {
    /// Carries out all of `edits`, or none.
    pub fn edited(&self, edits: &[LabelEdit]) -> Result<Self, LabelError> {
        let mut labels = self.clone();
        for LabelEdit { name, value } in edits {
            if let Some(word) = [Some(name), value.as_ref()].into_iter().flatten().find(|word| !is_word(word)) {
                return Err(LabelError::Word(word.clone()));
            }
            match (name.as_str(), value) {
                ("role", value) => labels.role.clone_from(value),
                (_, Some(value)) => drop(labels.attributes.insert(name.clone(), value.clone())),
                (_, None) => drop(labels.attributes.remove(name)),
            }
        }
        if labels.attributes.len() > ATTRIBUTES_MAX { Err(LabelError::TooMany) } else { Ok(labels) }
    }

    /// Whether it says nothing.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edit(name: &str, value: Option<&str>) -> LabelEdit {
        LabelEdit { name: name.to_owned(), value: value.map(str::to_owned) }
    }

    #[test]
    fn edits_are_carried_out_together_or_not_at_all() {
        let labels = Labels::default().edited(&[edit("role", Some("Worker")), edit("gpu", Some("true"))]).unwrap();
        assert_eq!((labels.role.as_deref(), labels.attributes["gpu"].as_str()), (Some("Worker"), "true"));
        let none = labels.edited(&[edit("role", None), edit("gpu", None), edit("absent", None)]).unwrap();
        assert!(none.is_empty());
        for (name, value) in [("", Some("x")), ("a b", Some("x")), ("a", Some("")), ("a=b", None), ("a", Some("]"))] {
            let refused = labels.edited(&[edit("gpu", None), edit(name, value)]);
            assert!(matches!(refused, Err(LabelError::Word(_))), "{name} {value:?}");
        }
    }

    #[test]
    fn attributes_are_bounded() {
        let edits = |n: usize| (0..n).map(|i| edit(&format!("a{i}"), Some("1"))).collect::<Vec<_>>();
        assert!(Labels::default().edited(&edits(ATTRIBUTES_MAX)).is_ok());
        assert_eq!(Labels::default().edited(&edits(ATTRIBUTES_MAX + 1)), Err(LabelError::TooMany));
    }
}

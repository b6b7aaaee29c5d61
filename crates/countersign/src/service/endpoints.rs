//! How each method of ours on the cluster port is authorized.

/// Methods on the service protocol that need no rule: what they do concerns whoever calls them alone.
pub(super) const WITHOUT_RULE: [&str; 1] = ["/countersign.v1.Certificates/Renew"];

//! How each method of ours on the cluster port is authorized.

/// Methods on the service protocol that no rule about `service` opens: what renewing does concerns whoever calls it alone, and
/// whoever is told the rules must be let `read` the cluster's `policy`, which is asked all the while.
pub(super) const WITHOUT_RULE: [&str; 3] =
    ["/countersign.v1.Certificates/Renew", "/countersign.v1.Policy/Watch", "/countersign.v1.Policy/Fetch"];

//! How calls of the cluster port are authorized, and the calls of no capability. Each capability has a table of its
//! own. A call that is in no table belongs to an embedder's service, and the policy decides it.

use core::fmt;

use crate::capabilities::CALLS;

/// How a call is authorized.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CallAccess {
    /// By what the call itself proves: no certificate is asked for.
    Proof(&'static str),
    /// By membership alone: no rule can name it, or a wrong policy could stop the cluster that has to mend it.
    Membership,
    /// For any caller, about its own certificate alone.
    Own,
    /// For a caller that may `read` the cluster's `policy`. The member asks this again during the call.
    ReadPolicy,
    /// For any caller: it tells whether the port serves.
    Open,
    /// By policy: `write` on the `service` of the call's full name.
    Policy,
}

impl fmt::Display for CallAccess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Proof(proof) => write!(f, "by {proof}"),
            Self::Membership => f.write_str("members"),
            Self::Own => f.write_str("its own certificate alone"),
            Self::ReadPolicy => f.write_str("read policy CLUSTER"),
            Self::Open => f.write_str("open"),
            Self::Policy => f.write_str("write service SERVICE/METHOD"),
        }
    }
}

/// A service, a method of it, and who may call it.
pub(crate) type Call = (&'static str, &'static str, CallAccess);

/// The calls of the trust group itself.
const TRUST_GROUP: &[Call] = &[
    ("countersign.v1.Raft", "Call", CallAccess::Membership),
    ("countersign.v1.Snapshots", "Install", CallAccess::Membership),
    ("countersign.v1.Members", "Propose", CallAccess::Membership),
    ("countersign.v1.Members", "AdminAddress", CallAccess::Membership),
    ("countersign.v1.Members", "Recent", CallAccess::Membership),
    ("countersign.v1.Members", "Revocations", CallAccess::Membership),
    ("countersign.v1.Members", "Guards", CallAccess::Membership),
];

/// Calls that need no capability.
const BESIDE: &[Call] = &[
    ("countersign.v1.Whoami", "Whoami", CallAccess::Policy),
    ("grpc.health.v1.Health", "Check", CallAccess::Open),
    ("grpc.health.v1.Health", "List", CallAccess::Open),
    ("grpc.health.v1.Health", "Watch", CallAccess::Open),
];

/// Every call.
fn calls() -> impl Iterator<Item = &'static Call> {
    let [enrollment, rest @ ..] = &CALLS;
    let all = [*enrollment, TRUST_GROUP].into_iter().chain(rest.iter().copied()).chain([BESIDE]);
    all.flatten()
}

/// Whether a call of this path, on the client port, goes on without a rule about `service`: what it does itself
/// asks for more. Whatever is not in the table needs a rule.
pub(super) fn without_rule(path: &str) -> bool {
    let named = path.strip_prefix('/').and_then(|path| path.split_once('/'));
    let known = calls().find(|(service, method, _)| named == Some((service, method)));
    known.is_some_and(|(_, _, access)| matches!(access, CallAccess::Own | CallAccess::ReadPolicy | CallAccess::Open))
}

/// Name and authorization of every call, for the tests that walk them.
#[doc(hidden)]
pub fn calls_for_testing() -> Vec<(String, String)> {
    calls().map(|(service, method, access)| (format!("{service}/{method}"), access.to_string())).collect()
}

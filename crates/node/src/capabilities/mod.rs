//! Capabilities: what a member does besides replicating the trust state. Each has a file with its calls, its services
//! and its tasks. A further one is added to `of` and to `CALLS`, and touches no other.

mod certificates;
mod enrollment;
mod leases;
mod policy;

use tonic::service::Routes;

use crate::node::Node;
use crate::service::endpoints::Call;
use crate::tasks::Tasks;

/// One capability of a member.
pub(crate) trait Capability: Send + Sync {
    /// Adds its services to those of the cluster port.
    fn serve(&self, services: &mut ClusterServices);

    /// Starts its tasks.
    fn start(&self, tasks: &Tasks);
}

/// The services of the cluster port, by the callers that they are for.
#[derive(Default)]
pub(crate) struct ClusterServices {
    /// For callers that proved nothing yet.
    pub(crate) unauthenticated: Routes,
    /// For members.
    pub(crate) members: Routes,
    /// For principals, behind the guard: the embedder's services are among them.
    pub(crate) principals: Routes,
}

/// The capabilities of a member.
pub(crate) fn of(node: &Node) -> [Box<dyn Capability>; 4] {
    [
        Box::new(enrollment::Enrollment::of(node)),
        Box::new(leases::Leases::of(node)),
        Box::new(certificates::Certificates::of(node)),
        Box::new(policy::RemoteGuards::of(node)),
    ]
}

/// Every call that the capabilities serve on the cluster port, with its authorization. What is served and stands in no
/// such table is refused: the tests of the port walk them.
pub(crate) const CALLS: [&[Call]; 4] = [enrollment::CALLS, leases::CALLS, certificates::CALLS, policy::CALLS];

//! For services of tonic 0.14.

use tonic::Status;

use crate::layer;
use crate::permit::Denial;

impl From<Denial> for Status {
    /// `PERMISSION_DENIED` where the rules say no, `UNAUTHENTICATED` where the cluster does not know the caller,
    /// `UNAVAILABLE` where this end cannot tell now. It does not name the rule.
    fn from(denial: Denial) -> Self {
        layer::status(&denial)
    }
}

//! The tables of the view: the records, with an index for each question that a command or a check asks. Encoded they
//! are maps by their first key; an index is made again when one is decoded.

mod groups;
mod members;
mod principals;

pub use groups::Groups;
pub use members::Members;
pub use principals::{IssuedKeys, Principals};

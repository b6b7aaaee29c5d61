//! A member of a cluster that knows its own, as a library.

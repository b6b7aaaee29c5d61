//! Authenticated connections between members: the acceptor, the dialer, live trust.

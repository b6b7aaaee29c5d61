//! X.509 for a cluster: keys, profiles, issuing, strict verification, sealing.

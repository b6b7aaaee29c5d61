//! Seeded simulation of the pure core with an adversary.

//! Tests of what a member decides by itself.

mod membership;
mod recognition;
mod renewal;
mod returning;

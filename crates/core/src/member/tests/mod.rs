//! Tests of what a member decides by itself.

mod membership;
mod renewal;

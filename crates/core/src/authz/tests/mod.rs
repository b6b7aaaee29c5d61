//! Tests of the decision, against a search through all rules, and of what changes and stores policies.

mod cases;
mod changes;
mod decision;
mod lint;
mod people;
mod stored;

//! Tests of the decision, against a search through all rules.

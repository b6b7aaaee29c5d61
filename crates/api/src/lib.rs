//! The schemas that members, clients and people speak.

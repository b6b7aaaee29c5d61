//! The page of results, written from a run and never by hand.

use std::fmt::Write;

use crate::report::Report;

const HEAD: &str = "\
# Benchmarks

Written by `cargo xtask bench` from one run. The contenders of a line take turns, many times over; each figure is a
median. Compare within a line only: the machine is shared, and absolute figures move with what else runs on it (expect
a quarter up or down).

";

const METHOD: &str = "
## How

- Handshakes and bytes: both ends on one thread, over loopback, so that a ratio compares the work of both ends and not
  the scheduler. The same certificates (Ed25519), provider (aws-lc-rs), key exchange (X25519MLKEM768) and cipher suite
  (AES-128-GCM) on both sides, no tickets. The bare peer verifies with rustls' own WebPKI verifiers and knows nothing of
  membership; it is done when both ends have finished TLS, ours when the dialer has read `Welcome` besides.
- Commits and enrollments: release processes of `countersign server` on loopback, everything fsynced, clients in the
  measuring process on the same cores. etcd runs without TLS, which favours it.
- Evictions and revocations: release processes as above, three voters; a fourth process is admitted and evicted in each
  round. Times are from the request to the last closed connection: by the receipts of the three (one host, one clock)
  for a node, by the client's own sockets for a client.
- Authorizations: contenders take turns on one thread, 0.2 ms each, 61 rounds; the floor is a table written by hand in
  the bench, with one generation compared, one byte loaded and one bit tested. It and ours are bound by the loop that
  asks, so instructions are counted too. Casbin and Cedar decide by the same rules, as far as they can say them.
- Commands by size: a state is grown once and kept at each size; every sample applies one command to a copy of it, which
  shares all tables with the original, as readers hold them. So each sample is made at exactly its size, and copies what
  persistent tables must copy. Times are of the processor: other work on the machine does not count. `Admit` is applied
  to a state with one member less, since no member is admitted at 4,096. The bench is built with the feature
  `danger-scale-bench` of core, which raises `PRINCIPALS_MAX`; no member is.
- Isolation: three replicas in one process, each with a trust store and a bulk store as members have, all fsynced,
  over mutual TLS, with a connection for each store. Proposals are due at fixed times, and their time counts from then.
  The phases take turns. In the last phase the small proposals go to a second data group, which shares the bulk store.
- No line is a test: nothing passes or fails by time.
";

/// The whole page.
pub(crate) fn render(report: &Report, machine: &[(&str, String)]) -> String {
    let mut text = HEAD.to_owned();
    for (name, value) in machine {
        let _ = writeln!(text, "- {name}: {value}");
    }
    text.push('\n');
    text.push_str(&report.table());
    text.push_str(METHOD);
    text
}

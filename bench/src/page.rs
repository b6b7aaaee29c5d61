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

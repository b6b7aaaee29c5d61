//! Every key of the configuration: where it stands in the file, what it holds, and its flag. One table for file,
//! environment, flags, help and the effective configuration, so that they cannot disagree.

/// The log filter where none is configured. Raft's own engine tells of each lost message; the member tells of what
/// matters.
pub(crate) const LOG_DEFAULT: &str = "info,openraft=off";

/// What a key holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Any text.
    Text,
    /// One of these words.
    Word(&'static [&'static str]),
    /// A file or a directory; `~/` is the home directory.
    Path,
    /// A secret, or where it is.
    Secret,
    /// True or false.
    Flag,
    /// A whole number.
    Number,
    /// A span of time, such as `24h`.
    Span,
    /// One text, or several.
    List,
    /// Names, each with a list of texts.
    Table,
}

/// One key.
#[derive(Debug)]
pub(crate) struct Key {
    /// Its place in the file.
    pub(crate) path: &'static str,
    pub(crate) kind: Kind,
    /// Its flag, without the hyphens.
    pub(crate) flag: Option<&'static str>,
    /// What the flag's value is called, and what the flag does.
    pub(crate) help: (&'static str, &'static str),
    /// What holds where nothing is said.
    pub(crate) default: Option<&'static str>,
}

const fn key(path: &'static str, kind: Kind) -> Key {
    Key { path, kind, flag: None, help: ("", ""), default: None }
}

impl Key {
    const fn flag(mut self, flag: &'static str, value: &'static str, help: &'static str) -> Self {
        self.flag = Some(flag);
        self.help = (value, help);
        self
    }

    const fn or(mut self, default: &'static str) -> Self {
        self.default = Some(default);
        self
    }

    /// Its section in the file; empty at the top.
    pub(crate) fn section(&self) -> &'static str {
        self.path.rsplit_once('.').map_or("", |(section, _)| section)
    }

    /// Its name within the section.
    pub(crate) fn name(&self) -> &'static str {
        self.path.rsplit_once('.').map_or(self.path, |(_, name)| name)
    }

    /// Its variable: `COUNTERSIGN_SECTION_KEY`.
    pub(crate) fn variable(&self) -> String {
        format!("{VARIABLE_PREFIX}{}", self.path.replace('.', "_").to_uppercase())
    }

    /// Its file in a credentials directory, if it is a secret.
    pub(crate) fn credential(&self) -> Option<String> {
        (self.kind == Kind::Secret).then(|| self.path.replace(['.', '_'], "-"))
    }
}

/// What every variable of ours begins with.
pub(crate) const VARIABLE_PREFIX: &str = "COUNTERSIGN_";
/// The cluster port of a member that says nothing else.
pub(crate) const CLUSTER_ADDR: &str = "127.0.0.1:7100";

/// The key at a place in the file.
pub(crate) fn find(path: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.path == path)
}

/// Whether a section of this name, or one within it, has keys.
pub(crate) fn is_section(path: &str) -> bool {
    KEYS.iter().any(|key| key.section() == path || key.section().strip_prefix(path).is_some_and(|s| s.starts_with('.')))
}

/// The names nearest to a mistyped one, by the fewest edits; the first in the table among equals.
pub(crate) fn nearest(wanted: &str, among: impl IntoIterator<Item = String>) -> Option<(usize, String)> {
    let edits = |name: String| (strsim::damerau_levenshtein(wanted, &name), name);
    among.into_iter().map(edits).min_by_key(|(edits, _)| *edits)
}

/// All keys, in the order in which the effective configuration shows them.
pub(crate) const KEYS: &[Key] = &[
    key("data", Kind::Path).flag("data", "DIR", "The data directory [default: see below]"),
    key("log", Kind::Text).flag("log", "FILTER", "What to log, such as `info` or `countersign=debug`").or(LOG_DEFAULT),
    key("name", Kind::Text).flag("name", "NAME", "This node's name [default: the host's name]"),
    key("bootstrap", Kind::Flag).flag("bootstrap", "BOOL", "Make a new cluster on an empty data directory"),
    key("ca", Kind::Path).flag("ca", "DIR", "Make it on the authority in DIR/ca.pem and DIR/ca.key"),
    key("cluster_name", Kind::Text).flag("cluster-name", "NAME", "The new cluster's name [default: countersign]"),
    key("trust_domain", Kind::Text).flag(
        "trust-domain",
        "DOMAIN",
        "The new cluster's trust domain [default: from its name and id]",
    ),
    key("join_token", Kind::Secret).flag(
        "join-token",
        "TOKEN",
        "Join a cluster by this token: @FILE, - for standard input, or COUNTERSIGN_JOIN_TOKEN (other users of the host \
         can read an argument)",
    ),
    key("join_addr", Kind::Text).flag("join-addr", "HOST:PORT", "The cluster port of any of its members"),
    key("return_as_learner", Kind::Flag).flag(
        "return-as-learner",
        "BOOL",
        "Come back with a new store, as a learner, if this member's store is lost or other members refuse it; get \
         another certificate if that is lost",
    ),
    key("cluster_addr", Kind::Text)
        .flag("cluster-addr", "HOST:PORT", "Where the cluster port is bound; port 0 takes any that is free")
        .or(CLUSTER_ADDR),
    key("advertise_addr", Kind::List).flag(
        "advertise-addr",
        "HOST:PORT",
        "Where others reach the cluster port, can be repeated [default: the bound address]",
    ),
    key("https_addr", Kind::Text).flag(
        "https-addr",
        "HOST:PORT",
        "Where the HTTPS port is bound, usually 127.0.0.1:7101 [default: off]",
    ),
    key("https_cert", Kind::Path).flag("https-cert", "FILE", "Certificate chain of the HTTPS port, PEM"),
    key("https_key", Kind::Path).flag("https-key", "FILE", "Private key of the HTTPS port, PEM"),
    key("https_behind_proxy", Kind::Text).flag(
        "https-behind-proxy",
        "CIDR",
        "The TLS-terminating proxy before the HTTPS port",
    ),
    key("client_addr", Kind::Text).flag(
        "client-addr",
        "HOST:PORT",
        "Where the client port is bound, or `none` [default: beside the cluster port, two ports above it]",
    ),
    key("client_advertise", Kind::Text).flag(
        "client-advertise",
        "HOST:PORT",
        "Where clients reach the client port, which this node's certificate must name [default: the first advertised \
         host, at the bound port]",
    ),
    key("certificates", Kind::Word(&["per-node", "shared"]))
        .flag(
            "certificates",
            "MODE",
            "Each node's own certificate: per-node; or one for all: shared (not in this version)",
        )
        .or("per-node"),
    key("repin", Kind::Text).flag("repin", "SHA256", "Trust this authority on a directory that knows no chain to it"),
    key("https.names", Kind::List),
    key("network.tls.enabled", Kind::Flag),
    key("network.tls.ca_cert_path", Kind::Path),
    key("network.tls.server_cert_path", Kind::Path),
    key("network.tls.server_key_path", Kind::Path),
    key("cluster.token.uses", Kind::Number).or("32"),
    key("cluster.token.ttl", Kind::Span).or("7d"),
    key("cluster.token.role", Kind::Word(&["learner", "voter"])).or("learner"),
    key("cluster.inter_broker_tls.enabled", Kind::Flag).flag(
        "inter-broker-tls-enabled",
        "BOOL",
        "Use certificates made elsewhere between nodes",
    ),
    key("cluster.inter_broker_tls.cert", Kind::Path).flag("inter-broker-tls-cert", "FILE", "This node's chain, PEM"),
    key("cluster.inter_broker_tls.key", Kind::Path).flag("inter-broker-tls-key", "FILE", "This node's key, PEM"),
    key("cluster.inter_broker_tls.ca", Kind::Path).flag("inter-broker-tls-ca", "FILE", "The authority, PEM"),
    key("cluster.authentication.enabled", Kind::Flag),
    key("cluster.authentication.mode", Kind::Word(&["mtls", "ucan", "mtls_ucan"])).or("mtls"),
    key("cluster.authentication.ca_cert_path", Kind::Path),
    key("cluster.authentication.node_cert_path", Kind::Path),
    key("cluster.authentication.node_key_path", Kind::Path),
    key("cluster.authentication.ucan_key_path", Kind::Path),
    key("cluster.authentication.generate_certs_if_missing", Kind::Flag),
    key("cluster.authentication.token_secret", Kind::Secret),
    key("cluster.authentication.required_capabilities", Kind::Table),
    key("cluster.authentication.principal_mapping", Kind::List),
    key("cluster.authentication.enforce", Kind::Word(&["observe", "warn", "enforce"])).or("enforce"),
    key("cluster.authentication.danger_plaintext_until", Kind::Text),
    key("cluster.auth.enabled", Kind::Flag).flag(
        "cluster-auth-enabled",
        "BOOL",
        "Authenticate replicas by a pre-shared key",
    ),
    key("cluster.auth.shared_secret", Kind::Secret).flag(
        "cluster-auth-shared-secret",
        "SECRET",
        "The pre-shared key: @FILE or - for standard input (not in this version)",
    ),
    key("cluster.auth.previous_shared_secret", Kind::Secret),
    key("cluster.auth.integrity", Kind::Word(&["sealed", "mac", "hmac", "plain"])).or("sealed"),
    key("cluster.auth.danger_foreign_secret", Kind::Flag),
    key("cluster.auth.seed_roster", Kind::Path).flag(
        "seed-roster",
        "FILE",
        "The replicas of the first start (not in this version)",
    ),
    key("cluster.auth.seed_index", Kind::Number).flag("seed-index", "N", "Which of them this is (not in this version)"),
    key("trust.lease_secs", Kind::Number).or("10"),
    key("trust.skew_secs", Kind::Number).or("60"),
    key("acl.cache_ttl_secs", Kind::Number).or("300"),
    key("limits.connections_per_client", Kind::Number).or("64"),
    key("limits.requests_per_client", Kind::Number).or("256"),
    key("limits.streams_per_connection", Kind::Number).or("128"),
    key("limits.unread_bytes_per_connection", Kind::Number).or("524288"),
    key("pki.node_ttl", Kind::Span).or("24h"),
    key("pki.client_ttl", Kind::Span).or("90d"),
    key("pki.shared_ttl", Kind::Span),
    key("pki.ca_ttl", Kind::Span).or("10y"),
    key("pki.key", Kind::Word(&["p256", "ed25519"])).or("p256"),
];

/// The sections that are off as a whole with `enabled = false`.
pub(crate) const SWITCHED: [&str; 4] =
    ["network.tls", "cluster.inter_broker_tls", "cluster.authentication", "cluster.auth"];

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn no_two_keys_share_a_place_a_variable_or_a_flag() {
        let distinct = |names: Vec<String>| {
            let set: BTreeSet<_> = names.iter().cloned().collect();
            assert_eq!(set.len(), names.len());
        };
        distinct(KEYS.iter().map(|key| key.path.to_owned()).collect());
        distinct(KEYS.iter().map(Key::variable).collect());
        distinct(KEYS.iter().filter_map(|key| key.flag.map(str::to_owned)).collect());
    }

    #[test]
    fn sections_and_names_are_parts_of_the_path() {
        let key = find("cluster.auth.shared_secret").unwrap();
        assert_eq!((key.section(), key.name()), ("cluster.auth", "shared_secret"));
        assert_eq!(key.variable(), "COUNTERSIGN_CLUSTER_AUTH_SHARED_SECRET");
        assert_eq!(key.credential().unwrap(), "cluster-auth-shared-secret");
        assert_eq!(find("data").unwrap().section(), "");
        for (section, expected) in [("cluster", true), ("cluster.auth", true), ("cluster.au", false), ("data", false)] {
            assert_eq!(is_section(section), expected, "{section}");
        }
    }
}

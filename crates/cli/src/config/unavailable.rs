//! Settings whose feature is not in this version. They parse, so that a configuration can be written ahead. A start
//! with one is refused by name, so that no operator believes in a protection that is not there.

use crate::config::checked::Settings;

/// Settings that are refused whatever they say.
const WHATEVER: [&str; 8] = [
    "network.tls.enabled",
    "https_behind_proxy",
    "repin",
    "cluster.auth.enabled",
    "cluster.authentication.ucan_key_path",
    "cluster.authentication.token_secret",
    "cluster.authentication.danger_plaintext_until",
    "pki.shared_ttl",
];

/// Settings that are refused unless they say what this version does anyway.
const UNLESS: [(&str, &str); 5] = [
    ("certificates", "per-node"),
    ("cluster.authentication.mode", "mtls"),
    ("cluster.authentication.enforce", "enforce"),
    ("trust.skew_secs", "60"),
    ("pki.ca_ttl", "10y"),
];

/// Whether a key is refused whatever it says.
pub(crate) fn is_unavailable(path: &str) -> bool {
    WHATEVER.contains(&path)
}

/// What of the settings is not available, as it was written.
pub(crate) fn unavailable(settings: &Settings) -> Vec<String> {
    let whatever = WHATEVER.iter().filter_map(|path| settings.find(path)).map(|setting| setting.written());
    let unless = UNLESS.iter().filter_map(|(path, same)| {
        let setting = settings.find(path)?;
        let said = setting.value.to_toml();
        let said = said.as_str().map_or_else(|| said.to_string(), str::to_owned);
        (said != *same).then(|| format!("{} = {said}", setting.written()))
    });
    whatever.chain(unless).collect()
}

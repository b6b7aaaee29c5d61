//! The sections that hold certificates and secrets: each is whole, or off, or refused with what is missing. Half of a
//! section never means less security (CVE-2019-9764, CVE-2024-1351: an option left unset turned verification off).

use countersign::{FilesMode, RULE_DEFAULT, Rules};

use crate::config::checked::{CheckError, Settings};
use crate::config::schema::{KEYS, SWITCHED};

const BROKER_TLS: [&str; 3] =
    ["cluster.inter_broker_tls.cert", "cluster.inter_broker_tls.key", "cluster.inter_broker_tls.ca"];
const AUTHENTICATION: [&str; 3] = [
    "cluster.authentication.node_cert_path",
    "cluster.authentication.node_key_path",
    "cluster.authentication.ca_cert_path",
];
const MAPPING: &str = "cluster.authentication.principal_mapping";
const NETWORK_TLS: [&str; 3] =
    ["network.tls.server_cert_path", "network.tls.server_key_path", "network.tls.ca_cert_path"];

/// Checks that no section is there by halves, and that no two of them contradict each other. What remains are the files
/// of a node whose certificate is made elsewhere.
pub(crate) fn check(settings: &Settings) -> Result<Option<FilesMode>, CheckError> {
    for section in SWITCHED {
        let switch = format!("{section}.enabled");
        let first = KEYS.iter().filter(|key| key.section() == section).find_map(|key| settings.find(key.path));
        match first {
            Some(setting) if settings.find(&switch).is_none() => {
                return Err(settings.missing(&setting.written(), &[switch.as_str()]));
            }
            _ => {}
        }
    }
    let on = |section: &str| settings.flag(&format!("{section}.enabled"));
    let (broker_tls, authentication) = (on("cluster.inter_broker_tls"), on("cluster.authentication"));
    if on("cluster.auth") {
        require_all(settings, "cluster.auth.enabled", &["cluster.auth.shared_secret"])?;
    }
    if on("network.tls") {
        require_all(settings, "network.tls.enabled", &NETWORK_TLS)?;
    }
    if broker_tls {
        require_all(settings, "cluster.inter_broker_tls.enabled", &BROKER_TLS)?;
    }
    // Without any file, `mtls` is what the cluster does anyway, with certificates of its own.
    let given = AUTHENTICATION.iter().find_map(|path| settings.find(path));
    if let Some(setting) = given {
        require_all(settings, setting.key.path, &AUTHENTICATION)?;
    }
    if authentication && on("cluster.auth") {
        return Err(settings.excluded("cluster.authentication.enabled", "cluster.auth.enabled"));
    }
    if broker_tls && on("cluster.auth") {
        return Err(settings.excluded("cluster.inter_broker_tls.enabled", "cluster.auth.enabled"));
    }
    if let Some(setting) = given.filter(|_| broker_tls) {
        return Err(settings.excluded("cluster.inter_broker_tls.cert", setting.key.path));
    }
    let [cert, key, ca] = if broker_tls { BROKER_TLS } else { AUTHENTICATION };
    let first = cert;
    let (Some(cert), Some(key), Some(ca)) = (settings.path(cert), settings.path(key), settings.path(ca)) else {
        return match settings.find(MAPPING) {
            Some(setting) => Err(settings.missing(&setting.written(), &AUTHENTICATION)),
            None => Ok(None),
        };
    };
    if settings.find("ca").is_some() {
        return Err(settings.excluded("ca", first));
    }
    let rules = settings.list(MAPPING);
    let mapping = if rules.is_empty() { Rules::parse(&[RULE_DEFAULT]) } else { Rules::parse(&rules) }?;
    Ok(Some(FilesMode { cert, key, ca, mapping }))
}

fn require_all(settings: &Settings, by: &str, wanted: &[&str]) -> Result<(), CheckError> {
    let missing: Vec<&str> = wanted.iter().copied().filter(|path| settings.find(path).is_none()).collect();
    if missing.is_empty() { Ok(()) } else { Err(settings.missing(&settings.written(by), &missing)) }
}

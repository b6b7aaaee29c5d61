//! `countersign security`: authorities and certificates offline, on files.
//!
//! A member is never made here: nodes get their certificates by enrolling.

use std::path::{Path, PathBuf};

use countersign_core::id::AuthorityId;
use countersign_core::name::Host;
use countersign_core::principal::{Principal, Role, TrustDomain};
use countersign_core::time::{UnixMillis, Validity};
use countersign_pki::authority::{Authority, AuthorityParts, authority_info, backdated};
use countersign_pki::offline::{self, Made, MakeRequest, make_authority, make_certificate};
use countersign_pki::pem::{certificate_pem, certificates_from_pem};
use data_encoding::HEXLOWER;

use crate::args::{CaCreate, CaVerb, CertCreate, CertsVerb, Security, SecurityVerb};
use crate::failure::{Failure, chain};
use crate::files::{NewFile, Readers, check_absent, read_private, read_text, write};
use crate::output::{Output, at_secs, now_secs};

const CA_CERTIFICATE: &str = "ca.pem";
const CA_KEY: &str = "ca.key";

pub(super) fn run(args: Security, output: Output) -> Result<(), Failure> {
    let made = match args.verb {
        SecurityVerb::Ca { verb: CaVerb::Create(args) } => create_authority(&args)?,
        SecurityVerb::Certs { verb: CertsVerb::CreateBroker(args) } => {
            let hosts = args.hosts.iter().cloned().map(Host::Dns);
            let addresses = args.ips.iter().map(|ip| Host::Ip(ip.to_canonical()));
            let Some(first) = args.hosts.first() else {
                return Err(Failure::usage("`--host` is missing", "add --host HOST"));
            };
            let hosts: Vec<Host> = hosts.chain(addresses).collect();
            create_certificate(&args.cert, Role::Broker(first.clone()), &hosts, "broker")?
        }
        SecurityVerb::Certs { verb: CertsVerb::CreateClient(args) } => {
            let file = args.principal.to_string();
            create_certificate(&args.cert, Role::Client(args.principal), &[], &file)?
        }
    };
    output.show(&made, |text| {
        text.fields(&[
            ("principal", made.principal.clone()),
            ("certificate", made.certificate_file.display().to_string()),
            ("key", made.key_file.display().to_string()),
            ("authority", made.authority.clone()),
            ("expires", at_secs(made.not_after, now_secs())),
        ]);
    })
}

/// The files written.
#[derive(serde::Serialize)]
struct Written {
    /// The principal, or the trust domain of an authority.
    principal: String,
    certificate_file: PathBuf,
    key_file: PathBuf,
    /// SHA-256 of the authority's certificate.
    authority: String,
    not_after: u64,
}

fn create_authority(args: &CaCreate) -> Result<Written, Failure> {
    let (certificate_file, key_file) = (args.out.join(CA_CERTIFICATE), args.out.join(CA_KEY));
    check_absent([certificate_file.as_path(), key_file.as_path()], args.force)?;
    let trust_domain = match &args.trust_domain {
        Some(domain) => domain.clone(),
        None => random_trust_domain()?,
    };
    let validity = backdated(UnixMillis::from_secs(now_secs()), args.ttl);
    let parts = AuthorityParts {
        common_name: "countersign authority",
        trust_domain: &trust_domain,
        cluster: None,
        serial: random()?,
        validity,
    };
    let made = make_authority(args.key, &parts).map_err(|error| cannot_make(&error))?;
    store(&made, &made.certificate_pem, &certificate_file, &key_file, args.force)?;
    Ok(Written {
        principal: format!("spiffe://{trust_domain}"),
        certificate_file,
        key_file,
        authority: id_of(&made.certificate_pem),
        not_after: validity.not_after.secs(),
    })
}

fn create_certificate(args: &CertCreate, role: Role, hosts: &[Host], file: &str) -> Result<Written, Failure> {
    let (certificate_file, key_file) = (args.out.join(format!("{file}.pem")), args.out.join(format!("{file}.key")));
    check_absent([certificate_file.as_path(), key_file.as_path()], args.force)?;
    let authority = load_authority(&args.ca)?;
    let info = authority_info(authority.certificate()).map_err(|error| cannot_make(&error))?;
    let trust_domain = match (info.trust_domain, &args.trust_domain) {
        (Some(named), Some(asked)) if named != *asked => {
            let reason = format!("`--trust-domain {asked}`: the authority is of trust domain `{named}`");
            return Err(Failure::usage(reason, "leave --trust-domain out, or name another authority with --ca"));
        }
        (Some(domain), _) => domain,
        (None, Some(domain)) => domain.clone(),
        (None, None) => {
            return Err(Failure::usage(
                "the authority's certificate names no trust domain",
                "add --trust-domain DOMAIN",
            ));
        }
    };
    let now = UnixMillis::from_secs(now_secs());
    if !info.validity.contains(now) {
        return Err(Failure::usage(
            format!("the authority in `{}` is not valid now", args.ca.display()),
            "make another with `countersign security ca create`, or check this host's clock",
        ));
    }
    // A certificate that outlives its authority would promise a time in which no verifier accepts it.
    let wanted = backdated(now, args.ttl);
    let validity = Validity { not_after: wanted.not_after.min(info.validity.not_after), ..wanted };
    let principal = Principal { trust_domain, role };
    let request = MakeRequest { principal: &principal, hosts, serial: random()?, validity };
    let made = make_certificate(&authority, args.key, &request).map_err(|error| cannot_make(&error))?;
    let chain = [made.certificate_pem.as_str(), &certificate_pem(authority.certificate())].concat();
    store(&made, &chain, &certificate_file, &key_file, args.force)?;
    Ok(Written {
        principal: principal.to_string(),
        certificate_file,
        key_file,
        authority: authority.id().to_string(),
        not_after: validity.not_after.secs(),
    })
}

/// Reads an authority from `ca.pem` and `ca.key`.
fn load_authority(directory: &Path) -> Result<Authority, Failure> {
    let next = "name the directory with --ca, or make an authority with `countersign security ca create`";
    let certificate = read_text(&directory.join(CA_CERTIFICATE), next)?;
    let key = read_private(&directory.join(CA_KEY), next)?;
    offline::load_authority(&certificate, &key).map_err(|error| {
        Failure::usage(format!("authority in `{}` cannot be used: {}", directory.display(), chain(&error)), next)
    })
}

/// The key first: a certificate without its key is of no use.
fn store(made: &Made, chain: &str, chain_file: &Path, key_file: &Path, force: bool) -> Result<(), Failure> {
    let key = made.key_pem.expose().as_bytes();
    write(&NewFile { path: key_file.to_owned(), content: key, readers: Readers::Owner }, force)?;
    write(&NewFile { path: chain_file.to_owned(), content: chain.as_bytes(), readers: Readers::All }, force)
}

fn id_of(pem: &str) -> String {
    let der = certificates_from_pem(pem).ok().and_then(|found| found.into_iter().next());
    der.map_or_else(String::new, |der| AuthorityId::of_certificate(&der).to_string())
}

/// Two authorities made without a name stay apart.
fn random_trust_domain() -> Result<TrustDomain, Failure> {
    let [a, b, c, d, ..] = random()?;
    let text = format!("countersign-{}.internal", HEXLOWER.encode(&[a, b, c, d]));
    TrustDomain::parse(&text).map_err(|error| cannot_make(&error))
}

fn random() -> Result<[u8; 16], Failure> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|error| cannot_make(&error))?;
    Ok(bytes)
}

fn cannot_make(error: &dyn std::error::Error) -> Failure {
    Failure::usage(format!("certificate cannot be made: {}", chain(error)), "correct it, and try again")
}

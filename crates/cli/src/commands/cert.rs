//! `countersign cert`: certificates of clients, brokers and admins. The key is made here and never leaves this host.

use std::path::Path;

use countersign_api::admin::{CertificateInfo, CertificateIssued, CertificateRequest, CertificateRevoked};
use countersign_core::id::KeyId;
use countersign_core::principal::Role;
use countersign_pki::csr::{create_csr, csr_pem};
use countersign_pki::key::KeyPair;

use crate::admin_client::AdminClient;
use crate::args::{Cert, CertIssue, CertVerb};
use crate::commands::enforcement::{Change, complete, enforced, waiting};
use crate::commands::renew;
use crate::failure::{Failure, chain};
use crate::files::{NewFile, Readers, check_absent, write};
use crate::output::{Output, at_secs, by, now_millis, now_secs, or_dash};

pub(super) async fn run(args: Cert, output: Output) -> Result<(), Failure> {
    let client = || AdminClient::to(&args.target);
    match args.verb {
        CertVerb::Issue(issue) => {
            let role = role(&issue)?;
            issue_certificate(&client()?, &issue, &role, output).await
        }
        CertVerb::Renew(renew) => renew::run(&args.target, &renew, output).await,
        CertVerb::List => {
            let list: Vec<CertificateInfo> = client()?.get("/v1/certificates").await?;
            output.show(&list, |text| {
                text.table(
                    &["PRINCIPAL", "KEY", "EXPIRES", "STATE", "ISSUED FOR", "ISSUED", "AUTHORITY"],
                    list.iter().map(|info| {
                        let state = if info.revoked { "revoked" } else { "valid" };
                        vec![
                            info.principal.clone(),
                            info.key.clone(),
                            at_secs(info.not_after, now_secs()),
                            state.to_owned(),
                            by(&info.issued.made),
                            at_secs(info.issued.made.at_millis / 1000, now_secs()),
                            or_dash(info.issued.authority.as_ref()),
                        ]
                    }),
                );
            })
        }
        CertVerb::Revoke { what } => revoke(&client()?, &what, output).await,
    }
}

/// A key by its SHA-256, or a principal by its kind and name.
async fn revoke(client: &AdminClient, what: &str, output: Output) -> Result<(), Failure> {
    let path = match (KeyId::parse(what), Role::parse(what)) {
        (Some(key), _) => format!("/v1/certificates/{key}"),
        (None, Ok(Role::Node(node))) => {
            let reason = format!("`{what}`: certificates of nodes are not revoked, a node is evicted");
            return Err(Failure::usage(reason, format!("countersign node evict {node}")));
        }
        (None, Ok(role)) => format!("/v1/principals/{role}"),
        (None, Err(_)) => {
            return Err(Failure::usage(
                format!("`{what}` is no SHA-256 of a key and no principal"),
                "give the 64 hexadecimal digits that `countersign cert list` shows, or client/NAME, broker/HOST or \
                 admin/NAME",
            ));
        }
    };
    let asked = waiting(client, client.delete_patiently(&path), Change::Refusal, output);
    let revoked: CertificateRevoked = asked.await?;
    output.show(&revoked, |text| {
        let whose = revoked.principal.as_ref().map(|principal| format!(" of {principal}"));
        let what = match (&revoked.key, &revoked.principal) {
            (Some(key), _) => format!("key {key}{}", whose.unwrap_or_default()),
            (None, Some(principal)) => principal.clone(),
            (None, None) => what.to_owned(),
        };
        let before = if revoked.keys == 0 { ", as before" } else { "" };
        let keys = match (&revoked.key, revoked.keys) {
            (Some(_), _) => String::new(),
            (None, 1) => " with its key".to_owned(),
            (None, keys) => format!(" with its {keys} keys"),
        };
        text.line(&format!("{what} is refused{keys}{before}, generation {}", revoked.enforcement.generation));
        enforced(text, &revoked.enforcement, Change::Refusal, now_millis());
    })?;
    complete(what, &revoked.enforcement, Change::Refusal)
}

/// The holder of a certificate, and the names of its files.
struct Holder {
    role: Role,
    name: String,
}

fn role(issue: &CertIssue) -> Result<Holder, Failure> {
    let kinds = [("client", &issue.client), ("broker", &issue.broker), ("admin", &issue.admin)];
    let given = kinds.into_iter().find_map(|(kind, name)| name.as_ref().map(|name| (kind, name)));
    let (kind, name) = given
        .ok_or_else(|| Failure::usage("no principal is named", "add --client NAME, --broker HOST or --admin NAME"))?;
    let role = Role::parse(&format!("{kind}/{name}")).map_err(|reason| {
        Failure::usage(format!("`--{kind} {name}`: {reason}"), "use lower-case letters, digits and hyphens")
    })?;
    Ok(Holder { role, name: name.clone() })
}

#[derive(serde::Serialize)]
struct Issued<'a> {
    principal: &'a str,
    key: &'a str,
    not_after: u64,
    certificate_file: &'a Path,
    key_file: &'a Path,
    ca_file: &'a Path,
}

async fn issue_certificate(
    client: &AdminClient,
    args: &CertIssue,
    holder: &Holder,
    output: Output,
) -> Result<(), Failure> {
    let file = |name: String| args.out.join(name);
    let (chain_file, key_file) = (file(format!("{}.pem", holder.name)), file(format!("{}.key", holder.name)));
    let ca_file = file("ca.pem".to_owned());
    check_absent([chain_file.as_path(), key_file.as_path()], args.force)?;
    let failed = |why: String| Failure::unreachable(why, "try again");
    let key = KeyPair::generate(args.key).map_err(|error| failed(chain(&error)))?;
    let csr = create_csr(&key).map_err(|error| failed(chain(&error)))?;
    let pem = key.to_pem().map_err(|error| failed(chain(&error)))?;
    let request = CertificateRequest { role: holder.role.to_string(), ttl_secs: args.ttl, csr: csr_pem(&csr) };
    let issued: CertificateIssued = client.post("/v1/certificates", &request).await?;
    if issued.key != key.id().to_string() {
        return Err(failed("the issued certificate is of another key".to_owned()));
    }
    let private = |path: &Path, content: &[u8]| {
        write(&NewFile { path: path.to_owned(), content, readers: Readers::Owner }, args.force)
    };
    let public = |path: &Path, content: &str, force: bool| {
        write(&NewFile { path: path.to_owned(), content: content.as_bytes(), readers: Readers::All }, force)
    };
    private(&key_file, pem.expose().as_bytes())?;
    public(&chain_file, &issued.chain, args.force)?;
    // Several certificates of one cluster share a directory; another cluster's authority is not replaced unasked.
    if std::fs::read(&ca_file).ok().as_deref() != Some(issued.authority.as_bytes()) {
        public(&ca_file, &issued.authority, args.force)?;
    }
    let (certificate_file, key_file, ca_file) = (chain_file.as_path(), key_file.as_path(), ca_file.as_path());
    let rendered = Issued {
        principal: &issued.principal,
        key: &issued.key,
        not_after: issued.not_after,
        certificate_file,
        key_file,
        ca_file,
    };
    output.show(&rendered, |text| {
        text.fields(&[
            ("principal", issued.principal.clone()),
            ("certificate", certificate_file.display().to_string()),
            ("key", key_file.display().to_string()),
            ("authority", ca_file.display().to_string()),
            ("expires", at_secs(issued.not_after, now_secs())),
        ]);
    })
}

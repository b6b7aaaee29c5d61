//! A certificate authority as others run one, and the files that it makes for nodes: `n1` to `n3` have theirs.

#![allow(dead_code, unreachable_pub)]

use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use countersign::{FilesMode, Rules};
use countersign_core::id::KeyId;
use countersign_core::name::Host;
use countersign_core::principal::{Principal, TrustDomain};
use countersign_core::time::{UnixMillis, Validity};
use countersign_net::{ClientDialer, Clock, Credential, SystemClock};
use countersign_pki::authority::AuthorityParts;
use countersign_pki::key::{KeyAlgorithm, KeyPair};
use countersign_pki::offline::{MakeRequest, load_authority, make_authority, make_certificate};
use countersign_pki::pem::certificates_from_pem;
use countersign_pki::verify::Bundle;
use tempfile::TempDir;

pub const RULES: [&str; 2] = [r"dns:(n[0-9])\.example\.org=node/$1", "uri"];

pub struct Elsewhere {
    files: TempDir,
    openssl: bool,
}

/// A client with a certificate made elsewhere.
pub struct Client {
    pub key: KeyId,
    pub credential: Arc<Credential>,
    pub dialer: ClientDialer,
}

impl Elsewhere {
    /// By `countersign security`'s functions.
    pub fn offline() -> Self {
        let elsewhere = Self { files: tempfile::tempdir().unwrap(), openssl: false };
        let domain = TrustDomain::parse("corp.example").unwrap();
        let parts = AuthorityParts {
            common_name: "corporate authority",
            trust_domain: &domain,
            cluster: None,
            serial: serial(),
            validity: days(100),
        };
        let made = make_authority(KeyAlgorithm::P256, &parts).unwrap();
        elsewhere.write("ca.pem", &made.certificate_pem);
        elsewhere.write("ca.key", made.key_pem.expose());
        elsewhere.with_nodes()
    }

    /// By the openssl command, if there is one.
    pub fn openssl() -> Option<Self> {
        Command::new("openssl").arg("version").stdout(Stdio::null()).status().ok()?;
        let elsewhere = Self { files: tempfile::tempdir().unwrap(), openssl: true };
        elsewhere.write(
            "ca.cnf",
            "[req]\ndistinguished_name=dn\nx509_extensions=v3\nprompt=no\n[dn]\nCN=Corporate CA\n[v3]\n\
             basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign,cRLSign\nsubjectKeyIdentifier=hash\n",
        );
        elsewhere.run("ecparam -name prime256v1 -genkey -noout -out ca.key");
        elsewhere.run("req -x509 -new -key ca.key -config ca.cnf -days 100 -out ca.pem");
        Some(elsewhere.with_nodes())
    }

    fn with_nodes(self) -> Self {
        for name in ["n1", "n2", "n3"] {
            self.make(name);
        }
        self
    }

    /// The files of this name, made before. `other/n1` is another certificate for the name n1.
    pub fn node(&self, name: &str) -> FilesMode {
        let file = name.replace('/', "-");
        FilesMode {
            cert: self.path(&format!("{file}.pem")),
            key: self.path(&format!("{file}.key")),
            ca: self.path("ca.pem"),
            mapping: Rules::parse(&RULES).unwrap(),
        }
    }

    /// Makes a certificate with a key of its own.
    pub fn make(&self, name: &str) -> FilesMode {
        let files = self.node(name);
        let label = name.rsplit('/').next().unwrap();
        if self.openssl {
            self.make_by_openssl(label);
        } else {
            self.make_by_hand(label, &files, days(60));
        }
        files
    }

    pub fn make_expired(&self, name: &str) -> FilesMode {
        let files = self.node(name);
        let now = SystemClock.now();
        let validity = Validity { not_before: now.minus_secs(7200), not_after: now.minus_secs(3600) };
        self.make_by_hand("n1", &files, validity);
        files
    }

    fn make_by_hand(&self, label: &str, files: &FilesMode, validity: Validity) {
        let hosts = [format!("{label}.example.org"), "127.0.0.1".to_owned()].map(|host| Host::parse(&host).unwrap());
        let principal = format!("spiffe://corp.example/broker/{label}.example.org");
        let (cert, key) = self.issue(&principal, &hosts, validity);
        fs::write(&files.cert, cert).unwrap();
        private(&files.key, &key);
    }

    fn make_by_openssl(&self, label: &str) {
        self.write(
            "leaf.cnf",
            &format!(
                "[req]\ndistinguished_name=dn\nprompt=no\n[dn]\nCN={label}\n[v3]\nbasicConstraints=CA:FALSE\n\
                 keyUsage=critical,digitalSignature\nextendedKeyUsage=serverAuth,clientAuth\n\
                 authorityKeyIdentifier=keyid\nsubjectAltName=DNS:{label}.example.org,IP:127.0.0.1\n"
            ),
        );
        self.run(&format!("ecparam -name prime256v1 -genkey -noout -out {label}.key"));
        private(&self.path(&format!("{label}.key")), &fs::read_to_string(self.path(&format!("{label}.key"))).unwrap());
        self.run(&format!("req -new -key {label}.key -config leaf.cnf -out {label}.csr"));
        self.run(&format!(
            "x509 -req -in {label}.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 60 -extfile leaf.cnf \
             -extensions v3 -out {label}.pem"
        ));
    }

    /// A client of the cluster in this trust domain.
    pub fn client(&self, role: &str, domain: TrustDomain) -> Client {
        let (cert, key) = self.issue(&format!("spiffe://{domain}/{role}"), &[], days(60));
        let key = KeyPair::from_pem(&key).unwrap();
        let chain = certificates_from_pem(&cert).unwrap();
        let credential = Arc::new(Credential::new(chain.iter().map(|der| der.to_vec()), &key).unwrap());
        let ca = certificates_from_pem(&fs::read_to_string(self.path("ca.pem")).unwrap()).unwrap();
        let bundle = Arc::new(Bundle::new([ca[0].as_ref()]).unwrap());
        let dialer = ClientDialer::new(bundle, domain, Arc::clone(&credential), Arc::new(SystemClock));
        Client { key: key.id(), credential, dialer }
    }

    fn issue(&self, principal: &str, hosts: &[Host], validity: Validity) -> (String, String) {
        let read = |name: &str| fs::read_to_string(self.path(name)).unwrap();
        let authority = load_authority(&read("ca.pem"), &read("ca.key")).unwrap();
        let principal = Principal::parse(principal).unwrap();
        let request = MakeRequest { principal: &principal, hosts, serial: serial(), validity };
        let made = make_certificate(&authority, KeyAlgorithm::P256, &request).unwrap();
        (made.certificate_pem, made.key_pem.expose().to_owned())
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.files.path().join(name)
    }

    pub fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    fn write(&self, name: &str, text: &str) {
        private(&self.path(name), text);
    }

    fn run(&self, arguments: &str) {
        let mut command = Command::new("openssl");
        let ended = command.args(arguments.split_whitespace()).current_dir(self.files.path()).output().unwrap();
        assert!(ended.status.success(), "{arguments}: {}", String::from_utf8_lossy(&ended.stderr));
    }
}

fn private(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

fn days(n: u64) -> Validity {
    let now: UnixMillis = SystemClock.now();
    Validity { not_before: now.minus_secs(60), not_after: now.plus_secs(n * 86_400) }
}

fn serial() -> [u8; 16] {
    let mut serial = [0; 16];
    getrandom::fill(&mut serial).unwrap();
    serial
}

/// Copies a directory of files and directories.
pub fn copy(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            fs::DirBuilder::new().mode(0o700).create(&target).unwrap();
            copy(&entry.path(), &target);
        } else if entry.file_type().unwrap().is_file() {
            fs::copy(entry.path(), &target).unwrap();
        }
    }
}

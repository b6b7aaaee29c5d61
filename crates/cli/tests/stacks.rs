//! Other X.509 and TLS stacks take what we make: Go, Java, GnuTLS, NSS, OpenSSL and Python read certificates and
//! requests, and BoringSSL, which browsers and gRPC bring, speaks to the HTTPS port. None is skipped: `.ci/run`
//! installs them all.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    missing_docs
)]

mod support_cluster;

use std::path::{Path, PathBuf};
use std::process::Command;

use countersign_pki::csr::{create_csr, csr_pem};
use countersign_pki::key::{KeyAlgorithm, KeyPair};
use countersign_pki::pem::{certificate_pem, certificates_from_pem};
use support_cluster::{Node, World, authority_pem, run};

/// Where `.ci/run` puts the Python libraries of the tests.
const PYTHON: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/python/bin/python");

fn beside(name: &str) -> String {
    format!("{}/tests/stacks/{name}", env!("CARGO_MANIFEST_DIR"))
}

/// What a program said, on both streams; an error if it failed.
fn said(program: &str, arguments: &[&str]) -> Result<String, String> {
    let mut command = Command::new(program);
    command.args(arguments).envs([("LC_ALL", "C"), ("TZ", "UTC")]);
    let output = command.output().unwrap_or_else(|error| panic!("{program}: {error}; .ci/run installs it"));
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    if output.status.success() { Ok(text) } else { Err(text) }
}

/// A stack: how it is asked, and how it writes what it read.
struct Stack {
    name: &'static str,
    uri: &'static str,
    dns: &'static str,
    ip: &'static str,
    /// The end, as a format of `date`.
    end: &'static str,
    /// What it says of a request whose signature it checked.
    request: &'static str,
    reads: fn(&Tools, &Path) -> Result<String, String>,
    reads_request: fn(&Tools, &Path) -> Result<String, String>,
}

/// What the stacks need besides themselves.
struct Tools {
    /// The Go program, compiled.
    go: PathBuf,
    /// NSS reads certificates into a database, in which it has an authority of its own.
    nss: String,
    noise: PathBuf,
}

impl Tools {
    fn new(world: &World) -> Self {
        let go = world.path("parse");
        said("go", &["build", "-o", go.to_str().unwrap(), &beside("parse.go")]).unwrap();
        let (nss, noise) = (world.path("nss"), world.path("noise"));
        std::fs::create_dir(&nss).unwrap();
        std::fs::write(&noise, [7; 64]).unwrap();
        let nss = format!("sql:{}", nss.display());
        said("certutil", &["-N", "-d", &nss, "--empty-password"]).unwrap();
        let tools = Self { go, nss, noise };
        tools
            .certutil(&["-S", "-n", "own", "-s", "CN=own", "-x", "-t", "C,C,C", "-k", "ec", "-q", "nistp256"])
            .unwrap();
        tools
    }

    fn certutil(&self, arguments: &[&str]) -> Result<String, String> {
        let noise = self.noise.to_str().unwrap();
        said("certutil", &[arguments, &["-d", &self.nss, "-z", noise]].concat())
    }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

const STACKS: [Stack; 6] = [
    Stack {
        name: "Go",
        uri: "uri ",
        dns: "dns ",
        ip: "ip ",
        end: "ends %s",
        request: "key ECDSA",
        reads: |tools, path| said(text(&tools.go), &[text(path)]),
        reads_request: |tools, path| said(text(&tools.go), &[text(path)]),
    },
    Stack {
        name: "Java",
        uri: "URIName: ",
        dns: "DNSName: ",
        ip: "IPAddress: ",
        end: "until: %a %b %d %H:%M:%S UTC %Y",
        request: "PKCS #10 Certificate Request (Version 1.0)",
        reads: |_, path| said("keytool", &["-printcert", "-file", text(path)]),
        reads_request: |_, path| said("keytool", &["-printcertreq", "-file", text(path)]),
    },
    Stack {
        name: "GnuTLS",
        uri: "URI: ",
        dns: "DNSname: ",
        ip: "IPAddress: ",
        end: "Not After: %a %b %d %H:%M:%S UTC %Y",
        request: "Self signature: verified",
        reads: |_, path| said("certtool", &["--certificate-info", "--infile", text(path)]),
        reads_request: |_, path| said("certtool", &["--crq-info", "--infile", text(path)]),
    },
    Stack {
        name: "NSS",
        uri: "URI: \"",
        dns: "DNS name: \"",
        ip: "IP Address: ",
        end: "Not After : %a %b %d %H:%M:%S %Y",
        request: "BEGIN CERTIFICATE",
        reads: |tools, path| {
            tools.certutil(&["-A", "-n", "read", "-t", ",,", "-a", "-i", text(path)])?;
            let read = tools.certutil(&["-L", "-n", "read"])?;
            tools.certutil(&["-D", "-n", "read"])?;
            Ok(read)
        },
        // Signs what was asked for, which it does for requests alone that are signed by their own key.
        reads_request: |tools, path| tools.certutil(&["-C", "-c", "own", "-a", "-i", text(path)]),
    },
    Stack {
        name: "OpenSSL",
        uri: "URI:",
        dns: "DNS:",
        ip: "IP Address:",
        end: "notAfter=%Y-%m-%d %H:%M:%SZ",
        request: "Certificate request self-signature verify OK",
        reads: |_, path| {
            let show = ["x509", "-noout", "-ext", "subjectAltName", "-enddate", "-dateopt", "iso_8601", "-in"];
            said("openssl", &[&show[..], &[text(path)]].concat())
        },
        reads_request: |_, path| said("openssl", &["req", "-noout", "-verify", "-in", text(path)]),
    },
    Stack {
        name: "Python",
        uri: "uri ",
        dns: "dns ",
        ip: "ip ",
        end: "ends %s",
        request: "key secp256r1",
        reads: |_, path| said(PYTHON, &[&beside("parse.py"), text(path)]),
        reads_request: |_, path| said(PYTHON, &[&beside("parse.py"), text(path)]),
    },
];

/// A certificate in a file of its own, and what must be read from it.
struct Sample {
    path: PathBuf,
    uri: String,
    dns: Vec<&'static str>,
    ips: Vec<&'static str>,
    end: u64,
}

impl Sample {
    fn is_read_by(&self, stack: &Stack, tools: &Tools) {
        let whose = format!("{} by {}", self.path.display(), stack.name);
        let read = (stack.reads)(tools, &self.path).unwrap_or_else(|error| panic!("{whose}: {error}"));
        let end = said("date", &["-u", "-d", &format!("@{}", self.end), &format!("+{}", stack.end)]).unwrap();
        let expected = [format!("{}{}", stack.uri, self.uri), end.trim().to_owned()];
        let dns = self.dns.iter().map(|name| format!("{}{name}", stack.dns));
        let ips = self.ips.iter().map(|ip| format!("{}{ip}", stack.ip));
        for expected in expected.into_iter().chain(dns).chain(ips) {
            assert!(read.contains(&expected), "{whose}: no `{expected}` in\n{read}");
        }
    }
}

/// Writes the first certificate of a PEM text to a file of its own.
fn alone(world: &World, name: &str, pem: &str) -> PathBuf {
    let path = world.path(&format!("{name}-alone.pem"));
    std::fs::write(&path, certificate_pem(&certificates_from_pem(pem).unwrap()[0])).unwrap();
    path
}

/// The authority, the node, and one of each kind that is issued.
fn samples(world: &World, node: &Node) -> Vec<Sample> {
    let status = node.status();
    let (out, domain) = (world.path("issued"), status["trust_domain"].as_str().unwrap());
    let end = |of: &str| status[of]["not_after"].as_u64().unwrap();
    let authority = Sample {
        path: alone(world, "authority", &authority_pem(&node.data)),
        uri: format!("spiffe://{domain}"),
        dns: vec![],
        ips: vec![],
        end: end("authority"),
    };
    let leaf = std::fs::read_to_string(node.data.join("leaf.pem")).unwrap();
    let member = Sample {
        path: alone(world, "node", &leaf),
        uri: format!("spiffe://{domain}/node/1"),
        dns: vec![],
        ips: vec!["127.0.0.1"],
        end: end("certificate"),
    };
    let issued = [("broker", "b1.example.org"), ("client", "pay"), ("admin", "root")].map(|(kind, name)| {
        let flag = format!("--{kind}");
        let made = node.ask(&["cert", "issue", &flag, name, "--out", out.to_str().unwrap()]).ok().json();
        let pem = std::fs::read_to_string(out.join(format!("{name}.pem"))).unwrap();
        Sample {
            path: alone(world, kind, &pem),
            uri: format!("spiffe://{domain}/{kind}/{name}"),
            dns: if kind == "broker" { vec![name] } else { vec![] },
            ips: vec![],
            end: made["not_after"].as_u64().unwrap(),
        }
    });
    [authority, member].into_iter().chain(issued).collect()
}

#[test]
fn six_stacks_read_every_certificate_and_request() {
    let world = World::new();
    let node = world.founder();
    let (tools, samples) = (Tools::new(&world), samples(&world, &node));
    let request = world.path("request.pem");
    let der = create_csr(&KeyPair::generate(KeyAlgorithm::default()).unwrap()).unwrap();
    std::fs::write(&request, csr_pem(&der)).unwrap();
    // Two that nothing may read, so that reading is known to be more than looking at the PEM.
    let (cut, forged) = (world.path("cut.pem"), world.path("forged.pem"));
    let leaf = certificates_from_pem(&std::fs::read_to_string(&samples[1].path).unwrap()).unwrap()[0].to_vec();
    std::fs::write(&cut, certificate_pem(&leaf[..leaf.len() - 9])).unwrap();
    let mut other = der;
    *other.last_mut().unwrap() ^= 1;
    std::fs::write(&forged, csr_pem(&other)).unwrap();
    for stack in &STACKS {
        for sample in &samples {
            sample.is_read_by(stack, &tools);
        }
        let read = (stack.reads_request)(&tools, &request).unwrap_or_else(|error| panic!("{}: {error}", stack.name));
        assert!(read.contains(stack.request), "{}: {read}", stack.name);
        assert!((stack.reads)(&tools, &cut).is_err(), "{} reads half a certificate", stack.name);
        // GnuTLS says that the signature failed, and ends well.
        let read = (stack.reads_request)(&tools, &forged).unwrap_or_default();
        assert!(!read.contains(stack.request), "{} believes a forged request", stack.name);
    }
}

/// The arc of earlier versions had a component of 60 bits. This is why it went, and why no other such arc may come.
#[test]
fn go_refuses_an_arc_with_a_component_of_sixty_bits() {
    let world = World::new();
    let tools = Tools::new(&world);
    for (arc, read) in [("2.25.1043723682988343766.1", false), ("1.2.840.113556.1.8000.2554.33331.6875629.1", true)] {
        let path = world.path("arc.pem");
        let extension = format!("{arc}=DER:04:01:00");
        let key = world.path("arc.key");
        let make = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=x"];
        let files = ["-keyout", text(&key), "-out", text(&path), "-addext", &extension];
        said("openssl", &[&make[..], &files].concat()).unwrap();
        let verdict = said(text(&tools.go), &[text(&path)]);
        assert_eq!(verdict.is_ok(), read, "{arc}: {verdict:?}");
    }
}

/// A founder with an HTTPS port, and where that is.
fn founder(world: &World, name: &str, key: &str) -> (Node, String) {
    let mut node = world.node(name);
    let flags = ["--bootstrap", "--cluster-name", "test", "--https-addr", "127.0.0.1:0"];
    node.start_with(&flags, &[("COUNTERSIGN_PKI_KEY", key)]);
    node.until_ready();
    let endpoints = std::fs::read(node.data.join("endpoints.json")).unwrap();
    let endpoints: serde_json::Value = serde_json::from_slice(&endpoints).unwrap();
    (node, endpoints["https"].as_str().unwrap().to_owned())
}

/// `/healthz` of a member as BoringSSL gets it.
fn healthz(world: &World, https: &str, trusted: &Node) -> Result<String, String> {
    let authority = world.path("trusted.pem");
    std::fs::write(&authority, authority_pem(&trusted.data)).unwrap();
    said(PYTHON, &[&beside("get.py"), &format!("https://{https}/healthz"), text(&authority)])
}

#[test]
fn boringssl_reaches_the_https_port_unless_keys_are_ed25519() {
    let world = World::new();
    let (usual, https) = founder(&world, "n1", "p256");
    let (other, others_https) = founder(&world, "other", "ed25519");
    let answer = healthz(&world, &https, &usual).unwrap();
    assert!(answer.contains("BoringSSL") && answer.contains("\n200 ok"), "{answer}");
    // It verifies: under another cluster's authority it refuses.
    let refused = healthz(&world, &https, &other).unwrap_err();
    assert!(refused.contains("certificate"), "{refused}");
    // What status says of Ed25519 is so.
    let refused = healthz(&world, &others_https, &other).unwrap_err();
    assert!(refused.contains("BoringSSL") && !refused.contains("\n200"), "{refused}");
    let (usual, other) = (usual.status(), other.status());
    assert_eq!((&usual["certificate"]["key"], &usual["authority"]["key"]), (&"P-256".into(), &"P-256".into()));
    assert_eq!((&other["certificate"]["key"], &other["authority"]["key"]), (&"Ed25519".into(), &"Ed25519".into()));
    let warned = |status: &serde_json::Value| status["warnings"].to_string().matches("BoringSSL").count();
    assert_eq!((warned(&usual), warned(&other)), (0, 2));
}

#[test]
fn https_port_shows_renewed_leaves_without_a_restart() {
    let world = World::new();
    let mut node = world.node("n1");
    let flags = ["--bootstrap", "--cluster-name", "test", "--https-addr", "127.0.0.1:0"];
    node.start_with(&flags, &[("COUNTERSIGN_PKI_NODE_TTL", "10s")]);
    let status = node.until_ready();
    let endpoints = std::fs::read(node.data.join("endpoints.json")).unwrap();
    let endpoints: serde_json::Value = serde_json::from_slice(&endpoints).unwrap();
    let https = endpoints["https"].as_str().unwrap();
    let shown = || {
        let chain = said("openssl", &["s_client", "-connect", https, "-showcerts"]).unwrap_or_else(|said| said);
        let begins = chain.find("-----BEGIN").unwrap_or_else(|| panic!("{chain}"));
        certificates_from_pem(chain.get(begins..).unwrap()).unwrap()[0].to_vec()
    };
    let first = shown();
    let ends = status["certificate"]["not_after"].as_u64().unwrap();
    node.until(|status| status["certificate"]["not_after"].as_u64().unwrap() > ends);
    node.until(|_| shown() != first);
}

#[test]
fn key_kinds_are_those_that_are_asked_for() {
    let world = World::new();
    let node = world.founder();
    let out = world.path("kinds");
    for (kind, spelled) in [("p256", "prime256v1"), ("ed25519", "ED25519")] {
        let issue = ["cert", "issue", "--client", kind, "--key", kind, "--out", out.to_str().unwrap()];
        node.ask(&issue).ok();
        let offline = out.join(kind);
        let offline = offline.to_str().unwrap();
        run(&["security", "ca", "create", "--key", kind, "--out", offline]).ok();
        let made = ["--principal", "off", "--key", kind, "--ca", offline, "--out", offline];
        run(&[&["security", "certs", "create-client"], &made[..]].concat()).ok();
        for file in [format!("{kind}.pem"), format!("{kind}/ca.pem"), format!("{kind}/off.pem")] {
            let read = said("openssl", &["x509", "-noout", "-text", "-in", text(&out.join(file))]).unwrap();
            assert!(read.contains(spelled), "{kind}: {read}");
        }
    }
    assert_eq!(node.ask(&["cert", "issue", "--client", "x", "--key", "rsa"]).code, 2);
}

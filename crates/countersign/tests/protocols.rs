//! The first bytes of each protocol, sent to each port of a member and of a remote guard: what each port says stands in
//! `golden/protocols.txt`, for a reviewer to read as a difference. `COUNTERSIGN_BLESS=1` writes it.
//!
//! Every caller may do everything in the embedders' apps. So what reaches an app by a wrong door is counted there.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod raw;
mod support;

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;

use countersign::{Client, RemoteGuard, RemoteGuardSettings};
use countersign_core::trust::member::Suffrage;
use countersign_net::frame::{FRAME_LEN, FirstFrame};
use countersign_net::{ClientDialer, SystemClock};
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{ConnectionError, VarInt};
use raw::app::Reached;
use raw::http2::{END_HEADERS, END_STREAM, HEADERS, Sent, block, call, frame, named, preface};
use raw::{Identity, Said};
use rustls::AlertDescription;
use rustls::pki_types::ServerName;
use support::rules::rule;
use support::{Node, PATIENCE, agrees_with_golden};
use tokio::net::UdpSocket;

const ENROLL: &[u8] = b"countersign/1 enroll";
const PEER: &[u8] = b"countersign/1 peer";
const CLIENT: &[u8] = b"countersign/1 client";
/// Asks who calls, over QUIC.
const WHOAMI: &[u8] = &[1];

const ABOUT: &str = "\
What each port says to the first bytes of each protocol: by TLS with the ALPN that stands first, or without
TLS; on the UDP port in QUIC with that ALPN, or as datagrams. HTTP asks for a new cluster token, which none
of the callers may have from the HTTPS port, and which the app of the client ports counts. gRPC says no with
the status 200 and without a body. Nothing was done, no node was enrolled, and no app saw more than is said.

";

/// What a caller sends first.
struct Protocol {
    name: &'static str,
    over: Over,
    /// Of them, more than one is more than one datagram on UDP.
    bytes: Vec<Vec<u8>>,
}

enum Over {
    /// With these protocols on offer. On UDP the bytes go on a stream of QUIC.
    Tls(Vec<&'static [u8]>),
    /// As they are. On UDP they are datagrams.
    Nothing,
}

/// The number of protocols, so that no row gets lost.
const PROTOCOLS: usize = 25;

/// Every protocol, to a port that is called `host`.
async fn protocols(host: &str, caller: &Identity) -> [Protocol; PROTOCOLS] {
    let http1 =
        format!("POST /v1/tokens/rotate HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    let http1 = http1.into_bytes();
    let fields: [(&str, &[u8]); 4] =
        [(":method", b"POST"), (":scheme", b"https"), (":authority", host.as_bytes()), (":path", b"/v1/tokens/rotate")];
    let http2 = [preface(), frame(HEADERS, END_HEADERS | END_STREAM, 1, &block(&fields))].concat();
    let ssh = b"SSH-2.0-OpenSSH_9.6\r\n".to_vec();
    let health = call(host, "/grpc.health.v1.Health/Check");
    let (view, enroll) = ("/countersign.v1.Enrollment/View", "/countersign.v1.Enrollment/Enroll");
    let tls = |name, offer: &[&'static [u8]], bytes: &[u8]| Protocol {
        name,
        over: Over::Tls(offer.to_vec()),
        bytes: vec![bytes.to_vec()],
    };
    let plain = |name, bytes: Vec<Vec<u8>>| Protocol { name, over: Over::Nothing, bytes };
    [
        tls("countersign/1 enroll, View", &[ENROLL], &call(host, view)),
        tls("countersign/1 enroll, Enroll without a token", &[ENROLL], &call(host, enroll)),
        tls("countersign/1 peer, Health/Check", &[PEER], &health),
        tls("countersign/1 peer, Raft/Call", &[PEER], &call(host, "/countersign.v1.Raft/Call")),
        tls("countersign/1 client, whoami", &[CLIENT], WHOAMI),
        tls("countersign/1 peer and h2, HTTP/2", &[PEER, b"h2"], &http2),
        tls("countersign/2 peer, Health/Check", &[b"countersign/2 peer"], &health),
        tls("h2, HTTP/2", &[b"h2"], &http2),
        tls("h2, gRPC Health/Check", &[b"h2"], &health),
        tls("h2, gRPC Raft/Call", &[b"h2"], &call(host, "/countersign.v1.Raft/Call")),
        tls("h2, HTTP/1.1", &[b"h2"], &http1),
        tls("http/1.1, HTTP/1.1", &[b"http/1.1"], &http1),
        tls("http/1.1, HTTP/2", &[b"http/1.1"], &http2),
        tls("no ALPN, HTTP/1.1", &[], &http1),
        tls("no ALPN, HTTP/2", &[], &http2),
        tls("no ALPN, Kafka ApiVersions", &[], &api_versions()),
        tls("kafka, Kafka ApiVersions", &[b"kafka"], &api_versions()),
        tls("no ALPN, SSH", &[], &ssh),
        plain("no TLS, HTTP/1.1", vec![http1.clone()]),
        plain("no TLS, HTTP/2", vec![http2.clone()]),
        plain("no TLS, Kafka ApiVersions", vec![api_versions()]),
        plain("no TLS, SSH", vec![ssh.clone()]),
        plain("a ClientHello of TLS, h2", vec![client_hello(caller, b"h2")]),
        plain("Initial packets of QUIC, countersign/1 client", initials(caller, CLIENT).await),
        plain("Initial packets of QUIC, h3", initials(caller, b"h3").await),
    ]
}

/// A request ApiVersions of version 0: length, api key 18, version, correlation id, client id.
fn api_versions() -> Vec<u8> {
    let request = [&[0, 18, 0, 0, 0, 0, 0, 7, 0, 3][..], b"pay"].concat();
    [&u32::try_from(request.len()).unwrap().to_be_bytes(), &request[..]].concat()
}

fn client_hello(caller: &Identity, offer: &[u8]) -> Vec<u8> {
    let config = Arc::new(caller.config(true, &[offer]));
    let mut client = rustls::ClientConnection::new(config, ServerName::try_from("localhost").unwrap()).unwrap();
    let mut hello = Vec::new();
    client.write_tls(&mut hello).unwrap();
    hello
}

/// The datagrams of a caller over QUIC before it hears anything: a ClientHello with a key of X25519MLKEM768 takes two.
async fn initials(caller: &Identity, offer: &[u8]) -> Vec<Vec<u8>> {
    let captured = UdpSocket::bind(loopback()).await.unwrap();
    let quic = quinn::Endpoint::client(loopback()).unwrap();
    let connecting =
        quic.connect_with(quic_config(caller, true, &[offer]), captured.local_addr().unwrap(), "localhost");
    let connecting = tokio::spawn(connecting.unwrap());
    let mut datagrams = Vec::new();
    for _ in 0..2 {
        let mut datagram = vec![0; 2048];
        let (len, _) = captured.recv_from(&mut datagram).await.unwrap();
        datagram.truncate(len);
        datagrams.push(datagram);
    }
    connecting.abort();
    datagrams
}

fn loopback() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

fn quic_config(caller: &Identity, shown: bool, offer: &[&[u8]]) -> quinn::ClientConfig {
    quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(caller.config(shown, offer)).unwrap()))
}

/// A port of a server.
struct Port {
    name: &'static str,
    address: SocketAddr,
    /// The host that it is dialed as.
    host: &'static str,
    udp: bool,
}

/// A caller: its name, an identity with the authority that it trusts, and whether it shows the identity.
type Caller<'a> = (&'a str, &'a Identity, bool);

impl Port {
    /// What it says to a protocol.
    async fn says(&self, protocol: &Protocol, (_, identity, shown): Caller<'_>) -> String {
        let bytes = protocol.bytes.concat();
        match &protocol.over {
            Over::Tls(offer) if self.udp => self.says_over_quic(quic_config(identity, shown, offer), &bytes).await,
            Over::Tls(offer) => {
                let config = identity.config(shown, offer);
                in_words(&Said::in_tls((self.address, self.host), config, &bytes, is_enough).await)
            }
            Over::Nothing if self.udp => self.says_to_datagrams(&protocol.bytes, identity).await,
            Over::Nothing => in_words(&Said::plainly(self.address, &bytes, |said| !said.is_empty()).await),
        }
    }

    async fn says_over_quic(&self, config: quinn::ClientConfig, bytes: &[u8]) -> String {
        let quic = quinn::Endpoint::client(loopback()).unwrap();
        let answer = async {
            let connection = quic.connect_with(config, self.address, self.host).unwrap().await?;
            let (mut send, mut receive) = connection.open_bi().await?;
            let _ = send.write_all(bytes).await;
            let answer = receive.read_to_end(1024).await;
            let answer = answer.map_err(|_| connection.close_reason().unwrap_or(ConnectionError::Reset))?;
            connection.close(VarInt::from_u32(0), b"");
            Ok::<_, ConnectionError>(answer)
        };
        let answer = tokio::time::timeout(PATIENCE, answer).await.expect("no answer");
        quic.wait_idle().await;
        match answer {
            Ok(answer) => format!("answered with status {}", answer[0]),
            Err(ConnectionError::ConnectionClosed(close)) => {
                let code = u64::from(close.error_code);
                let alert = u8::try_from(code.wrapping_sub(0x100)).unwrap();
                format!("closed with {code:#x}, {:?}", AlertDescription::from(alert))
            }
            Err(ConnectionError::ApplicationClosed(close)) => {
                format!("closed by the application with {:#x}", u64::from(close.error_code))
            }
            Err(other) => panic!("{other:?}"),
        }
    }

    /// Silence is known by an honest caller that came later and was answered.
    async fn says_to_datagrams(&self, datagrams: &[Vec<u8>], honest: &Identity) -> String {
        let socket = UdpSocket::bind(loopback()).await.unwrap();
        for datagram in datagrams {
            socket.send_to(datagram, self.address).await.unwrap();
        }
        let said = self.says_over_quic(quic_config(honest, true, &[CLIENT]), WHOAMI).await;
        assert_eq!(said, "answered with status 0");
        let mut answer = [0; 2048];
        let Ok((len, _)) = socket.try_recv_from(&mut answer) else { return "silence".to_owned() };
        // The form and the type (RFC 9000 section 17.2); the bit between them may be anything (RFC 9287).
        assert_eq!(answer[0] & 0xb0, 0x80, "{:x?}", &answer[..len]);
        "an Initial packet".to_owned()
    }
}

/// Whether what came tells what becomes of the request.
fn is_enough(said: &[u8]) -> bool {
    let frames = first_frame(said).map_or(said, |_| &said[FRAME_LEN..]);
    !frames.starts_with(b"HTTP/") && Sent::read(frames).is_done(1)
}

/// The first frame of the cluster port, if this is one: no frame of HTTP/2, and no line of HTTP/1.1, begins so.
fn first_frame(said: &[u8]) -> Option<FirstFrame> {
    let frame = said.get(..FRAME_LEN)?.try_into().unwrap();
    FirstFrame::decode(frame).ok()
}

fn in_words(said: &Said) -> String {
    let mut words = Vec::new();
    let mut rest = &said.bytes[..];
    match first_frame(rest) {
        Some(FirstFrame::Welcome { .. }) => words.push("Welcome".to_owned()),
        Some(FirstFrame::Refused { code, .. }) => {
            words.push(format!("Refused {}, {}", code.0, code.refusal().unwrap()));
        }
        None => {}
    }
    if !words.is_empty() {
        rest = &rest[FRAME_LEN..];
    }
    if rest.starts_with(b"HTTP/") {
        words.push(said.first_line());
    } else if let [22, 3, 3, ..] = rest {
        words.push("a ServerHello".to_owned());
    } else if !rest.is_empty() {
        let sent = Sent::read(rest);
        if sent.streams.is_empty() && sent.goaway.is_none() {
            assert_eq!(sent.settings, 1, "{rest:x?}");
            words.push("HTTP/2 settings alone".to_owned());
        }
        words.extend(sent.streams.keys().map(|&stream| format!("HTTP/2 {}", sent.of(stream))));
        words.extend(sent.goaway.filter(|code| *code != 0).map(|code| format!("GOAWAY {}", named(code))));
    }
    words.extend(said.alert.map(|alert| format!("alert {}, {alert:?}", u8::from(alert))));
    if words.is_empty() {
        words.push("the end".to_owned());
    }
    words.join("; ")
}

/// A remote guard that follows `node`, with an app.
async fn guard_of(node: &Node, reached: &Reached) -> RemoteGuard {
    let broker = node.issue("broker/localhost").await;
    let domain = node.member().view().trust_domain.clone();
    let dialer = ClientDialer::new(broker.bundle, domain, broker.credential, Arc::new(SystemClock));
    let settings = RemoteGuardSettings::new(Client::new(dialer), vec![node.client_address()], loopback());
    RemoteGuard::connect(settings).await.unwrap().serve(reached.app())
}

#[tokio::test(flavor = "multi_thread")]
async fn every_port_answers_its_protocol_and_refuses_the_others() {
    let (on_member, on_guard) = (Reached::default(), Reached::default());
    let node = Node::bootstrap_serving("n1", |_| on_member.app()).await;
    let token = node.token(Suffrage::Learner, 1).await;
    let learner = Node::join("n2", &token, &node).await.unwrap();
    node.add_rule(rule("everything", "*", "all", "service")).await;
    node.add_rule(rule("fetch-policy", "broker/*", "read", "policy")).await;
    let (pay, member) = (Identity::issue(&node, "client/pay").await, Identity::of_member(&learner));
    let guard = guard_of(&node, &on_guard).await;
    let open_token = node.token(Suffrage::Voter, 1).await;
    node.settled(2).await;
    let of = |address: Option<SocketAddr>| address.unwrap();
    let (cluster, client) = (of(node.member().cluster_addr()), of(node.member().client_addr()));
    let port = |name, address, host, udp| Port { name, address, host, udp };
    let ports = [
        port("cluster", cluster, "127.0.0.1", false),
        port("client, TCP", client, "127.0.0.1", false),
        port("client, UDP", client, "127.0.0.1", true),
        port("HTTPS", of(node.member().https_addr()), "127.0.0.1", false),
        port("client of a remote guard", guard.local_addr().unwrap(), "localhost", false),
    ];
    let callers: [Caller<'_>; 3] =
        [("a client", &pay, true), ("a member", &member, true), ("a caller without a certificate", &pay, false)];
    let before = (node.member().view().generation, node.control().tokens());
    let mut seen = ABOUT.to_owned();
    for caller in callers {
        writeln!(seen, "# {}\n", caller.0).unwrap();
        let mut sent = Vec::new();
        for port in &ports {
            sent.push(protocols(&format!("{}:{}", port.host, port.address.port()), caller.1).await);
        }
        for at in 0..PROTOCOLS {
            writeln!(seen, "{}", sent[0][at].name).unwrap();
            for (port, protocols) in ports.iter().zip(&sent) {
                let (protocol, reached) = (&protocols[at], on_member.count() + on_guard.count());
                let said = port.says(protocol, caller).await;
                let counted = match on_member.count() + on_guard.count() - reached {
                    0 => "",
                    1 => ", by the app",
                    more => panic!("{more} requests reached the app"),
                };
                writeln!(seen, "  {:26}{said}{counted}", port.name).unwrap();
                let answered = said == "HTTP/1.1 200 OK" || said == "HTTP/2 200 with a body";
                assert!(counted.is_empty() || answered, "{} at {}: {said}", protocol.name, port.name);
            }
        }
        seen.push('\n');
    }
    let after = (node.member().view().generation, node.control().tokens());
    assert_eq!(before, after, "something was done");
    assert_eq!(node.status().await.members.len(), 2, "a node was enrolled");
    // What may come by the right door still may.
    Node::join("n3", &open_token, &node).await.unwrap();
    agrees_with_golden("protocols.txt", &seen);
    guard.shutdown().await;
}

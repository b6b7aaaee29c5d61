//! A voter looks for a joiner where the joiner says that it is reached, and the joiner signs that it is there.
//!
//! In clear: nothing in it is secret, and the signature is good for one question. The voter sends [`CHALLENGE_LEN`]
//! bytes and reads [`ANSWER_LEN`]. It tells whether it found the joiner, and nothing of what else is there.

use core::net::IpAddr;

use super::EnrollmentRequest;
use crate::id::{AuthorityId, NodeId, TokenId};
use crate::key::SecretKey;
use crate::name::{Address, Host};
use crate::transcript::Transcript;
use crate::trust::view::View;

/// What each question begins with: no TLS record and no line of a text protocol.
const MAGIC: &[u8; 16] = b"CSIGN-DIAL-BACK1";
/// Bytes of a question.
pub const CHALLENGE_LEN: usize = 80;
/// Bytes of an answer: a signature.
pub const ANSWER_LEN: usize = 64;

/// A question: is the joiner reached at this address?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Challenge {
    /// Drawn for this question.
    pub nonce: [u8; 32],
    /// Which address was dialed: its digest.
    pub address: [u8; 32],
}

impl Challenge {
    /// The question whether the joiner is reached at `address`.
    pub fn new(nonce: [u8; 32], address: &Address) -> Self {
        Self { nonce, address: address_digest(address) }
    }

    /// As it is sent.
    pub fn encode(&self) -> [u8; CHALLENGE_LEN] {
        let mut bytes = [0; CHALLENGE_LEN];
        let fields = MAGIC.iter().chain(&self.nonce).chain(&self.address);
        bytes.iter_mut().zip(fields).for_each(|(to, from)| *to = *from);
        bytes
    }

    /// Reads a question; none if it is something else.
    pub fn decode(bytes: &[u8; CHALLENGE_LEN]) -> Option<Self> {
        let (nonce, address) = bytes.strip_prefix(MAGIC)?.split_first_chunk()?;
        Some(Self { nonce: *nonce, address: address.try_into().ok()? })
    }
}

/// An address of any length in a field of one length.
fn address_digest(address: &Address) -> [u8; 32] {
    blake3::derive_key("countersign v1 dial-back address", address.to_string().as_bytes())
}

/// What the joiner's identity key signs.
fn transcript(pin: AuthorityId, token: TokenId, address: &Address, nonce: &[u8; 32]) -> Transcript {
    Transcript::new(b"dial back").fixed(&pin.0).fixed(&token.0).variable(address.to_string().as_bytes()).fixed(nonce)
}

/// What a joiner answers by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DialBack {
    /// The authority that its token pins.
    pub pin: AuthorityId,
    /// Its token.
    pub token: TokenId,
    /// The addresses that it advertises.
    pub addresses: Vec<Address>,
}

impl DialBack {
    /// Answers a question about one of its addresses. About any other there is no answer: it was dialed by mistake.
    pub fn answer(&self, challenge: &Challenge, identity: &SecretKey) -> Option<[u8; ANSWER_LEN]> {
        let address = self.addresses.iter().find(|address| address_digest(address) == challenge.address)?;
        Some(identity.sign(&transcript(self.pin, self.token, address, &challenge.nonce)))
    }
}

/// Whether `answer` shows that the one who made `request` answers at `address`.
pub fn is_answered(
    request: &EnrollmentRequest,
    address: &Address,
    nonce: &[u8; 32],
    answer: &[u8; ANSWER_LEN],
) -> bool {
    let transcript = transcript(request.pin, request.token, address, nonce);
    request.keys.identity.verify(&transcript, answer).is_ok()
}

/// Whether a voter may dial `ip` to look for a joiner, or for the member `node`. `source` is where its connection came
/// from, if the voter saw it.
///
/// It dials no address that only the voter itself reaches, unless the connection came from there: loopback and
/// link-local addresses, among them the metadata service of a cloud (169.254.169.254). It never dials another member,
/// or a name that all members share.
pub fn may_dial(view: &View, node: Option<NodeId>, ip: IpAddr, source: Option<IpAddr>) -> bool {
    let ip = ip.to_canonical();
    if ip.is_unspecified() || ip.is_multicast() || !is_of_a_host(ip) {
        return false;
    }
    if (ip.is_loopback() || is_link_local(ip)) && source.map(|source| source.to_canonical()) != Some(ip) {
        return false;
    }
    ip.is_loopback() || view.check_host_free(node, &Host::Ip(ip)).is_ok()
}

/// Whether one host can have this address as its own, which is not so for:
/// - "this network" and the reserved block with the broadcast address (RFC 1122 section 3.2.1.3, RFC 1112 section 4);
/// - addresses that stand for one of IPv4, by which a rule on that one would be passed by: IPv4-compatible (RFC 4291
///   section 2.5.5.1), NAT64 (RFC 6052, RFC 8215), Teredo (RFC 4380), 6to4 (RFC 3056).
fn is_of_a_host(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => !matches!(ip.octets(), [0 | 240..=255, ..]),
        IpAddr::V6(ip) => match ip.segments() {
            [0, 0, 0, 0, 0, 0, high, low] => (high, low) == (0, 1),
            [0x64, 0xff9b, ..] | [0x2001, 0, ..] | [0x2002, ..] => false,
            _ => true,
        },
    }
}

const fn is_link_local(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trust::tests::rig::{Rig, key, request};

    const NONCE: [u8; 32] = [7; 32];

    fn address(text: &str) -> Address {
        Address::parse(text).unwrap()
    }

    fn joiner() -> (EnrollmentRequest, DialBack) {
        let request = request(2, 5);
        let addresses = vec![address("n2.example:7001"), address("10.0.0.2:7001")];
        let back = DialBack { pin: request.pin, token: request.token, addresses };
        (request, back)
    }

    #[test]
    fn joiner_answers_at_each_address_that_it_advertises() {
        let (request, back) = joiner();
        for address in &back.addresses {
            let sent = Challenge::decode(&Challenge::new(NONCE, address).encode()).unwrap();
            let answer = back.answer(&sent, &key(2)).unwrap();
            assert!(is_answered(&request, address, &NONCE, &answer));
        }
    }

    #[test]
    fn answer_for_another_question_proves_nothing() {
        let (request, back) = joiner();
        let [name, ip] = back.addresses.as_slice() else { panic!() };
        let answer = back.answer(&Challenge::new(NONCE, name), &key(2)).unwrap();
        assert!(!is_answered(&request, ip, &NONCE, &answer), "another address");
        assert!(!is_answered(&request, &address("n2.example:7002"), &NONCE, &answer), "another port");
        assert!(!is_answered(&request, name, &[8; 32], &answer), "another nonce");
        let of = |change: &dyn Fn(&mut EnrollmentRequest)| {
            let mut other = request.clone();
            change(&mut other);
            is_answered(&other, name, &NONCE, &answer)
        };
        assert!(of(&|_| {}));
        assert!(!of(&|r| r.pin = AuthorityId([9; 32])), "another cluster");
        assert!(!of(&|r| r.token = TokenId([9; 8])), "another token");
        assert!(!of(&|r| r.keys.identity = key(3).public()), "another node");
        assert!(!is_answered(&request, name, &NONCE, &[0; 64]), "no signature");
    }

    #[test]
    fn joiner_signs_nothing_for_an_address_that_is_not_its_own() {
        let (_, back) = joiner();
        for text in ["n3.example:7001", "n2.example:7002", "10.0.0.3:7001"] {
            assert_eq!(back.answer(&Challenge::new(NONCE, &address(text)), &key(2)), None, "{text}");
        }
    }

    #[test]
    fn what_is_no_question_is_not_read_as_one() {
        let good = Challenge::new(NONCE, &address("n2.example:7001")).encode();
        assert!(Challenge::decode(&good).is_some());
        for at in 0..MAGIC.len() {
            let mut bad = good;
            bad[at] ^= 1;
            assert_eq!(Challenge::decode(&bad), None, "{at}");
        }
        assert_ne!(good[0], 0x16, "a TLS record begins so");
    }

    #[test]
    fn voter_dials_neither_itself_nor_other_members_for_a_joiner() {
        let rig = Rig::three_voters();
        let view = rig.0.view().unwrap();
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        for (to, source, expected) in [
            ("192.0.2.9", None, true),
            ("2001:db8::9", None, true),
            ("127.0.0.1", None, false),
            ("::1", None, false),
            ("127.0.0.1", Some("10.0.0.9"), false),
            ("127.0.0.1", Some("127.0.0.1"), true),
            ("127.0.0.2", Some("127.0.0.1"), false),
            ("::ffff:127.0.0.1", None, false),
            ("169.254.169.254", None, false),
            ("169.254.1.1", Some("169.254.1.1"), true),
            ("169.254.169.254", Some("169.254.1.1"), false),
            ("fe80::1", None, false),
            ("fe80::1", Some("fe80::1"), true),
            ("0.0.0.0", None, false),
            ("::", None, false),
            ("224.0.0.1", None, false),
            ("ff02::1", None, false),
            ("255.255.255.255", None, false),
            ("240.0.0.1", None, false),
            ("239.255.255.255", None, false),
            ("0.1.2.3", None, false),
            ("223.255.255.254", None, true),
            // Other ways to write 10.0.0.1 and 127.0.0.1.
            ("::10.0.0.1", None, false),
            ("::7f00:1", None, false),
            ("64:ff9b::10.0.0.1", None, false),
            ("64:ff9b:1::10.0.0.1", None, false),
            ("2002:a00:1::", None, false),
            ("2001:0:a00:1::", None, false),
            ("2001:1::1", None, true),
            // A member's address, also if the connection came from there: both stand behind one.
            ("10.0.0.1", None, false),
            ("::ffff:10.0.0.1", None, false),
            ("10.0.0.1", Some("10.0.0.1"), false),
        ] {
            assert_eq!(may_dial(view, None, ip(to), source.map(ip)), expected, "{to} from {source:?}");
        }
        assert!(may_dial(view, Some(NodeId(1)), ip("10.0.0.1"), None), "the member's own");
        assert!(!may_dial(view, Some(NodeId(2)), ip("10.0.0.1"), None));
    }
}

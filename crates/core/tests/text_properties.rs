//! Texts from anywhere: what parses shows itself again, and a secret is itself or none.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

use countersign_core::id::{AuthorityId, FailureId, TokenId};
use countersign_core::name::{Address, Host, HostName, Name};
use countersign_core::principal::{Principal, Role, SpiffeId, TrustDomain};
use countersign_core::secret::Secret;
use countersign_core::trust::join_token::{JoinToken, SECRET_PREFIX};
use proptest::prelude::*;

/// Whether the text is refused, or shows itself again: in the same words where one value has one spelling.
fn round_trips<T: PartialEq + core::fmt::Debug + core::fmt::Display, E>(
    text: &str,
    parse: impl Fn(&str) -> Result<T, E>,
    same: impl Fn(&str) -> bool,
) {
    let Ok(value) = parse(text) else { return };
    let shown = value.to_string();
    assert_eq!(parse(&shown).ok().as_ref(), Some(&value), "{text:?} shows as {shown:?}");
    assert!(same(&shown), "{text:?} shows as {shown:?}");
}

/// Texts near what the parsers accept, and texts from nowhere.
fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<String>(),
        "[a-z0-9.-]{0,12}(:[0-9]{0,6})?",
        "\\[?[0-9a-f:.]{0,20}\\]?(:[0-9]{0,6})?",
        "(10|127|0|255)\\.[0-9]{1,3}\\.[0-9]{1,3}\\.[0-9]{1,3}:[0-9]{1,5}",
        "(spiffe://)?[a-z.]{0,8}/(node|broker|client|admin|other)/[a-zA-Z0-9./_-]{0,12}",
        "(node|broker|client|admin)/[a-z0-9.-]{0,12}",
        "spiffe://td/node/[0+-]{0,2}[0-9]{0,4}",
        "[a-z0-9]{1,6}:[+ -]{0,1}[0-9]{1,4}",
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1024))]

    #[test]
    fn what_parses_shows_itself_again(text in text()) {
        round_trips(&text, Name::parse, |shown| shown == text);
        round_trips(&text, HostName::parse, |shown| shown == text);
        round_trips(&text, TrustDomain::parse, |shown| shown == text);
        round_trips(&text, Role::parse, |shown| shown == text);
        round_trips(&text, Principal::parse, |shown| shown == text);
        // An IP address has many spellings, and shows the one of them that is kept. A port has digits.
        let port = text.rsplit(':').next().unwrap_or_default();
        round_trips(&text, Address::parse, |_| port.bytes().all(|b| b.is_ascii_digit()));
        round_trips(&text, Host::parse, |_| true);
        let _ = SpiffeId::parse(&text);
        for hex in [text.clone(), text.replace(|c: char| !c.is_ascii_hexdigit(), "0")] {
            let lower = hex.to_ascii_lowercase();
            round_trips(&hex, |t| TokenId::parse(t).ok_or(()), |shown| shown == lower);
            round_trips(&hex, |t| FailureId::parse(t).ok_or(()), |shown| shown == lower);
        }
    }

    #[test]
    fn an_ip_address_is_one_host_however_it_is_spelled(ip in any::<[u8; 4]>(), port in 1..=u16::MAX) {
        let ip = std::net::Ipv4Addr::from(ip);
        let plain = Address::parse(&format!("{ip}:{port}")).unwrap();
        for spelled in [format!("[{ip}]:{port}"), format!("[::ffff:{ip}]:{port}")] {
            prop_assert_eq!(&Address::parse(&spelled).unwrap(), &plain);
        }
        prop_assert_eq!(plain.host.is_loopback(), ip.is_loopback());
    }

    #[test]
    fn a_text_is_no_join_token_or_reveals_itself(text in any::<String>(), tail in "[a-z2-7]{58}:[0-9a-fA-F]{64}") {
        for text in [text, format!("cst_{tail}"), tail] {
            reveals_itself(&text);
        }
    }

    #[test]
    fn a_join_token_in_any_case_is_itself_and_mistyped_it_is_none(
        secret in any::<[u8; 32]>(),
        pin in any::<[u8; 32]>(),
        upper in any::<bool>(),
        at in any::<prop::sample::Index>(),
        typed in "[ -~]",
        alike in prop::sample::select(vec![('i', 'ı'), ('s', 'ſ'), ('k', '\u{212a}')]),
    ) {
        let revealed = JoinToken::new(Secret::new(secret), AuthorityId(pin)).reveal();
        let (head, tail) = revealed.split_once('_').unwrap();
        let spelled = if upper { format!(" {head}_{}\n", tail.to_ascii_uppercase()) } else { revealed.clone() };
        prop_assert!(reveals_itself(&spelled));
        // Letters that only upper- or lower-casing makes ASCII (U+0131, U+017F, U+212A).
        let foreign = format!("{head}_{}", tail.replace(alike.0, &alike.1.to_string()));
        prop_assert!(foreign == revealed || !reveals_itself(&foreign));
        let at = at.index(revealed.len());
        let mut mistyped = revealed.clone();
        mistyped.replace_range(at..=at, &typed);
        // Another case of a letter is no mistake, but in the prefix.
        let harmless = mistyped.eq_ignore_ascii_case(&revealed) && mistyped.starts_with(SECRET_PREFIX);
        prop_assert_eq!(reveals_itself(&mistyped), harmless);
    }
}

/// Whether the text is a join token; if so, the token reveals the same text, in lower case and without white space.
fn reveals_itself(text: &str) -> bool {
    let Ok(token) = JoinToken::parse(text) else { return false };
    assert_eq!(token.reveal(), text.trim().to_ascii_lowercase());
    true
}

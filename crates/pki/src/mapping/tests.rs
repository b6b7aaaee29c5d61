//! Rules: which parse, what they make of names, and what they refuse.

use super::*;

fn names(uris: &[&str], dns: &[&str], common_name: Option<&str>) -> CertificateNames {
    let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
    CertificateNames {
        uris: owned(uris),
        dns: owned(dns),
        ips: vec![],
        common_name: common_name.map(ToOwned::to_owned),
    }
}

fn check(rules: &[&str], names: &CertificateNames, expected: Option<&str>) {
    let domain = TrustDomain::parse("td").unwrap();
    let mapped = Rules::parse(rules).unwrap().map(names, Some(&domain));
    assert_eq!(mapped.as_ref().ok().map(ToString::to_string).as_deref(), expected, "{rules:?} {names:?} {mapped:?}");
}

#[test]
fn rules_name_a_field_an_expression_and_a_principal() {
    for rule in [
        "uri",
        r"dns:(.*)\.example\.org=node/$1",
        "cn:(.*)=node/$1",
        "cn:([a-z]+)-([0-9]+)=client/$1-$2",
        "cn:a=b=broker/c",
    ] {
        assert!(Rules::parse(&[rule]).is_ok(), "{rule}");
    }
}

#[test]
fn other_rules_are_refused() {
    use RuleError as E;
    let rule = |rule: &str| rule.to_owned();
    for (text, expected) in [
        ("", E::Field { rule: rule("") }),
        ("URI", E::Field { rule: rule("URI") }),
        ("email:(.*)=node/$1", E::Field { rule: rule("email:(.*)=node/$1") }),
        ("cn:(.*)", E::Target { rule: rule("cn:(.*)") }),
        ("cn:(.*)=node", E::Target { rule: rule("cn:(.*)=node") }),
        ("cn:(.*)=node/", E::Target { rule: rule("cn:(.*)=node/") }),
        ("cn:=node/a", E::Target { rule: rule("cn:=node/a") }),
        ("cn:(.*)=root/$1", E::Kind { rule: rule("cn:(.*)=root/$1"), kind: rule("root") }),
        ("cn:(.*)=node/$2", E::Group { rule: rule("cn:(.*)=node/$2"), group: 2, groups: 1 }),
        ("cn:.*=node/$1", E::Group { rule: rule("cn:.*=node/$1"), group: 1, groups: 0 }),
        ("cn:(.*)=node/$", E::Group { rule: rule("cn:(.*)=node/$"), group: usize::MAX, groups: 1 }),
    ] {
        assert_eq!(Rules::parse(&[text]).unwrap_err(), expected, "{text}");
    }
    // The last would match a part of the name, were it not compiled by itself.
    for text in ["cn:(=node/$1", "cn:a)|(?:(.*)=node/$1"] {
        assert!(matches!(Rules::parse(&[text]), Err(E::Expression { .. })), "{text}");
    }
}

#[test]
fn rules_are_bounded() {
    let long = |n: usize| format!("cn:{}=node/a", "a".repeat(n - "cn:=node/a".len()));
    assert!(Rules::parse(&[long(MAPPING_RULE_LEN_MAX)]).is_ok());
    let got = MAPPING_RULE_LEN_MAX + 1;
    assert_eq!(Rules::parse(&[long(got)]).unwrap_err(), RuleError::TooLong { got });
    assert!(Rules::parse(&["uri"; MAPPING_RULES_MAX]).is_ok());
    let got = MAPPING_RULES_MAX + 1;
    assert_eq!(Rules::parse(&vec!["uri"; got]).unwrap_err(), RuleError::TooMany { got });
    assert_eq!(Rules::parse::<&str>(&[]).unwrap_err(), RuleError::None);
}

#[test]
fn whole_names_are_mapped_by_the_first_rule_that_matches() {
    let org = r"dns:(.*)\.example\.org=node/$1";
    check(&[org], &names(&[], &["n1.example.org"], None), Some("node/n1"));
    check(&[org], &names(&[], &["n1.example.org", "localhost"], None), Some("node/n1"));
    check(&["dns:(.*)=node/$1"], &names(&[], &["n1.example.org"], None), Some("node/n1.example.org"));
    check(&[r"dns:n1\.example\.org=node/n1"], &names(&[], &["xn1.example.org", "n1.example.org.evil"], None), None);
    check(&["cn:a|b=node/n1"], &names(&[], &[], Some("ab")), None);
    check(&["cn:(.)-(.)=broker/$2.$1"], &names(&[], &[], Some("a-b")), Some("broker/b.a"));
    check(&["cn:c=client/pay", "cn:.*=broker/b"], &names(&[], &[], Some("c")), Some("client/pay"));
    check(&["cn:x=client/pay", "cn:.*=broker/b"], &names(&[], &[], Some("c")), Some("broker/b"));
    // Two names, one principal.
    check(&[r"dns:(n1)(\..*)?=node/$1"], &names(&[], &["n1", "n1.example.org"], None), Some("node/n1"));
}

#[test]
fn a_uri_is_one_spiffe_id_of_the_clusters_trust_domain() {
    check(&["uri"], &names(&["spiffe://td/node/n1"], &["x"], Some("y")), Some("node/n1"));
    check(&["uri"], &names(&["spiffe://td/node/1"], &[], None), None);
    check(&["uri"], &names(&["spiffe://other/node/n1"], &[], None), None);
    check(&["uri"], &names(&["spiffe://td/node/n1", "spiffe://td/node/n1"], &[], None), None);
    check(&["uri"], &names(&["https://td/node/n1"], &[], None), None);
    check(&["uri", "dns:(.*)=node/$1"], &names(&["spiffe://td/ns/prod"], &["n1"], None), Some("node/n1"));
    // Another cluster's node does not pass by its host name either.
    check(&["uri", "dns:(.*)=node/$1"], &names(&["spiffe://other/node/n1"], &["n1"], None), None);
    let unknown_yet = Rules::parse(&["uri"]).unwrap().map(&names(&["spiffe://other/node/n1"], &[], None), None);
    assert_eq!(unknown_yet.unwrap().to_string(), "node/n1");
}

#[test]
fn a_missing_empty_or_foreign_name_is_no_principal() {
    for rules in [&["uri"][..], &["dns:(.*)=node/$1"], &["uri", "dns:(.*)=node/$1"]] {
        check(rules, &names(&[], &[], None), None);
        check(rules, &names(&[], &[], Some("n1")), None);
        check(rules, &names(&[""], &[""], Some("n1")), None);
    }
    check(&["cn:(.*)=node/$1"], &names(&[], &["n1"], None), None);
    check(&["cn:(.*)=node/$1"], &names(&[], &[], Some("")), None);
}

#[test]
fn a_certificate_that_is_two_principals_or_something_else_is_refused() {
    let several = names(&[], &["n1.example.org", "n2.example.org"], None);
    check(&["dns:(.*)=node/$1", "dns:n1.*=node/n1"], &several, None);
    for made in [names(&[], &["*.example.org"], None), names(&[], &[], Some("../../etc"))] {
        check(&["dns:(.*)=node/$1", "cn:(.*)=node/$1", "cn:.*=client/any"], &made, None);
    }
}

#[test]
fn the_rule_that_is_offered_would_accept() {
    let domain = TrustDomain::parse("td").unwrap();
    let nothing = Rules::parse(&["cn:no one=node/x"]).unwrap();
    for (names, expected) in [
        (names(&["spiffe://td/node/n1"], &["x"], None), "uri"),
        (names(&[], &["n1.example.org"], Some("n1")), "dns:(.*)=node/$1"),
        (names(&["https://n1"], &["a-1.example.org", "b.example.org"], None), r"dns:(a\-1\.example\.org)=node/$1"),
        (names(&[], &["*.example.org"], Some("n1")), "cn:(.*)=node/$1"),
    ] {
        let refused = nothing.map(&names, Some(&domain)).unwrap_err();
        let Unmapped::NoRule { accepting: Some(rule) } = &refused else { panic!("{refused:?}") };
        assert_eq!(rule.to_string(), expected);
        assert!(refused.to_string().contains(&format!("rule `{expected}` would accept it")), "{refused}");
        assert!(Rules::parse(&[expected]).unwrap().map(&names, Some(&domain)).is_ok(), "{expected}");
    }
    let none = nothing.map(&names(&[], &["*"], Some("Not A Name")), Some(&domain)).unwrap_err();
    assert_eq!(none, Unmapped::NoRule { accepting: None });
}

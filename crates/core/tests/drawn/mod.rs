//! What random logs are drawn from: the kinds of commands, and rules.

use countersign_core::authz::text::RuleText;
use countersign_core::authz::{PrincipalPattern, Rule, RuleId};
use countersign_core::trust::command::Command;
use proptest::collection::vec;
use proptest::prelude::*;

use super::NOW;

/// The kinds of commands. A kind that this list lacks does not compile.
macro_rules! kinds {
    ($($kind:ident)*) => {
        pub(crate) const KINDS: &[&str] = &[$(stringify!($kind)),*];

        pub(crate) fn kind(command: &Command) -> &'static str {
            match command {
                $(Command::$kind(_) => stringify!($kind),)*
            }
        }
    };
}

kinds! {
    Bootstrap AddJoinToken RevokeJoinToken RotateClusterToken Admit SealAuthority ConfirmAuthority SetSuffrage Evict
    IssuePrincipal RevokeKey RevokePrincipal AssignGroup ReportFeatureLevel RaiseLevel SetAddresses Renew AdoptLeaf
    SignAttestation RenewPrincipal StagePolicy ChangePolicy Label ReturnStore BindStore ProveHosts EditHosts SetCluster
    CreateGroup BindDataStore ReportClientPort NoteForTesting
}

/// Few ids, and now and then a rule that cannot count.
pub(crate) fn rule() -> impl Strategy<Value = Rule> {
    let principals = vec!["*", "client/n1", "client/*", "role:W", "role:W[gpu=true]"];
    (0..6_u8, prop::sample::select(principals), "[a*]{0,2}", 0..3_u8, 0..24_u8).prop_map(
        |(id, principal, topic, more, damage)| {
            let text = RuleText {
                id: Some(format!("r{id}")),
                principal: principal.to_owned(),
                actions: vec!["read".to_owned()],
                topic: Some(topic),
                not_after: (more == 0).then_some(NOW.secs() + 100),
                network: (more == 1).then(|| "10.0.0.0/8".to_owned()),
                ..RuleText::default()
            };
            let mut rule = text.rule().unwrap();
            match damage {
                0 => rule.actions = Default::default(),
                1 => rule.principal = PrincipalPattern::Exact("client/*".into()),
                _ => {}
            }
            rule
        },
    )
}

pub(crate) fn removals() -> impl Strategy<Value = Vec<RuleId>> {
    vec((0..6_u8).prop_map(|n| RuleId::parse(&format!("r{n}")).unwrap()), 0..2)
}

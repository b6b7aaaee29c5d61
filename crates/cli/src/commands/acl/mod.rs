//! `countersign acl`: rules are added, removed, listed, put in place as a whole, and asked about.

mod apply;
mod file;
mod questions;

use std::collections::BTreeMap;

use countersign_api::admin::{AclAdd, AclChanged, AclPolicy, MadeInfo};
use countersign_core::authz::text::{PolicyText, RuleText, RuleTextError};
use countersign_core::authz::{Effect, RuleId};

use crate::admin_client::AdminClient;
use crate::args::{Acl, AclAddArgs, AclRemoveArgs, AclVerb, RuleWords};
use crate::commands::enforcement::{Change, complete, enforced, waiting};
use crate::failure::Failure;
use crate::output::{Output, Text, at_secs, by, now_millis, now_secs, print};

pub(super) async fn run(args: Acl, output: Output) -> Result<(), Failure> {
    let client = || AdminClient::to(&args.target);
    match args.verb {
        AclVerb::Add(add) => {
            let (rule, wait) = (added(&add)?, add.wait);
            note_asterisk(&add.words);
            let client = client()?;
            let body = AclAdd { rule, wait };
            let asked = client.post_patiently("/v1/acl/rules", &body);
            let changed = if wait { waiting(&client, asked, Change::Rule, output).await? } else { asked.await? };
            show(&changed, if changed.put == 0 { "was there before" } else { "added" }, output)
        }
        AclVerb::Remove(remove) => {
            let id = removed(&remove)?;
            let client = client()?;
            let path = format!("/v1/acl/rules/{id}?wait={}", remove.wait);
            let asked = client.delete_patiently(&path);
            let changed =
                if remove.wait { waiting(&client, asked, Change::Rule, output).await? } else { asked.await? };
            show(&changed, "removed", output)
        }
        AclVerb::List { toml } => {
            let policy: AclPolicy = client()?.get("/v1/acl").await?;
            if toml && !output.json {
                print(&as_file(&policy)?)
            } else {
                output.show(&policy, |text| list(text, &policy))
            }
        }
        AclVerb::Check(question) => questions::check(&client()?, &question, output).await,
        AclVerb::Explain(question) => questions::explain(&client()?, &question, output).await,
        AclVerb::WhoCan(who) => questions::who_can(&client()?, &who, output).await,
        AclVerb::Lint => questions::lint(&client()?, output).await,
        AclVerb::Apply(apply) => {
            let policy = file::read(&apply.file)?;
            apply::run(&client()?, policy, &apply, output).await
        }
    }
}

/// The rule that the words say, judged here: a mistake costs no request.
fn added(args: &AclAddArgs) -> Result<RuleText, Failure> {
    let not_after = args.ttl.map(|ttl| now_secs().saturating_add(ttl));
    let text = RuleText { id: args.id.clone(), not_after, ..text(&args.words) };
    text.rule().map_err(|error| unreadable(&error))?;
    Ok(text)
}

/// The id of the rule that is named, or that the words say.
fn removed(args: &AclRemoveArgs) -> Result<RuleId, Failure> {
    match &args.id {
        Some(id) => RuleId::parse(id).map_err(|error| Failure::usage(error, "countersign acl list")),
        None => Ok(text(&args.words).rule().map_err(|error| unreadable(&error))?.id),
    }
}

fn text(words: &RuleWords) -> RuleText {
    let words = words.clone();
    RuleText {
        effect: Some(if words.deny { Effect::Deny } else { Effect::Allow }),
        principal: words.principal.unwrap_or_default(),
        actions: words.action.into_iter().collect(),
        resource: words.resource,
        resource_prefix: words.resource_prefix,
        resource_any: words.any,
        topic: words.topic,
        topic_prefix: words.topic_prefix,
        network: words.from,
        ..RuleText::default()
    }
}

/// What to try about a rule that says nothing.
fn unreadable(error: &RuleTextError) -> Failure {
    let next = match error {
        RuleTextError::Action(_) => "name actions such as read,write, or all",
        RuleTextError::Principal(_) => {
            "name one such as client/pay, client/*, role:Worker[gpu=true], or `*` for everybody"
        }
        RuleTextError::NoKind { .. } | RuleTextError::Kind { .. } => {
            "write KIND:NAME, such as service:pay.v1.Pay/Charge"
        }
        RuleTextError::Network(_) => "write ADDRESS/BITS, such as 10.0.0.0/8",
        RuleTextError::Id(_) | RuleTextError::Resource { .. } | RuleTextError::Rule(_) | RuleTextError::Codec(_) => {
            "countersign acl add --help"
        }
    };
    Failure::usage(error, next)
}

/// In other systems an asterisk stands for all.
fn note_asterisk(words: &RuleWords) {
    let named = [&words.topic, &words.topic_prefix, &words.resource, &words.resource_prefix];
    let asterisk = |name: &&String| name.ends_with('*');
    if let Some(name) = named.into_iter().flatten().find(asterisk) {
        let kind = name.split_once(':').map_or("topic", |(kind, _)| kind);
        let name = crate::output::printable(name);
        eprintln!("note: `{name}` is taken as it is: an asterisk is a letter like any other; --any {kind} means all");
    }
}

fn show(changed: &AclChanged, done: &str, output: Output) -> Result<(), Failure> {
    let named = changed.rules.first().and_then(|rule| rule.id.clone());
    output.show(changed, |text| {
        for rule in &changed.rules {
            text.line(&format!("{done}: {}", said(rule)));
        }
        text.line(&format!("generation {}", changed.generation));
        if let Some(enforcement) = &changed.enforcement {
            enforced(text, enforcement, Change::Rule, now_millis());
        }
    })?;
    let what = named.unwrap_or_else(|| "policy".to_owned());
    changed.enforcement.as_ref().map_or(Ok(()), |enforcement| complete(&what, enforcement, Change::Rule))
}

/// A rule in one line: its id, and what it says.
fn said(text: &RuleText) -> String {
    let id = text.id.as_deref().unwrap_or_default();
    match text.rule() {
        Ok(rule) => format!("{id}  {rule}"),
        // Of a newer version.
        Err(error) => format!("{id}  {error}"),
    }
}

fn list(text: &mut Text, list: &AclPolicy) {
    let PolicyText { super_users, required_capabilities, rule: rules } = &list.policy;
    text.line(&format!("generation {}, policy changed in {}", list.generation, list.changed));
    text.line(&format!("super-users: {}", super_users.join(", ")));
    for (task, any_of) in required_capabilities {
        text.line(&format!("task {task} requires {}", any_of.join(" or ")));
    }
    text.table(
        &["ID", "EFFECT", "PRINCIPAL", "ACTIONS", "RESOURCE", "FROM", "UNTIL", "MADE BY", "MADE"],
        rules.iter().map(|rule| row(rule, &list.made)),
    );
}

fn row(text: &RuleText, made: &BTreeMap<String, MadeInfo>) -> Vec<String> {
    let dash = || "-".to_owned();
    let effect = text.effect.unwrap_or(Effect::Allow).to_string();
    let resource = text.rule().map_or_else(|error| error.to_string(), |rule| format!("{} {}", rule.kind, rule.pattern));
    let made = text.id.as_ref().and_then(|id| made.get(id));
    vec![
        text.id.clone().unwrap_or_default(),
        effect,
        text.principal.clone(),
        text.actions.join(","),
        resource,
        text.network.clone().unwrap_or_else(dash),
        text.not_after.map_or_else(dash, |at| at_secs(at, now_secs())),
        made.map_or_else(dash, by),
        made.map_or_else(dash, |made| at_secs(made.at_millis / 1000, now_secs())),
    ]
}

/// The policy as `acl apply` takes it.
fn as_file(list: &AclPolicy) -> Result<String, Failure> {
    let toml = toml::to_string(&list.policy).map_err(|error| {
        Failure::unreachable(format!("the policy cannot be written: {error}"), "use --json instead")
    })?;
    Ok(format!(
        "# The policy of generation {0}: countersign acl apply FILE --if-generation {0}\n{toml}",
        list.generation
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(topic: &str) -> RuleWords {
        RuleWords {
            principal: Some("client/pay".to_owned()),
            action: Some("read,write".to_owned()),
            topic: Some(topic.to_owned()),
            topic_prefix: None,
            resource: None,
            resource_prefix: None,
            any: None,
            deny: false,
            from: None,
        }
    }

    #[test]
    fn the_words_that_add_a_rule_remove_it() {
        let add = AclAddArgs { words: words("t"), ttl: None, id: None, wait: false };
        let id = added(&add).unwrap().rule().unwrap().id;
        let of = |words: RuleWords, id: Option<&str>| {
            removed(&AclRemoveArgs { words, id: id.map(str::to_owned), wait: false })
        };
        assert_eq!(of(words("t"), None).unwrap(), id);
        assert_ne!(of(words("u"), None).unwrap(), id);
        assert_ne!(of(RuleWords { deny: true, ..words("t") }, None).unwrap(), id);
        assert_eq!(of(words("t"), Some("a")).unwrap().as_str(), "a");
        assert!(of(words("t"), Some("a/b")).is_err());
        assert!(of(RuleWords { topic: None, ..words("t") }, None).is_err());
    }
}

//! A whole policy in place of another: planned, or carried out in one step however long it is.
//!
//! What is carried out is reckoned from the policy that this member has applied, and counts only if that is the one which is
//! changed. Whoever names a generation undoes nobody's later change; whoever names none wants the file, whatever came meanwhile.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Bytes;
use axum::http::StatusCode;
use countersign_api::admin::{AclApply, AclChanged, AclPlan};
use countersign_core::authz::Policy;
use countersign_core::authz::change::{ChangeId, Changed, PolicyChange, PolicyError, StagedParts, StagedRules};
use countersign_core::authz::text::{PolicyText, RuleText};
use countersign_core::codec;
use countersign_core::id::Generation;
use countersign_core::limits::COMMAND_LEN_MAX;
use countersign_core::trust::command::Command;
use countersign_core::trust::outcome::{Outcome, Refused};
use countersign_core::trust::view::View;
use serde::Serialize;

use super::access::{Acting, Permitted};
use super::acl::{answered, aside, command, in_force, overtaken, shown_change};
use super::asked;
use super::problem::AdminError;
use super::recent::{self, Recent};
use crate::keys::random;
use crate::member::Inner;
use crate::propose::CommandError;

/// Bytes of rules and removals in one command. Around them stand a version, a level, which command it is, of which
/// change, the number of the part, and two counts: 30 bytes at most.
const PART_LEN: usize = COMMAND_LEN_MAX - 30;
/// How long this member may take to apply what is asked about.
pub(super) const BEHIND_MAX: Duration = Duration::from_secs(5);
/// How often a change is reckoned anew that others overtook.
const ATTEMPTS: usize = 5;

struct Wanted {
    policy: Arc<Policy>,
    if_generation: Option<Generation>,
    wait: bool,
}

/// Reads a body that may be long.
fn wanted(body: &[u8]) -> Result<Wanted, AdminError> {
    let read: Result<AclApply, _> = serde_json::from_slice(body);
    let AclApply { policy, if_generation, wait } =
        read.map_err(|error| AdminError::invalid(error.to_string(), "see `/v1/openapi.json`"))?;
    let policy = policy.policy().map_err(|error| AdminError::invalid(error.to_string(), "correct the policy"))?;
    Ok(Wanted { policy: Arc::new(policy), if_generation: if_generation.map(Generation), wait })
}

/// What would change, and what would follow from it. Changes nothing.
pub(crate) async fn plan(admin: Permitted, body: Bytes) -> Result<Json<AclPlan>, AdminError> {
    let Wanted { policy, if_generation, .. } = answered(&admin, move || wanted(&body)).await??;
    let member = admin.member()?;
    let view = expected(&member, if_generation).await?;
    let place = admin.question()?;
    let Recent { requests, unheard } = recent::of_all(&member, &view).await;
    drop(place);
    let now = member.now();
    let plan = answered(&admin, move || {
        let change = view.policy.plan(&policy);
        let texts = PolicyText::of(&policy);
        AclPlan {
            generation: view.generation.0,
            add: change.put.iter().map(RuleText::of).collect(),
            remove: change.remove.iter().filter_map(|id| view.policy.rule(id)).map(|rule| RuleText::of(rule)).collect(),
            super_users: change.super_users.map(|_| texts.super_users),
            required_capabilities: change.requirements.map(|_| texts.required_capabilities),
            flips: asked::flips(&view, &policy, &requests, now),
            unheard,
            lint: asked::findings(&View { policy: Arc::clone(&policy), ..View::clone(&view) }, now),
        }
    });
    Ok(Json(plan.await?))
}

pub(crate) async fn apply(admin: Permitted, body: Bytes) -> Result<Json<AclChanged>, AdminError> {
    let Wanted { policy, if_generation, wait } = aside(move || wanted(&body)).await??;
    let member = admin.acting()?;
    let (generation, changed) = carried_out(&member, &policy, if_generation).await?;
    Ok(Json(shown_change(&member, generation, changed, vec![], wait).await))
}

/// The view in force, if the policy has not changed since `if_generation`.
async fn expected(member: &Inner, if_generation: Option<Generation>) -> Result<Arc<View>, AdminError> {
    if let Some(expected) = if_generation {
        applied(member, expected, BEHIND_MAX).await?;
    }
    let view = in_force(member);
    let changed = view.policy.changed();
    match if_generation.filter(|expected| changed > *expected) {
        Some(expected) => Err(overtaken(changed, expected)),
        None => Ok(view),
    }
}

async fn carried_out(
    member: &Acting,
    policy: &Arc<Policy>,
    if_generation: Option<Generation>,
) -> Result<(Generation, Changed), AdminError> {
    let mut attempts = 0;
    loop {
        attempts += 1;
        let view = expected(member, if_generation).await?;
        let (before, after, generation) = (Arc::clone(&view.policy), Arc::clone(policy), view.generation);
        let change = aside(move || PolicyChange { if_generation: Some(generation), ..before.plan(&after) }).await?;
        match proposed(member, change).await {
            // This member was behind, or somebody was faster: planned anew, unless a generation was asked for.
            Err(Failed::Command(CommandError::Refused(Refused::Policy(PolicyError::Changed { changed, .. }))))
                if attempts < ATTEMPTS =>
            {
                applied(member, changed, BEHIND_MAX).await?;
            }
            Err(Failed::Command(error)) => return Err(error.into()),
            Err(Failed::Admin(error)) => return Err(error),
            Ok(done) => return Ok(done),
        }
    }
}

enum Failed {
    Command(CommandError),
    Admin(AdminError),
}

impl From<CommandError> for Failed {
    fn from(error: CommandError) -> Self {
        Self::Command(error)
    }
}

/// Proposes a change, in parts if it is too long for one command: until the last of them nothing has changed.
async fn proposed(member: &Acting, change: PolicyChange) -> Result<(Generation, Changed), Failed> {
    let id = random::<16>().map_err(|error| {
        let next = "repeat the command";
        Failed::Admin(AdminError::new(StatusCode::INTERNAL_SERVER_ERROR, "random", error.to_string(), next))
    })?;
    let id = ChangeId(*id.expose());
    let (parts, change) = aside(move || in_parts(change, id)).await.map_err(Failed::Admin)??;
    for part in parts {
        let done = member.command(part, &[]).await?;
        let Outcome::Staged = done.outcome else { return Err(CommandError::Unknown.into()) };
    }
    Ok(command(member, change).await?)
}

/// The commands that come before a change, and what is left of it for the last one. None if it fits into one itself.
fn in_parts(change: PolicyChange, id: ChangeId) -> Result<(Vec<Command>, PolicyChange), CommandError> {
    let whole = Command::ChangePolicy(Box::new(change));
    let len = whole.encode()?.len();
    let Command::ChangePolicy(change) = whole else { return Err(CommandError::Unknown) };
    let mut change = *change;
    if len <= COMMAND_LEN_MAX {
        return Ok((vec![], change));
    }
    let mut parts = Parts::default();
    for gone in core::mem::take(&mut change.remove) {
        parts.with_room_for(&gone)?.remove.push(gone);
    }
    for rule in core::mem::take(&mut change.put) {
        parts.with_room_for(&rule)?.put.push(rule);
    }
    let staged = |(part, StagedRules { remove, put }): (u32, _)| Command::StagePolicy { change: id, part, remove, put };
    let parts: Vec<Command> = (0..).zip(parts.all).map(staged).collect();
    let count = u32::try_from(parts.len()).map_err(|_| CommandError::TooLong { got: len })?;
    change.staged = Some(StagedParts { change: id, parts: count });
    Ok((parts, change))
}

/// Parts in their order, each as long as it may be.
#[derive(Default)]
struct Parts {
    all: Vec<StagedRules>,
    /// Bytes of what is in the last.
    len: usize,
}

impl Parts {
    /// The part that `item` goes into: the last, or a new one.
    fn with_room_for(&mut self, item: &impl Serialize) -> Result<&mut StagedRules, CommandError> {
        let len = codec::appended(item)?.len();
        self.len = self.len.saturating_add(len);
        if self.all.is_empty() || self.len > PART_LEN {
            self.all.push(StagedRules::default());
            self.len = len;
        }
        self.all.last_mut().ok_or(CommandError::TooLong { got: len })
    }
}

/// Waits until `generation` is in force here.
pub(super) async fn applied(member: &Inner, generation: Generation, patience: Duration) -> Result<(), AdminError> {
    let mut applied = member.state.applied();
    let reached = tokio::time::timeout(patience, applied.wait_for(|applied| *applied >= generation)).await;
    if matches!(reached, Ok(Ok(_))) || in_force(member).generation >= generation {
        return Ok(());
    }
    Err(AdminError::new(
        StatusCode::SERVICE_UNAVAILABLE,
        "behind",
        format!("generation {generation} is not in force here, which has {}", in_force(member).generation),
        "see `countersign status`, and repeat the command, on another member if this one does not catch up",
    ))
}

#[cfg(test)]
mod tests {
    use countersign_core::authz::change::PolicyLimit;
    use countersign_core::authz::{NamePattern, Rule, RuleId};
    use countersign_core::limits::{ACTION_WORDS_MAX, REQUIREMENTS_MAX, SUPER_USERS_MAX};

    use super::*;
    use crate::propose::tests::founded;

    fn policy(rules: usize, topic: &str) -> Arc<Policy> {
        let rule = |at: usize| RuleText {
            principal: format!("client/c{at}"),
            actions: vec!["read".to_owned()],
            topic: Some(format!("{topic}-{at}")),
            ..RuleText::default()
        };
        let super_users = vec!["admin/*".to_owned()];
        let text = PolicyText { super_users, rule: (0..rules).map(rule).collect(), ..PolicyText::default() };
        Arc::new(text.policy().unwrap())
    }

    #[test]
    fn a_list_in_a_body_is_read_up_to_its_limit_and_no_further() {
        let words = |word: &str, len: usize| serde_json::json!(vec![word; len]);
        let rule = |actions| serde_json::json!({"principal": "*", "actions": actions, "topic": "t"});
        let tasks = |len| (0..len).map(|at| (format!("t{at}"), words("R", 1))).collect::<serde_json::Map<_, _>>();
        let read = |policy: serde_json::Value| {
            let body = serde_json::json!({ "policy": policy }).to_string();
            wanted(body.as_bytes()).map(drop).map_err(|error| error.problem.message)
        };
        type Told<'a> = &'a dyn Fn(usize) -> serde_json::Value;
        let lists: [(usize, Told<'_>); 4] = [
            (SUPER_USERS_MAX, &|len| serde_json::json!({"super_users": words("admin/x", len)})),
            (REQUIREMENTS_MAX, &|len| serde_json::json!({"required_capabilities": {"t": words("R", len)}})),
            (REQUIREMENTS_MAX, &|len| serde_json::json!({"required_capabilities": tasks(len)})),
            (ACTION_WORDS_MAX, &|len| serde_json::json!({"rule": [rule(words("read", len))]})),
        ];
        for (max, policy) in lists {
            assert_eq!(read(policy(max)), Ok(()));
            let error = read(policy(max + 1)).unwrap_err();
            assert!(error.contains(&format!("a list is longer than {max}")), "{error}");
        }
    }

    fn rules(policy: &Policy) -> Vec<Rule> {
        policy.rules().map(|rule| Rule::clone(rule)).collect()
    }

    /// Everything that the commands and the change say, and how long each command is.
    fn told(parts: &[Command], id: ChangeId) -> (StagedRules, Vec<usize>) {
        let mut all = StagedRules::default();
        let mut lens = Vec::new();
        for (at, command) in parts.iter().enumerate() {
            let Command::StagePolicy { change, part, remove, put } = command.clone() else { panic!() };
            assert_eq!((change, part as usize), (id, at));
            assert!(!remove.is_empty() || !put.is_empty());
            all.remove.extend(remove.iter().cloned());
            all.put.extend(put.iter().cloned());
            // As long as if it were the last that there can be.
            let command = Command::StagePolicy { change, part: u32::MAX, remove, put };
            lens.push(command.encode().unwrap().len());
        }
        (all, lens)
    }

    #[test]
    fn no_part_is_longer_than_a_command_and_none_is_lost() {
        let (before, after) = (policy(5000, "a"), policy(5000, "b"));
        let change = before.plan(&after);
        assert_eq!((change.remove.len(), change.put.len()), (5000, 5000));
        let id = ChangeId([0xff; 16]);
        let (parts, last) = in_parts(change.clone(), id).unwrap();
        let (all, lens) = told(&parts, id);
        assert_eq!(all, StagedRules { remove: change.remove, put: change.put });
        assert!(lens.iter().all(|len| *len <= COMMAND_LEN_MAX), "{lens:?}");
        let (_, but_the_last) = lens.split_last().unwrap();
        assert!(but_the_last.iter().all(|len| *len > COMMAND_LEN_MAX - 256), "{lens:?}");
        let staged = Some(StagedParts { change: id, parts: u32::try_from(parts.len()).unwrap() });
        assert_eq!(last, PolicyChange { staged, ..PolicyChange::default() });
        // Of small things a part is full to the last bytes.
        let remove = (0..20_000).map(|at| RuleId::parse(&format!("{at:05}")).unwrap()).collect();
        let (parts, _) = in_parts(PolicyChange { remove, ..PolicyChange::default() }, id).unwrap();
        let (_, lens) = told(&parts, id);
        assert!(lens.len() == 2 && lens[0] <= COMMAND_LEN_MAX && lens[0] > COMMAND_LEN_MAX - 12, "{lens:?}");
    }

    #[test]
    fn a_change_that_fits_one_command_stays_one_and_one_byte_more_makes_parts() {
        let id = ChangeId([1; 16]);
        let mut change = PolicyChange { put: rules(&policy(1500, "a")), ..PolicyChange::default() };
        let len = |change: &PolicyChange| Command::ChangePolicy(Box::new(change.clone())).encode().unwrap().len();
        assert!(len(&change) > COMMAND_LEN_MAX);
        while len(&change) > COMMAND_LEN_MAX {
            change.put.pop();
        }
        // What is missing to the limit is shared by two names, whose lengths stay short enough for one byte.
        let missing = COMMAND_LEN_MAX - len(&change);
        let longer = |by: usize| {
            let mut change = change.clone();
            for (rule, by) in change.put.iter_mut().zip([by / 2, by - by / 2]) {
                rule.pattern = NamePattern::Exact("x".repeat(rule.pattern.text().len() + by).into());
            }
            change
        };
        let fits = longer(missing);
        assert_eq!(len(&fits), COMMAND_LEN_MAX);
        assert_eq!(in_parts(fits.clone(), id).unwrap(), (vec![], fits));
        let (parts, last) = in_parts(longer(missing + 1), id).unwrap();
        assert_eq!((parts.len(), last.put.len()), (2, 0));
    }

    #[tokio::test]
    async fn ten_thousand_rules_are_taken_out_and_as_many_put_in_by_one_generation() {
        let data = tempfile::tempdir().unwrap();
        let running = founded(&data).await;
        let member = &Permitted::for_testing(&running.0, "test").acting().unwrap();
        let (first, _) = carried_out(member, &policy(10_000, "a"), None).await.unwrap();
        let (second, changed) = carried_out(member, &policy(10_000, "b"), Some(first)).await.unwrap();
        assert_eq!((second.0, changed.put, changed.removed), (first.0 + 1, 10_000, 10_000));
        let view = in_force(member);
        assert_eq!((view.generation, view.policy.changed(), view.policy.len()), (second, second, 10_000));
        assert!(view.policy.plan(&policy(10_000, "b")) == PolicyChange::default());
        running.shutdown().await;
    }

    #[tokio::test]
    async fn a_change_whose_last_part_is_missing_is_refused() {
        let data = tempfile::tempdir().unwrap();
        let running = founded(&data).await;
        let member = &Permitted::for_testing(&running.0, "test").acting().unwrap();
        let before = in_force(member);
        let (mut parts, last) = in_parts(before.policy.plan(&policy(3000, "a")), ChangeId([1; 16])).unwrap();
        parts.pop().unwrap();
        assert!(!parts.is_empty());
        for part in parts {
            member.command(part, &[]).await.unwrap();
        }
        let refused = command(member, last).await.unwrap_err();
        assert!(matches!(refused, CommandError::Refused(Refused::Policy(PolicyError::PartsMissing))), "{refused:?}");
        assert!(Arc::ptr_eq(&before.policy, &in_force(member).policy));
        running.shutdown().await;
    }

    #[tokio::test]
    async fn a_policy_of_many_commands_is_put_in_place_in_one_step_and_not_over_another_s_change() {
        let data = tempfile::tempdir().unwrap();
        let running = founded(&data).await;
        let member = &Permitted::for_testing(&running.0, "test").acting().unwrap();
        let before = in_force(member).generation;
        let (generation, changed) = carried_out(member, &policy(3000, "a"), None).await.unwrap();
        assert_eq!((generation.0, changed.put, changed.removed), (before.0 + 1, 3000, 0));
        assert_eq!(in_force(member).policy.len(), 3000);
        // What was planned before that is refused.
        let late = carried_out(member, &policy(1, "b"), Some(before)).await.unwrap_err();
        assert_eq!((late.status, late.problem.code.as_str()), (StatusCode::CONFLICT, "changed"));
        assert_eq!(in_force(member).policy.len(), 3000);
        let (again, changed) = carried_out(member, &policy(3000, "a"), Some(generation)).await.unwrap();
        assert_eq!((again, changed), (generation, Changed::default()));
        // What is refused leaves everything as it was, however many parts were sent.
        let super_users = (0..65).map(|at| format!("admin/a{at}").parse().unwrap()).collect::<Vec<_>>();
        let many = Arc::new(Policy::of(super_users, rules(&policy(3000, "b"))));
        let refused = carried_out(member, &many, None).await.unwrap_err();
        assert_eq!(refused.problem.message, PolicyError::Limit { what: PolicyLimit::SuperUsers, max: 64 }.to_string());
        assert_eq!(in_force(member).generation, generation);
        running.shutdown().await;
    }
}

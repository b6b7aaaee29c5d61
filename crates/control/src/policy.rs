//! Rules: added, removed, and a whole policy in place of another, planned or carried out in one step however long it
//! is.
//!
//! A whole policy is carried out from the policy that this member has applied, and only if that is the one which is
//! changed. A caller who names a generation undoes no later change; a caller who names none wants the new policy,
//! whatever changed meanwhile.

use std::sync::Arc;
use std::time::Duration;

use countersign_core::authz::change::{ChangeId, Changed, PolicyChange, PolicyError, StagedParts, StagedRules};
use countersign_core::authz::{Flip, Lint, Policy, Rule, RuleId, dry_run, lint};
use countersign_core::codec;
use countersign_core::id::Generation;
use countersign_core::limits::COMMAND_LEN_MAX;
use countersign_core::trust::command::{Command, StagePolicy};
use countersign_core::trust::outcome::{Outcome, Refused};
use countersign_core::trust::view::View;
use countersign_node::{CommandError, random};
use serde::Serialize;

use crate::others::{Recent, recent};
use crate::{Control, ControlError};

/// Bytes of rules and removals in one command. Around them stand a version, a level, which command it is, of which
/// change, the number of the part, and two counts: 30 bytes at most.
const PART_LEN: usize = COMMAND_LEN_MAX - 30;
/// How long this member may take to apply a generation that is waited for.
const BEHIND_MAX: Duration = Duration::from_secs(5);
/// How often a change is planned again after others overtook it.
const ATTEMPTS: usize = 5;

/// Rules that were changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PolicyChanged {
    /// The generation that shows it.
    pub generation: Generation,
    /// How many rules were put in and taken out.
    pub changed: Changed,
}

/// What putting a policy in place of the one in force would change, and what would follow.
#[derive(Debug, Clone)]
pub struct PolicyPlan {
    /// The view that the plan was made from.
    pub view: Arc<View>,
    /// What would change.
    pub change: PolicyChange,
    /// Recent requests that would be decided otherwise.
    pub flips: Vec<Flip>,
    /// Members whose recent requests are not known.
    pub unheard: Vec<String>,
    /// The oddities of the new policy.
    pub lint: Vec<Lint>,
}

impl Control {
    /// Adds one rule.
    ///
    /// # Errors
    /// [`ControlError::Command`]: there is a rule of that id, or a limit is exceeded.
    pub async fn add_rule(&self, rule: Rule) -> Result<PolicyChanged, ControlError> {
        let change = PolicyChange { put: vec![rule], ..PolicyChange::default() };
        Ok(self.change_policy(change).await?)
    }

    /// Removes one rule, and returns it as it was known here before or after.
    ///
    /// # Errors
    /// [`ControlError::Command`]: there is no such rule.
    pub async fn remove_rule(&self, id: RuleId) -> Result<(PolicyChanged, Option<Arc<Rule>>), ControlError> {
        // Before and after: this member may be behind the leader.
        let known = || self.view().policy.rule(&id).cloned();
        let before = known();
        let change = PolicyChange { remove: vec![id.clone()], ..PolicyChange::default() };
        let changed = self.change_policy(change).await?;
        Ok((changed, before.or_else(known)))
    }

    /// Puts `policy` in place of the one in force, if that has not changed since `if_generation`.
    ///
    /// # Errors
    /// [`ControlError::Command`], [`ControlError::Behind`].
    pub async fn apply_policy(
        &self,
        policy: &Arc<Policy>,
        if_generation: Option<Generation>,
    ) -> Result<PolicyChanged, ControlError> {
        let mut attempts = 0;
        loop {
            attempts += 1;
            let view = self.expected(if_generation).await?;
            let (before, after, generation) = (Arc::clone(&view.policy), Arc::clone(policy), view.generation);
            let change = aside(move || PolicyChange { if_generation: Some(generation), ..before.plan(&after) }).await?;
            match self.propose_policy(change).await {
                // This member was behind, or another change was faster: planned again, unless a generation was asked
                // for.
                Err(ControlError::Command(CommandError::Refused(Refused::Policy(PolicyError::Changed {
                    changed,
                    ..
                }))))
                    if attempts < ATTEMPTS =>
                {
                    self.applied(changed).await?;
                }
                done => return done,
            }
        }
    }

    /// Plans to put `policy` in place of the one in force. Changes nothing. `held` is dropped once the work has ended,
    /// also if the caller does not wait for it: a place among few.
    ///
    /// # Errors
    /// [`ControlError::Command`] if the policy has changed since `if_generation`; [`ControlError::Behind`].
    pub async fn plan_policy<H: Send + 'static>(
        &self,
        policy: Arc<Policy>,
        if_generation: Option<Generation>,
        held: H,
    ) -> Result<PolicyPlan, ControlError> {
        let view = self.expected(if_generation).await?;
        let Recent { requests, unheard } = recent(&self.parts.guard, &self.parts.local, &self.parts.peers, &view).await;
        let now = self.now();
        aside(move || {
            let change = view.policy.plan(&policy);
            let flips = dry_run(&view, &policy, &requests, now);
            let lint = lint(&View { policy, ..View::clone(&view) }, now);
            drop(held);
            PolicyPlan { view, change, flips, unheard, lint }
        })
        .await
    }

    /// The view in force here, of this generation at least.
    ///
    /// # Errors
    /// [`ControlError::Behind`].
    pub async fn view_from(&self, generation: Generation) -> Result<Arc<View>, ControlError> {
        self.applied(generation).await?;
        Ok(self.view())
    }

    /// Waits until `generation` is in force here.
    pub(crate) async fn applied(&self, generation: Generation) -> Result<(), ControlError> {
        let mut applied = self.parts.state.applied();
        let reached = tokio::time::timeout(BEHIND_MAX, applied.wait_for(|applied| *applied >= generation)).await;
        let in_force = self.view().generation;
        if matches!(reached, Ok(Ok(_))) || in_force >= generation {
            return Ok(());
        }
        Err(ControlError::Behind { wanted: generation, applied: in_force })
    }

    /// The view in force, if the policy has not changed since `if_generation`.
    async fn expected(&self, if_generation: Option<Generation>) -> Result<Arc<View>, ControlError> {
        if let Some(expected) = if_generation {
            self.applied(expected).await?;
        }
        let view = self.view();
        let changed = view.policy.changed();
        match if_generation.filter(|expected| changed > *expected) {
            Some(expected) => Err(overtaken(changed, expected)),
            None => Ok(view),
        }
    }

    async fn change_policy(&self, change: PolicyChange) -> Result<PolicyChanged, CommandError> {
        self.command(Command::ChangePolicy(Box::new(change)), &[]).await?.answered(|outcome| {
            let Outcome::Policy { generation, changed } = outcome else { return None };
            Some(PolicyChanged { generation, changed })
        })
    }

    /// Proposes a change, in parts if it is too long for one command: until the last of them nothing has changed.
    async fn propose_policy(&self, change: PolicyChange) -> Result<PolicyChanged, ControlError> {
        let id = ChangeId(*random::<16>().map_err(ControlError::Random)?.expose());
        let (parts, change) = aside(move || in_parts(change, id)).await??;
        for part in parts {
            self.command(part, &[]).await?.answered(|outcome| matches!(outcome, Outcome::Staged).then_some(()))?;
        }
        Ok(self.change_policy(change).await?)
    }
}

/// Another change was faster.
fn overtaken(changed: Generation, expected: Generation) -> ControlError {
    CommandError::Refused(Refused::Policy(PolicyError::Changed { changed, expected })).into()
}

/// Work that takes longer than a task may without a pause.
async fn aside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, ControlError> {
    tokio::task::spawn_blocking(work).await.map_err(|_| ControlError::BrokeOff)
}

/// The commands that come before a change, and the rest of the change for the last one. None if it fits into one
/// itself.
fn in_parts(change: PolicyChange, id: ChangeId) -> Result<(Vec<Command>, PolicyChange), CommandError> {
    let len = Command::ChangePolicy(Box::new(change.clone())).encode()?.len();
    if len <= COMMAND_LEN_MAX {
        return Ok((vec![], change));
    }
    let mut change = change;
    let mut parts = Parts::default();
    for gone in core::mem::take(&mut change.remove) {
        parts.with_room_for(&gone)?.remove.push(gone);
    }
    for rule in core::mem::take(&mut change.put) {
        parts.with_room_for(&rule)?.put.push(rule);
    }
    let staged = |(part, StagedRules { remove, put }): (u32, _)| {
        Command::StagePolicy(StagePolicy { change: id, part, remove, put })
    };
    let parts: Vec<Command> = (0..).zip(parts.all).map(staged).collect();
    let count = u32::try_from(parts.len()).map_err(|_| CommandError::TooLong { got: len })?;
    change.staged = Some(StagedParts { change: id, parts: count });
    Ok((parts, change))
}

/// Parts in their order, each as long as it may be.
#[derive(Default)]
struct Parts {
    all: Vec<StagedRules>,
    /// Bytes in the last.
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

#[cfg(test)]
mod tests {
    use countersign_core::authz::NamePattern;
    use countersign_core::authz::change::PolicyLimit;
    use countersign_core::authz::text::{PolicyText, RuleText};
    use countersign_core::id::RequestId;
    use countersign_core::trust::author::{Actor, Claim};
    use countersign_node::testing::founded;

    use super::*;
    use crate::Controls;

    fn operator(node: &countersign_node::Node) -> Control {
        let claim = Claim { actor: Actor::Operator { uid: 0 }, source: None, request: RequestId([0; 16]) };
        Controls::of(node).author(claim)
    }

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

    fn rules(policy: &Policy) -> Vec<Rule> {
        policy.rules().map(|rule| Rule::clone(rule)).collect()
    }

    /// Everything that the commands and the change say, and how long each command is.
    fn told(parts: &[Command], id: ChangeId) -> (StagedRules, Vec<usize>) {
        let mut all = StagedRules::default();
        let mut lens = Vec::new();
        for (at, command) in parts.iter().enumerate() {
            let Command::StagePolicy(StagePolicy { change, part, remove, put }) = command.clone() else { panic!() };
            assert_eq!((change, part as usize), (id, at));
            assert!(!remove.is_empty() || !put.is_empty());
            all.remove.extend(remove.iter().cloned());
            all.put.extend(put.iter().cloned());
            // As long as if it were the last that there can be.
            let command = Command::StagePolicy(StagePolicy { change, part: u32::MAX, remove, put });
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
        // Two names share the bytes that are missing to the limit; their lengths stay short enough for one byte.
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
        let running = founded(data.path()).await.unwrap();
        let member = &operator(&running);
        let PolicyChanged { generation: first, changed: _ } =
            member.apply_policy(&policy(10_000, "a"), None).await.unwrap();
        let PolicyChanged { generation: second, changed } =
            member.apply_policy(&policy(10_000, "b"), Some(first)).await.unwrap();
        assert_eq!((second.0, changed.put, changed.removed), (first.0 + 1, 10_000, 10_000));
        let view = member.view();
        assert_eq!((view.generation, view.policy.changed(), view.policy.len()), (second, second, 10_000));
        assert!(view.policy.plan(&policy(10_000, "b")) == PolicyChange::default());
        running.shutdown().await;
    }

    #[tokio::test]
    async fn a_change_whose_last_part_is_missing_is_refused() {
        let data = tempfile::tempdir().unwrap();
        let running = founded(data.path()).await.unwrap();
        let member = &operator(&running);
        let before = member.view();
        let (mut parts, last) = in_parts(before.policy.plan(&policy(3000, "a")), ChangeId([1; 16])).unwrap();
        parts.pop().unwrap();
        assert!(!parts.is_empty());
        for part in parts {
            member.command(part, &[]).await.unwrap();
        }
        let refused = member.change_policy(last).await.unwrap_err();
        assert!(matches!(refused, CommandError::Refused(Refused::Policy(PolicyError::PartsMissing))), "{refused:?}");
        assert!(Arc::ptr_eq(&before.policy, &member.view().policy));
        running.shutdown().await;
    }

    #[tokio::test]
    async fn a_policy_of_many_commands_is_put_in_place_in_one_step_and_not_over_another_s_change() {
        let data = tempfile::tempdir().unwrap();
        let running = founded(data.path()).await.unwrap();
        let member = &operator(&running);
        let before = member.view().generation;
        let PolicyChanged { generation, changed } = member.apply_policy(&policy(3000, "a"), None).await.unwrap();
        assert_eq!((generation.0, changed.put, changed.removed), (before.0 + 1, 3000, 0));
        assert_eq!(member.view().policy.len(), 3000);
        // A plan made before that is refused.
        let late = member.apply_policy(&policy(1, "b"), Some(before)).await.unwrap_err();
        assert!(
            matches!(late, ControlError::Command(CommandError::Refused(Refused::Policy(PolicyError::Changed { .. })))),
            "{late:?}"
        );
        assert_eq!(member.view().policy.len(), 3000);
        let PolicyChanged { generation: again, changed } =
            member.apply_policy(&policy(3000, "a"), Some(generation)).await.unwrap();
        assert_eq!((again, changed), (generation, Changed::default()));
        // A refused change leaves everything as it was, however many parts were sent.
        let super_users = (0..65).map(|at| format!("admin/a{at}").parse().unwrap()).collect::<Vec<_>>();
        let many = Arc::new(Policy::of(super_users, rules(&policy(3000, "b"))));
        let refused = member.apply_policy(&many, None).await.unwrap_err();
        assert_eq!(refused.to_string(), PolicyError::Limit { what: PolicyLimit::SuperUsers, max: 64 }.to_string());
        assert_eq!(member.view().generation, generation);
        running.shutdown().await;
    }
}

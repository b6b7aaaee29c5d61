//! The rules that a remote guard was told of each principal, and whether they still count. No IO, no clock: time is an
//! argument.
//!
//! The order of things told is that of the watch. An answer that was on its way while its principal changed is not
//! taken: decided, revoked, and only then remembered is what must never be.

use std::collections::HashMap;
use std::sync::Arc;

use countersign_core::authz::{Policy, PrincipalPattern, Subject};
use countersign_core::id::Generation;
use countersign_core::limits::{SLICES_MAX, SLICES_WEIGHT_MAX};
use countersign_core::time::BootMillis;

use crate::source::Compiled;

/// What rules say of one principal, as of a generation.
#[derive(Clone)]
pub(crate) struct Slice {
    pub(crate) generation: Generation,
    pub(crate) subject: Subject,
    pub(crate) policy: Arc<Policy>,
    pub(crate) compiled: Compiled,
    /// For which it may be kept, from when it was asked for.
    pub(crate) keep_millis: u64,
}

struct Kept {
    slice: Slice,
    until: BootMillis,
    used: BootMillis,
}

/// A question that is under way.
#[derive(Debug)]
struct Asked {
    /// Names this question: a later one about the same principal is another.
    turn: u64,
    /// The generation that an answer must be of, or a later one.
    at_least: Generation,
}

/// A question to be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Question {
    pub(crate) turn: u64,
    pub(crate) at_least: Generation,
}

/// What becomes of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Taken {
    /// It is kept.
    Kept,
    /// It was overtaken by a change: ask again.
    Again(Question),
    /// No caller waits for it any more.
    Dropped,
}

/// Bounded, both in the rules kept and in the questions asked.
#[derive(Default)]
pub(crate) struct Cache {
    generation: Generation,
    turn: u64,
    kept: HashMap<String, Kept>,
    /// Bytes of the rules in it, about.
    weight: usize,
    asked: HashMap<String, Asked>,
}

impl Cache {
    /// The generation up to which everything was told.
    pub(crate) const fn generation(&self) -> Generation {
        self.generation
    }

    /// The rules of a principal and the time until which they count; none if there are none that still count.
    pub(crate) fn slice(&mut self, principal: &str, now: BootMillis) -> Option<(&Slice, BootMillis)> {
        if self.kept.get(principal).is_some_and(|kept| now >= kept.until) {
            self.forget(principal);
        }
        let kept = self.kept.get_mut(principal)?;
        kept.used = now;
        Some((&kept.slice, kept.until))
    }

    /// The question to ask about a principal; none if it is under way.
    pub(crate) fn ask(&mut self, principal: &str) -> Option<Question> {
        if self.asked.contains_key(principal) {
            return None;
        }
        self.turn += 1;
        let question = Question { turn: self.turn, at_least: self.generation };
        let asked = Asked { turn: question.turn, at_least: question.at_least };
        self.asked.insert(principal.to_owned(), asked);
        Some(question)
    }

    /// No answer came.
    pub(crate) fn failed(&mut self, principal: &str, turn: u64) {
        if self.asked.get(principal).is_some_and(|asked| asked.turn == turn) {
            self.asked.remove(principal);
        }
    }

    /// An answer to question `turn`, asked at `since`.
    pub(crate) fn answered(&mut self, principal: &str, turn: u64, slice: Slice, since: BootMillis) -> Taken {
        let Some(asked) = self.asked.get(principal).filter(|asked| asked.turn == turn) else { return Taken::Dropped };
        if slice.generation < asked.at_least {
            return Taken::Again(Question { turn, at_least: asked.at_least });
        }
        self.asked.remove(principal);
        self.forget(principal);
        let weight = slice.policy.weight();
        while !self.kept.is_empty() && (self.kept.len() >= SLICES_MAX || self.weight + weight > SLICES_WEIGHT_MAX) {
            self.forget_oldest();
        }
        self.weight += weight;
        let until = since.plus(slice.keep_millis);
        self.kept.insert(principal.to_owned(), Kept { slice, until, used: since });
        Taken::Kept
    }

    /// The watch tells that at `generation` all is as before but for these.
    pub(crate) fn told(&mut self, generation: Generation, everybody: bool, changed: &[PrincipalPattern]) {
        if everybody {
            (self.kept, self.weight) = (HashMap::new(), 0);
            self.asked.values_mut().for_each(|asked| asked.at_least = asked.at_least.max(generation));
        } else if !changed.is_empty() {
            // An answer that is newer than the change has it in it.
            let concerned = |kept: &Kept| {
                kept.slice.generation < generation && changed.iter().any(|pattern| pattern.matches(&kept.slice.subject))
            };
            self.kept.retain(|_, kept| !concerned(kept));
            self.weight = self.kept.values().map(|kept| kept.slice.policy.weight()).sum();
            for (principal, asked) in &mut self.asked {
                // Its roles are not known yet.
                let may_concern = |pattern: &PrincipalPattern| match pattern {
                    PrincipalPattern::Any | PrincipalPattern::Role(_) => true,
                    PrincipalPattern::Exact(name) => **name == **principal,
                    PrincipalPattern::Prefix(prefix) => principal.starts_with(&**prefix),
                };
                if changed.iter().any(may_concern) {
                    asked.at_least = asked.at_least.max(generation);
                }
            }
        }
        self.generation = self.generation.max(generation);
    }

    /// The watch was interrupted: changes may have been missed.
    pub(crate) fn lost(&mut self) {
        (self.kept, self.weight) = (HashMap::new(), 0);
        self.asked.clear();
    }

    fn forget_oldest(&mut self) {
        let oldest = self.kept.iter().min_by_key(|(_, kept)| kept.used).map(|(principal, _)| principal.clone());
        if let Some(principal) = oldest {
            self.forget(&principal);
        }
    }

    fn forget(&mut self, principal: &str) {
        if let Some(kept) = self.kept.remove(principal) {
            self.weight = self.weight.saturating_sub(kept.slice.policy.weight());
        }
    }

    /// Whether a question about the principal is under way.
    pub(crate) fn is_asked(&self, principal: &str) -> bool {
        self.asked.contains_key(principal)
    }

    /// Principals of which something is kept.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.kept.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slice(principal: &str, generation: u64) -> Slice {
        let subject = Subject { name: principal.to_owned(), ..Subject::default() };
        let (policy, compiled) = (Arc::default(), Compiled::default());
        Slice { generation: Generation(generation), subject, policy, compiled, keep_millis: 300_000 }
    }

    fn pattern(text: &str) -> PrincipalPattern {
        text.parse().unwrap()
    }

    const PAY: &str = "client/pay";
    const NOW: BootMillis = BootMillis(0);

    fn cache() -> Cache {
        let mut cache = Cache::default();
        cache.told(Generation(5), true, &[]);
        cache
    }

    fn kept(cache: &mut Cache, principal: &str) -> Option<u64> {
        cache.slice(principal, NOW).map(|(slice, _)| slice.generation.0)
    }

    #[test]
    fn a_question_is_asked_once_however_many_wait() {
        let mut cache = cache();
        let question = cache.ask(PAY).unwrap();
        assert!(cache.ask(PAY).is_none() && cache.ask("client/shop").is_some());
        assert_eq!(cache.answered(PAY, question.turn, slice(PAY, 5), NOW), Taken::Kept);
        assert_eq!(kept(&mut cache, PAY), Some(5));
    }

    #[test]
    fn an_answer_that_a_revocation_overtook_is_not_remembered() {
        for changed in ["client/pay", "client/*", "*", "role:Worker"] {
            let mut cache = cache();
            let question = cache.ask(PAY).unwrap();
            cache.told(Generation(6), changed == "*", &[pattern(changed)]);
            let again = Question { turn: question.turn, at_least: Generation(6) };
            let taken = cache.answered(PAY, question.turn, slice(PAY, 5), NOW);
            assert_eq!(taken, Taken::Again(again), "{changed}");
            assert_eq!(kept(&mut cache, PAY), None);
            assert_eq!(cache.answered(PAY, question.turn, slice(PAY, 6), NOW), Taken::Kept);
        }
    }

    #[test]
    fn an_answer_of_a_controller_that_is_behind_is_not_taken() {
        let mut cache = cache();
        let question = cache.ask(PAY).unwrap();
        assert_eq!(question.at_least, Generation(5));
        assert!(matches!(cache.answered(PAY, question.turn, slice(PAY, 4), NOW), Taken::Again(_)));
    }

    #[test]
    fn only_what_changed_is_forgotten() {
        let mut cache = cache();
        for principal in [PAY, "client/shop", "broker/b1"] {
            let question = cache.ask(principal).unwrap();
            cache.answered(principal, question.turn, slice(principal, 5), NOW);
        }
        cache.told(Generation(6), false, &[]);
        cache.told(Generation(7), false, &[pattern("client/shop"), pattern("role:Worker")]);
        assert_eq!((kept(&mut cache, PAY), kept(&mut cache, "client/shop")), (Some(5), None));
        cache.told(Generation(8), false, &[pattern("broker/*")]);
        assert_eq!((kept(&mut cache, PAY), kept(&mut cache, "broker/b1")), (Some(5), None));
        cache.told(Generation(9), true, &[]);
        assert_eq!((kept(&mut cache, PAY), cache.generation()), (None, Generation(9)));
    }

    #[test]
    fn what_was_asked_before_the_watch_broke_is_not_remembered_after_it() {
        let mut cache = cache();
        let before = cache.ask(PAY).unwrap();
        cache.lost();
        cache.told(Generation(9), true, &[]);
        assert_eq!(cache.answered(PAY, before.turn, slice(PAY, 9), NOW), Taken::Dropped);
        let after = cache.ask(PAY).unwrap();
        assert_eq!(cache.answered(PAY, before.turn, slice(PAY, 9), NOW), Taken::Dropped);
        assert_eq!(cache.answered(PAY, after.turn, slice(PAY, 9), NOW), Taken::Kept);
    }

    #[test]
    fn what_is_kept_ends_after_its_time_also_if_it_is_asked_for_all_the_while() {
        let mut cache = cache();
        let question = cache.ask(PAY).unwrap();
        cache.answered(PAY, question.turn, slice(PAY, 5), BootMillis(1000));
        for now in (1000..301_000).step_by(1000) {
            assert!(cache.slice(PAY, BootMillis(now)).is_some(), "{now}");
        }
        assert!(cache.slice(PAY, BootMillis(301_000)).is_none());
    }

    #[test]
    fn as_many_principals_are_kept_as_may_be_and_then_the_one_unused_for_longest_goes() {
        let mut cache = cache();
        let name = |i: usize| format!("client/c{i}");
        for i in 0..=SLICES_MAX {
            let question = cache.ask(&name(i)).unwrap();
            cache.answered(&name(i), question.turn, slice(&name(i), 5), BootMillis(i as u64));
            assert!(cache.slice(&name(0), BootMillis(i as u64)).is_some(), "the first is used all the time");
            assert_eq!(cache.len(), (i + 1).min(SLICES_MAX));
        }
        assert!(cache.slice(&name(1), NOW).is_none());
    }

    #[test]
    fn a_question_that_failed_may_be_asked_again() {
        let mut cache = cache();
        let question = cache.ask(PAY).unwrap();
        cache.failed(PAY, question.turn + 1);
        assert!(cache.ask(PAY).is_none());
        cache.failed(PAY, question.turn);
        assert!(cache.ask(PAY).is_some());
    }
}

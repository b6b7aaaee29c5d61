//! A member that was away believes a peer only after a majority of the voters that it knows showed their newest view.
//!
//! Voters are evicted one after the other. Each view is known to a majority of the voters before it and of those after
//! it; others learn it later, or never. The evicted lie: they show the view that suits them, and say that they lead.

/// The voters at the beginning are `0..voters`; each view evicts the last one of those that remain. One more member
/// votes nowhere, and knows the first view only.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scope {
    pub(crate) voters: usize,
    pub(crate) evictions: usize,
    /// A member without a lease asks before it believes.
    pub(crate) asks: bool,
    /// When it is shown a newer view, it asks the voters of that one too.
    pub(crate) again: bool,
    /// An eviction waits until every voter that remains knows of the one before.
    pub(crate) waits: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Views {
    pub(crate) newest: usize,
    /// The newest view that each member knows; the last one is the member that does not vote.
    pub(crate) knows: Vec<usize>,
    /// A member without a lease believes an evicted voter that claims a higher term.
    pub(crate) captured: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Event {
    /// The next view is committed; `known` is the set of those who have it then, as bits.
    Evict {
        known: u32,
    },
    Learn {
        member: usize,
    },
    /// A member without a lease asks the voters of its view; those in `asked` answer.
    Ask {
        member: usize,
        asked: u32,
    },
}

impl Scope {
    fn count(set: u32, voters: usize) -> usize {
        (set & ((1 << voters) - 1)).count_ones() as usize
    }

    fn remain(&self, view: usize) -> usize {
        self.voters - view
    }

    pub(crate) fn begin(&self) -> Views {
        Views { newest: 0, knows: vec![0; self.voters + 1], captured: false }
    }

    pub(crate) fn after(&self, before: &Views, event: Event) -> Option<Views> {
        let mut next = before.clone();
        match event {
            Event::Evict { known } => {
                next.newest += 1;
                let majority = |voters: usize| 2 * Self::count(known, voters) > voters;
                let ready = |voter: usize| before.knows[voter] == before.newest;
                let (old, rest) = (self.remain(before.newest), self.remain(next.newest));
                let waited = !self.waits || (0..rest).all(ready);
                // The victim helps as long as it votes; no other evicted member does.
                let agreed = known >> old == 0 && majority(old) && majority(rest);
                (next.newest <= self.evictions && agreed && waited).then_some(())?;
                (0..rest).filter(|voter| known >> voter & 1 == 1).for_each(|voter| next.knows[voter] = next.newest);
            }
            Event::Learn { member } => next.knows[member] = before.newest,
            Event::Ask { member, asked } => {
                let view = before.knows[member];
                let voters = self.remain(view);
                (!self.asks || 2 * Self::count(asked, voters) > voters).then_some(())?;
                // The evicted show the asker nothing newer than it has.
                let honest = (0..self.remain(before.newest)).filter(|voter| asked >> voter & 1 == 1);
                let shown = honest.map(|voter| before.knows[voter]).max().unwrap_or(0).max(view);
                next.knows[member] = shown;
                // One that its own newest view does not refuse, and that is out.
                next.captured = (shown == view || !self.again) && shown < before.newest;
            }
        }
        (next != *before).then_some(next)
    }

    pub(crate) fn events(&self, views: &Views, events: &mut Vec<Event>) {
        events.extend((0..1 << self.voters).map(|known| Event::Evict { known }));
        for member in (0..self.remain(views.newest)).chain([self.voters]) {
            events.push(Event::Learn { member });
            events.extend((0..1 << self.voters).map(|asked| Event::Ask { member, asked }));
        }
    }
}

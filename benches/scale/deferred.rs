//! Deferred writes: which of those that wait is brought before its budget next.

use crate::{Scale, credential, peer};
use segment_gateway::lanes::Turn;
use segment_gateway::limit::turns::Urgency;
use segment_gateway::write::durable::scheduler::{LineKey, Scheduler};
use std::collections::BTreeSet;
use std::hint::black_box;
use std::sync::Arc;

/// The credential and the caller of the nth write.
type NthLine = fn(u32) -> (u32, u32);

pub(crate) fn measure(scale: &Scale) {
    scale.title("a deferred write, with others that wait to be scheduled");
    let lines: [(&str, NthLine); 3] = [
        ("of one caller", |_| (0, 0)),
        ("each a caller", |n| (0, n)),
        ("each a credential", |n| (n, n)),
    ];
    for (whose, line) in lines {
        scale.row(
            &format!("{whose}: it enters, one is scheduled, one is gone"),
            |others| {
                let mut waiting = Waiting::new(others, line);
                move || waiting.step(line)
            },
        );
        scale.row(
            &format!("{whose}: what is before the last of them?"),
            |others| {
                let waiting = Waiting::new(others, line);
                move || waiting.before(waiting.next - 1)
            },
        );
        scale.row(
            &format!("{whose}: what is before the one in the middle?"),
            |others| {
                let waiting = Waiting::new(others, line);
                move || waiting.before(waiting.next / 2)
            },
        );
    }
}

/// Deferred writes of one operation.
struct Waiting {
    scheduler: Scheduler<()>,
    next: Turn,
    others: u32,
    /// Those before their budgets, the oldest first.
    standing: std::collections::VecDeque<(Turn, LineKey)>,
}

impl Waiting {
    fn new(others: u32, line: NthLine) -> Self {
        let mut waiting = Self {
            scheduler: Scheduler::default(),
            next: 0,
            others,
            standing: std::collections::VecDeque::new(),
        };
        let most = 64.min(others / 2);
        for n in 0..others {
            waiting.enter(line(n));
        }
        waiting.schedule();
        assert!(waiting.standing.len() >= most as usize);
        waiting
    }

    fn enter(&mut self, (token, caller): (u32, u32)) {
        let line = LineKey {
            credential: credential(token),
            operation: Arc::from("createInvites"),
            caller: peer(caller),
            merges: false,
        };
        let urgency = Urgency::DEFERRED;
        self.scheduler.enter(self.next, (), line, urgency, true);
        self.next += 1;
    }

    fn schedule(&mut self) {
        let none_follows = |_, _, _: &BTreeSet<Turn>| false;
        let scheduled = self.scheduler.schedule(none_follows).into_iter();
        self.standing
            .extend(scheduled.map(|(_, turn, line)| (turn, line)));
    }

    fn step(&mut self, line: NthLine) {
        let next = u32::try_from(self.next).unwrap_or(0) % self.others;
        self.enter(line(next));
        if let Some((turn, line)) = self.standing.pop_front() {
            self.scheduler.gone(turn, &line);
        }
        self.schedule();
    }

    fn before(&self, turn: Turn) {
        black_box(self.scheduler.before(turn, credential(0), "createInvites"));
    }
}

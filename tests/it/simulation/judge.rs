//! Whether the contracts held: what callers heard against what the sandbox saw.
//!
//! Nothing here asks the gateway, except for its count of requests. Every check returns what it
//! found wrong, in words.

use super::callers::PATIENT;
use super::record::{End, Moment, Request, What};
use super::scenario::{LedgerFate, Scenario};
use super::stage::{Stage, number_of};
use segment_gateway::sandbox::{Arrival, By, CountResult};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, Instant};

/// Q of the default configuration.
const Q: Duration = Duration::from_secs(60);
/// More than any answer takes: what an estimate may add for it.
const LONGEST_ANSWER: Duration = Duration::from_secs(40);

/// The evidence of one run.
pub struct Evidence<'a> {
    pub scenario: &'a Scenario,
    pub began: Instant,
    pub requests: &'a [Request],
    pub arrivals: &'a [Arrival],
    /// Arrivals of each write by its number, in order.
    of_write: HashMap<usize, Vec<&'a Arrival>>,
}

/// Figures of a run, or of many.
#[derive(Clone, Copy, Debug, Default)]
pub struct Figures {
    pub requests: usize,
    pub arrivals: usize,
    /// 429s because the limit was reached.
    pub refused: usize,
    /// 429s that were injected.
    pub injected: usize,
    /// Reads answered from the store, or from another request's fetch.
    pub shared: usize,
    /// Reads whose freshness was judged against at least one write.
    pub judged_reads: usize,
    /// Pairs of writes of one lane whose order was judged.
    pub ordered_pairs: usize,
    pub unknown: usize,
    pub kills: usize,
}

impl Figures {
    pub fn add(&mut self, other: &Self) {
        self.requests += other.requests;
        self.arrivals += other.arrivals;
        self.refused += other.refused;
        self.injected += other.injected;
        self.shared += other.shared;
        self.judged_reads += other.judged_reads;
        self.ordered_pairs += other.ordered_pairs;
        self.unknown += other.unknown;
        self.kills += other.kills;
    }
}

impl<'a> Evidence<'a> {
    pub fn new(
        scenario: &'a Scenario,
        began: Instant,
        requests: &'a [Request],
        arrivals: &'a [Arrival],
    ) -> Self {
        let mut of_write: HashMap<usize, Vec<&Arrival>> = HashMap::new();
        for arrival in arrivals.iter().filter(|arrival| arrival.by == By::Gateway) {
            if let Some(number) = number_of(&arrival.target) {
                of_write.entry(number).or_default().push(arrival);
            }
        }
        Self {
            scenario,
            began,
            requests,
            arrivals,
            of_write,
        }
    }

    /// Everything that went wrong.
    pub fn judge(&self) -> (Vec<String>, Figures) {
        let mut figures = Figures {
            requests: self.requests.len(),
            arrivals: self.own().count(),
            refused: self
                .own()
                .filter(|a| a.count == CountResult::Refused)
                .count(),
            injected: self
                .own()
                .filter(|a| a.count == CountResult::Injected)
                .count(),
            unknown: self
                .requests
                .iter()
                .filter(|r| r.error() == "gateway-outcome-unknown")
                .count(),
            kills: self.scenario.restarts.len(),
            shared: self
                .requests
                .iter()
                .filter(|r| matches!(r.ended, Some((_, End::Answered { shared: true, .. }))))
                .count(),
            ..Figures::default()
        };
        let mut wrong = Vec::new();
        self.ended(&mut wrong);
        self.within_budget(&mut wrong);
        self.not_refused(&mut wrong);
        self.waited_out(&mut wrong);
        self.sent_once(&mut wrong);
        figures.judged_reads = self.fresh(&mut wrong);
        figures.ordered_pairs = self.in_order(&mut wrong);
        self.in_turn(&mut wrong);
        (wrong, figures)
    }

    fn own(&self) -> impl Iterator<Item = &Arrival> {
        self.arrivals
            .iter()
            .filter(|arrival| arrival.by == By::Gateway)
    }

    fn since(&self, at: Instant) -> String {
        format!("{:.3} s", (at - self.began).as_secs_f64())
    }

    /// Starts of which nothing was known, each the beginning of an epoch.
    fn epoch(&self, at: Instant) -> usize {
        let lost = self.scenario.restarts.iter().filter(|restart| {
            restart.ledger == LedgerFate::Lost && self.began + restart.at + restart.down <= at
        });
        lost.count()
    }

    fn ended(&self, wrong: &mut Vec<String>) {
        for request in self
            .requests
            .iter()
            .filter(|request| request.ended.is_none())
        {
            wrong.push(format!("never ended: {request:?}"));
        }
        for request in self.requests {
            if request.error() == "gateway-internal" {
                wrong.push(format!("a bug of the gateway's: {request:?}"));
            }
        }
    }

    /// No half-open interval of a window's length holds more arrivals than the limit. Where a
    /// process begins without knowing what was sent before, each epoch is judged by itself.
    fn within_budget(&self, wrong: &mut Vec<String>) {
        let mut budgets: BTreeMap<(u32, &str, usize), Vec<Instant>> = BTreeMap::new();
        for arrival in self.own().filter(|arrival| arrival.token > 0) {
            let key = (arrival.token, arrival.operation, self.epoch(arrival.at));
            budgets.entry(key).or_default().push(arrival.at);
        }
        for ((token, operation, _), mut instants) in budgets {
            let (limit, window) = Stage::limit(operation);
            instants.sort_unstable();
            let limit = limit as usize;
            for (first, beyond) in instants.iter().zip(instants.iter().skip(limit)) {
                if *beyond - *first < window {
                    wrong.push(format!(
                        "budget: {operation} of token {token}: {} arrivals within {:?} from {} on",
                        limit + 1,
                        *beyond - *first,
                        self.since(*first),
                    ));
                    break;
                }
            }
        }
    }

    /// A sole user is never refused, but for the first attempt after a start without history.
    fn not_refused(&self, wrong: &mut Vec<String>) {
        if !self.scenario.is_sole() {
            return;
        }
        let mut probes = BTreeSet::new();
        for arrival in self
            .own()
            .filter(|arrival| arrival.count == CountResult::Refused)
        {
            let epoch = self.epoch(arrival.at);
            let probe = (arrival.token, arrival.operation, epoch);
            if epoch == 0 || !probes.insert(probe) {
                wrong.push(format!(
                    "refused: {} {} at {}",
                    arrival.method,
                    arrival.target,
                    self.since(arrival.at)
                ));
            }
        }
    }

    /// Nobody sees a 429 while the deadline allows another attempt. Where others use the token and
    /// have filled the window, their room is not given back before it ends.
    fn waited_out(&self, wrong: &mut Vec<String>) {
        for request in self.requests {
            let Some((heard, End::Answered { status, wait, .. })) = &request.ended else {
                continue;
            };
            let deadline = request.began.at + request.patience;
            let again = heard.at + wait.unwrap_or_default() + LONGEST_ANSWER;
            if status.as_u16() == 429 && again <= deadline && !self.is_filled(request, heard.at) {
                wrong.push(format!(
                    "a 429 that could have been waited out: {request:?}"
                ));
            }
        }
    }

    /// Whether a window that ended then was full, or may have been.
    fn is_filled(&self, request: &Request, at: Instant) -> bool {
        if self.scenario.is_sole() {
            return false;
        }
        let arrivals = self.of_write.get(&request.number);
        let Some(last) = arrivals.and_then(|arrivals| arrivals.last()) else {
            return true;
        };
        let (limit, window) = Stage::limit(last.operation);
        let counted = self.arrivals.iter().filter(|arrival| {
            (arrival.token, arrival.operation) == (last.token, last.operation)
                && arrival.at <= at
                && arrival.at + window > at
        });
        counted.count() >= limit as usize
    }

    /// A write is sent again only after a 429, or after what says nothing of a PUT or a DELETE: a
    /// balancer's answer, and one that may have been lost.
    fn sent_once(&self, wrong: &mut Vec<String>) {
        let faults = &self.scenario.sandbox.faults;
        let is_lossy = faults.lost_reply > 0.0 || faults.late > 0.0;
        let says_nothing = |arrival: &Arrival| {
            let may_be_repeated = matches!(&*arrival.method, "PUT" | "DELETE");
            may_be_repeated && (is_lossy || matches!(arrival.status, 502..=504))
        };
        for (number, arrivals) in &self.of_write {
            let is_final = |arrival: &&&Arrival| !arrival.refused() && !says_nothing(arrival);
            let others = arrivals.iter().filter(is_final).count();
            let goes_on = !arrivals.last().is_some_and(|last| is_final(&last));
            if others > 1 || (others == 1 && goes_on) {
                wrong.push(format!(
                    "sent again: {:?} {arrivals:?}",
                    self.requests[*number]
                ));
            }
        }
    }

    /// No read is older than the newest write that was answered and visible when it began.
    /// Returns how many reads were judged against some write.
    fn fresh(&self, wrong: &mut Vec<String>) -> usize {
        let mut written: HashMap<&str, Vec<(Moment, u64)>> = HashMap::new();
        for request in self.requests {
            let (What::Write(write), Some(heard)) = (&request.what, request.heard()) else {
                continue;
            };
            let Some(applied) = self.applied(request) else {
                continue;
            };
            let visible = applied.at + self.scenario.sandbox.replication_lag;
            // Whichever comes later, what the caller heard or what the API shows.
            let from = Moment {
                at: heard.at.max(visible),
                order: heard.order,
            };
            for subject in &write.changes {
                written
                    .entry(subject)
                    .or_default()
                    .push((from, applied.version));
            }
        }
        for versions in written.values_mut() {
            versions.sort_unstable();
            let mut newest = 0;
            for (_, version) in versions {
                newest = newest.max(*version);
                *version = newest;
            }
        }
        let mut judged = 0;
        for request in self.requests {
            let (What::Read(subject), Some((_, End::Answered { version, .. }))) =
                (&request.what, &request.ended)
            else {
                continue;
            };
            let (Some(seen), Some(versions)) = (version, written.get(subject.as_str())) else {
                continue;
            };
            let before = versions.partition_point(|(from, _)| *from < request.began);
            let Some((from, newest)) = before.checked_sub(1).map(|last| versions[last]) else {
                continue;
            };
            judged += 1;
            if *seen < newest {
                wrong.push(format!(
                    "stale: version {seen} of {subject} in a read that began at {}, \
                     after version {newest} was known at {}: {request:?}",
                    self.since(request.began.at),
                    self.since(from.at),
                ));
            }
        }
        judged
    }

    /// The arrival by which a write took effect.
    fn applied(&self, request: &Request) -> Option<&Arrival> {
        let arrivals = self.of_write.get(&request.number)?;
        arrivals.iter().find(|arrival| arrival.applied).copied()
    }

    /// Writes of one lane arrive in the order of acceptance, each after the one before it has
    /// settled, or Q after its outcome was found to be unknown. Returns how many pairs were judged.
    fn in_order(&self, wrong: &mut Vec<String>) -> usize {
        let mut lanes: BTreeMap<(u8, usize, &str), Vec<&Request>> = BTreeMap::new();
        let mut persons: BTreeMap<(u8, usize), Vec<(&Request, bool)>> = BTreeMap::new();
        for request in self.requests {
            let What::Write(write) = &request.what else {
                continue;
            };
            for key in &write.keys {
                let lane = (request.token, request.life, key.as_str());
                lanes.entry(lane).or_default().push(request);
            }
            if write.barrier || write.keys.iter().any(|key| key.starts_with("person:")) {
                let all = persons.entry((request.token, request.life)).or_default();
                all.push((request, write.barrier));
            }
        }
        let mut judged = 0;
        for (lane, writes) in lanes {
            let name = format!("{lane:?}");
            judged += self.lane(&name, &writes, |_, _| true, wrong);
        }
        for (lane, writes) in persons {
            let barrier: HashMap<usize, bool> = writes
                .iter()
                .map(|(request, barrier)| (request.number, *barrier))
                .collect();
            let writes: Vec<&Request> = writes.into_iter().map(|(request, _)| request).collect();
            let apart = |a: &Request, b: &Request| barrier[&a.number] != barrier[&b.number];
            judged += self.lane(&format!("persons {lane:?}"), &writes, apart, wrong);
        }
        judged
    }

    /// Judges each write against the earlier ones that it is kept apart from.
    fn lane(
        &self,
        name: &str,
        writes: &[&Request],
        apart: impl Fn(&Request, &Request) -> bool,
        wrong: &mut Vec<String>,
    ) -> usize {
        let mut judged = 0;
        let mut before: Vec<(&Request, Instant)> = Vec::new();
        for write in writes {
            let Some(arrivals) = self.of_write.get(&write.number) else {
                continue;
            };
            let first = arrivals[0].at;
            for (earlier, until) in &before {
                let is_earlier = earlier.began.at < write.began.at;
                if !is_earlier || !apart(earlier, write) {
                    continue;
                }
                judged += 1;
                if first < *until {
                    wrong.push(format!(
                        "lane {name}: one that began at {} arrived at {}, before the one that \
                         began at {} had settled at {}: {earlier:?} {write:?}; the arrivals of the earlier one: {}",
                        self.since(write.began.at),
                        self.since(first),
                        self.since(earlier.began.at),
                        self.since(*until),
                        self.arrivals(earlier),
                    ));
                }
            }
            before.push((write, self.settled(write, arrivals)));
            // Those that settled last tell for the others.
            if before.len() > 64 {
                before.sort_by_key(|(_, until)| *until);
                before.drain(..32);
            }
        }
        judged
    }

    /// When the attempts of a write arrived, and what they were answered.
    fn arrivals(&self, write: &Request) -> String {
        let arrivals = self.of_write.get(&write.number).into_iter().flatten();
        let told = arrivals.map(|it| format!("{} {}", self.since(it.at), it.status));
        told.collect::<Vec<_>>().join(", ")
    }

    /// The earliest instant at which the next write of its lane may arrive.
    fn settled(&self, write: &Request, arrivals: &[&Arrival]) -> Instant {
        let arrived = arrivals.last().map_or(write.began.at, |arrival| arrival.at);
        match write.heard() {
            Some(heard) if write.error() == "gateway-outcome-unknown" => {
                let mut counted: Vec<_> = arrivals.iter().filter(|it| !it.refused()).collect();
                if write.is_retry_refused() {
                    // What arrives after the caller heard was given up before: only its arrival
                    // counts, and it is not the retry.
                    counted.retain(|it| it.at <= heard.at);
                    // The refused retry has no effect of its own, and the attempt before it had ended
                    // when it left. Where that one never arrived nobody saw its end.
                    let retry = counted
                        .iter()
                        .rposition(|it| (400..500).contains(&it.status));
                    retry.map(|at| counted.remove(at));
                    return counted
                        .last()
                        .map_or(arrived, |last| arrived.max(last.at + Q));
                }
                // One that was to be repeated is told of later.
                let found = match counted.last() {
                    Some(last) if arrivals.len() > 1 => heard.at.min(last.at),
                    _ => heard.at,
                };
                arrived.max(found + Q)
            }
            Some(heard) => arrived.max(heard.at),
            None => arrived,
        }
    }

    /// Whether a lane of this write is closed when it is accepted, because an earlier process was killed
    /// before the answer to a write of that lane: order wins over turn.
    fn waits_for_a_kill(&self, request: &Request) -> bool {
        let What::Write(write) = &request.what else {
            return false;
        };
        self.requests.iter().any(|earlier| {
            let What::Write(other) = &earlier.what else {
                return false;
            };
            let Some(kill) = self.scenario.restarts.get(earlier.life) else {
                return false;
            };
            earlier.life < request.life
                && earlier.token == request.token
                && earlier.heard().is_none()
                && self.of_write.contains_key(&earlier.number)
                && other.keys.iter().any(|key| write.keys.contains(key))
                && request.began.at < self.began + kill.at + kill.down + Q
        })
    }

    /// Between the acceptance and the arrival of a caller with a single write, each other peer
    /// has one turn at most.
    fn in_turn(&self, wrong: &mut Vec<String>) {
        if !self.scenario.is_sole() || !self.scenario.is_faultless() {
            return;
        }
        let way = self.scenario.longest_way();
        for request in self
            .requests
            .iter()
            .filter(|request| request.peer == PATIENT && !self.waits_for_a_kill(request))
        {
            let Some([own]) = self.of_write.get(&request.number).map(Vec::as_slice) else {
                continue;
            };
            let (from, until) = (request.began.at + way, own.at.checked_sub(way));
            let Some(until) = until else { continue };
            let mut turns: BTreeMap<u8, usize> = BTreeMap::new();
            for arrival in self.own().filter(|arrival| {
                (arrival.token, arrival.operation) == (own.token, own.operation)
                    && arrival.at > from
                    && arrival.at < until
            }) {
                let Some(number) = number_of(&arrival.target) else {
                    continue;
                };
                *turns.entry(self.requests[number].peer).or_default() += 1;
            }
            for (peer, turns) in turns.into_iter().filter(|(_, turns)| *turns > 1) {
                wrong.push(format!("{turns} turns of peer {peer} before {request:?}"));
            }
        }
    }
}

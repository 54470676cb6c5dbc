//! Callers, and the quota of upstream requests that each of them has.
//!
//! A caller is a client, or the address of a peer, divided by `X-Gateway-Caller` where the peer is
//! trusted to set it. Only requests that need the API while their caller waits are charged. Hits
//! are free, and so are deferred writes, which the shares of the journal bound. The quota is
//! governor's: at the entrance a smooth rate with a burst is wanted, unlike for the budgets of the
//! API.
//!
//! Each principal has a quota. Named requests have a second one, which the names divide. Such a
//! request is charged to its name, which has half a quota, and to all names of the principal
//! together. Hence:
//!
//! - No number of names gives a principal more than the second quota.
//! - A flood under one name leaves half of it to the others.
//! - Requests without a name leave all of it to the names.
//!
//! A client with a rate of its own has that in place of the quota of a principal.
//!
//! The number of tracked callers is bounded. While the table is full, its callers go on as before
//! and new ones share one quota, until a timer forgets idle callers. A reload with other quotas
//! starts all of them afresh.

use crate::caller::Caller;
use crate::clients::NamedClient;
use crate::error::GatewayError;
use crate::network::Network;
use crate::route::policy::Rate;
use crate::swap::Swap;
use foldhash::HashMap;
use governor::clock::QuantaClock;
use governor::middleware::NoOpMiddleware;
use governor::nanos::Nanos;
use governor::state::keyed::ShrinkableKeyedStateStore;
use governor::state::{InMemoryState, NotKeyed, StateStore};
use governor::{NotUntil, Quota, RateLimiter};
use http::header::{HeaderMap, HeaderName};
use parking_lot::Mutex;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

/// The longest name of a caller, in bytes.
const LONGEST_NAME: usize = 64;
pub(crate) const CALLER: HeaderName = HeaderName::from_static("x-gateway-caller");

/// Returns the name that a trusted peer gives the caller of a request.
///
/// # Errors
/// If a trusted peer sends an invalid `X-Gateway-Caller`, or several.
pub fn name(
    headers: &HeaderMap,
    peer: IpAddr,
    trusted: &[Network],
) -> Result<Option<Arc<str>>, GatewayError> {
    let peer = peer.to_canonical();
    let mut values = headers.get_all(CALLER).iter();
    let is_trusted = trusted.iter().any(|network| network.contains(peer));
    let name = match values.next() {
        Some(value) if is_trusted => {
            let text = value.as_bytes();
            let is_name = !text.is_empty()
                && text.len() <= LONGEST_NAME
                && text.iter().all(|byte| (0x20..0x7f).contains(byte))
                && values.next().is_none();
            if !is_name {
                return Err(GatewayError::BadRequest(
                    "X-Gateway-Caller must be one value of 1 to 64 printable ASCII characters",
                ));
            }
            Some(Arc::from(String::from_utf8_lossy(text)))
        }
        // The header of an untrusted peer is ignored.
        _ => None,
    };
    Ok(name)
}

/// The state of each quota, for a bounded number of callers. One lock suffices, because hits are
/// not charged.
#[derive(Debug)]
struct Table {
    states: Mutex<States>,
    most: usize,
}

#[derive(Debug, Default)]
struct States {
    known: HashMap<Caller, Nanos>,
    /// The shared quota of all callers that the table has no room for.
    others: Option<Nanos>,
}

impl StateStore for Table {
    type Key = Caller;

    /// Decides and stores the next state under one lock. A caller without room in the table shares
    /// the state of the others.
    fn measure_and_replace<T, F, E>(&self, caller: &Caller, decide: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        let mut states = self.states.lock();
        let full = states.known.len() >= self.most;
        if let Some(state) = states.known.get_mut(caller) {
            let (decision, next) = decide(Some(*state))?;
            *state = next;
            return Ok(decision);
        }
        let (decision, next) = decide(if full { states.others } else { None })?;
        if full {
            states.others = Some(next);
        } else {
            states.known.insert(caller.clone(), next);
        }
        Ok(decision)
    }
}

impl ShrinkableKeyedStateStore<Caller> for Table {
    fn retain_recent(&self, drop_below: Nanos) {
        let mut states = self.states.lock();
        states.known.retain(|_, state| *state > drop_below);
    }

    fn shrink_to_fit(&self) {
        self.states.lock().known.shrink_to_fit();
    }

    fn len(&self) -> usize {
        self.states.lock().known.len()
    }

    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A quota per caller.
type Limiter<C> =
    RateLimiter<Caller, Table, C, NoOpMiddleware<<C as governor::clock::Clock>::Instant>>;

/// The quotas of all callers, on governor's clock or a test's.
#[derive(Debug)]
pub struct Quotas<C: governor::clock::Clock = QuantaClock> {
    limiters: Swap<Limiters<C>>,
    /// The quotas of clients that have rates of their own, in place of a principal's.
    clients: Swap<HashMap<Arc<str>, ClientLimiter<C>>>,
    clock: C,
}

#[derive(Debug)]
struct Limiters<C: governor::clock::Clock> {
    /// One quota per principal, and one for all names of a principal together.
    principals: Limiter<C>,
    /// Half a quota per name.
    names: Limiter<C>,
}

/// The quota of one client.
#[derive(Clone, Debug)]
struct ClientLimiter<C: governor::clock::Clock> {
    rate: Rate,
    limiter: Arc<RateLimiter<NotKeyed, InMemoryState, C, NoOpMiddleware<C::Instant>>>,
}

/// A rate with a burst, per caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allowed {
    /// Requests per `per`.
    pub rate: NonZeroU32,
    /// The period of `rate`; more than zero.
    pub per: Duration,
    /// Requests that may come at once.
    pub burst: NonZeroU32,
    /// The number of principals, and of names, that are tracked.
    pub tracked: usize,
}

impl<C: governor::clock::Clock + Clone> Limiters<C> {
    /// Creates both quotas. Half a quota has half the rate and half the burst, rounded up.
    fn new(allowed: Allowed, clock: &C) -> Self {
        let each = allowed.per / allowed.rate.get();
        let limiter = |each: Duration, burst: NonZeroU32| {
            let quota = Quota::with_period(each.max(Duration::from_nanos(1)))
                .unwrap_or(Quota::per_second(allowed.rate))
                .allow_burst(burst);
            let table = Table {
                states: Mutex::default(),
                most: allowed.tracked,
            };
            RateLimiter::new(quota, table, clock.clone())
        };
        let half = NonZeroU32::new(allowed.burst.get().div_ceil(2));
        Self {
            principals: limiter(each, allowed.burst),
            names: limiter(each * 2, half.unwrap_or(NonZeroU32::MIN)),
        }
    }
}

impl<C: governor::clock::Clock> ClientLimiter<C> {
    /// Creates a quota of which nothing is used. All of a window may come at once.
    fn new(rate: Rate, clock: C) -> Self {
        let limit = NonZeroU32::new(rate.limit).unwrap_or(NonZeroU32::MIN);
        let quota = Quota::with_period(rate.window / limit.get());
        let quota = quota.unwrap_or(Quota::per_second(limit)).allow_burst(limit);
        Self {
            rate,
            limiter: Arc::new(RateLimiter::direct_with_clock(quota, clock)),
        }
    }
}

impl<C: governor::clock::Clock + Clone> Quotas<C> {
    /// Creates quotas on `clock`.
    pub fn new(allowed: Allowed, clock: C) -> Self {
        Self {
            limiters: Limiters::new(allowed, &clock).into(),
            clients: Swap::default(),
            clock,
        }
    }

    /// Replaces all quotas. The new ones start with nothing used.
    pub fn configure(&self, allowed: Allowed) {
        self.limiters.set(Limiters::new(allowed, &self.clock));
    }

    /// Replaces the rates of clients. One whose rate stays goes on with what it has used.
    pub fn set_clients(&self, clients: &[Arc<NamedClient>]) {
        // Two reloads never overlap, so nothing is lost between the two accesses.
        let before = self.clients.get();
        let with_rate = clients.iter().filter_map(|client| {
            let (name, rate) = (client.name.clone(), client.rate?);
            // Otherwise each reload would give every client a fresh quota.
            let same = before.get(&name).filter(|known| known.rate == rate);
            let limiter = same.cloned();
            let limiter = limiter.unwrap_or_else(|| ClientLimiter::new(rate, self.clock.clone()));
            Some((name, limiter))
        });
        self.clients.set(with_rate.collect());
    }

    /// Charges one request.
    ///
    /// # Errors
    /// [`GatewayError::CallerQuota`] with the time after which a request is accepted.
    pub fn charge(&self, caller: &Caller) -> Result<(), GatewayError> {
        let limiters = self.limiters.get();
        // The name first: a request that its name has no quota for is not charged to the principal.
        if caller.name.is_some() {
            self.charge_to(&limiters.names, caller)?;
        }
        let clients = self.clients.get();
        // In place of the quota of a principal, so that it may be larger as well as smaller.
        let client = caller.principal.client();
        if let Some(client) = client.and_then(|client| clients.get(client)) {
            let charged = client.limiter.check();
            return charged.map_err(|not_until| self.spent(&not_until));
        }
        let together = Caller {
            principal: caller.principal.clone(),
            // The empty name stands for all names of the principal. No name of a caller is empty.
            name: caller.name.as_ref().map(|_| Arc::from("")),
        };
        self.charge_to(&limiters.principals, &together)
    }

    /// Charges one request to one quota, and says when the next would be accepted.
    fn charge_to(&self, limiter: &Limiter<C>, caller: &Caller) -> Result<(), GatewayError> {
        let charged = limiter.check_key(caller);
        charged.map_err(|not_until| self.spent(&not_until))
    }

    fn spent(&self, not_until: &NotUntil<C::Instant>) -> GatewayError {
        GatewayError::CallerQuota {
            retry_after: not_until.wait_time_from(self.clock.now()),
        }
    }

    /// Forgets callers whose quota is whole again. Call this on a timer.
    pub fn forget_idle(&self) {
        let limiters = self.limiters.get();
        for limiter in [&limiters.principals, &limiters.names] {
            limiter.retain_recent();
            limiter.shrink_to_fit();
        }
    }

    /// Returns the number of tracked callers.
    pub fn tracked(&self) -> usize {
        let limiters = self.limiters.get();
        limiters.principals.len() + limiters.names.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::caller::Principal;
    use crate::clients::{OperationIndex, Rights};
    use crate::route::table::{Defaults, Table};
    use governor::clock::FakeRelativeClock;

    fn caller(n: u8) -> Caller {
        Caller {
            principal: IpAddr::from([10, 0, 0, n]).into(),
            name: None,
        }
    }

    fn quotas(clock: &FakeRelativeClock, tracked: usize) -> Quotas<FakeRelativeClock> {
        let n = |n| NonZeroU32::new(n).unwrap();
        let allowed = Allowed {
            rate: n(10),
            per: Duration::from_secs(1),
            burst: n(20),
            tracked,
        };
        Quotas::new(allowed, clock.clone())
    }

    #[test]
    fn one_callers_flood_leaves_the_others_alone_and_is_told_when_to_return() {
        let clock = FakeRelativeClock::default();
        let quotas = quotas(&clock, 100);
        for _ in 0..20 {
            quotas.charge(&caller(1)).unwrap();
        }
        let Err(GatewayError::CallerQuota { retry_after }) = quotas.charge(&caller(1)) else {
            panic!("the burst is spent")
        };
        for _ in 0..1_000 {
            assert!(quotas.charge(&caller(1)).is_err());
        }
        quotas.charge(&caller(2)).unwrap();
        clock.advance(retry_after - Duration::from_nanos(1));
        assert!(quotas.charge(&caller(1)).is_err());
        clock.advance(Duration::from_nanos(1));
        quotas.charge(&caller(1)).unwrap();
    }

    fn named(n: u8, name: &str) -> Caller {
        Caller {
            name: Some(name.into()),
            ..caller(n)
        }
    }

    /// How many of 1,000 at once are accepted.
    fn flood(quotas: &Quotas<FakeRelativeClock>, caller: &Caller) -> usize {
        (0..1_000).filter(|_| quotas.charge(caller).is_ok()).count()
    }

    #[test]
    fn names_divide_what_their_peer_has() {
        let quotas = quotas(&FakeRelativeClock::default(), 100);
        assert_eq!(flood(&quotas, &named(1, "bulk")), 10, "half of 20");
        assert_eq!(flood(&quotas, &named(1, "single")), 10);
        let more: usize = (0..50)
            .map(|n| flood(&quotas, &named(1, &format!("more-{n}"))))
            .sum();
        assert_eq!(more, 0, "another name is nothing more");
        assert_eq!(flood(&quotas, &caller(1)), 20, "what comes without a name");
        assert_eq!(flood(&quotas, &named(2, "bulk")), 10, "another peer's");
    }

    #[test]
    fn what_comes_without_a_name_does_not_starve_the_names_beside_it() {
        let quotas = quotas(&FakeRelativeClock::default(), 100);
        assert_eq!(flood(&quotas, &caller(1)), 20);
        assert_eq!(flood(&quotas, &named(1, "billing")), 10);
    }

    #[test]
    fn a_full_table_refuses_nobody_it_knows_and_newcomers_share_a_quota() {
        let clock = FakeRelativeClock::default();
        let quotas = quotas(&clock, 3);
        for n in 0..3 {
            quotas.charge(&caller(n)).unwrap();
        }
        let newcomers: usize = (10..20).map(|n| flood(&quotas, &caller(n))).sum();
        assert_eq!(newcomers, 20);
        assert_eq!(quotas.tracked(), 3);
        assert_eq!(flood(&quotas, &caller(0)), 19);
        clock.advance(Duration::from_secs(5));
        quotas.forget_idle();
        assert_eq!(quotas.tracked(), 0);
        assert_eq!(flood(&quotas, &caller(9)), 20);
        assert_eq!(quotas.tracked(), 1);
    }

    #[test]
    fn a_client_has_its_own_rate_and_keeps_what_it_has_used() {
        let clock = FakeRelativeClock::default();
        let allowed = Allowed {
            rate: NonZeroU32::new(100).unwrap(),
            per: Duration::from_secs(1),
            burst: NonZeroU32::new(1_000).unwrap(),
            tracked: 10,
        };
        let quotas = Quotas::new(allowed, clock.clone());
        let table = Table::build(Vec::new(), Defaults::default(), 1).unwrap();
        let client = |limit| NamedClient {
            name: "hr-sync".into(),
            token: None,
            rights: Rights::none(&OperationIndex::of(&table)),
            rate: Some(Rate {
                limit,
                window: Duration::from_secs(60),
            }),
            share: 1,
            certificates: Vec::new(),
        };
        let caller = Caller {
            principal: Principal::Client("hr-sync".into()),
            name: None,
        };
        let accepted = |most: usize| (0..most).filter(|_| quotas.charge(&caller).is_ok()).count();
        for _ in 0..2 {
            quotas.set_clients(&[Arc::new(client(60))]);
        }
        assert_eq!(accepted(100), 60);
        quotas.set_clients(&[Arc::new(client(60))]);
        assert_eq!(accepted(100), 0, "a reload gives nothing back");
        clock.advance(Duration::from_secs(1));
        assert_eq!(accepted(100), 1);
        quotas.set_clients(&[Arc::new(client(10))]);
        assert_eq!(accepted(100), 10, "another rate");
        quotas.set_clients(&[]);
        assert_eq!(accepted(100), 100, "as everybody");
    }

    #[test]
    fn a_name_is_believed_only_from_trusted_peers() {
        let trusted: [Network; 1] = ["127.0.0.0/8".parse().unwrap()];
        let mut headers = HeaderMap::new();
        headers.insert(CALLER, "billing".parse().unwrap());
        for trusted_peer in ["127.0.0.9", "::ffff:127.0.0.9"] {
            let given = name(&headers, trusted_peer.parse().unwrap(), &trusted).unwrap();
            assert_eq!(given.as_deref(), Some("billing"));
        }
        let other = name(&headers, IpAddr::from([10, 0, 0, 1]), &trusted).unwrap();
        assert_eq!(other, None);
        for bad in ["", &"x".repeat(65), "a\tb"] {
            headers.insert(CALLER, bad.parse().unwrap());
            assert!(
                name(&headers, IpAddr::from([127, 0, 0, 1]), &trusted).is_err(),
                "{bad:?}"
            );
        }
    }
}

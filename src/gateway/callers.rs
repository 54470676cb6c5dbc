//! Who asks, and how much of the upstream each of them may ask for.
//!
//! A caller is the peer's address, divided by `X-Gateway-Caller` where that peer is trusted to set
//! it. The quota is governor's: a smooth rate with a burst is what one wants at the front door,
//! unlike for the upstream budgets. Only what needs the upstream is charged; hits are free.

use crate::error::GatewayError;
use crate::limit::turns::Caller;
use crate::network::Network;
use governor::clock::QuantaClock;
use governor::middleware::NoOpMiddleware;
use governor::state::keyed::DashMapStateStore;
use governor::{Quota, RateLimiter};
use http::HeaderMap;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

/// The longest name a caller may have, in bytes.
const LONGEST_NAME: usize = 64;
const NAME: &str = "x-gateway-caller";

/// Finds out who asks.
pub fn identify(
    headers: &HeaderMap,
    peer: IpAddr,
    trusted: &[Network],
) -> Result<Caller, GatewayError> {
    let peer = peer.to_canonical();
    let mut values = headers.get_all(NAME).iter();
    let name = match values.next() {
        Some(value) if trusted.iter().any(|network| network.contains(peer)) => {
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
        // From anybody else the field means nothing.
        _ => None,
    };
    Ok(Caller { peer, name })
}

/// The quota of every caller, on governor's clock or a test's.
#[derive(Debug)]
pub struct Quotas<C: governor::clock::Clock = QuantaClock> {
    limiter: RateLimiter<Caller, DashMapStateStore<Caller>, C, NoOpMiddleware<C::Instant>>,
    clock: C,
    most: usize,
}

/// A rate with a burst, per caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allowed {
    /// Requests per `per`.
    pub rate: NonZeroU32,
    /// See `rate`; more than zero.
    pub per: Duration,
    /// How many may come at once.
    pub burst: NonZeroU32,
    /// Callers tracked; beyond it, those that were idle longest are forgotten, and if there are
    /// none, newcomers are refused.
    pub tracked: usize,
}

impl<C: governor::clock::Clock + Clone> Quotas<C> {
    /// Quotas on `clock`.
    pub fn new(allowed: Allowed, clock: C) -> Self {
        let each = allowed.per / allowed.rate.get();
        let quota = Quota::with_period(each.max(Duration::from_nanos(1)))
            .unwrap_or(Quota::per_second(allowed.rate))
            .allow_burst(allowed.burst);
        Self {
            limiter: RateLimiter::new(quota, DashMapStateStore::default(), clock.clone()),
            clock,
            most: allowed.tracked,
        }
    }

    /// Charges one request, or says when one will be accepted.
    pub fn charge(&self, caller: &Caller) -> Result<(), GatewayError> {
        if self.limiter.len() >= self.most {
            // Whoever would be admitted with a full burst loses nothing by being forgotten.
            self.limiter.retain_recent();
            if self.limiter.len() >= self.most {
                return Err(GatewayError::Overloaded);
            }
        }
        self.limiter
            .check_key(caller)
            .map_err(|not_until| GatewayError::CallerQuota {
                retry_after: not_until.wait_time_from(self.clock.now()),
            })
    }

    /// Forgets callers whose quota is whole again. Call it on a timer.
    pub fn forget_idle(&self) {
        self.limiter.retain_recent();
        self.limiter.shrink_to_fit();
    }

    /// How many callers are tracked.
    pub fn tracked(&self) -> usize {
        self.limiter.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use governor::clock::FakeRelativeClock;

    fn caller(n: u8) -> Caller {
        Caller {
            peer: IpAddr::from([10, 0, 0, n]),
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

    #[test]
    fn idle_callers_are_forgotten_and_their_number_is_bounded() {
        let clock = FakeRelativeClock::default();
        let quotas = quotas(&clock, 3);
        for n in 0..3 {
            quotas.charge(&caller(n)).unwrap();
        }
        assert_eq!(quotas.charge(&caller(9)), Err(GatewayError::Overloaded));
        clock.advance(Duration::from_secs(5));
        quotas.charge(&caller(9)).unwrap();
        assert_eq!(quotas.tracked(), 1);
        clock.advance(Duration::from_secs(5));
        quotas.forget_idle();
        assert_eq!(quotas.tracked(), 0);
    }

    #[test]
    fn a_name_is_believed_only_from_trusted_peers() {
        let trusted: [Network; 1] = ["127.0.0.0/8".parse().unwrap()];
        let mut headers = HeaderMap::new();
        headers.insert(NAME, "billing".parse().unwrap());
        let named = identify(&headers, IpAddr::from([127, 0, 0, 9]), &trusted).unwrap();
        assert_eq!(named.name.as_deref(), Some("billing"));
        let mapped: IpAddr = "::ffff:127.0.0.9".parse().unwrap();
        assert_eq!(identify(&headers, mapped, &trusted).unwrap(), named);
        let other = identify(&headers, IpAddr::from([10, 0, 0, 1]), &trusted).unwrap();
        assert_eq!(other.name, None);
        for bad in ["", &"x".repeat(65), "a\tb"] {
            headers.insert(NAME, bad.parse().unwrap());
            assert!(
                identify(&headers, IpAddr::from([127, 0, 0, 1]), &trusted).is_err(),
                "{bad:?}"
            );
        }
    }
}

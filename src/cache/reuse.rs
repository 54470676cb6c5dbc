//! Pure. Whether a valid stored response may be served without a request to the API.
//!
//! Promises RFC 9111, sections 4, 4.2.4 and 5.2.1, RFC 5861 and RFC 8246. A response that is fresh
//! and young enough for the reader is served. A stale response is served only if nothing forbids it
//! and the reader, the API or the operator permits it, and never for longer than permitted.
//!
//! This module knows nothing about writes. The [`fence`](super::fence) decides first whether a
//! response is valid.

use super::lifetime::Lifetime;
use super::reason::Miss;
use super::request::Wants;
use std::time::Duration;

/// The way in which a stored response is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freshness {
    /// Served fresh.
    Fresh,
    /// Served stale.
    Stale(Need),
}

/// The reason for serving a stale response.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Need {
    /// The reader accepts it (`max-stale`).
    Accepted,
    /// A refresh runs in the background (`stale-while-revalidate`).
    WhileRevalidate,
    /// The API failed (`stale-if-error`).
    IfError,
    /// The budget is exhausted.
    IfLimited,
}

impl Need {
    /// Every reason, for the labels of metrics.
    pub const ALL: [Self; 4] = [
        Self::Accepted,
        Self::WhileRevalidate,
        Self::IfError,
        Self::IfLimited,
    ];

    /// The reason as a label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "max-stale",
            Self::WhileRevalidate => "stale-while-revalidate",
            Self::IfError => "stale-if-error",
            Self::IfLimited => "stale-if-limited",
        }
    }
}

/// Decides whether a stored response of this age may be served.
///
/// # Errors
/// [`Miss::Reload`] if the response does not meet the reader's requirements, [`Miss::Expired`] if
/// it is stale. It must then be validated or fetched.
pub fn judge(life: &Lifetime, age: Duration, wants: &Wants) -> Result<Freshness, Miss> {
    if wants.no_cache {
        return Err(Miss::Reload);
    }
    let too_old = wants
        .max_age
        .is_some_and(|most| age > most || most.is_zero());
    if let Some(left) = life
        .fresh_for
        .checked_sub(age)
        .filter(|left| !left.is_zero())
    {
        // Only `no-cache` reloads an immutable response while it is fresh (RFC 8246, section 2).
        return if too_old && !life.immutable || left < wants.min_fresh {
            Err(Miss::Reload)
        } else {
            Ok(Freshness::Fresh)
        };
    }
    if too_old {
        return Err(Miss::Reload);
    }
    let by = age.saturating_sub(life.fresh_for);
    if !life.may_be_stale || !wants.min_fresh.is_zero() {
        return Err(Miss::Expired);
    }
    if by < wants.max_stale {
        return Ok(Freshness::Stale(Need::Accepted));
    }
    // `max-age` without `max-stale` rejects stale responses (RFC 9111, section 5.2.1.1).
    if by < life.while_revalidate && wants.max_age.is_none() {
        return Ok(Freshness::Stale(Need::WhileRevalidate));
    }
    Err(Miss::Expired)
}

/// Whether a stored response of this age may be served although it must be validated, because
/// validation is impossible for the reason `need`.
pub fn may_stand_in(life: &Lifetime, age: Duration, wants: &Wants, need: Need) -> bool {
    // A reader with explicit requirements gets the failure instead.
    let insists = wants.no_cache || wants.max_age.is_some() || !wants.min_fresh.is_zero();
    let most = match need {
        Need::Accepted => wants.max_stale,
        Need::WhileRevalidate => life.while_revalidate,
        Need::IfError => life.if_error.max(wants.stale_if_error),
        Need::IfLimited => life.if_limited,
    };
    life.may_be_stale && !insists && age.saturating_sub(life.fresh_for) < most
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn life() -> Lifetime {
        Lifetime {
            fresh_for: 10 * SECOND,
            while_revalidate: 5 * SECOND,
            if_error: 20 * SECOND,
            if_limited: 30 * SECOND,
            may_be_stale: true,
            ..Lifetime::default()
        }
    }

    fn wants(change: impl FnOnce(&mut Wants)) -> Wants {
        let mut wants = Wants::FRESH;
        change(&mut wants);
        wants
    }

    #[test]
    fn what_may_be_shown_without_asking() {
        let fresh = Ok(Freshness::Fresh);
        let revalidate = Ok(Freshness::Stale(Need::WhileRevalidate));
        let accepted = Ok(Freshness::Stale(Need::Accepted));
        let (expired, reload) = (Err(Miss::Expired), Err(Miss::Reload));
        let any = wants(|_| {});
        let no_cache = wants(|w| w.no_cache = true);
        let age = |most: u64| wants(|w| w.max_age = Some(Duration::from_secs(most)));
        let stale = |most: u64| wants(|w| w.max_stale = Duration::from_secs(most));
        let both = |w: &mut Wants| (w.max_age, w.max_stale) = (Some(12 * SECOND), 9 * SECOND);
        let left = |least: u64| wants(|w| w.min_fresh = Duration::from_secs(least));
        let table = [
            // wants, age, shown
            (any, 0, fresh),
            (any, 9, fresh),
            (any, 10, revalidate),
            (any, 14, revalidate),
            (any, 15, expired),
            (no_cache, 0, reload),
            (age(5), 5, fresh),
            (age(5), 6, reload),
            (age(0), 0, reload),
            (age(12), 11, expired),
            (stale(9), 12, accepted),
            (stale(9), 18, accepted),
            (stale(9), 19, expired),
            (wants(both), 11, accepted),
            (wants(both), 13, reload),
            (left(4), 6, fresh),
            (left(4), 7, reload),
            (left(4), 12, expired),
        ];
        for (wants, age, expected) in table {
            let age = Duration::from_secs(age);
            assert_eq!(judge(&life(), age, &wants), expected, "{wants:?} {age:?}");
        }
        // Half a second of freshness is freshness.
        assert_eq!(judge(&life(), Duration::from_millis(9_500), &any), fresh);
    }

    #[test]
    fn what_must_not_be_shown_stale_never_is() {
        let strict = Lifetime {
            may_be_stale: false,
            ..life()
        };
        let any = wants(|w| w.max_stale = 1_000 * SECOND);
        assert_eq!(judge(&strict, 10 * SECOND, &any), Err(Miss::Expired));
        for need in Need::ALL {
            assert!(!may_stand_in(&strict, 10 * SECOND, &any, need), "{need:?}");
        }
    }

    #[test]
    fn what_is_immutable_is_not_asked_for_anew_while_it_is_fresh() {
        let immutable = Lifetime {
            immutable: true,
            ..life()
        };
        let reload = wants(|w| w.max_age = Some(Duration::ZERO));
        assert_eq!(judge(&immutable, 3 * SECOND, &reload), Ok(Freshness::Fresh));
        assert_eq!(judge(&immutable, 11 * SECOND, &reload), Err(Miss::Reload));
        assert_eq!(judge(&immutable, SECOND, &Wants::RELOAD), Err(Miss::Reload));
    }

    #[test]
    fn who_may_be_shown_something_stale_in_need() {
        let any = Wants::FRESH;
        let table = [
            (Need::IfError, 29, true),
            (Need::IfError, 30, false),
            (Need::IfLimited, 39, true),
            (Need::IfLimited, 40, false),
        ];
        for (need, age, expected) in table {
            let age = Duration::from_secs(age);
            assert_eq!(
                may_stand_in(&life(), age, &any, need),
                expected,
                "{need:?} {age:?}"
            );
        }
        let patient = wants(|w| w.stale_if_error = 60 * SECOND);
        assert!(may_stand_in(&life(), 69 * SECOND, &patient, Need::IfError));
        for insisting in [
            Wants::RELOAD,
            wants(|w| w.max_age = Some(60 * SECOND)),
            wants(|w| w.min_fresh = SECOND),
        ] {
            assert!(!may_stand_in(
                &life(),
                11 * SECOND,
                &insisting,
                Need::IfError
            ));
        }
    }
}

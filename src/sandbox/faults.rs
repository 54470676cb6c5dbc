//! Pure. The random events of one request: its delays and its faults.
//!
//! All of them are drawn at once and always with the same number of draws, so that a fault of one
//! request does not shift the random numbers of the next.

use std::time::Duration;

use http::StatusCode;

use super::rng::Rng;
use super::spec::{Delay, Faults, SandboxSpec};

/// The delays and the fault of one request.
#[derive(Clone, Copy, Debug)]
pub(super) struct FaultPlan {
    /// The delay until it is counted.
    pub(super) arrive: Duration,
    /// The delay from then until its response is sent.
    pub(super) reply: Duration,
    /// The fault while it is handled.
    pub(super) fault: Option<InjectedFault>,
    /// The loss of its response.
    pub(super) loss: Option<Loss>,
}

/// A fault while a request is handled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum InjectedFault {
    /// A 429 with this time to wait.
    Throttled(Duration),
    /// A response of a balancer; the API never sees the request.
    Balancer(StatusCode),
    /// A 500 before the request takes effect.
    Before,
    /// A 500 after the request took effect.
    After,
}

/// The way in which a response is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Loss {
    /// The connection is closed.
    Closed,
    /// Nothing is sent.
    Silent,
}

impl FaultPlan {
    /// Draws the events of the next request.
    pub(super) fn draw(rng: &mut Rng, spec: &SandboxSpec, faults: &Faults) -> Self {
        let scale = spec.time_scale.max(1);
        let mut delay = |of: Delay| of.base / scale + rng.up_to(of.jitter / scale);
        let (arrive, reply) = (delay(spec.arrive), delay(spec.reply));
        let pause = Duration::from_millis(100) + rng.up_to(Duration::from_millis(2_900));
        let (throttle, failure, lost, late) = (rng.unit(), rng.unit(), rng.unit(), rng.unit());
        let fault = match rng.below(6) {
            _ if throttle < faults.throttle => Some(InjectedFault::Throttled(pause / scale)),
            _ if failure >= faults.server_error => None,
            0 => Some(InjectedFault::Balancer(StatusCode::BAD_GATEWAY)),
            1 => Some(InjectedFault::Balancer(StatusCode::SERVICE_UNAVAILABLE)),
            2 | 3 => Some(InjectedFault::Before),
            _ => Some(InjectedFault::After),
        };
        let loss = match rng.below(2) {
            0 => Loss::Closed,
            _ => Loss::Silent,
        };
        let lateness = (late < faults.late).then_some(faults.late_by);
        Self {
            arrive: arrive + lateness.unwrap_or_default(),
            reply,
            fault,
            loss: (lost < faults.lost_reply).then_some(loss),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_of_one_request_does_not_shift_the_next() {
        let spec = SandboxSpec {
            arrive: Delay {
                base: Duration::from_millis(10),
                jitter: Duration::from_millis(90),
            },
            ..SandboxSpec::default()
        };
        let delays = |faults: Faults| -> Vec<Duration> {
            let mut rng = Rng::new(5);
            (0..20)
                .map(|_| FaultPlan::draw(&mut rng, &spec, &faults).arrive)
                .collect()
        };
        let calm = delays(Faults::default());
        assert_eq!(
            calm,
            delays(Faults {
                throttle: 1.0,
                lost_reply: 0.5,
                server_error: 0.5,
                ..Faults::default()
            })
        );
        assert!(
            calm.iter()
                .all(|delay| (10..=100).contains(&delay.as_millis()))
        );
        assert!(calm.iter().any(|delay| *delay != calm[0]));
    }

    #[test]
    fn every_kind_of_fault_is_drawn_as_often_as_told() {
        let spec = SandboxSpec {
            time_scale: 10,
            ..SandboxSpec::default()
        };
        let faults = Faults {
            server_error: 0.3,
            lost_reply: 0.2,
            late: 0.1,
            late_by: Duration::from_secs(5),
            throttle: 0.05,
        };
        let mut rng = Rng::new(9);
        let plans: Vec<FaultPlan> = (0..20_000)
            .map(|_| FaultPlan::draw(&mut rng, &spec, &faults))
            .collect();
        let share = |is: &dyn Fn(&FaultPlan) -> bool| {
            plans.iter().filter(|plan| is(plan)).count() as f64 / 20_000.0
        };
        let near = |found: f64, expected: f64| {
            assert!((found - expected).abs() < 0.02, "{found} {expected}")
        };
        near(
            share(
                &|plan| matches!(plan.fault, Some(InjectedFault::Throttled(wait)) if wait.as_millis() <= 300),
            ),
            0.05,
        );
        near(
            share(&|plan| matches!(plan.fault, Some(InjectedFault::Balancer(_)))),
            0.095,
        );
        near(
            share(&|plan| plan.fault == Some(InjectedFault::Before)),
            0.095,
        );
        near(
            share(&|plan| plan.fault == Some(InjectedFault::After)),
            0.095,
        );
        near(share(&|plan| plan.loss == Some(Loss::Closed)), 0.1);
        near(share(&|plan| plan.loss == Some(Loss::Silent)), 0.1);
        near(share(&|plan| plan.arrive == Duration::from_secs(5)), 0.1);
    }
}

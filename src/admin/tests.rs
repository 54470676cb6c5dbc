//! What the tests of several files here need.

use crate::caller::Caller;
use crate::credential::Credential;
use crate::limit::budgets::{AccountState, QueueHead};
use crate::route::policy::Rate;
use std::net::IpAddr;
use std::time::Duration;

/// Returns the `n`th budget, of ten requests a minute. The first of those that wait came as many
/// seconds ago as there are of them.
pub(super) fn account(n: u16, occupied: u32, waiting: usize, closed: u64) -> AccountState {
    let mut bytes = [0; 16];
    bytes[..2].copy_from_slice(&n.to_be_bytes());
    let oldest = (waiting > 0).then(|| Duration::from_secs(waiting as u64));
    let head = oldest.map(|waited| QueueHead {
        caller: Caller {
            principal: IpAddr::from([10, 0, 0, 1]).into(),
            name: Some(format!("team-{n}").into()),
        },
        queued: waiting,
        blocked: 0,
        waited,
    });
    AccountState {
        credential: Credential::from_bytes(bytes),
        budget: "getUser".into(),
        of_writes: false,
        rate: Rate {
            limit: 10,
            window: Duration::from_secs(60),
        },
        occupied,
        in_flight: 0,
        waiting,
        oldest,
        head: head.into_iter().collect(),
        next_free: Duration::ZERO,
        closed_for: (closed > 0).then(|| Duration::from_secs(closed)),
        left_to_others: 0,
        starting: false,
    }
}

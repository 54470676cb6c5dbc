//! The limit of open files, raised to what the configured connections need.
//!
//! The soft limit is usually 1,024 for the sake of old programs; the hard limit is what the
//! operator permits. So the soft limit is raised at the start. A limit that is still too low is
//! reported then, and not only when connections can no longer be accepted.

/// Files besides connections: listeners, the ledger, the log, the runtime's own.
const OTHERS: u64 = 64;

/// Raises the limit of open files as far as possible. Returns a warning if that is too little for
/// so many connections of callers, each with one to the API at worst.
pub fn make_room(connections: usize) -> Option<String> {
    let wanted = wanted(connections);
    let have = raise(wanted)?;
    (have < wanted).then(|| {
        format!(
            "server.connections is {connections}, which takes up to {wanted} open files, but this \
             process may have {have}: connections beyond that are not accepted; raise the hard \
             limit (`ulimit -Hn`, LimitNOFILE= of systemd) or lower server.connections"
        )
    })
}

fn wanted(connections: usize) -> u64 {
    // The listener accepts a sixteenth more, for clear rejections.
    let accepted = connections.saturating_add(connections.div_ceil(16));
    u64::try_from(accepted)
        .unwrap_or(u64::MAX)
        .saturating_mul(2)
        .saturating_add(OTHERS)
}

/// Returns the limit in force, at most `wanted` if it was raised, or `None` if there is no limit.
#[cfg(unix)]
fn raise(wanted: u64) -> Option<u64> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limits = getrlimit(Resource::Nofile);
    let soft = limits.current?;
    let possible = limits.maximum.map_or(wanted, |hard| hard.min(wanted));
    if possible <= soft {
        return Some(soft);
    }
    let raised = Rlimit {
        current: Some(possible),
        ..limits
    };
    let done = setrlimit(Resource::Nofile, raised);
    Some(if done.is_ok() { possible } else { soft })
}

#[cfg(not(unix))]
fn raise(_: u64) -> Option<u64> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_hard_limit_does_not_allow_is_said() {
        assert_eq!(wanted(4096), 2 * (4096 + 256) + OTHERS);
        assert_eq!(make_room(2), None);
        #[cfg(target_os = "linux")]
        {
            let said = make_room(usize::MAX).unwrap_or_default();
            assert!(said.contains("server.connections is"), "{said}");
        }
    }
}

//! Cores: who runs where, and how much of it is used. Linux tells both; elsewhere the bench runs
//! unpinned and without these figures.

use std::fmt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

/// The cores in use.
pub(crate) struct Cores {
    pub(crate) server: usize,
    pub(crate) load: usize,
    /// Whether processes can be bound to them.
    pinned: bool,
    /// Whether a server can be killed with this process, whatever ends it.
    bound_to_us: bool,
}

impl Cores {
    /// Chooses a core for the servers and another for the load, and binds this thread, and so
    /// those that it starts, to the latter.
    pub(crate) fn choose() -> Self {
        let allowed = std::fs::read_to_string("/proc/self/status")
            .ok()
            .and_then(|status| {
                let line = status
                    .lines()
                    .find_map(|l| l.strip_prefix("Cpus_allowed_list:"))?;
                Some(numbers(line))
            })
            .unwrap_or_default();
        let server = allowed.first().copied().unwrap_or(0);
        let siblings = siblings(server);
        // Two threads of one physical core slow each other down.
        let apart = allowed.iter().rev().find(|core| !siblings.contains(core));
        let load = apart.or(allowed.last()).copied().unwrap_or(0);
        let this = std::process::id().to_string();
        let pinned = server != load && runs("taskset", &["-c", "-p", &load.to_string(), &this]);
        Self {
            server,
            load,
            pinned,
            bound_to_us: runs("setpriv", &["--pdeathsig", "KILL", "true"]),
        }
    }

    /// Returns a command that runs on this core, in an empty environment.
    pub(crate) fn command(&self, core: usize, program: &Path) -> Command {
        let mut words: Vec<String> = Vec::new();
        if self.bound_to_us {
            words.extend(["setpriv", "--pdeathsig", "KILL"].map(str::to_owned));
        }
        if self.pinned {
            words.extend(["taskset".to_owned(), "-c".to_owned(), core.to_string()]);
        }
        // Both replace themselves by what follows, so the child is the server itself.
        let mut words = words.into_iter();
        let mut command = match words.next() {
            Some(first) => {
                let mut command = Command::new(first);
                command.args(words).arg(program);
                command
            }
            None => Command::new(program),
        };
        // No setting of whoever runs this is one of the servers'.
        command.env_clear().stdin(Stdio::null());
        if let Some(path) = std::env::var_os("PATH") {
            command.env("PATH", path);
        }
        command
    }
}

impl fmt::Display for Cores {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { server, load, .. } = self;
        if self.pinned {
            write!(
                f,
                "servers on core {server} (tokio's multi-thread runtime, hence 1 worker), load on \
                 core {load}"
            )?;
            if siblings(*server).contains(load) {
                f.write_str("\nWARNING: both are threads of one physical core")?;
            }
            return Ok(());
        }
        f.write_str(if server == load {
            "WARNING: there is one core for servers and load; the ratio will be too good"
        } else {
            "WARNING: no taskset, so nothing is bound to a core; the figures are not comparable"
        })
    }
}

/// Runs a command for its success alone.
fn runs(program: &str, arguments: &[&str]) -> bool {
    Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// The threads of the physical core that this one belongs to.
fn siblings(core: usize) -> Vec<usize> {
    let path = format!("/sys/devices/system/cpu/cpu{core}/topology/thread_siblings_list");
    std::fs::read_to_string(path).map_or(vec![core], |list| numbers(&list))
}

/// Reads a list such as `0-3,8`.
fn numbers(list: &str) -> Vec<usize> {
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some(first.trim().parse::<usize>().ok()?..=last.trim().parse().ok()?)
    };
    list.split(',').filter_map(range).flatten().collect()
}

/// Time that a process has had, and has waited for because its core ran something else.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Usage {
    pub(crate) ran: Duration,
    pub(crate) waited: Duration,
}

impl Usage {
    /// Of all threads of a process so far, where the system tells.
    pub(crate) fn of(process: u32) -> Option<Self> {
        let mut sum = Self::default();
        for task in std::fs::read_dir(format!("/proc/{process}/task")).ok()? {
            let text = std::fs::read_to_string(task.ok()?.path().join("schedstat")).ok()?;
            let mut fields = text.split_whitespace().map(str::parse);
            sum.ran += Duration::from_nanos(fields.next()?.ok()?);
            sum.waited += Duration::from_nanos(fields.next()?.ok()?);
        }
        Some(sum)
    }

    /// Both together.
    pub(crate) fn and(self, other: Self) -> Self {
        Self {
            ran: self.ran + other.ran,
            waited: self.waited + other.waited,
        }
    }

    /// What was added since `before`.
    pub(crate) fn since(self, before: Self) -> Self {
        Self {
            ran: self.ran.saturating_sub(before.ran),
            waited: self.waited.saturating_sub(before.waited),
        }
    }
}

//! Metrics of this process, under the names that all exporters use. They come from `/proc/self`,
//! and are zero on systems without it.

use super::families::Families;
use super::levels::whole;
use std::fs::read_to_string;

/// The unit of CPU times in `/proc`, the same on every Linux system in use.
const TICKS_PER_SECOND: f64 = 100.0;
const BYTES_PER_KIB: u64 = 1024;

/// Reads the state of this process and shows it.
pub(super) fn set(families: &Families) {
    let status = read_to_string("/proc/self/status").unwrap_or_default();
    let of = |name: &str| field(&status, name).unwrap_or(0);
    families.resident.set(whole(of("VmRSS:") * BYTES_PER_KIB));
    families
        .virtual_memory
        .set(whole(of("VmSize:") * BYTES_PER_KIB));
    families.threads.set(whole(of("Threads:")));
    let stat = Stat::parse(&read_to_string("/proc/self/stat").unwrap_or_default());
    // The kernel's total: a counter can only be raised, so the difference is added.
    families
        .cpu
        .inc_by((stat.cpu - families.cpu.get()).max(0.0));
    let booted = read_to_string("/proc/stat").unwrap_or_default();
    let booted = field(&booted, "btime").unwrap_or(0);
    families.started.set(whole(booted + stat.started));
    let files = std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count);
    families.files.set(whole(files as u64));
    let limits = read_to_string("/proc/self/limits").unwrap_or_default();
    let most = field(&limits, "Max open files");
    families.most_files.set(whole(most.unwrap_or(0)));
}

/// Returns the first number after `name` at the beginning of a line.
fn field(text: &str, name: &str) -> Option<u64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(name))?;
    rest.split_whitespace().next()?.parse().ok()
}

/// Values of `/proc/self/stat` (proc_pid_stat(5)), in seconds.
#[derive(Debug, Default, PartialEq)]
struct Stat {
    cpu: f64,
    /// The time since the boot of the machine.
    started: u64,
}

impl Stat {
    fn parse(text: &str) -> Self {
        // The second field is a name in parentheses, which may contain spaces. The first field
        // behind it is the third.
        let fields = text.rsplit_once(')').map_or("", |(_, rest)| rest);
        let field = |nth: usize| {
            let field = fields.split_whitespace().nth(nth - 3);
            field
                .and_then(|field| field.parse::<f64>().ok())
                .unwrap_or(0.0)
        };
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "seconds since the start of a machine"
        )]
        let started = (field(22) / TICKS_PER_SECOND) as u64;
        Self {
            cpu: (field(14) + field(15)) / TICKS_PER_SECOND,
            started,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_by_name_and_by_number() {
        let text = "VmSize:\t  10 kB\nVmRSS:\t 7 kB\nMax open files            1024   4096 files\n";
        assert_eq!(field(text, "VmRSS:"), Some(7));
        assert_eq!(field(text, "Max open files"), Some(1024));
        assert_eq!(field(text, "Threads:"), None);
        assert_eq!(field("Max open files unlimited", "Max open files"), None);
        let stat = "9 (a ) name) S 4 5 6 7 8 9 10 11 12 13 150 50 16 17 18 19 20 21 3400 23";
        let expected = Stat {
            cpu: 2.0,
            started: 34,
        };
        assert_eq!(Stat::parse(stat), expected);
        assert_eq!(Stat::parse(""), Stat::default());
    }
}

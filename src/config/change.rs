//! Pure. What of a new configuration takes effect while the gateway runs, and what waits for a
//! restart. Which key does which stands in its row in `keys.rs`.

use super::keys::Config;

/// The effect of a new configuration on a running gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigChange {
    /// The configuration from now on: new values where a reload applies them, old ones elsewhere.
    pub config: Config,
    /// The keys whose new values are in it.
    pub applied: Vec<&'static str>,
    /// The keys whose new values wait for a restart.
    pub waiting: Vec<&'static str>,
}

impl ConfigChange {
    /// Returns the change from `running` to `wanted`.
    pub fn of(running: &Config, wanted: &Config) -> Self {
        let mut config = running.clone();
        let (mut applied, mut waiting) = (Vec::new(), Vec::new());
        config.take_over(wanted, |key, is_applied| {
            let keys = if is_applied {
                &mut applied
            } else {
                &mut waiting
            };
            keys.push(key);
        });
        let mut change = Self {
            config,
            applied,
            waiting,
        };
        if change.waiting.contains(&"admin.listen") {
            // Who may do what depends on who can reach the listener.
            change.hold_back("admin.", |config| config.admin = running.admin.clone());
        }
        change
    }

    /// Lets all keys that begin with `prefix` wait as well; `undo` gives them their old values.
    pub fn hold_back(&mut self, prefix: &str, undo: impl FnOnce(&mut Config)) {
        undo(&mut self.config);
        let (back, applied) = std::mem::take(&mut self.applied)
            .into_iter()
            .partition(|key| key.starts_with(prefix));
        self.applied = applied;
        self.waiting.extend::<Vec<_>>(back);
    }
}

#[cfg(test)]
mod tests {
    use super::super::{LogLevel, Size};
    use super::*;
    use std::time::Duration;

    #[test]
    fn who_may_ask_changes_together_with_where() {
        let running = Config::default();
        let mut wanted = running.clone();
        wanted.admin.open = true;
        assert_eq!(ConfigChange::of(&running, &wanted).applied, ["admin.open"]);
        wanted.admin.listen.set_port(1);
        wanted.log.level = LogLevel::Debug;
        let change = ConfigChange::of(&running, &wanted);
        assert_eq!(change.applied, ["log.level"]);
        assert_eq!(change.waiting, ["admin.listen", "admin.open"]);
        assert_eq!(change.config.admin, running.admin);
    }

    #[test]
    fn what_cannot_be_taken_over_stays_as_it_runs() {
        let running = Config::default();
        let mut wanted = running.clone();
        wanted.write.max_wait = Duration::from_secs(7);
        wanted.log.level = LogLevel::Debug;
        wanted.listen.set_port(1);
        wanted.cache.bytes = Size(5);
        let change = ConfigChange::of(&running, &wanted);
        assert_eq!(change.applied, ["write.max_wait", "log.level"]);
        assert_eq!(change.waiting, ["listen", "cache.bytes"]);
        assert_eq!(change.config.write, wanted.write);
        assert_eq!(change.config.listen, running.listen);
        // The same again changes nothing more, and still waits.
        let again = ConfigChange::of(&change.config, &wanted);
        assert_eq!(again.applied, Vec::<&str>::new());
        assert_eq!(again.waiting, change.waiting);
        assert_eq!(again.config, change.config);
    }
}

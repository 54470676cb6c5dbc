//! What is measured of the keys of clients: when each expires.

use super::Metrics;
use std::time::{SystemTime, UNIX_EPOCH};

impl Metrics {
    /// Notes when each key expires: the client, the id of the key, and the instant. Keys that are
    /// not among them are forgotten. Their number is bounded by the file that names them.
    pub fn client_keys<'k>(&self, keys: impl Iterator<Item = (&'k str, &'k str, SystemTime)>) {
        let ends = &self.families.client_key_end;
        ends.reset();
        for (client, key, expires) in keys {
            let end = expires.duration_since(UNIX_EPOCH).unwrap_or_default();
            let labels = [client, key];
            ends.with_label_values(&labels).set(end.as_secs_f64());
        }
    }
}

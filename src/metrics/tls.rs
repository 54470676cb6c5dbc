//! What is measured of the TLS of a listener: handshakes, and the certificate in use.

use super::families::Families;
use super::labels::{APPLIED, FAILED, HandshakeResult};
use prometheus::{GaugeVec, IntCounterVec, IntGaugeVec};
use std::time::{SystemTime, UNIX_EPOCH};

/// The metrics of one listener. Cheap to clone.
#[derive(Clone, Debug)]
pub struct TlsSeries {
    listener: &'static str,
    handshakes: IntCounterVec,
    end: GaugeVec,
    reloads: IntCounterVec,
    sound: IntGaugeVec,
}

impl TlsSeries {
    /// Creates every series of the listener, so that the first event is an increase that `rate`
    /// sees.
    pub(super) fn new(families: &Families, listener: &'static str) -> Self {
        let series = Self {
            listener,
            handshakes: families.handshakes.clone(),
            end: families.certificate_end.clone(),
            reloads: families.certificate_reloads.clone(),
            sound: families.certificate_sound.clone(),
        };
        for result in HandshakeResult::ALL {
            let labels = [listener, result.as_str()];
            series.handshakes.with_label_values(&labels);
        }
        for result in [APPLIED, FAILED] {
            series.reloads.with_label_values(&[listener, result]);
        }
        series
    }

    /// Counts the end of a handshake.
    pub fn handshake(&self, result: HandshakeResult) {
        let labels = [self.listener, result.as_str()];
        self.handshakes.with_label_values(&labels).inc();
    }

    /// Notes the certificate in use, whose files are sound.
    pub fn certificate(&self, not_after: SystemTime) {
        let end = not_after.duration_since(UNIX_EPOCH).unwrap_or_default();
        let labels = [self.listener];
        self.end.with_label_values(&labels).set(end.as_secs_f64());
        self.sound.with_label_values(&labels).set(1);
    }

    /// Counts a replacement of the certificate.
    pub fn replaced(&self) {
        let labels = [self.listener, APPLIED];
        self.reloads.with_label_values(&labels).inc();
    }

    /// Counts a replacement that failed: the certificate before stays in use.
    pub fn replacement_failed(&self) {
        self.reloads
            .with_label_values(&[self.listener, FAILED])
            .inc();
        self.sound.with_label_values(&[self.listener]).set(0);
    }
}

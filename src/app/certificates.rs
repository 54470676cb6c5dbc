//! The certificates of the listeners with TLS: opened at the start, and replaced while the gateway
//! runs.
//!
//! The files are read again every minute and at each reload, so that it does not matter how they
//! are replaced: in place, by renaming, or by a symbolic link as Kubernetes does it. They are
//! compared by content and checked as a pair. Files that cannot be used change nothing: the
//! certificate before stays in use, which the log says once and a metric all the time.
//!
//! Which files there are is fixed at the start; a change of their names waits for a restart.

mod listener;

use super::start_error::AppError;
use crate::clock::Clock;
use crate::config::{Config, Unusable, ValueSource};
use crate::metrics::{Metrics, TlsSeries};
use crate::server::tls::{SecureListener, ServerIdentity, TlsProblem, TlsSpec};
use crate::swap::Swap;
use listener::TlsListener;
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::task::spawn_blocking;

/// How often the files are read.
const LOOK_EVERY: Duration = Duration::from_secs(60);

/// Returns the files of certificates that a configuration names and that cannot be used. A pair of
/// which it names one half is a mistake of the configuration, which [`crate::config`] reports.
pub fn unusable_certificates(config: &Config, now: SystemTime) -> Vec<Unusable> {
    let mut found = Vec::new();
    for listener in TlsListener::ALL {
        let spec = listener.spec(config).filter(TlsSpec::names_a_pair);
        let opened = spec.map(|spec| open(&spec, now));
        let problems = opened.and_then(Result::err).unwrap_or_default();
        found.extend(problems.into_iter().map(|problem| {
            let source = ValueSource::Key(listener.key(problem.file));
            Unusable::new(source, problem.found, problem.expected)
        }));
    }
    found
}

fn open(spec: &TlsSpec, now: SystemTime) -> Result<ServerIdentity, Vec<TlsProblem>> {
    ServerIdentity::new(&spec.read()?, now)
}

/// The certificates in use, one for each listener with TLS.
#[derive(Debug)]
pub(super) struct Certificates {
    each: Vec<Certificate>,
    clock: Clock,
}

/// The certificate of a listener.
#[derive(Debug)]
struct Certificate {
    listener: TlsListener,
    spec: TlsSpec,
    identity: Arc<Swap<ServerIdentity>>,
    seen: TlsSeries,
    /// What was wrong with the files at the last look, so that it is reported once.
    wrong: Mutex<Option<String>>,
}

impl Certificates {
    /// Opens the certificates that a configuration names.
    ///
    /// # Errors
    /// If one cannot be used.
    pub(super) fn open(config: &Config, metrics: &Metrics, clock: Clock) -> Result<Self, AppError> {
        let mut each = Vec::new();
        for listener in TlsListener::ALL {
            let Some(spec) = listener.spec(config) else {
                continue;
            };
            let identity = open(&spec, clock.wall())
                .map_err(|problems| AppError(texts(listener, &problems)))?;
            let seen = metrics.tls(listener.as_str());
            seen.certificate(identity.not_after());
            tracing::info!(
                listener = listener.as_str(),
                expires = %humantime::format_rfc3339_seconds(identity.not_after()),
                "listener speaks TLS"
            );
            each.push(Certificate {
                listener,
                spec,
                identity: Arc::new(Swap::new(identity)),
                seen,
                wrong: Mutex::default(),
            });
        }
        Ok(Self { each, clock })
    }

    /// Returns the TLS of the listener for callers, if it has any.
    pub(super) fn of_callers(&self) -> Option<SecureListener> {
        self.of(TlsListener::Callers)
    }

    /// Returns the TLS of the admin listener, if it has any.
    pub(super) fn of_admin(&self) -> Option<SecureListener> {
        self.of(TlsListener::Admin)
    }

    fn of(&self, listener: TlsListener) -> Option<SecureListener> {
        let mut each = self.each.iter();
        let found = each.find(|certificate| certificate.listener == listener)?;
        Some(SecureListener::new(
            found.identity.clone(),
            found.seen.clone(),
        ))
    }

    /// Reads the files again, and serves with what they contain if it is usable. Blocks.
    pub(super) fn refresh(&self) {
        for certificate in &self.each {
            certificate.refresh(self.clock.wall());
        }
    }

    /// Reads the files again from time to time. Never ends.
    pub(super) async fn watch(self: Arc<Self>) {
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            let certificates = self.clone();
            if spawn_blocking(move || certificates.refresh())
                .await
                .is_err()
            {
                tracing::error!("reading the certificates panicked");
            }
        }
    }
}

impl Certificate {
    fn refresh(&self, now: SystemTime) {
        // Locked for the whole: a reload and the look of a minute never mix.
        let mut wrong = self.wrong.lock();
        let present = self.identity.get();
        let opened = self.spec.read().and_then(|files| {
            let is_new = !present.is_of(&files);
            let new = is_new.then(|| ServerIdentity::new(&files, now));
            new.transpose()
        });
        let listener = self.listener.as_str();
        match opened {
            Ok(new) => {
                let in_use = new.as_ref().unwrap_or(&present);
                self.seen.certificate(in_use.not_after());
                *wrong = None;
                let Some(new) = new else { return };
                let expires = humantime::format_rfc3339_seconds(new.not_after());
                tracing::info!(listener, %expires, "TLS certificate replaced");
                self.identity.set(new);
                self.seen.replaced();
            }
            Err(problems) => {
                let text = texts(self.listener, &problems);
                if wrong.as_ref() == Some(&text) {
                    return;
                }
                tracing::error!(
                    listener,
                    problem = text,
                    in_use_expires = %humantime::format_rfc3339_seconds(present.not_after()),
                    "TLS certificate cannot be replaced: the previous one stays in use"
                );
                self.seen.replacement_failed();
                *wrong = Some(text);
            }
        }
    }
}

/// Returns problems on one line, each with its key.
fn texts(listener: TlsListener, problems: &[TlsProblem]) -> String {
    let texts: Vec<String> = problems
        .iter()
        .map(|problem| format!("{}: {problem}", listener.key(problem.file)))
        .collect();
    texts.join("; ")
}

#[cfg(test)]
mod tests;

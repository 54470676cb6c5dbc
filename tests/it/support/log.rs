//! What is logged.

use std::cell::RefCell;
use std::io::Write;
use std::sync::{Arc, Mutex, Once};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::dynamic_filter_fn;
use tracing_subscriber::layer::{Context, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;

/// Everything that is logged on one thread.
#[derive(Clone, Default)]
pub struct Log(Arc<Mutex<Vec<u8>>>);

thread_local! {
    static LISTENING: RefCell<Option<Log>> = const { RefCell::new(None) };
}

/// Ends the listening.
pub struct Listening;

impl Drop for Listening {
    fn drop(&mut self) {
        LISTENING.take();
    }
}

impl Log {
    /// Listens to this thread until the guard is dropped. One subscriber serves all tests: with one
    /// for each, those that come and go make each other miss lines.
    pub fn listen(&self) -> Listening {
        static INSTALL: Once = Once::new();
        INSTALL.call_once(|| {
            let listening = |_: &tracing::Metadata<'_>, _: &Context<'_, _>| {
                LISTENING.with_borrow(Option::is_some)
            };
            let lines = tracing_subscriber::fmt::layer()
                .with_ansi(false)
                .with_writer(|| LISTENING.with_borrow(Clone::clone).unwrap_or_default())
                .with_filter(dynamic_filter_fn(listening));
            tracing_subscriber::registry().with(lines).init();
        });
        LISTENING.set(Some(self.clone()));
        Listening
    }

    pub fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

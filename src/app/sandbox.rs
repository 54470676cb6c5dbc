//! The simulated API: alone, or inside the gateway's process.

use super::listen::bind;
use super::start_error::{AppError, failed};
use crate::clock::Clock;
use crate::sandbox::{Sandbox, SandboxSpec};
use crate::tasks;
use std::net::SocketAddr;

/// A simulated API, and where it listens.
#[derive(Clone, Debug)]
pub struct Inside {
    /// Where it listens.
    pub listen: SocketAddr,
    /// How it behaves.
    pub spec: SandboxSpec,
}

impl Inside {
    /// Returns by how much windows and latencies are shorter than the API's.
    pub(super) fn time_scale(&self) -> u32 {
        self.spec.time_scale.max(1)
    }
}

/// Starts a simulated API beside the gateway and returns its URL.
pub(super) async fn start_inside(
    inside: Inside,
    clock: Clock,
    stop: impl Future<Output = ()> + Send + 'static,
) -> Result<String, AppError> {
    let listener = bind(inside.listen, "sandbox").await?;
    let address = listener.local_addr().map_err(failed)?;
    tracing::info!(%address, "sandbox listening");
    let sandbox = Sandbox::new(inside.spec, clock);
    tasks::detached(sandbox.serve(listener, stop));
    Ok(format!("http://{address}"))
}

/// Runs the sandbox alone until `stop`.
///
/// # Errors
/// If its address is taken.
pub async fn sandbox(
    inside: Inside,
    stop: impl Future<Output = ()> + Send,
) -> Result<(), AppError> {
    let listener = bind(inside.listen, "sandbox").await?;
    tracing::info!(
        address = %listener.local_addr().map_err(failed)?,
        window = %inside.spec.window,
        "sandbox listening"
    );
    Sandbox::new(inside.spec, Clock::system())
        .serve(listener, stop)
        .await;
    Ok(())
}

//! Listeners, and the signal that ends them.

use super::start_error::AppError;
use std::net::SocketAddr;
use tokio::net::TcpListener;
use tokio::sync::watch;

/// Listens on an address; `what` is the key or the part that it belongs to.
pub(super) async fn bind(address: SocketAddr, what: &str) -> Result<TcpListener, AppError> {
    TcpListener::bind(address).await.map_err(|error| {
        AppError(format!(
            "cannot listen on {address} ({what}): {error}; stop what uses it or choose another \
             address"
        ))
    })
}

/// Waits until the value is true, or until nothing can set it any more.
pub(super) async fn until(mut stopped: watch::Receiver<bool>) {
    let _ = stopped.wait_for(|stopped| *stopped).await;
}

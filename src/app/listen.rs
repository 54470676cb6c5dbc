//! Listeners, and the signal that ends them.

use super::start_error::AppError;
use crate::config::Loaded;
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

/// Listens on the address of a key. An error names the place where the address was written.
pub(super) async fn bind_key(
    loaded: &Loaded,
    key: &str,
    address: SocketAddr,
) -> Result<TcpListener, AppError> {
    let bound = bind(address, key).await;
    bound.map_err(|error| AppError(loaded.at(key, error)))
}

/// Waits until the value is true, or until nothing can set it any more.
pub(super) async fn until(mut stopped: watch::Receiver<bool>) {
    let _ = stopped.wait_for(|stopped| *stopped).await;
}

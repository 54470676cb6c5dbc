//! The last moments of a connection whose caller may still be sending.
//!
//! A connection that is closed while bytes still arrive is reset, and the reset may overtake the
//! response. So some of the bytes are read and dropped first (RFC 9112, section 9.6). Both the
//! bytes and the time are bounded: a caller that goes on sending is reset after all.

use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::time::{sleep, timeout};

/// The most bytes of an answered request that are read and dropped before the connection closes. A
/// caller that sends more is reset.
pub(super) const LINGER_BYTES: u64 = 64 * 1024 * 1024;
/// The longest time for that. It bounds how long a closed connection still occupies a descriptor.
pub(super) const LINGER: Duration = Duration::from_secs(10);
/// The time bound while the gateway stops: enough for the caller to read its response.
const LINGER_STOPPED: Duration = Duration::from_secs(1);

/// Reads and drops what arrives, until the input ends or a bound is reached. The time is shorter
/// once `stopped` ends.
pub(super) async fn linger(stream: impl AsyncRead + Unpin, stopped: impl Future<Output = ()>) {
    let mut rest = stream.take(LINGER_BYTES);
    let mut nowhere = tokio::io::sink();
    let stopped = async {
        stopped.await;
        sleep(LINGER_STOPPED).await;
    };
    tokio::select! {
        _ = timeout(LINGER, tokio::io::copy(&mut rest, &mut nowhere)) => {}
        () = stopped => {}
    }
}

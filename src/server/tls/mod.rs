//! TLS on a listener: the certificate in use, and handshakes that are bounded in time and number.
//!
//! A handshake runs in the task of its connection, so it delays no other. At most 256 run at
//! once on a listener: one more ends the oldest of them, so that peers which begin handshakes and
//! never end them do not keep the others out. Behind the handshake a connection is served like any
//! other.
//!
//! The certificate can be replaced at any time. A connection keeps what it was opened with.
//!
//! Nothing here decides what a client certificate permits: a peer with a valid one is served like
//! any other.

mod client_names;
mod contents;
mod files;
mod identity;
mod pending;
mod problem;

pub use files::{ClientTrust, TlsFiles, TlsSpec};
pub use identity::ServerIdentity;
pub use problem::{TlsFile, TlsProblem};

use super::linger::linger;
use super::refusals::MalformedReplies;
use crate::exchange::identity::CertificateNames;
use crate::metrics::{HandshakeResult, TlsSeries};
use crate::swap::Swap;
use pending::PendingHandshakes;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// The time for a handshake, from the connection to its end.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// The time for a peer without TLS to accept the answer that says so.
const PLAIN_ANSWER: Duration = Duration::from_secs(5);
/// Handshakes at once on a listener.
const MOST: usize = 256;

/// The TLS of a listener. Cheap to clone.
#[derive(Clone, Debug)]
pub struct SecureListener {
    identity: Arc<Swap<ServerIdentity>>,
    pending: PendingHandshakes,
    seen: TlsSeries,
}

/// Why a handshake did not lead to a connection.
#[derive(Debug)]
enum HandshakeFailure {
    /// The peer speaks HTTP without TLS, and can be answered.
    PlainHttp(TcpStream),
    /// The handshake ended with an error.
    Ended(io::Error),
    /// Another handshake took its place.
    Displaced,
    /// It did not end in time.
    Timeout,
}

impl HandshakeFailure {
    /// Returns how the handshake is counted.
    fn result(&self) -> HandshakeResult {
        match self {
            Self::PlainHttp(_) => HandshakeResult::PlainHttp,
            Self::Ended(error) => result_of(error),
            Self::Displaced => HandshakeResult::Displaced,
            Self::Timeout => HandshakeResult::Timeout,
        }
    }
}

impl SecureListener {
    /// Creates the TLS of a listener that serves with whatever `identity` is at the time of a
    /// handshake, and counts handshakes in `seen`.
    pub fn new(identity: Arc<Swap<ServerIdentity>>, seen: TlsSeries) -> Self {
        Self {
            identity,
            pending: PendingHandshakes::new(MOST),
            seen,
        }
    }

    /// Completes the handshake of a connection. `None` if it failed, which is counted and logged,
    /// or if `stopped` is set before it ends.
    pub(super) async fn accept(
        &self,
        stream: TcpStream,
        peer: SocketAddr,
        refusals: &MalformedReplies,
        stopped: &watch::Receiver<bool>,
    ) -> Option<TlsStream<TcpStream>> {
        let mut stop = stopped.clone();
        let mut turn = self.pending.begin();
        let ended = tokio::select! {
            biased;
            ended = self.handshake(stream) => ended,
            () = turn.displaced() => Err(HandshakeFailure::Displaced),
            () = sleep(HANDSHAKE) => Err(HandshakeFailure::Timeout),
            _ = stop.wait_for(|stopped| *stopped) => return None,
        };
        // The place is for handshakes alone, not for what follows.
        drop(turn);
        let failure = match ended {
            Ok(stream) => {
                self.seen.handshake(HandshakeResult::Completed);
                return Some(stream);
            }
            Err(failure) => failure,
        };
        let result = failure.result();
        self.seen.handshake(result);
        tracing::debug!(%peer, result = result.as_str(), ?failure, "TLS handshake failed");
        if let HandshakeFailure::PlainHttp(stream) = failure {
            let answer = refusals.plain_http();
            answer_in_clear(stream, &answer, stop).await;
        }
        None
    }

    /// Makes the handshake, without a bound.
    async fn handshake(&self, stream: TcpStream) -> Result<TlsStream<TcpStream>, HandshakeFailure> {
        // A record of a handshake begins with 22 (RFC 8446, section 5.1), a request of HTTP with
        // the first letter of its method.
        let mut first = [0];
        stream
            .peek(&mut first)
            .await
            .map_err(HandshakeFailure::Ended)?;
        if first[0].is_ascii_alphabetic() {
            return Err(HandshakeFailure::PlainHttp(stream));
        }
        let acceptor = TlsAcceptor::from(self.identity.get().config());
        acceptor
            .accept(stream)
            .await
            .map_err(HandshakeFailure::Ended)
    }
}

/// Returns the names in the client certificate of a session, which has been verified.
pub(super) fn client_names(session: &rustls::ServerConnection) -> CertificateNames {
    let chain = session.peer_certificates();
    let own = chain.and_then(<[_]>::first);
    own.map(client_names::of).unwrap_or_default().into()
}

/// Sends an answer to a peer that does not speak TLS, then closes the connection.
async fn answer_in_clear(mut stream: TcpStream, answer: &[u8], mut stop: watch::Receiver<bool>) {
    let sent = async {
        stream.write_all(answer).await?;
        stream.shutdown().await
    };
    if let Ok(Ok(())) = timeout(PLAIN_ANSWER, sent).await {
        let stopped = async { drop(stop.wait_for(|stopped| *stopped).await) };
        linger(stream, stopped).await;
    }
}

/// Returns how a handshake that ended with this error is counted.
fn result_of(error: &io::Error) -> HandshakeResult {
    let of_tls = error.get_ref().and_then(|error| error.downcast_ref());
    match of_tls {
        Some(rustls::Error::NoCertificatesPresented) => HandshakeResult::NoClientCertificate,
        Some(rustls::Error::InvalidCertificate(_)) => HandshakeResult::BadClientCertificate,
        Some(rustls::Error::AlertReceived(_)) => HandshakeResult::Alert,
        Some(rustls::Error::PeerIncompatible(_) | rustls::Error::NoApplicationProtocol) => {
            HandshakeResult::Incompatible
        }
        Some(_) => HandshakeResult::Malformed,
        None => HandshakeResult::Closed,
    }
}

#[cfg(test)]
mod tests;

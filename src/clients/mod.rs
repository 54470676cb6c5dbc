//! Clients with keys of their own: who may use the gateway, for which operations, and with whose
//! token.
//!
//! Promises:
//!
//! - *Fails closed.* [`admit`] decides about every request, on its credentials
//!   alone. Text that begins like a key is never taken for a token of the API, in any mode, so it
//!   is never forwarded.
//! - *Nothing is remembered.* Expiry and rights are judged for each request. What a connection
//!   remembers is valid for one [`Clients::generation`].
//! - *No secret is kept.* Of a key there is only its SHA-256; `Debug` shows its id alone.
//!
//! Pure parts: [`admission`] (who is admitted), [`client`] (what one may do), [`rights`]. [`key`]
//! makes and reads keys, [`registry`] finds a client by its key or certificate.
//!
//! [`tokens`] has the tokens that the gateway holds, [`revoked`] what an operator took out of use.
//!
//! The file of clients is read by `config`, which builds a [`Clients`] from it. Nothing here reads
//! a clock or the fields of a request.

pub mod admission;
pub mod client;
pub mod digest;
pub mod key;
pub mod registry;
pub mod revoked;
pub mod rights;
pub mod tokens;

pub use admission::{ClientAdmission, CredentialSource, PresentedCredentials, admit};
pub use client::{KeyEntry, NamedClient};
pub use digest::KeyDigest;
pub use key::{ClientKey, KeyId, MalformedKey, is_key};
pub use registry::{Clients, CredentialMode, TokenFile};
pub use rights::{OperationIndex, Rights};

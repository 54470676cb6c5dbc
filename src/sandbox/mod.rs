//! x
mod dice;
mod operations;
mod request;
mod window;
mod world;
pub use window::WindowKind;

//! One test binary, so that everything is linked once.

mod deploy;
mod reads;
mod support;
mod tidy;

//! One test binary, so that everything is linked once.

mod reads;
mod support;

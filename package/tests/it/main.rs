//! Packages from the outside: what is refused, in every format, and what comes out as it went in.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod craft;
mod formats;
mod packing;
mod refusals;
mod round_trip;

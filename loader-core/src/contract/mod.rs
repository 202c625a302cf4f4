//! Contracts that are kept: values compared with schemas at each call, and contracts with each
//! other at load time.

mod check;
mod compare;
mod need;
mod view;

pub(crate) use check::{Checks, schema_options};
pub(crate) use need::{Needs, still_fits};

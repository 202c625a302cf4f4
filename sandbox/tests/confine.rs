//! Confined processes try to get out, use too much and stay; and do ordinary work.
//!
//! Each table runs at each level, as each user that the tests can be: as root, `nobody` too. Where a
//! machine can't reach a level or a controller, the test says so and goes on.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![expect(clippy::print_stderr, reason = "a test that is skipped says so")]

#[path = "confine/action.rs"]
mod action;
#[path = "confine/fixture.rs"]
mod fixture;

#[path = "confine/groups_of.rs"]
mod groups_of;

#[path = "confine/escape.rs"]
mod escape;
#[path = "confine/groups.rs"]
mod groups;
#[path = "confine/lifetime.rs"]
mod lifetime;
#[path = "confine/limits.rs"]
mod limits;
#[path = "confine/reach.rs"]
mod reach;

//! Capabilities.

use std::io;

use rustix::io::Errno;
use rustix::thread::{CapabilitySet, CapabilitySets};

use super::State;
use super::report::{Outcome, failed};

/// Gives up all capabilities in all sets.
pub(super) fn drop_all() -> io::Result<Outcome> {
    let bounded = empty_bounding_set();
    rustix::thread::clear_ambient_capability_set().map_err(failed("ambient set"))?;
    let none = CapabilitySet::empty();
    let sets = CapabilitySets { effective: none, permitted: none, inheritable: none };
    rustix::thread::set_capabilities(None, sets).map_err(failed("capset"))?;
    match bounded {
        Ok(()) => Outcome::reached(),
        // An ordinary user who has nothing can't give anything up either.
        Err(Errno::PERM) => {
            Outcome::noted(State::Partly, "the bounding set stays, of no use without new privileges")
        }
        Err(error) => Err(failed("bounding set")(error)),
    }
}

fn empty_bounding_set() -> rustix::io::Result<()> {
    for bit in 0..u64::BITS {
        let capability = CapabilitySet::from_bits_retain(1 << bit);
        match rustix::thread::capability_is_in_bounding_set(capability) {
            Ok(true) => rustix::thread::remove_capability_from_bounding_set(capability)?,
            Ok(false) => {}
            // Past the last one that this kernel knows.
            Err(Errno::INVAL) => break,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

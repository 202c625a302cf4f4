//! The test guest that every language has for a state that outlives a reload.

#[quadriga_sdk::extension]
mod counter {
    use std::sync::atomic::{AtomicI64, Ordering::Relaxed};

    use quadriga_sdk::Error;

    static COUNT: AtomicI64 = AtomicI64::new(0);

    /// Adds to the count, and returns it.
    pub fn add(n: i64) -> i64 {
        COUNT.fetch_add(n, Relaxed) + n
    }

    /// What a reload hands to the next instance.
    pub fn snapshot() -> i64 {
        COUNT.load(Relaxed)
    }

    /// Takes over from the instance before.
    pub fn restore(count: i64) -> Result<(), Error> {
        if count < 0 {
            return Err(Error::new("a count is not negative"));
        }
        COUNT.store(count, Relaxed);
        Ok(())
    }
}

//! A value with two owners, of whom the last to let go frees it. It does without a count, which takes
//! atomic operations that each call would pay for.

use std::ops::Deref;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, Ordering};

/// One of the two owners.
pub(crate) struct Half<T>(NonNull<Whole<T>>);

struct Whole<T> {
    /// One of the two has let go.
    halved: AtomicBool,
    value: T,
}

#[expect(unsafe_code, reason = "a raw pointer is shared")]
// SAFETY: as for `Arc`: both owners read the value, and either may drop it.
unsafe impl<T: Send + Sync> Send for Half<T> {}
#[expect(unsafe_code, reason = "a raw pointer is shared")]
// SAFETY: as for `Send`.
unsafe impl<T: Send + Sync> Sync for Half<T> {}

impl<T> Half<T> {
    pub(crate) fn pair(value: T) -> [Self; 2] {
        let whole = Box::new(Whole { halved: AtomicBool::new(false), value });
        let whole = NonNull::from(Box::leak(whole));
        [Self(whole), Self(whole)]
    }

    /// The value, if the other owner has let go.
    #[expect(unsafe_code, reason = "a raw pointer is shared")]
    pub(crate) fn get_mut(&mut self) -> Option<&mut T> {
        // SAFETY: it is there as long as this half is.
        if !unsafe { self.0.as_ref() }.halved.load(Ordering::Acquire) {
            return None;
        }
        // SAFETY: nobody else has it any more.
        Some(unsafe { &mut self.0.as_mut().value })
    }

    /// For [`Half::from_raw`].
    pub(crate) fn into_raw(self) -> *const () {
        let raw = self.0.as_ptr().cast_const().cast();
        std::mem::forget(self);
        raw
    }

    /// # Safety
    /// `raw` must come from [`Half::into_raw`] of this type, and be given back once.
    #[expect(unsafe_code, reason = "a raw pointer is shared")]
    pub(crate) unsafe fn from_raw(raw: *const ()) -> Self {
        // SAFETY: it came from a pointer that is not null.
        Self(unsafe { NonNull::new_unchecked(raw.cast_mut().cast()) })
    }

    /// The value that a raw half has.
    ///
    /// # Safety
    /// `raw` must come from [`Half::into_raw`] of this type, and not be given back while this is used.
    #[expect(unsafe_code, reason = "a raw pointer is shared")]
    pub(crate) unsafe fn peek<'a>(raw: *const ()) -> &'a T {
        // SAFETY: the half keeps it there, and nobody has it mutably while there are two.
        unsafe { &(*raw.cast::<Whole<T>>()).value }
    }
}

impl<T> Deref for Half<T> {
    type Target = T;

    #[expect(unsafe_code, reason = "a raw pointer is shared")]
    fn deref(&self) -> &T {
        // SAFETY: it is there as long as this half is.
        unsafe { &self.0.as_ref().value }
    }
}

impl<T> Drop for Half<T> {
    #[expect(unsafe_code, reason = "a raw pointer is shared")]
    fn drop(&mut self) {
        // SAFETY: it is there as long as this half is.
        let halved = unsafe { &self.0.as_ref().halved };
        // Looked at first: whoever sees that the other has gone needs to tell nobody.
        if halved.load(Ordering::Acquire) || halved.swap(true, Ordering::AcqRel) {
            // SAFETY: `pair` leaked it, and the other half has gone.
            drop(unsafe { Box::from_raw(self.0.as_ptr()) });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::thread;

    use super::*;

    #[test]
    fn the_last_to_let_go_frees_it() {
        let counted = Arc::new(());
        for round in 0..10_000 {
            let [mut ours, theirs] = Half::pair(Arc::clone(&counted));
            assert!(ours.get_mut().is_none());
            assert_eq!(Arc::strong_count(&theirs), 2);
            let raw = theirs.into_raw() as usize;
            #[expect(unsafe_code, reason = "given back once, by whoever does it")]
            let let_go = move || {
                // SAFETY: it is peeked at before it is given back, and given back once.
                unsafe {
                    assert_eq!(Arc::strong_count(Half::<Arc<()>>::peek(raw as *const ())), 2);
                    drop(Half::<Arc<()>>::from_raw(raw as *const ()));
                }
            };
            match round % 3 {
                // At once, and one after the other.
                0 => {
                    let other = thread::spawn(let_go);
                    drop(ours);
                    other.join().unwrap();
                }
                1 => {
                    let_go();
                    assert!(ours.get_mut().is_some());
                    drop(ours);
                }
                _ => {
                    drop(ours);
                    let_go();
                }
            }
            assert_eq!(Arc::strong_count(&counted), 1, "{round}");
        }
    }
}

//! Shared memory as both sides map it: to write a payload, to copy it, or to read it where it lies.
//! Only a worker does the last, because it trusts its host: a worker could change what it lent while
//! its host reads.
#![expect(unsafe_code, reason = "memory that another process may write")]

use std::os::fd::OwnedFd;
use std::ptr::{self, NonNull};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering, fence};

use parking_lot::Mutex;
use quadriga_abi::Bytes;
use rustix::io::{Errno, pwrite};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

/// How many buffers for copies are kept, of how many bytes at most each.
const SPARES: usize = 4;
const SPARE: usize = 4 << 20;

/// A region, mapped for as long as something of it is read. Its first byte is not zero while a
/// payload is there.
pub(crate) struct Mapping {
    at: NonNull<u8>,
    size: usize,
    file: OwnedFd,
}

// SAFETY: the address is valid in all threads, and what lies there is only reached as below.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

/// A payload in a mapping. Its place is given back when it is dropped.
struct Loan {
    mapping: Arc<Mapping>,
    start: usize,
    length: usize,
}

/// A payload that was copied. Its memory is used again: new memory costs more than the copy.
struct Copied(Vec<u8>);

static BUFFERS: Mutex<Vec<Vec<u8>>> = Mutex::new(Vec::new());

impl Mapping {
    /// Maps a file of that size, which is sealed and not of huge pages: no access can then fail.
    pub(crate) fn new(file: OwnedFd, size: usize, access: ProtFlags) -> Result<Self, Errno> {
        // SAFETY: a new mapping, at an address that the kernel chooses.
        let at = unsafe { mmap(ptr::null_mut(), size, access, MapFlags::SHARED, &file, 0) }?.cast();
        Ok(Self { at: NonNull::new(at).ok_or(Errno::NOMEM)?, size, file })
    }

    /// Takes the place, if nobody has it. Only for who mapped it to be written.
    pub(crate) fn take(&self) -> bool {
        // SAFETY: the first byte is within the mapping, which is aligned to pages, and both sides
        // reach it as an atomic or by the kernel.
        let taken = unsafe { AtomicU8::from_ptr(self.at.as_ptr()) };
        taken.compare_exchange(0, 1, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }

    /// Gives the place back.
    ///
    /// # Errors
    /// If there is no memory for that, or the file cannot be written.
    pub(crate) fn give_back(&self) -> Result<(), Errno> {
        // What was read is read: the kernel promises no order between that and what it writes.
        fence(Ordering::Release);
        pwrite(&self.file, &[0], 0).map(drop)
    }

    /// Lays a payload down, or says that it does not fit. Only for who mapped it to be written, and
    /// has taken the place.
    pub(crate) fn write(&self, start: usize, payload: &[u8]) -> bool {
        let fits = start.checked_add(payload.len()).is_some_and(|end| end <= self.size);
        if fits {
            // SAFETY: it is within the mapping. The other side has no reason to read or write there
            // now; should it do so nevertheless, it harms nothing here, where nobody reads it again.
            unsafe {
                ptr::copy_nonoverlapping(payload.as_ptr(), self.at.as_ptr().add(start), payload.len());
            }
        }
        fits
    }

    /// Copies a payload, or nothing if that is not within the mapping.
    pub(crate) fn copy(&self, start: usize, length: usize) -> Option<Bytes> {
        start.checked_add(length).filter(|end| *end <= self.size)?;
        let mut buffer = BUFFERS.lock().pop().unwrap_or_default();
        buffer.clear();
        buffer.reserve_exact(length);
        // SAFETY: it is within the mapping and the buffer has room. If the other side writes
        // meanwhile, some mixture of bytes arrives, as if it had sent that: nobody has looked at them.
        unsafe {
            ptr::copy_nonoverlapping(self.at.as_ptr().add(start), buffer.as_mut_ptr(), length);
            buffer.set_len(length);
        }
        Some(Bytes::from_owner(Copied(buffer)))
    }

    /// The payload in that place, or nothing if that is not within the mapping.
    pub(crate) fn payload(self: &Arc<Self>, start: usize, length: usize) -> Option<Bytes> {
        let within = start.checked_add(length).is_some_and(|end| end <= self.size);
        within.then(|| Bytes::from_owner(Loan { mapping: Arc::clone(self), start, length }))
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: no payload of it is left, as each holds the mapping. It cannot fail for what was
        // mapped like this.
        let _ = unsafe { munmap(self.at.as_ptr().cast(), self.size) };
    }
}

impl AsRef<[u8]> for Loan {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: it is within the mapping, and the file cannot shrink (it is sealed). Who lent it
        // does not write there until the place is given back.
        unsafe { std::slice::from_raw_parts(self.mapping.at.as_ptr().add(self.start), self.length) }
    }
}

impl Drop for Loan {
    fn drop(&mut self) {
        // Fails only without memory, and then the place is not used again.
        let _ = self.mapping.give_back();
    }
}

impl AsRef<[u8]> for Copied {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Copied {
    fn drop(&mut self) {
        let mut buffers = BUFFERS.lock();
        if buffers.len() < SPARES && self.0.capacity() <= SPARE {
            buffers.push(std::mem::take(&mut self.0));
        }
    }
}

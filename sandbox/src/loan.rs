//! Payloads that are read where the other side laid them down. Only a worker does that, because it
//! trusts its host: a worker could change what it lent while its host reads.
#![expect(unsafe_code, reason = "memory that another process may write")]

use std::os::fd::OwnedFd;
use std::ptr::{self, NonNull};
use std::sync::Arc;

use quadriga_abi::Bytes;
use rustix::io::{Errno, pwrite};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

/// A region of the other side, mapped for as long as something of it is read.
pub(crate) struct Mapping {
    at: NonNull<u8>,
    size: usize,
    file: OwnedFd,
}

// SAFETY: nothing in this process writes to it, and the address is valid in all threads.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

/// A payload in a mapping. Its place is given back when it is dropped.
struct Loan {
    mapping: Arc<Mapping>,
    start: usize,
    length: usize,
}

impl Mapping {
    /// Maps a file whose size is sealed.
    pub(crate) fn new(file: OwnedFd, size: usize) -> Result<Self, Errno> {
        let (access, flags) = (ProtFlags::READ, MapFlags::SHARED);
        // SAFETY: a new mapping, at an address that the kernel chooses.
        let at = unsafe { mmap(ptr::null_mut(), size, access, flags, &file, 0) }?.cast();
        Ok(Self { at: NonNull::new(at).ok_or(Errno::NOMEM)?, size, file })
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
        let _ = pwrite(&self.mapping.file, &[0], 0);
    }
}

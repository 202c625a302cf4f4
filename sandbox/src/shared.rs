//! Large payloads: they lie in memory that both processes have open as a file, and a frame says
//! where. The sender owns it and uses it again; its size is sealed. A host copies a payload before it
//! looks at it, because the worker could change it meanwhile; a worker reads it where it is.
//!
//! Both sides map it, which costs a call to the kernel once: to have the kernel copy takes many times
//! as long as to copy. Access to a mapping ends in a signal where its file cannot give the page, which
//! a file in memory that can't shrink always can; a file of huge pages may not, so it is refused.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use bytes::{Buf as _, BufMut as _};
use parking_lot::Mutex;
use quadriga_abi::Bytes;
use rustix::fs::{
    MemfdFlags, SealFlags, fcntl_add_seals, fcntl_get_seals, fstat, fstatfs, ftruncate, memfd_create,
};
use rustix::io::Errno;
use rustix::mm::ProtFlags;

use crate::confine::sys;
use crate::loan::Mapping;

/// What is smaller goes through the socket.
const LARGE: usize = 16 << 10;

/// The least that a region has room for.
const LEAST: usize = 64 << 10;

/// The regions of one sender, and their bytes together: what does not fit goes through the socket.
const REGIONS: usize = 8;
const ROOM: usize = 32 << 20;

/// Where the payload begins: before it is the byte that says whether one is there.
const START: usize = 4096;

/// Of files in memory: `TMPFS_MAGIC` in Linux's uapi/linux/magic.h.
const IN_MEMORY: u64 = 0x0102_1994;

const SEALS: SealFlags = SealFlags::SHRINK.union(SealFlags::GROW).union(SealFlags::SEAL);

/// The regions of a sender.
#[derive(Default)]
pub(crate) struct Lender(Mutex<Vec<Region>>);

struct Region {
    number: u32,
    room: usize,
    mapping: Arc<Mapping>,
}

/// A payload that has been laid down.
pub(crate) struct Lent {
    /// Stands for it in the frame.
    pub(crate) reference: Bytes,
    /// The region, if the receiver does not know it yet.
    pub(crate) file: Option<Arc<OwnedFd>>,
}

impl Lender {
    /// Lays a payload down, if it is large and there is room.
    pub(crate) fn lend(&self, payload: &[u8]) -> Option<Lent> {
        if payload.len() <= LARGE {
            return None;
        }
        let (number, mapping, file) = self.region(payload.len()).ok()??;
        if !mapping.write(START, payload) {
            return None;
        }
        let mut reference = Vec::with_capacity(12);
        reference.put_u32_le(number);
        reference.put_u64_le(payload.len() as u64);
        Some(Lent { reference: reference.into(), file })
    }

    /// A region for a payload of that size, which is taken by it from now on; with its file, if it is
    /// new.
    fn region(&self, size: usize) -> Result<Option<Place>, Errno> {
        let mut regions = self.0.lock();
        let free = regions.iter().find(|region| region.room >= size && region.mapping.take());
        if let Some(region) = free {
            return Ok(Some((region.number, Arc::clone(&region.mapping), None)));
        }
        let room = size.next_power_of_two().max(LEAST);
        let used: usize = regions.iter().map(|region| region.room).sum();
        if regions.len() == REGIONS || used + room > ROOM {
            return Ok(None);
        }
        let file = file_in_memory()?;
        ftruncate(&file, (START + room) as u64)?;
        fcntl_add_seals(&file, SEALS)?;
        let sent = file.try_clone().map_err(|_| Errno::MFILE)?;
        let mapping = Arc::new(Mapping::new(file, START + room, ProtFlags::READ | ProtFlags::WRITE)?);
        mapping.take();
        let number = u32::try_from(regions.len()).unwrap_or(u32::MAX);
        regions.push(Region { number, room, mapping: Arc::clone(&mapping) });
        Ok(Some((number, mapping, Some(Arc::new(sent)))))
    }
}

/// One that nobody can ever run, which a worker that starts programs may not make; of an older kernel,
/// any.
fn file_in_memory() -> Result<OwnedFd, Errno> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    match memfd_create("quadriga", flags | MemfdFlags::NOEXEC_SEAL) {
        Err(Errno::INVAL) => memfd_create("quadriga", flags),
        made => made,
    }
}

/// A region by its number, and its file if that has not been sent.
type Place = (u32, Arc<Mapping>, Option<Arc<OwnedFd>>);

/// The regions of the other side.
#[derive(Default)]
pub(crate) struct Borrower {
    regions: HashMap<u32, (Arc<Mapping>, usize)>,
    /// The other side is trusted: payloads are read where they lie.
    trusts: bool,
    /// Files that came with frames which have not been looked at.
    pub(crate) files: VecDeque<OwnedFd>,
}

impl Borrower {
    /// For payloads of a side that is trusted.
    pub(crate) fn trusting() -> Self {
        Self { trusts: true, ..Self::default() }
    }

    /// The payload for which a reference stands. Its place is given back once it was copied or, where
    /// it is read in place, dropped.
    ///
    /// # Errors
    /// Says what is wrong with it.
    pub(crate) fn take(&mut self, mut reference: &[u8], most: usize) -> Result<Bytes, String> {
        if reference.len() != 12 {
            return Err("a reference of another size".to_owned());
        }
        let (number, length) = (reference.get_u32_le(), reference.get_u64_le());
        if !self.regions.contains_key(&number) {
            self.open(number)?;
        }
        let (region, size) = self.regions.get(&number).ok_or("a region that nobody knows")?;
        let there = usize::try_from(length)
            .ok()
            .filter(|length| *length <= most && START.checked_add(*length).is_some_and(|end| end <= *size));
        let length = there.ok_or_else(|| format!("{length} bytes in a region of {size}"))?;
        let beyond = || "a place beyond its region".to_owned();
        if self.trusts {
            return region.payload(START, length).ok_or_else(beyond);
        }
        let payload = region.copy(START, length).ok_or_else(beyond)?;
        region.give_back().map_err(|error| format!("a region that cannot be given back: {error}"))?;
        Ok(payload)
    }

    /// Takes a region that came with the frame.
    fn open(&mut self, number: u32) -> Result<(), String> {
        let file = self.files.pop_front().ok_or_else(|| format!("region {number}, which was never sent"))?;
        if self.regions.len() == REGIONS {
            return Err(format!("more than {REGIONS} regions"));
        }
        // Anything else could block or change under our hands.
        let is_memory = fcntl_get_seals(&file).is_ok_and(|seals| seals.contains(SEALS))
            && (self.trusts || fstatfs(&file).is_ok_and(|there| there.f_type as u64 == IN_MEMORY));
        if !is_memory {
            return Err("a file that is no sealed memory".to_owned());
        }
        let size = fstat(&file).map_err(|error| io::Error::from(error).to_string())?.st_size;
        let size = usize::try_from(size).map_err(|_| "a region without a size".to_owned())?;
        let mapping = Mapping::new(file, size, ProtFlags::READ)
            .map_err(|error| format!("a region that cannot be mapped: {error}"))?;
        if self.trusts {
            sys::keep_freed_memory();
        }
        self.regions.insert(number, (Arc::new(mapping), size));
        Ok(())
    }
}

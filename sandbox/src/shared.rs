//! Large payloads: they lie in memory that both processes have open as a file, and a frame says
//! where. The sender owns it and uses it again; its size is sealed. A host copies a payload before it
//! looks at it, because the worker could change it meanwhile; a worker reads it where it is.
//!
//! A host reads and writes it with calls to the kernel rather than map it: whatever the worker does,
//! that ends in an error and not in a signal.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use bytes::{Buf as _, BufMut as _};
use parking_lot::Mutex;
use quadriga_abi::Bytes;
use rustix::buffer::spare_capacity;
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, fcntl_get_seals, fstat, ftruncate, memfd_create};
use rustix::io::{Errno, pread, pwrite};

use crate::loan::Mapping;

/// What is smaller goes through the socket.
const LARGE: usize = 16 << 10;

/// The least that a region has room for.
const LEAST: usize = 64 << 10;

/// The regions of one sender, and their bytes together: what does not fit goes through the socket.
const REGIONS: usize = 8;
const ROOM: usize = 32 << 20;

/// Where the payload begins. Before it, at 0, is a byte that is not zero while the payload is there.
const START: u64 = 4096;

const SEALS: SealFlags = SealFlags::SHRINK.union(SealFlags::GROW).union(SealFlags::SEAL);

/// The regions of a sender.
#[derive(Default)]
pub(crate) struct Lender(Mutex<Vec<Region>>);

struct Region {
    number: u32,
    file: Arc<OwnedFd>,
    room: usize,
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
        let (number, file, new) = self.region(payload.len()).ok()??;
        let mut rest = payload;
        let mut at = START;
        while !rest.is_empty() {
            let written = pwrite(&file, rest, at).ok().filter(|written| *written > 0)?;
            rest = &rest[written..];
            at += written as u64;
        }
        let mut reference = Vec::with_capacity(12);
        reference.put_u32_le(number);
        reference.put_u64_le(payload.len() as u64);
        Some(Lent { reference: reference.into(), file: new.then_some(file) })
    }

    /// A region for a payload of that size, which is taken by it from now on; and whether it is new.
    fn region(&self, size: usize) -> Result<Option<(u32, Arc<OwnedFd>, bool)>, Errno> {
        let mut regions = self.0.lock();
        for region in regions.iter().filter(|region| region.room >= size) {
            let mut taken = [0];
            pread(&region.file, &mut taken, 0)?;
            if taken == [0] {
                pwrite(&region.file, &[1], 0)?;
                return Ok(Some((region.number, Arc::clone(&region.file), false)));
            }
        }
        let room = size.next_power_of_two().max(LEAST);
        let used: usize = regions.iter().map(|region| region.room).sum();
        if regions.len() == REGIONS || used + room > ROOM {
            return Ok(None);
        }
        let file = memfd_create("quadriga", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
        ftruncate(&file, START + room as u64)?;
        fcntl_add_seals(&file, SEALS)?;
        pwrite(&file, &[1], 0)?;
        let (number, file) = (u32::try_from(regions.len()).unwrap_or(u32::MAX), Arc::new(file));
        regions.push(Region { number, file: Arc::clone(&file), room });
        Ok(Some((number, file, true)))
    }
}

/// The regions of the other side.
#[derive(Default)]
pub(crate) struct Borrower {
    regions: HashMap<u32, (Foreign, u64)>,
    /// The other side is trusted: payloads are read where they lie.
    trusts: bool,
    /// Files that came with frames which have not been looked at.
    pub(crate) files: VecDeque<OwnedFd>,
}

/// A region of the other side.
enum Foreign {
    Copied(OwnedFd),
    Read(Arc<Mapping>),
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
        if length > most as u64 || START.saturating_add(length) > *size {
            return Err(format!("{length} bytes in a region of {size}"));
        }
        let length = length as usize;
        match region {
            Foreign::Copied(file) => copy(file, length),
            Foreign::Read(mapping) => {
                mapping.payload(START as usize, length).ok_or_else(|| "a place beyond its region".to_owned())
            }
        }
    }

    /// Takes a region that came with the frame.
    fn open(&mut self, number: u32) -> Result<(), String> {
        let file = self.files.pop_front().ok_or_else(|| format!("region {number}, which was never sent"))?;
        if self.regions.len() == REGIONS {
            return Err(format!("more than {REGIONS} regions"));
        }
        // Anything else could block or change under our hands.
        if !fcntl_get_seals(&file).is_ok_and(|seals| seals.contains(SEALS)) {
            return Err("a file that is no sealed memory".to_owned());
        }
        let size = fstat(&file).map_err(|error| io::Error::from(error).to_string())?.st_size;
        let size = size.unsigned_abs();
        let failed = |error: Errno| format!("a region that cannot be mapped: {error}");
        let region = match self.trusts {
            true => Foreign::Read(Arc::new(Mapping::new(file, size as usize).map_err(failed)?)),
            false => Foreign::Copied(file),
        };
        self.regions.insert(number, (region, size));
        Ok(())
    }
}

/// Copies the payload of a region, and gives its place back.
fn copy(file: &OwnedFd, length: usize) -> Result<Bytes, String> {
    let failed = |error: Errno| format!("a region that cannot be read: {error}");
    let mut bytes = Vec::with_capacity(length);
    while bytes.len() < length {
        let at = START + bytes.len() as u64;
        if pread(file, spare_capacity(&mut bytes), at).map_err(failed)? == 0 {
            return Err("a region that is shorter than it was".to_owned());
        }
    }
    // An allocation may be larger than was asked for.
    bytes.truncate(length);
    pwrite(file, &[0], 0).map_err(failed)?;
    Ok(bytes.into())
}

//! The kernel's doors, as far as they open without unsafe code.

use std::io::{Error, ErrorKind, Result, Write};
use std::os::unix::net::{SocketAddr, UnixStream};

use rustix::fs::{MemfdFlags, memfd_create};
use rustix::net::{AddressFamily, SocketType, socket};
use rustix::process::{Pid, Signal, getpid, kill_process};

pub(crate) fn connect_abstract(name: &str) -> Result<String> {
    use std::os::linux::net::SocketAddrExt;
    let address = SocketAddr::from_abstract_name(name)?;
    UnixStream::connect_addr(&address).map(|_| "connected".to_owned())
}

/// Raw, packet and netlink sockets.
pub(crate) fn special_socket(family: u16, kind: u32) -> Result<String> {
    socket(AddressFamily::from_raw(family), SocketType::from_raw(kind), None)?;
    Ok("a socket".to_owned())
}

pub(crate) fn send_signal(pid: i32) -> Result<String> {
    let pid = Pid::from_raw(pid).ok_or(Error::from(ErrorKind::InvalidInput))?;
    kill_process(pid, Signal::TERM)?;
    Ok("sent".to_owned())
}

pub(crate) fn send_itself(signal: Signal) -> Result<String> {
    kill_process(getpid(), signal)?;
    Ok("still here".to_owned())
}

pub(crate) fn grow_memfd(mebibytes: usize) -> Result<String> {
    let mut file = std::fs::File::from(memfd_create("hostile", MemfdFlags::CLOEXEC)?);
    for _ in 0..mebibytes.min(2048) {
        file.write_all(&[1; 1 << 20])?;
    }
    Ok(format!("{mebibytes} MiB"))
}

pub(crate) fn mount() -> Result<String> {
    rustix::mount::mount("none", "/nowhere", "tmpfs", rustix::mount::MountFlags::empty(), None)?;
    Ok("mounted".to_owned())
}

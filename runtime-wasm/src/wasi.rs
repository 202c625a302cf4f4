//! WASI: what a component of any toolchain expects, with nothing in it that was not granted.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use quadriga_abi::permission::{FsMode, Permissions};
use quadriga_abi::{Error, ErrorCode};
use wasmtime::component::Linker;
use wasmtime_wasi::clocks::{MonotonicClock, WallClock};
use wasmtime_wasi::{FsPerms, WasiCtx};

use crate::clock::Stepwise;
use crate::guest::Guest;
use crate::output::{Output, Pipe, Stream};

/// The permissions that [`Grants`] turns into WASI, and that of `wasi:http`.
pub(crate) const PERMISSIONS: &[&str] = &["clock", "env", "fs", "net"];

/// What the instances of one extension may see of the system.
pub(crate) struct Grants {
    folders: Vec<(PathBuf, String, FsPerms)>,
    variables: Vec<(String, String)>,
    clock: Duration,
}

pub(crate) fn link(linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
    wasmtime_wasi::p2::add_to_linker_async(linker)
}

impl Grants {
    /// Looks the permissions up: folders that are there, variables that are set.
    pub(crate) fn new(permissions: &Permissions, root: &std::path::Path) -> Result<Self, Error> {
        let mut folders = Vec::new();
        for permission in &permissions.fs {
            let path = root.join(&permission.path);
            if path.is_file() {
                let message = format!("fs permission {:?} is a file", permission.path);
                let hint = "components are given folders: ask for the folder that holds the file";
                return Err(Error::new(ErrorCode::Unsupported, message).with_hint(hint));
            }
            if !path.is_dir() {
                tracing::warn!(path = permission.path, "granted to a component, but not there");
                continue;
            }
            let mode = match permission.mode {
                FsMode::ReadOnly => FsPerms::ReadOnly,
                FsMode::ReadWrite => FsPerms::ReadWrite,
            };
            folders.push((path, permission.path.clone(), mode));
        }
        let variable = |name: &String| Some((name.clone(), std::env::var(name).ok()?));
        let variables = permissions.env.iter().filter_map(variable).collect();
        Ok(Self { folders, variables, clock: permissions.clock_step() })
    }

    /// Whether there is nothing in it that could be taken back.
    pub(crate) fn is_empty(&self) -> bool {
        let usual = self.clock == Permissions::default().clock_step();
        self.folders.is_empty() && self.variables.is_empty() && usual
    }

    /// What one instance gets.
    pub(crate) fn context(&self, output: &Arc<Output>) -> wasmtime::Result<WasiCtx> {
        let mut builder = WasiCtx::builder();
        builder
            .stdout(Pipe::new(output, Stream::Stdout))
            .stderr(Pipe::new(output, Stream::Stderr))
            .envs(&self.variables)
            .wall_clock(Stepwise::new(WallClock::new(), self.clock))
            .monotonic_clock(Stepwise::new(MonotonicClock::new(), self.clock))
            // Files are read and written where the guest runs, without a hop to another thread.
            .allow_blocking_current_thread(true)
            .allow_tcp(false)
            .allow_udp(false)
            .allow_ip_name_lookup(false);
        for (path, name, mode) in &self.folders {
            builder.preopened_dir(path, name, *mode)?;
        }
        Ok(builder.build())
    }
}

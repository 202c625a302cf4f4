//! Which layers this machine and user can reach.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use quadriga_abi::Isolation;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::pipe::PipeFlags;
use rustix::process::{Pid, Signal, WaitOptions};

use super::{Cgroup, CgroupLimits, Error, Layer, LayerStatus, Layers, Plan, State, confine, sys};

const PATIENCE: Duration = Duration::from_secs(10);

/// Tries each layer in a child process, and says how far it got. What depends on the worker's plan
/// alone (descriptors, environment, session) is not among them.
///
/// Blocks for some milliseconds.
pub fn probe() -> Vec<LayerStatus> {
    let mut layers = probe_level(Isolation::Container);
    // What comes after a private root is tried without it, in case that one failed half way.
    layers.retain(|status| of_container(status.layer));
    layers.extend(probe_level(Isolation::Process).into_iter().filter(|status| !of_container(status.layer)));
    let limits = CgroupLimits { memory: Some(64 << 20), cpu_share: Some(1.0), processes: Some(16) };
    layers.push(probe_cgroup(Layer::Cgroup, Cgroup::create("probe", &limits)));
    layers.push(probe_cgroup(Layer::TotalMemory, Cgroup::create_around("probe", 64 << 20)));
    layers
}

fn of_container(layer: Layer) -> bool {
    matches!(
        layer,
        Layer::UserNamespace
            | Layer::MountNamespace
            | Layer::IpcNamespace
            | Layer::NetNamespace
            | Layer::UtsNamespace
            | Layer::PidNamespace
            | Layer::PrivateRoot
    )
}

fn probe_level(level: Isolation) -> Vec<LayerStatus> {
    in_child(|| {
        let plan = Plan { parent: parent(), watched: true, ..Plan::new(level, "/usr") };
        let mut layers = Layers { demands: None, reached: Vec::new(), listener: None, watch: None };
        // Without demands, the only errors are those of paths, which the layers say as well.
        let _ = confine(&plan, &mut layers);
        layers.reached
    })
    .unwrap_or_else(|error| {
        let layer = if level == Isolation::Container { Layer::MountNamespace } else { Layer::Landlock };
        vec![LayerStatus { layer, state: State::NotReached, note: format!("could not be tried: {error}") }]
    })
}

fn parent() -> u32 {
    rustix::process::getppid().map_or(0, |pid| pid.as_raw_nonzero().get() as u32)
}

/// Runs `work` in a forked process and returns what it returned.
///
/// Other threads may hold locks that nobody in the child will release. So `work` only makes system
/// calls and allocates, which libc keeps possible.
fn in_child(work: impl FnOnce() -> Vec<LayerStatus>) -> io::Result<Vec<LayerStatus>> {
    let (receive, send) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
    let Some(child) = sys::fork()? else {
        let text = serde_json::to_vec(&work()).unwrap_or_default();
        let sent = File::from(send).write_all(&text);
        sys::exit_now(sent.is_err().into());
    };
    drop(send);
    let text = read_in_time(receive);
    if text.is_err() {
        let _ = rustix::process::kill_process(child, Signal::KILL);
    }
    wait(child)?;
    serde_json::from_slice(&text?).map_err(io::Error::other)
}

fn read_in_time(pipe: OwnedFd) -> io::Result<Vec<u8>> {
    let end = Instant::now() + PATIENCE;
    let mut file = File::from(pipe);
    let mut text = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let left = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() };
        let mut poll = [PollFd::new(&file, PollFlags::IN)];
        match rustix::event::poll(&mut poll, Some(&left)) {
            Ok(0) => return Err(io::ErrorKind::TimedOut.into()),
            Ok(_) => match file.read(&mut chunk)? {
                0 => return Ok(text),
                n => text.extend_from_slice(&chunk[..n]),
            },
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

fn wait(child: Pid) -> io::Result<()> {
    loop {
        match rustix::process::waitpid(Some(child), WaitOptions::empty()) {
            Err(rustix::io::Errno::INTR) => {}
            ended => return ended.map(drop).map_err(io::Error::from),
        }
    }
}

fn probe_cgroup(layer: Layer, made: Result<Cgroup, Error>) -> LayerStatus {
    let tried = made.and_then(|group| {
        let how = group.describe();
        group.destroy().map(|()| how)
    });
    match tried {
        Ok(note) => LayerStatus { layer, state: State::Reached, note },
        Err(error) => LayerStatus { layer, state: State::NotReached, note: error.to_string() },
    }
}

//! The host's side of the wire against whatever may come over it. There is a process to be ended,
//! but it is the test that writes, so that it can send files too.

use std::fs::File;
use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::AsFd as _;
use std::sync::atomic::AtomicU64;
use std::time::Instant;

use quadriga_abi::permission::Access;
use quadriga_abi::{Description, Envelope, ErrorCode, Isolation};
use quadriga_core::{Counter, Input, Items, LogLevel, Uplink};
use rustix::cmsg_space;
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, Shutdown, SocketFlags, SocketType,
    sendmsg, shutdown, socketpair,
};
use rustix::process::{Pid, Signal, kill_process};

mod ends;

use super::*;
use crate::claims::Gathered;
use crate::confine::Report;
use crate::frame::{FROM_GUEST, LENT};
use crate::job::Hello as _;
use crate::nursery;

/// The most bytes of a message.
const MOST: usize = 1 << 20;

/// How long what is quick may take on a busy machine.
const SOON: Duration = Duration::from_secs(20);

/// A host that lets nothing pass and counts what it is told.
#[derive(Default)]
struct Deaf {
    claims: AtomicU64,
}

impl Uplink for Deaf {
    fn call(&self, _: &CallContext, _: &str, _: &str, _: Bytes) -> Outcome {
        Error::new(ErrorCode::PermissionDenied, "nothing").into()
    }

    fn call_detached(
        &self,
        _: &CallContext,
        _: &str,
        _: &str,
        _: Bytes,
    ) -> BoxFuture<'static, Result<Bytes, Error>> {
        Box::pin(std::future::pending())
    }

    fn start(&self, _: &CallContext, _: &str, _: &str, _: Bytes, _: Option<Input>, _: bool) -> Items {
        Items::new(None, Box::pin(std::future::pending()), true)
    }

    fn log(&self, _: &CallContext, _: LogLevel, _: &str) {}

    fn cancelled(&self, _: u64) -> bool {
        false
    }

    fn connect(
        &self,
        _: &CallContext,
        _: &str,
        _: u16,
    ) -> BoxFuture<'static, Result<quadriga_core::Connection, Error>> {
        Box::pin(std::future::pending())
    }

    fn check(&self, _: u64, _: &Access<'_>) -> Result<(), Error> {
        Ok(())
    }

    fn claim(&self, _: u64, _: &Access<'_>, _: bool) {
        self.claims.fetch_add(1, Ordering::Relaxed);
    }

    fn report(&self, _: Counter, _: u64) {}
}

/// A worker whose words the test writes.
struct Worker {
    link: Arc<Link>,
    loaded: Option<Loaded>,
    socket: OwnedFd,
    heard: Arc<Deaf>,
    /// Where the program is, and what it prints to.
    _kept: (tempfile::TempDir, nursery::Pipes),
}

impl Worker {
    async fn start(script: &str) -> Self {
        Self::start_in(None, script).await
    }

    async fn start_in(cgroup: Option<&Arc<Cgroup>>, script: &str) -> Self {
        let pair =
            || socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None).unwrap();
        let ((ours, socket), (nothing, _)) = (pair(), pair());
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("sleeper");
        std::fs::write(&program, script).unwrap();
        std::fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let begun = nursery::start_with(&program, (ours, nothing)).await.unwrap();
        let nursery::Begun { child, socket: ours, pipes } = begun;
        cgroup.map_or(Ok(()), |cgroup| cgroup.add(child.pid)).unwrap();
        let heard = Arc::new(Deaf::default());
        let bridge =
            Bridge::remote("a.worker".parse().unwrap(), Bytes::new(), Bytes::new(), Arc::clone(&heard) as _);
        let (link, loaded) = Link::start(bridge, child, cgroup.cloned(), ours, MOST, true).unwrap();
        Self { link, loaded: Some(loaded), socket, heard, _kept: (folder, pipes) }
    }

    /// One that is loaded and has a call with this id under way.
    async fn busy(call: u64) -> (Self, Outcome) {
        Self::busy_with(call, "#!/bin/sh\nexec sleep 60\n").await
    }

    async fn busy_with(call: u64, script: &str) -> (Self, Outcome) {
        let mut worker = Self::start(script).await;
        worker.say(&hello());
        worker.loaded.take().unwrap().await.unwrap().unwrap();
        let answer =
            worker.link.call(Call::remote(0, Envelope::new(Kind::Call, call, b"\x90".to_vec()), None));
        (worker, answer)
    }

    fn say(&self, bytes: &[u8]) {
        self.send(bytes, &[]);
    }

    /// Sends files with the first byte; not all of it, if the host has had enough.
    fn send(&self, bytes: &[u8], files: &[OwnedFd]) {
        let files: Vec<_> = files.iter().map(|file| file.as_fd()).collect();
        let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(64))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !files.is_empty() {
            assert!(control.push(SendAncillaryMessage::ScmRights(&files)));
        }
        let mut rest = bytes;
        while !rest.is_empty() {
            let Ok(sent) = sendmsg(&self.socket, &[IoSlice::new(rest)], &mut control, SendFlags::NOSIGNAL)
            else {
                return;
            };
            rest = &rest[sent..];
            control.clear();
        }
    }

    /// Why it was ended, by this alone.
    async fn end(&self) -> Error {
        let end = tokio::time::timeout(SOON, self.link.over()).await.expect("it was ended");
        assert!(self.link.child.wait(SOON).is_some(), "its process is there");
        assert!(self.link.calls.lock().is_empty() && self.link.host_calls.lock().is_empty());
        end
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.link.kill();
    }
}

fn bytes(frame: &Frame) -> Vec<u8> {
    [frame.head(), frame.envelope.payload.to_vec()].concat()
}

fn frame(kind: Kind, id: u64, payload: &[u8]) -> Vec<u8> {
    bytes(&Frame::new(kind, id, payload.to_vec()))
}

fn hello() -> Vec<u8> {
    let report = Report { isolation: Isolation::Process, layers: Vec::new() };
    frame(Kind::Hello, 0, &Greeting::new(Description::new("test", Vec::new()), report).to_bytes().unwrap())
}

/// An answer whose payload is said to lie in a region.
fn lent(region: u32, length: u64) -> Vec<u8> {
    let reference = [&region.to_le_bytes()[..], &length.to_le_bytes()].concat();
    let mut frame = Frame::new(Kind::Reply, 1, reference);
    frame.flags = LENT;
    bytes(&frame)
}

fn memory(size: u64, sealed: bool) -> OwnedFd {
    let file = memfd_create("test", MemfdFlags::ALLOW_SEALING | MemfdFlags::CLOEXEC).unwrap();
    ftruncate(&file, size).unwrap();
    if sealed {
        fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL).unwrap();
    }
    file
}

fn assert_names(error: &Error, words: &str) {
    assert_eq!(error.code, ErrorCode::ExtensionCrashed, "{words}: {error:?}");
    assert!(error.message.contains(words), "{words:?} is not in {error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_breaks_the_contract_ends_that_worker_alone() {
    let (bystander, _answer) = Worker::busy(1).await;
    let reply = frame(Kind::Reply, 1, b"\xc0");
    let cases: Vec<(Vec<u8>, &str)> = vec![
        (vec![0xff; 16], "a frame of 4294967295 bytes"),
        (((MOST + (16 << 10) + 1) as u32).to_le_bytes().repeat(4), "bytes, where 1064960 are the most"),
        (frame(Kind::Reply, 2, b"\xc0"), "an answer to call 2, which is not under way"),
        (frame(Kind::Reply, FROM_GUEST | 1, b"\xc0"), "which is not under way"),
        ([reply.clone(), reply.clone()].concat(), "an answer to call 1, which is not under way"),
        ([reply.clone(), frame(Kind::Error, 1, b"\xc0")].concat(), "an error that cannot be read"),
        (hello(), "a second hello"),
        (frame(Kind::Hello, 9, &[0xc1; 300]), "a second hello"),
        (
            frame(Kind::Error, 0, &Error::new(ErrorCode::Internal, "x").to_bytes()),
            "an error of the load after its end",
        ),
        (frame(Kind::Ping, 7, b""), "a sign of life that nobody asked for"),
        (frame(Kind::Event, 0, b"\xc1"), "claims that cannot be read"),
        (frame(Kind::Event, 0, &vec![0x90; 70_000]), "claims of 70000 bytes"),
        (frame(Kind::Event, 0, &flood_of_claims(65)), "65 claims in a frame"),
        (frame(Kind::HostReply, 1, b"\xc0"), "a message of kind HostReply, which no worker sends"),
        (frame(Kind::Permissions, 0, b"\x80"), "a message of kind Permissions, which no worker sends"),
        (frame(Kind::StreamAck, 1, b"\x07"), "an acknowledgement that cannot be read"),
        (frame(Kind::HostCall, FROM_GUEST, b"\x07"), "a call without a target"),
    ];
    for (words, expected) in cases {
        let (worker, answer) = Worker::busy(1).await;
        worker.say(&words);
        assert_names(&worker.end().await, expected);
        // Its call got the first answer, if there was one, and else the reason.
        match answer.result().await {
            Ok(value) => assert_eq!(&value[..], b"\xc0", "{expected}"),
            Err(error) => assert_names(&error, expected),
        }
    }
    assert!(!bystander.link.is_over());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_ends_half_way_is_named() {
    let whole = [frame(Kind::Log, 1, b"\x92\x02\xa1x"), frame(Kind::Reply, 1, &[0; 40])].concat();
    let first = frame(Kind::Log, 1, b"\x92\x02\xa1x").len();
    // In the prefix, in the header, in the payload.
    for length in [1, 3, 15, 16, 20, first - 1, first + 8, first + 40, whole.len() - 1] {
        let (worker, _answer) = Worker::busy(1).await;
        worker.say(&whole[..length]);
        shutdown(&worker.socket, Shutdown::Both).unwrap();
        assert_names(&worker.end().await, "the connection ended within a frame");
    }
    let (worker, _answer) = Worker::busy(1).await;
    worker.say(&whole[..first]);
    shutdown(&worker.socket, Shutdown::Both).unwrap();
    // It said nothing wrong: that it is gone is all there is to say.
    assert_names(&worker.end().await, "was ended by signal 9");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_to_the_call_of_another_worker_ends_who_gave_it() {
    let (honest, answer) = Worker::busy(7).await;
    let (liar, _lost) = Worker::busy(8).await;
    liar.say(&frame(Kind::Reply, 7, b"\x2a"));
    assert_names(&liar.end().await, "an answer to call 7, which is not under way");
    honest.say(&frame(Kind::Reply, 7, b"\x2b"));
    assert_eq!(&answer.result().await.unwrap()[..], b"\x2b");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_later_contract_may_say_is_skipped() {
    let (worker, answer) = Worker::busy(1).await;
    let mut unknown = frame(Kind::Log, 1, b"\xc1");
    let at = unknown.windows(4).position(|four| four == b"\xa3log").unwrap();
    unknown[at + 1..at + 4].copy_from_slice(b"sky");
    worker.say(&unknown);
    worker.say(&frame(Kind::Cancel, FROM_GUEST | 5, b""));
    worker.say(&frame(Kind::StreamEnd, 99, b"\xc0"));
    worker.say(&frame(Kind::Reply, 1, b"\x2a"));
    assert_eq!(&answer.result().await.unwrap()[..], b"\x2a");
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_are_not_what_they_should_be_end_the_worker() {
    let (end, _other) = rustix::pipe::pipe().unwrap();
    let (socket, _peer) =
        socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None).unwrap();
    let no_memory = "a file that is no sealed memory";
    let shrunk = memory(1 << 20, false);
    ftruncate(&shrunk, 10).unwrap();
    let cases: Vec<(Vec<u8>, Vec<OwnedFd>, &str)> = vec![
        (lent(0, 20_000), vec![], "region 0, which was never sent"),
        (lent(0, 20_000), vec![end], no_memory),
        (lent(0, 20_000), vec![socket], no_memory),
        (lent(0, 20_000), vec![File::open("/dev/zero").unwrap().into()], no_memory),
        (lent(0, 20_000), vec![File::open("/").unwrap().into()], no_memory),
        (lent(0, 20_000), vec![File::open("/proc/self/exe").unwrap().into()], no_memory),
        (lent(0, 20_000), vec![memory(1 << 20, false)], no_memory),
        (lent(0, 20_000), vec![shrunk], no_memory),
        (lent(0, 20_000), vec![memory(100, true)], "20000 bytes in a region of 100"),
        // So large that to make room for it would end the host.
        (lent(0, 1 << 40), vec![memory(1 << 41, true)], "1099511627776 bytes in a region of 2199023255552"),
        (lent(0, u64::MAX), vec![memory(1 << 41, true)], "18446744073709551615 bytes in a region of"),
        (frame(Kind::Reply, 1, b"\xc0"), (0..17).map(|_| memory(1, true)).collect(), "17 files"),
    ];
    for (words, files, expected) in cases {
        let (worker, _answer) = Worker::busy(1).await;
        worker.send(&words, &files);
        assert_names(&worker.end().await, expected);
    }
}

/// Without a freezer, by signals: the worker and what it started.
#[tokio::test(flavor = "multi_thread")]
async fn what_has_no_cgroup_is_stopped_by_signals() {
    let state = |pid: i32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next())
    };
    let (worker, answer) = Worker::busy_with(1, "#!/bin/sh\nsleep 60 &\nexec sleep 60\n").await;
    let pid = worker.link.pid() as i32;
    let until = Instant::now() + SOON;
    let below = loop {
        assert!(Instant::now() < until, "it started nothing");
        if let [child] = freeze::children(pid)[..] {
            break child;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    };
    assert_eq!(worker.link.freeze().unwrap(), quadriga_core::Pause::Stopped);
    let stopped = || [pid, below].map(state) == [Some('T'); 2];
    while !stopped() {
        assert!(Instant::now() < until, "{:?}", [pid, below].map(state));
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    // Its time to end a call does not begin before it goes on.
    worker.link.interrupt(1);
    tokio::time::sleep(PATIENCE + Duration::from_millis(300)).await;
    assert!(!worker.link.is_over());
    worker.link.thaw().unwrap();
    while stopped() {
        assert!(Instant::now() < until);
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    assert_names(&worker.end().await, "a call went on for 2 s after it had to end");
    assert_names(&answer.result().await.unwrap_err(), "a call went on for 2 s");
    let _ = kill_process(Pid::from_raw(below).unwrap(), Signal::KILL);
}

/// Files come with every frame, and none of these needs one.
#[tokio::test(flavor = "multi_thread")]
async fn files_are_not_hoarded() {
    let (worker, _answer) = Worker::busy(1).await;
    for _ in 0..40 {
        worker.send(&frame(Kind::Log, 1, b"\x92\x02\xa1x"), &[memory(1, true)]);
    }
    assert_names(&worker.end().await, "17 files");
}

/// Claims beyond what is kept one by one are counted, and cost a number each.
#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_claims_is_bounded() {
    let (worker, answer) = Worker::busy(1).await;
    let begun = Instant::now();
    for _ in 0..200 {
        worker.say(&frame(Kind::Event, 0, &flood_of_claims(64)));
    }
    worker.say(&frame(Kind::Reply, 1, b"\xc0"));
    answer.result().await.unwrap();
    let kept = worker.heard.claims.load(Ordering::Relaxed);
    let most = 256 + (begun.elapsed().as_secs_f64() * 256.0) as u64 + 1;
    assert!((256..=most).contains(&kept), "{kept} of 12800, where {most} are the most");
    // What is too long or too much at once the worker itself counts.
    let gathered = Gathered::default();
    for _ in 0..100 {
        gathered.check(1, &Access::Env("HOME"), false);
    }
    gathered.check(1, &Access::Env(&"x".repeat(1 << 20)), false);
    let told = gathered.take().unwrap();
    assert!(told.len() < 16 << 10, "{} bytes", told.len());
    assert!(gathered.take().is_none());
    let heard = Arc::new(Deaf::default());
    let bridge =
        Bridge::remote("a.worker".parse().unwrap(), Bytes::new(), Bytes::new(), Arc::clone(&heard) as _);
    Allowance::default().take(&told, &bridge, false, |_| CallContext::default()).unwrap();
    assert_eq!(heard.claims.load(Ordering::Relaxed), 32);
}

fn flood_of_claims(count: u16) -> Vec<u8> {
    let one = Gathered::default();
    one.check(1, &Access::Env("HOME"), false);
    // Without the head of its list.
    let record = one.take().unwrap()[3..].to_vec();
    [vec![0xdc], count.to_be_bytes().to_vec(), record.repeat(usize::from(count))].concat()
}

/// Frames with bytes changed, left out and added, in pieces: whatever comes of it, it is an end with
/// a reason or none, and what is held is bounded.
#[tokio::test(flavor = "multi_thread")]
async fn mangled_bytes_end_the_worker_or_nothing() {
    let good = [
        frame(Kind::Log, 1, b"\x92\x02\xa1x"),
        frame(Kind::HostCall, FROM_GUEST | 1, b"\x92\xa1a\xa1b"),
        frame(Kind::Cancel, FROM_GUEST | 1, b""),
        frame(Kind::StreamData, 1, &[0xc0; 50]),
        frame(Kind::StreamEnd, 1, b"\xc0"),
        frame(Kind::Event, 0, &flood_of_claims(3)),
        lent(0, 20_000),
    ];
    for seed in 0..60 {
        let mut random = fastrand::Rng::with_seed(seed);
        let (worker, _answer) = Worker::busy(1).await;
        let mut words: Vec<u8> = (0..20).flat_map(|_| good[random.usize(..good.len())].clone()).collect();
        for _ in 0..random.usize(1..8) {
            let at = random.usize(..words.len());
            match random.u8(..4) {
                0 => words[at] = random.u8(..),
                1 => drop(words.drain(at..(at + random.usize(1..40)).min(words.len()))),
                2 => words.insert(at, random.u8(..)),
                _ => words[at] ^= 1 << random.u8(..8),
            }
        }
        for piece in words.chunks(random.usize(1..200)) {
            worker.say(piece);
        }
        shutdown(&worker.socket, Shutdown::Both).unwrap();
        let end = worker.end().await;
        assert!(end.code == ErrorCode::ExtensionCrashed && !end.message.is_empty(), "seed {seed}: {end:?}");
    }
}

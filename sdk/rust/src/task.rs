//! Runs the futures of `async` methods: one at a time on a thread, and while it can't go on, all
//! that it waits for together.

use std::cell::RefCell;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use quadriga_abi::{Error, ErrorCode};

#[cfg(not(target_family = "wasm"))]
use crate::native as seam;
#[cfg(target_family = "wasm")]
use crate::wasm as seam;

pub(crate) type Channel = Arc<Mutex<seam::Channel>>;

thread_local! {
    /// What the futures of this thread wait for; the last is that of the innermost call.
    static RUNNING: RefCell<Vec<Vec<Waiting>>> = const { RefCell::new(Vec::new()) };
}

struct Waiting {
    on: On,
    waker: Waker,
}

/// What only the host can tell. Gone with the future that waits for it.
#[derive(Clone)]
enum On {
    Channel(Weak<Mutex<seam::Channel>>),
    Input(Weak<()>),
    Time(Weak<Instant>),
}

impl On {
    fn is(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Channel(a), Self::Channel(b)) => a.ptr_eq(b),
            (Self::Input(a), Self::Input(b)) => a.ptr_eq(b),
            (Self::Time(a), Self::Time(b)) => a.ptr_eq(b),
            _ => false,
        }
    }

    fn is_alive(&self) -> bool {
        let holders = match self {
            Self::Channel(channel) => channel.strong_count(),
            Self::Input(input) => input.strong_count(),
            Self::Time(time) => time.strong_count(),
        };
        holders > 0
    }
}

/// Wakes the future of one call.
#[derive(Default)]
struct Signal {
    woken: AtomicBool,
    bell: seam::Bell,
}

impl Wake for Signal {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.woken.store(true, Ordering::Release);
        self.bell.ring();
    }
}

/// Lets the futures of a call wait together, until it is dropped.
struct Running(Arc<Signal>);

impl Running {
    fn new() -> Self {
        RUNNING.with_borrow_mut(|running| running.push(Vec::new()));
        let signal = Arc::<Signal>::default();
        signal.bell.open();
        Self(signal)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.bell.close();
        RUNNING.with_borrow_mut(Vec::pop);
    }
}

/// Runs a future to its end on this thread, in the course of a call. Fails if the call must end
/// before, or nobody would ever wake the future.
pub fn block_on<F: Future>(future: F) -> Result<F::Output, Error> {
    let running = Running::new();
    let signal = &running.0;
    let waker = Waker::from(Arc::clone(signal));
    let mut future = pin!(future);
    loop {
        signal.woken.store(false, Ordering::Release);
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return Ok(output);
        }
        // At least once, so that a future that keeps waking itself keeps nothing else waiting.
        loop {
            turn(signal)?;
            if signal.woken.load(Ordering::Acquire) {
                break;
            }
        }
    }
}

/// Waits for the first of all that the innermost call waits for, and wakes who waits for it.
fn turn(signal: &Arc<Signal>) -> Result<(), Error> {
    let mut waiting =
        RUNNING.with_borrow_mut(|running| running.last_mut().map(std::mem::take)).unwrap_or_default();
    waiting.retain(|waiting| waiting.on.is_alive());
    let woken = signal.woken.load(Ordering::Acquire);
    // Two are `block_on`'s own. In WebAssembly there is no thread that could hold another.
    let forgotten = cfg!(target_family = "wasm") || Arc::strong_count(signal) <= 2;
    if waiting.is_empty() && !woken && forgotten {
        let message = "an async method waits for something that will never wake it";
        return Err(Error::new(ErrorCode::ExtensionError, message)
            .with_hint("await what quadriga_sdk::host offers, or what another future or thread wakes"));
    }
    let ready = ready(&waiting, woken)?;
    let now = Instant::now();
    let (due, still): (Vec<_>, Vec<_>) = waiting.into_iter().partition(|waiting| match &waiting.on {
        On::Time(time) => time.upgrade().is_none_or(|time| *time <= now),
        on => ready.iter().any(|ready| ready.is(on)),
    });
    RUNNING.with_borrow_mut(|running| running.last_mut().map(|waiting| waiting.extend(still)));
    due.into_iter().for_each(|waiting| waiting.waker.wake());
    Ok(())
}

/// Waits for the first of these, and gives those of the host's that are ready.
fn ready(waiting: &[Waiting], woken: bool) -> Result<Vec<On>, Error> {
    let (mut channels, mut input, mut until) = (Vec::new(), None, None::<Instant>);
    for Waiting { on, .. } in waiting {
        match on {
            On::Channel(channel) => channels.extend(channel.upgrade().map(|channel| (on, channel))),
            On::Input(_) => input = Some(on),
            On::Time(time) => until = until.into_iter().chain(time.upgrade().map(|time| *time)).min(),
        }
    }
    let left = until.map(|until| until.saturating_duration_since(Instant::now()));
    let timeout = if woken { Some(Duration::ZERO) } else { left };
    // One that is locked has gone to another thread, which reads it.
    let locked = channels.iter().filter_map(|(on, channel)| Some((*on, channel.try_lock().ok()?)));
    let (mut places, mut locked): (Vec<_>, Vec<_>) = locked.unzip();
    let mut lent: Vec<_> = locked.iter_mut().map(|channel| &mut **channel).collect();
    let ready = seam::wait(&mut lent, input.is_some(), timeout)?;
    places.extend(input);
    Ok(ready.into_iter().filter_map(|place| places.get(place).map(|on| (*on).clone())).collect())
}

/// Whether a future on this thread is run by [`block_on`]. If not, it waits on the thread.
fn is_running() -> bool {
    RUNNING.with_borrow(|running| !running.is_empty())
}

/// Has the future woken when the host tells that what it waits for is there.
fn register(on: On, waker: &Waker) {
    RUNNING.with_borrow_mut(|running| {
        let Some(waiting) = running.last_mut() else { return };
        match waiting.iter_mut().find(|waiting| waiting.on.is(&on)) {
            Some(waiting) => waiting.waker.clone_from(waker),
            None => waiting.push(Waiting { on, waker: waker.clone() }),
        }
    });
}

pub(crate) fn lock(channel: &Channel) -> MutexGuard<'_, seam::Channel> {
    channel.lock().unwrap_or_else(PoisonError::into_inner)
}

type Item = Result<Option<Vec<u8>>, Error>;

/// The next item of a call that was begun.
pub(crate) fn poll_read(channel: &Channel, context: &Context<'_>) -> Poll<Item> {
    let mut locked = lock(channel);
    if is_running() && seam::wait(&mut [&mut *locked], false, Some(Duration::ZERO))?.is_empty() {
        register(On::Channel(Arc::downgrade(channel)), context.waker());
        return Poll::Pending;
    }
    Poll::Ready(locked.read())
}

/// The next item of the running call's input. The key is the reader's own.
pub(crate) fn poll_next(key: &Arc<()>, context: &Context<'_>) -> Poll<Item> {
    if is_running() && seam::wait(&mut [], true, Some(Duration::ZERO))?.is_empty() {
        register(On::Input(Arc::downgrade(key)), context.waker());
        return Poll::Pending;
    }
    Poll::Ready(seam::next())
}

/// Ready at that time.
pub(crate) fn poll_time(time: &Arc<Instant>, context: &Context<'_>) -> Poll<Result<(), Error>> {
    loop {
        let left = time.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Poll::Ready(Ok(()));
        }
        if is_running() {
            register(On::Time(Arc::downgrade(time)), context.waker());
            return Poll::Pending;
        }
        seam::wait(&mut [], false, Some(left))?;
    }
}

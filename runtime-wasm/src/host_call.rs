//! What guests call on their host.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::Poll;

use parking_lot::Mutex;
use quadriga_abi::{Bytes, Error};
use quadriga_core::{LogLevel, Outcome};
use tokio::time::Sleep;
use wasmtime::component::{HasSelf, Linker, Resource};

use crate::bindings::quadriga::extension::host::{self, Level};
use crate::bindings::quadriga::extension::types;
use crate::config::GRACE;
use crate::convert;
use crate::guest::Guest;
use crate::limits::{CpuTime, Hub, Stop, Watch};
use crate::stream::{self, Channel};

pub(crate) fn link(linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
    host::add_to_linker::<Guest, HasSelf<Guest>>(linker, |guest| guest)
}

/// Where a guest leaves its calls to other extensions, and finds the answers.
///
/// The guest runs on a stack of its own, which is small, and not the one that the thread's other
/// languages know of (CPython measures where it is). So it never calls them from there: it leaves
/// the request here and steps aside, and [`serve`], on the thread's own stack, makes the call.
#[derive(Default)]
pub(crate) struct Desk {
    mail: Mutex<Mail>,
}

#[derive(Default)]
enum Mail {
    #[default]
    Nothing,
    Request(Request),
    Reply(Result<Bytes, Error>),
}

struct Request {
    extension: String,
    method: String,
    arguments: Bytes,
}

impl Desk {
    async fn ask(&self, request: Request) -> Result<Bytes, Error> {
        *self.mail.lock() = Mail::Request(request);
        poll_fn(|_| {
            let mut mail = self.mail.lock();
            match std::mem::take(&mut *mail) {
                Mail::Reply(reply) => Poll::Ready(reply),
                other => {
                    *mail = other;
                    Poll::Pending
                }
            }
        })
        .await
    }

    fn request(&self) -> Option<Request> {
        let mut mail = self.mail.lock();
        match std::mem::take(&mut *mail) {
            Mail::Request(request) => Some(request),
            other => {
                *mail = other;
                None
            }
        }
    }

    fn reply(&self, reply: Result<Bytes, Error>) {
        *self.mail.lock() = Mail::Reply(reply);
    }
}

/// Runs `guest`, and makes the calls that it leaves on its desk. When the call must end, what the
/// guest waits for fails, and a little later the guest is left where it is. It is left at once when
/// it has used up its processor time; what it calls is not counted.
pub(crate) async fn serve<T>(
    mut guest: Pin<&mut impl Future<Output = T>>,
    desk: &Desk,
    watch: &Watch<&Hub>,
    time: &mut CpuTime,
) -> Result<T, Stop> {
    let mut stopped = pin!(watch.stopped());
    let mut stopping: Option<(Stop, Pin<Box<Sleep>>)> = None;
    let mut nested = None;
    poll_fn(|context| {
        loop {
            if let Some(call) = &mut nested {
                let call: &mut quadriga_core::BoxFuture<'static, _> = call;
                match call.as_mut().poll(context) {
                    Poll::Ready(reply) => desk.reply(reply),
                    Poll::Pending => break,
                }
                nested = None;
            }
            let gate = match watch.enter() {
                Ok(gate) => gate,
                Err(stop) => return Poll::Ready(Err(stop)),
            };
            let entered = watch.hub.executor.enter();
            let begun = time.begin();
            if let Poll::Ready(done) = guest.as_mut().poll(context) {
                return Poll::Ready(Ok(done));
            }
            drop(entered);
            drop(gate);
            if let Err(stop) = time.end(begun) {
                return Poll::Ready(Err(stop));
            }
            let Some(Request { extension, method, arguments }) = desk.request() else { break };
            match watch.hub.bridge.call(&watch.context, &extension, &method, arguments) {
                Outcome::Ready(reply) => desk.reply(reply),
                Outcome::Pending(call) => nested = Some(call),
            }
        }
        if let Some((stop, grace)) = &mut stopping {
            return grace.as_mut().poll(context).map(|()| Err(*stop));
        }
        // A callee has the same deadline or an earlier one, and the right to clean up as well.
        if nested.is_some() && watch.stop() == Some(Stop::Deadline) {
            return Poll::Pending;
        }
        let Poll::Ready(stop) = stopped.as_mut().poll(context) else { return Poll::Pending };
        let _entered = watch.hub.executor.enter();
        stopping = Some((stop, Box::pin(tokio::time::sleep(GRACE))));
        if nested.take().is_some() {
            desk.reply(Err(stop.into()));
        }
        // Once more, for the guest's sake and the timer's.
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await
}

impl types::Host for Guest {}

impl host::Host for Guest {
    async fn call(
        &mut self,
        extension: String,
        method: String,
        arguments: Vec<u8>,
    ) -> Result<Vec<u8>, types::Error> {
        let request = Request { extension, method, arguments: arguments.into() };
        self.desk.ask(request).await.map(Vec::from).map_err(convert::error_to_guest)
    }

    fn log(&mut self, level: Level, message: String) {
        let level = match level {
            Level::Trace => LogLevel::Trace,
            Level::Debug => LogLevel::Debug,
            Level::Info => LogLevel::Info,
            Level::Warn => LogLevel::Warn,
            Level::Error => LogLevel::Error,
        };
        self.watch.hub.bridge.log(&self.watch.context, level, &message);
    }

    fn config(&mut self) -> Vec<u8> {
        self.watch.hub.bridge.config().into()
    }

    fn cancelled(&mut self) -> bool {
        self.watch.stop().is_some()
    }

    async fn emit(&mut self, item: Vec<u8>) -> Result<(), types::Error> {
        stream::emit(self.streams.as_deref(), item).await.map_err(convert::error_to_guest)
    }

    async fn next(&mut self) -> Result<Option<Vec<u8>>, types::Error> {
        stream::next(self.streams.as_deref()).await.map_err(convert::error_to_guest)
    }

    async fn wait(
        &mut self,
        channels: Vec<Resource<Channel>>,
        input: bool,
        timeout: Option<u64>,
    ) -> Result<Vec<u32>, types::Error> {
        stream::wait(self, &channels, input, timeout).await.map_err(convert::error_to_guest)
    }
}

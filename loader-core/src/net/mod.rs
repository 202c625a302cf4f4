//! The network, as far as an extension was granted it: one place decides about each connection, and
//! keeps it in sight as long as it is open.

mod address;
mod socket;
mod tls;

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use quadriga_abi::permission::{Access, Permissions};
use quadriga_abi::{Error, ErrorCode};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;

use crate::BoxFuture;
use crate::detached::spawned;
use crate::dispatcher::lock;
use crate::ward::{Counter, Reach, Reason};
use socket::{Socket, Wire};
pub use tls::Insecure;
pub(crate) use tls::{Trust, check as check_certificates};

/// How many connections one generation of an extension may have, those that are being made included.
const CONNECTIONS: usize = 128;

/// How many names may be resolved for it at once: each takes a thread.
const LOOKUPS: usize = 4;

/// The most bytes in the name of a host.
const HOST: usize = 255;

/// How long it may take to resolve a name and to connect.
const PATIENCE: Duration = Duration::from_secs(20);

/// A connection of an extension to a host: bytes in both directions, over TCP.
///
/// May be used on any thread and executor. What it does when its permission is revoked is to fail,
/// with an [`Error`] inside of the error; see [`Connection::error`].
pub struct Connection(Box<dyn Duplex>);

trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

impl Connection {
    /// A connection that goes through something else, such as that of a worker process.
    pub fn new(stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) -> Self {
        Self(Box::new(stream))
    }

    /// What an error of reading or writing says, as an error of the contract.
    pub fn error(error: &(dyn std::error::Error + 'static)) -> Error {
        let mut next = Some(error);
        while let Some(error) = next {
            if let Some(error) = error.downcast_ref::<Error>() {
                return error.clone();
            }
            // Its source leaves the error out that it was made of.
            let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
            next = inner.map(|inner| inner as _).or_else(|| error.source());
        }
        Error::new(ErrorCode::ConnectionFailed, format!("the connection failed: {error}"))
    }
}

/// As an error of a stream, in which [`Connection::error`] finds it.
fn io_error(error: Error) -> io::Error {
    let kind = match error.code {
        ErrorCode::PermissionDenied => io::ErrorKind::PermissionDenied,
        _ => io::ErrorKind::ConnectionAborted,
    };
    io::Error::new(kind, error)
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0).poll_read(context, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0).poll_shutdown(context)
    }
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Connection")
    }
}

/// The connections of one generation.
pub(crate) struct Connections {
    open: Mutex<Open>,
    lookups: Semaphore,
}

#[derive(Default)]
struct Open {
    taken: usize,
    next: u64,
    wires: HashMap<u64, Weak<Wire>>,
}

impl Default for Connections {
    fn default() -> Self {
        Self { open: Mutex::default(), lookups: Semaphore::new(LOOKUPS) }
    }
}

impl Connections {
    /// Cuts those that are no longer covered.
    pub(crate) fn keep(&self, covers: impl Fn(&Access<'_>) -> bool) {
        let wires: Vec<_> = lock(&self.open).wires.values().filter_map(Weak::upgrade).collect();
        for wire in wires {
            let access = Access::Net { host: &wire.host, port: wire.port };
            if !covers(&access) {
                wire.cut(taken_back(&access));
            }
        }
    }
}

fn taken_back(access: &Access<'_>) -> Error {
    let message = format!("the connection was cut: the extension may no longer {access}");
    Error::new(ErrorCode::PermissionDenied, message).with_hint("the host took the permission back")
}

/// One of the connections that an extension may have. Free again when dropped.
struct Place {
    reach: Arc<Reach>,
    number: u64,
}

impl Place {
    fn take(reach: &Arc<Reach>) -> Result<Self, Error> {
        let mut open = lock(&reach.connections.open);
        if open.taken == CONNECTIONS {
            let message = format!("{} has {CONNECTIONS} connections already", reach.ward.id);
            return Err(Error::new(ErrorCode::Overloaded, message).with_hint("close some first"));
        }
        open.taken += 1;
        open.next += 1;
        Ok(Self { reach: Arc::clone(reach), number: open.next })
    }

    fn count(&self, counter: Counter, bytes: usize) {
        self.reach.meter.add(counter, bytes as u64);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = lock(&self.reach.connections.open);
        open.taken -= 1;
        open.wires.remove(&self.number);
    }
}

/// What is to be connected to, and on whose behalf.
pub(crate) struct Wanted {
    pub(crate) reach: Arc<Reach>,
    pub(crate) call: u64,
    pub(crate) host: String,
    pub(crate) port: u16,
    /// Names may lead to addresses that are not public.
    pub(crate) private: bool,
    /// How long nothing may move on the connection.
    pub(crate) idle: Duration,
}

impl Wanted {
    /// Checks the permission at once, and connects on an executor of the host.
    pub(crate) fn connect(self, handle: &Handle) -> BoxFuture<'static, Result<Connection, Error>> {
        let place = self
            .look_like_a_host()
            .and_then(|()| self.reach.check(self.call, &self.access()))
            .and_then(|()| Place::take(&self.reach));
        let place = match place {
            Ok(place) => place,
            Err(error) => return Box::pin(std::future::ready(Err(error))),
        };
        spawned(handle, async move {
            let late = || {
                let message =
                    format!("{}:{} did not answer in {} s", self.host, self.port, PATIENCE.as_secs());
                Error::new(ErrorCode::ConnectionFailed, message)
            };
            let made = tokio::time::timeout(PATIENCE, self.make(place)).await;
            made.unwrap_or_else(|_| Err(late()))
        })
    }

    /// Whatever an extension gives as a host goes into logs and records.
    fn look_like_a_host(&self) -> Result<(), Error> {
        let fits = (1..=HOST).contains(&self.host.len()) && self.host.bytes().all(|b| b.is_ascii_graphic());
        let wrong =
            || format!("a host has 1 to {HOST} letters, in ASCII; names in others have a form for that");
        if fits { Ok(()) } else { Err(Error::new(ErrorCode::InvalidArguments, wrong())) }
    }

    fn access(&self) -> Access<'_> {
        Access::Net { host: &self.host, port: self.port }
    }

    async fn make(&self, place: Place) -> Result<Connection, Error> {
        let failed = |error: &io::Error| {
            let message = format!("no connection to {}:{}: {error}", self.host, self.port);
            Error::new(ErrorCode::ConnectionFailed, message)
        };
        let addresses = self.resolve().await.map_err(|error| failed(&error))?;
        let permissions = self.reach.permissions();
        let mut usable = addresses.into_iter().filter(|to| self.may_reach(&permissions, to.ip())).peekable();
        if usable.peek().is_none() {
            return Err(self.reach.deny(self.call, &self.access(), Reason::PrivateAddress));
        }
        let mut result = Err(io::Error::from(io::ErrorKind::NotFound));
        for address in usable {
            result = TcpStream::connect(address).await;
            if result.is_ok() {
                break;
            }
        }
        let stream = result.map_err(|error| failed(&error))?;
        let _ = stream.set_nodelay(true);
        let wire = Arc::new(Wire::new(self.host.clone(), self.port, stream));
        lock(&self.reach.connections.open).wires.insert(place.number, Arc::downgrade(&wire));
        // What was revoked before it was in the record has not been seen to.
        if self.reach.verdict(&self.access()).is_err() {
            return Err(taken_back(&self.access()));
        }
        Ok(Connection::new(Socket::new(wire, place, self.idle)))
    }

    async fn resolve(&self) -> io::Result<Vec<SocketAddr>> {
        if let Some(address) = literal(&self.host) {
            return Ok(vec![SocketAddr::new(address, self.port)]);
        }
        // That is this machine, whatever a resolver says of it.
        if self.is_localhost() {
            let loopback = [IpAddr::from(Ipv4Addr::LOCALHOST), IpAddr::from(Ipv6Addr::LOCALHOST)];
            return Ok(loopback.map(|address| SocketAddr::new(address, self.port)).to_vec());
        }
        let _turn = self.reach.connections.lookups.acquire().await.map_err(io::Error::other)?;
        let found: Vec<_> = tokio::net::lookup_host((&*self.host, self.port)).await?.collect();
        if found.is_empty() {
            return Err(io::Error::new(io::ErrorKind::NotFound, "the name has no address"));
        }
        Ok(found)
    }

    /// Whether what was granted covers an address to which the host leads: a public one in any case,
    /// others if they were granted as such.
    fn may_reach(&self, permissions: &Permissions, address: IpAddr) -> bool {
        let named = || {
            let of = |pattern: &&quadriga_abi::permission::NetPattern| pattern.allows(&self.host, self.port);
            permissions.net.iter().filter(of).any(|pattern| pattern.is_one_host())
        };
        let itself = literal(&self.host).is_some() || self.is_localhost();
        self.private || address::is_public(address) || (itself && named())
    }

    fn is_localhost(&self) -> bool {
        self.host.strip_suffix('.').unwrap_or(&self.host).eq_ignore_ascii_case("localhost")
    }
}

/// The address that a host is, IPv6 in brackets or not.
fn literal(host: &str) -> Option<IpAddr> {
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    bare.parse().ok()
}

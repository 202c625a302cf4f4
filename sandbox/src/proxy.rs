//! The way to the network for extensions in workers whose engines know nothing of us: an HTTP proxy.
//!
//! It listens inside of the worker's network namespace, where there is nothing else, but runs in the
//! host: what a namespace holds is the socket. Each request is a connection of its own, which the
//! extension's bridge decides about and makes. What the extension sends is never more in memory here
//! than one buffer of each connection.

use std::convert::Infallible;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{Either, Full};
use hyper::body::Incoming;
use hyper::ext::ReasonPhrase;
use hyper::header::{HOST, HeaderMap, HeaderName, HeaderValue};
use hyper::http::uri::{Authority, PathAndQuery};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::upgrade::OnUpgrade;
use hyper::{Method, Request, Response, StatusCode, Uri, client, header};
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::Mutex;
use quadriga_abi::{Bytes, Error, ErrorCode};
use quadriga_core::{Bridge, CallContext, Connection};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::task::{AbortHandle, JoinSet};

/// How many connections of one worker are served at once. More wait in its own namespace.
const CONNECTIONS: usize = 64;

/// How long an extension may take to say what it wants.
const HEADERS: Duration = Duration::from_secs(20);

/// The most bytes that are read ahead, which bounds a request without its body too.
const BUFFER: usize = 64 << 10;

/// How long to wait where the host has no descriptor to spare.
const PAUSE: Duration = Duration::from_millis(100);

type Body = Either<Incoming, Full<Bytes>>;

/// A tunnel that has been promised.
type Tunnel = Arc<Mutex<Option<(OnUpgrade, Connection)>>>;

/// Serves what connects to a worker's listening socket, until the task is aborted.
pub(crate) fn serve(listener: OwnedFd, bridge: Bridge, handle: &Handle) -> io::Result<AbortHandle> {
    let listener = std::net::TcpListener::from(listener);
    listener.set_nonblocking(true)?;
    let _entered = handle.enter();
    let listener = TcpListener::from_std(listener)?;
    Ok(handle.spawn(accept(listener, bridge)).abort_handle())
}

async fn accept(listener: TcpListener, bridge: Bridge) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    // All end with this task.
    let mut guests = JoinSet::new();
    while let Ok(place) = Arc::clone(&places).acquire_owned().await {
        while guests.try_join_next().is_some() {}
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        let bridge = bridge.clone();
        guests.spawn(async move {
            let _place = place;
            guest(stream, &bridge).await;
        });
    }
}

async fn guest(stream: TcpStream, bridge: &Bridge) {
    let tunnel = Tunnel::default();
    let service = service_fn(|request| answer(request, bridge, &tunnel));
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADERS)
        .max_buf_size(BUFFER)
        // One decision, one connection, one request.
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades()
        .await;
    let promised = tunnel.lock().take();
    if let (Ok(()), Some((guest, mut connection))) = (served, promised)
        && let Ok(guest) = guest.await
    {
        // However it ends, both sides see it end.
        let _ = tokio::io::copy_bidirectional(&mut TokioIo::new(guest), &mut connection).await;
    }
}

async fn answer(
    request: Request<Incoming>,
    bridge: &Bridge,
    tunnel: &Tunnel,
) -> Result<Response<Body>, Infallible> {
    let answered = match *request.method() {
        Method::CONNECT => connect(request, bridge, tunnel).await,
        _ => forward(request, bridge).await,
    };
    Ok(answered.unwrap_or_else(|error| refusal(&error)))
}

/// Opens a tunnel, in which anything may be spoken.
async fn connect(
    mut request: Request<Incoming>,
    bridge: &Bridge,
    tunnel: &Tunnel,
) -> Result<Response<Body>, Error> {
    let uri = request.uri();
    let (host, port) = uri.host().zip(uri.port_u16()).ok_or_else(|| wrong("CONNECT takes HOST:PORT"))?;
    let connection = bridge.connect(&CallContext::default(), host, port).await?;
    *tunnel.lock() = Some((hyper::upgrade::on(&mut request), connection));
    Ok(Response::new(Either::Right(Full::default())))
}

/// Sends a request on, as its sender's.
async fn forward(request: Request<Incoming>, bridge: &Bridge) -> Result<Response<Body>, Error> {
    let (mut parts, body) = request.into_parts();
    let uri = std::mem::take(&mut parts.uri).into_parts();
    let plain = uri.scheme.is_some_and(|scheme| scheme == hyper::http::uri::Scheme::HTTP);
    let to = uri.authority.filter(|_| plain).ok_or_else(|| {
        wrong("this is a proxy: it takes requests for http://HOST/ and CONNECT for everything else")
    })?;
    let connection = bridge.connect(&CallContext::default(), to.host(), to.port_u16().unwrap_or(80)).await?;
    let (mut sender, driver) =
        client::conn::http1::handshake(TokioIo::new(connection)).await.map_err(|error| broken(&error))?;
    // Ends with the response, or with who reads it.
    tokio::spawn(driver);
    of_one_hop(&mut parts.headers);
    parts.headers.insert(HOST, host_of(&to)?);
    parts.uri = Uri::from(uri.path_and_query.unwrap_or_else(|| PathAndQuery::from_static("/")));
    let response = sender.send_request(Request::from_parts(parts, body)).await;
    let mut response = response.map_err(|error| broken(&error))?;
    of_one_hop(response.headers_mut());
    Ok(response.map(Either::Left))
}

/// What a request is for is what it says in its first line, and not what its header `Host` says.
fn host_of(to: &Authority) -> Result<HeaderValue, Error> {
    let text = to.as_str().rsplit_once('@').map_or(to.as_str(), |(_, host)| host);
    HeaderValue::from_str(text).map_err(|_| wrong("the host is malformed"))
}

/// Removes what concerns the connection that a message came on.
fn of_one_hop(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|names| names.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    let always = [
        header::CONNECTION,
        header::PROXY_AUTHENTICATE,
        header::PROXY_AUTHORIZATION,
        header::TE,
        header::TRAILER,
        header::TRANSFER_ENCODING,
        header::UPGRADE,
        HeaderName::from_static("keep-alive"),
        HeaderName::from_static("proxy-connection"),
    ];
    for name in named.iter().chain(&always) {
        headers.remove(name);
    }
}

fn wrong(what: &str) -> Error {
    Error::new(ErrorCode::InvalidArguments, what)
}

fn broken(error: &hyper::Error) -> Error {
    Connection::error(error)
}

/// The reason stands in the first line too, because that is all that many clients tell.
fn refusal(error: &Error) -> Response<Body> {
    let status = match error.code {
        ErrorCode::PermissionDenied => StatusCode::FORBIDDEN,
        ErrorCode::InvalidArguments => StatusCode::BAD_REQUEST,
        ErrorCode::ConnectionFailed => StatusCode::BAD_GATEWAY,
        _ => StatusCode::SERVICE_UNAVAILABLE,
    };
    let reason = format!("{}: {}", error.code, error.message);
    let hint = error.hint.as_ref().map(|hint| format!("{hint}\n")).unwrap_or_default();
    let text = format!("{reason}\n{hint}");
    let mut response = Response::new(Either::Right(Full::new(text.into())));
    *response.status_mut() = status;
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, plain);
    if let Ok(reason) = ReasonPhrase::try_from(reason) {
        response.extensions_mut().insert(reason);
    }
    response
}

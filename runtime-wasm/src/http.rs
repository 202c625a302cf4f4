//! `wasi:http`: requests over connections that the host makes, each decided about.

use std::io;
use std::time::Duration;

use futures_util::stream;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::http::uri::{PathAndQuery, Scheme};
use hyper::{Request, Response, Uri};
use quadriga_abi::ErrorCode;
use quadriga_core::{Connection, Insecure, LogLevel};
use tokio::task::JoinHandle;
use wasmtime::component::Linker;
use wasmtime_wasi_http::io::TokioIo;
use wasmtime_wasi_http::{Error, RequestOptions, WasiBody, WasiHttpCtxView, WasiHttpHooks, WasiHttpView};

use crate::guest::Guest;
use crate::limits::Watch;

/// What a guest gets that sets no time itself: its call's deadline ends it before.
const PATIENCE: Duration = Duration::from_secs(600);

type Finished = Box<dyn Future<Output = Result<(), Error>> + Send>;
type Answered = Result<(Response<WasiBody>, Finished), Error>;

pub(crate) fn link(linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
    wasmtime_wasi_http::p2::add_only_http_to_linker_async(linker)
}

impl WasiHttpView for Guest {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        WasiHttpCtxView { hooks: &mut self.watch, table: &mut self.table, ctx: &mut self.http }
    }
}

impl WasiHttpHooks for Watch {
    fn send_request(
        &mut self,
        request: Request<WasiBody>,
        options: Option<RequestOptions>,
        _sent: Finished,
    ) -> Box<dyn Future<Output = Answered> + Send> {
        let watch = self.clone();
        Box::new(async move { send(&watch, request, options.unwrap_or_default()).await })
    }
}

async fn send(watch: &Watch, request: Request<WasiBody>, options: RequestOptions) -> Answered {
    let (mut parts, body) = request.into_parts();
    let uri = std::mem::take(&mut parts.uri).into_parts();
    let to = uri.authority.ok_or(Error::HttpRequestUriInvalid)?;
    let (secure, usual) = match uri.scheme {
        Some(scheme) if scheme == Scheme::HTTP => (false, 80),
        Some(scheme) if scheme == Scheme::HTTPS => (true, 443),
        _ => return Err(Error::HttpRequestUriInvalid),
    };
    let (bridge, host, port) = (&watch.hub.bridge, to.host(), to.port_u16().unwrap_or(usual));
    let connecting = bridge.connect(&watch.context, host, port);
    let mut connection = tokio::time::timeout(options.connect_timeout.unwrap_or(PATIENCE), connecting)
        .await
        .map_err(|_| Error::ConnectionTimeout)?
        .map_err(|error| told(watch, &error))?;
    if secure {
        connection = bridge.secure(connection, host, port).await.map_err(|error| insecure(watch, &error))?;
    }
    let (mut sender, driver) = http1::handshake(TokioIo::new(connection)).await?;
    let driver = Driver::start(driver);
    parts.uri = Uri::from(uri.path_and_query.unwrap_or_else(|| PathAndQuery::from_static("/")));
    let answering = sender.send_request(Request::from_parts(parts, body));
    let response = tokio::time::timeout(options.first_byte_timeout.unwrap_or(PATIENCE), answering)
        .await
        .map_err(|_| Error::ConnectionReadTimeout)?
        .map_err(|error| broken(watch, error))?;
    let patience = options.between_bytes_timeout.unwrap_or(PATIENCE);
    let watch = watch.clone();
    let response = response.map(|incoming| body_of(incoming, patience, watch));
    Ok((response, Box::new(driver.finished())))
}

/// The frames of a response, each in time.
fn body_of(incoming: Incoming, patience: Duration, watch: Watch) -> WasiBody {
    let frames = stream::unfold(Some((incoming, watch)), move |reading| async move {
        let (mut incoming, watch) = reading?;
        let frame = match tokio::time::timeout(patience, incoming.frame()).await {
            Err(_) => Err(Error::ConnectionReadTimeout),
            Ok(frame) => frame?.map_err(|error| broken(&watch, error)),
        };
        let rest = frame.is_ok().then_some((incoming, watch));
        Some((frame, rest))
    });
    StreamBody::new(frames).boxed_unsync()
}

/// What the host says about a connection, as the guest's code can know it. The reason is in the log,
/// because the codes of `wasi:http` have no room for it.
fn told(watch: &Watch, error: &quadriga_abi::Error) -> Error {
    let hint = error.hint.as_ref().map(|hint| format!(" ({hint})")).unwrap_or_default();
    let line = format!("wasi:http: {}: {error}{hint}", error.code);
    watch.hub.bridge.log(&watch.context, LogLevel::Warn, &line);
    match error.code {
        ErrorCode::PermissionDenied => Error::HttpRequestDenied,
        ErrorCode::Overloaded => Error::ConnectionLimitReached,
        ErrorCode::ConnectionFailed => Error::Connect(io::Error::other(error.clone())),
        _ => Error::InternalError(Some(error.to_string())),
    }
}

/// No TLS on a connection that was made.
fn insecure(watch: &Watch, insecure: &Insecure) -> Error {
    match (told(watch, &insecure.error), insecure.error.code) {
        _ if insecure.certificate => Error::TlsCertificateError,
        (_, ErrorCode::ConnectionFailed) => Error::TlsProtocolError,
        (told, _) => told,
    }
}

/// A connection that broke, or that the host cut.
fn broken(watch: &Watch, error: hyper::Error) -> Error {
    let said = Connection::error(&error);
    match said.code {
        ErrorCode::PermissionDenied => told(watch, &said),
        _ => Error::Hyper(error),
    }
}

/// The task that drives a connection: it ends with whoever holds this.
struct Driver(JoinHandle<Result<(), hyper::Error>>);

impl Driver {
    fn start(driver: impl Future<Output = Result<(), hyper::Error>> + Send + 'static) -> Self {
        Self(tokio::spawn(driver))
    }

    async fn finished(mut self) -> Result<(), Error> {
        match (&mut self.0).await {
            Ok(Err(error)) => Err(Error::Hyper(error)),
            Ok(Ok(())) | Err(_) => Ok(()),
        }
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

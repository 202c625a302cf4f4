//! What monitoring systems ask a host over HTTP.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use quadriga::PROMETHEUS_TYPE;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::run::Host;

/// Connections at the same time; the next one is closed.
const CLIENTS: usize = 32;

/// How long a connection may last: it is for one request.
const PATIENCE: Duration = Duration::from_secs(15);

/// How long to wait after the system had no connection to give.
const AGAIN: Duration = Duration::from_millis(100);

/// Takes an address, and gives it with what serves there for ever.
pub(super) async fn bind(
    address: SocketAddr,
    host: Arc<Host>,
) -> Result<(SocketAddr, impl Future<Output = ()> + Send)> {
    let listener = TcpListener::bind(address).await;
    let listener = listener.with_context(|| format!("metrics cannot be served at {address}"))?;
    Ok((listener.local_addr()?, serve(listener, host)))
}

async fn serve(listener: TcpListener, host: Arc<Host>) {
    let clients = Arc::new(Semaphore::new(CLIENTS));
    loop {
        let Ok((client, _)) = listener.accept().await else {
            tokio::time::sleep(AGAIN).await;
            continue;
        };
        let Ok(place) = Arc::clone(&clients).try_acquire_owned() else { continue };
        let host = Arc::clone(&host);
        tokio::spawn(async move {
            let service = service_fn(|request| answer(&host, request));
            let mut server = hyper::server::conn::http1::Builder::new();
            server.timer(TokioTimer::new()).keep_alive(false);
            // Who breaks off is gone.
            let _ = timeout(PATIENCE, server.serve_connection(TokioIo::new(client), service)).await;
            drop(place);
        });
    }
}

async fn answer(host: &Host, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    const TEXT: &str = "text/plain; charset=utf-8";
    const JSON: &str = "application/json";
    let path = request.uri().path();
    let (status, kind, body) = match path {
        "/metrics" | "/healthz" | "/readyz" if ![Method::GET, Method::HEAD].contains(request.method()) => {
            (StatusCode::METHOD_NOT_ALLOWED, TEXT, "only GET\n".to_owned())
        }
        "/metrics" => (StatusCode::OK, PROMETHEUS_TYPE, host.metrics()),
        // Whoever answers is alive.
        "/healthz" => (StatusCode::OK, TEXT, "ok\n".to_owned()),
        "/readyz" => match host.health(None).await {
            Ok(health) => {
                let status = if health.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
                (status, JSON, health.summary().to_string())
            }
            Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, TEXT, format!("{error}\n")),
        },
        _ => (StatusCode::NOT_FOUND, TEXT, "there are /metrics, /healthz and /readyz\n".to_owned()),
    };
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static(kind));
    headers.insert(CACHE_CONTROL, hyper::header::HeaderValue::from_static("no-store"));
    if status == StatusCode::METHOD_NOT_ALLOWED {
        headers.insert(ALLOW, hyper::header::HeaderValue::from_static("GET, HEAD"));
    }
    Ok(response)
}

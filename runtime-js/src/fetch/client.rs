//! Sends requests, and reads what comes back.

use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::header::{CONNECTION, HOST, HeaderMap, HeaderValue};
use hyper_util::rt::TokioIo;
use quadriga_abi::msgpack::{Token, write};
use quadriga_abi::{Bytes, Error, ErrorCode};
use quadriga_core::{Bridge, CallContext, Connection};
use tokio::task::AbortHandle;

use super::request::Request;

/// How many redirects are followed.
const HOPS: usize = 20;

/// The most bytes of a response's head.
const HEAD: usize = 64 << 10;

/// Status, its text, where it comes from, whether after a redirect, and names and values of headers.
pub(super) type Head = (u16, String, String, bool, Vec<String>);

/// The body of a response, as it comes.
pub(super) struct Body {
    incoming: Incoming,
    _driver: Driver,
}

/// The task that drives a connection.
struct Driver(AbortHandle);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Sends a request, follows redirects, and returns the head of the last response and its body. Each
/// hop is a connection of its own, which the bridge decides about.
pub(super) async fn fetch(
    bridge: &Bridge,
    context: &CallContext,
    mut request: Request,
) -> Result<(Head, Body), Error> {
    for hop in 0..=HOPS {
        let (response, driver) = send(bridge, context, &request).await?;
        let (parts, incoming) = response.into_parts();
        if request.follow(parts.status, &parts.headers)? {
            continue;
        }
        let said = parts.extensions.get::<hyper::ext::ReasonPhrase>();
        let text = match said {
            Some(said) => latin1(said.as_bytes()),
            None => parts.status.canonical_reason().unwrap_or_default().to_owned(),
        };
        request.url.set_fragment(None);
        let head =
            (parts.status.as_u16(), text, request.url.to_string(), hop > 0, names_and_values(&parts.headers));
        return Ok((head, Body { incoming, _driver: driver }));
    }
    Err(Error::new(ErrorCode::ConnectionFailed, format!("more than {HOPS} redirects")))
}

async fn send(
    bridge: &Bridge,
    context: &CallContext,
    request: &Request,
) -> Result<(hyper::Response<Incoming>, Driver), Error> {
    let (host, port) = request.target()?;
    let mut connection = bridge.connect(context, host, port).await?;
    if request.url.scheme() == "https" {
        connection = bridge.secure(connection, host, port).await?;
    }
    let (mut sender, driver) = http1::Builder::new()
        .max_buf_size(HEAD)
        .handshake(TokioIo::new(connection))
        .await
        .map_err(|error| Connection::error(&error))?;
    let driver = Driver(tokio::spawn(driver).abort_handle());
    let path = &request.url[url::Position::BeforePath..url::Position::AfterQuery];
    let mut message = hyper::Request::builder().method(&request.method).uri(path);
    if let Some(headers) = message.headers_mut() {
        headers.insert(HOST, request.host()?);
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
        headers.extend(request.headers.clone());
    }
    let message = message.body(Full::new(request.body.clone().unwrap_or_default())).map_err(|error| {
        Error::new(ErrorCode::InvalidArguments, format!("the request cannot be sent: {error}"))
    })?;
    let response = sender.send_request(message).await.map_err(|error| Connection::error(&error))?;
    Ok((response, driver))
}

impl Body {
    /// The next bytes; `None` at the end.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        while let Some(frame) = self.incoming.frame().await {
            let frame = frame.map_err(|error| Connection::error(&error))?;
            // Trailers are nobody's.
            match frame.into_data() {
                Ok(bytes) if !bytes.is_empty() => return Ok(Some(bytes)),
                _ => {}
            }
        }
        Ok(None)
    }
}

fn names_and_values(headers: &HeaderMap) -> Vec<String> {
    let pair = |(name, value): (&hyper::header::HeaderName, &HeaderValue)| {
        [name.as_str().to_owned(), latin1(value.as_bytes())]
    };
    headers.iter().flat_map(pair).collect()
}

/// A character for each byte, as the web platform has it.
fn latin1(bytes: &[u8]) -> String {
    bytes.iter().copied().map(char::from).collect()
}

/// Bytes as a value of the contract.
pub(super) fn as_value(bytes: &[u8]) -> Bytes {
    let mut value = Vec::with_capacity(bytes.len() + 5);
    // Shorter than what a connection reads at once.
    let _ = write(&mut value, Token::Bytes(bytes));
    value.into()
}

//! Requests by the bindings of WASI, without a library on top.

use std::fmt::Debug;

use wasip2::http::outgoing_handler::handle;
use wasip2::http::types::{Fields, IncomingResponse, Method, OutgoingBody, OutgoingRequest, Scheme};
use wasip2::io::streams::StreamError;

pub(crate) fn send(url: &str, body: Option<&str>) -> Result<String, String> {
    let (scheme, rest) = match url.split_once("://").ok_or("no URL")? {
        ("https", rest) => (Scheme::Https, rest),
        (_, rest) => (Scheme::Http, rest),
    };
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let request = OutgoingRequest::new(Fields::new());
    request.set_method(&if body.is_some() { Method::Post } else { Method::Get }).map_err(|()| "method")?;
    request.set_scheme(Some(&scheme)).map_err(|()| "scheme")?;
    request.set_authority(Some(authority)).map_err(|()| "authority")?;
    request.set_path_with_query(Some(path)).map_err(|()| "path")?;
    let outgoing = request.body().map_err(|()| "body")?;
    let answer = handle(request, None).map_err(text)?;
    if let Some(body) = body {
        let stream = outgoing.write().map_err(|()| "stream")?;
        stream.blocking_write_and_flush(body.as_bytes()).map_err(text)?;
    }
    OutgoingBody::finish(outgoing, None).map_err(text)?;
    answer.subscribe().block();
    let response = answer.get().ok_or("no answer")?.map_err(|()| "taken")?.map_err(text)?;
    Ok(format!("{} {}", response.status(), read(&response)?))
}

fn read(response: &IncomingResponse) -> Result<String, String> {
    let body = response.consume().map_err(|()| "consumed")?;
    let stream = body.stream().map_err(|()| "streamed")?;
    let mut bytes = Vec::new();
    loop {
        match stream.blocking_read(64 << 10) {
            Ok(more) => bytes.extend(more),
            Err(StreamError::Closed) => return String::from_utf8(bytes).map_err(text),
            Err(StreamError::LastOperationFailed(error)) => return Err(error.to_debug_string()),
        }
    }
}

fn text(error: impl Debug) -> String {
    format!("{error:?}")
}

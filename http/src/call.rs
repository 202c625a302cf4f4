//! A request to a function and what it is answered.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::rejection::BytesRejection;
use axum::extract::{Path, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use futures_util::stream;
use quadriga_abi::{Bytes, Error, ErrorCode, Method, Value, codec};
use quadriga_core::{ApiStatus, CallOptions, Items};
use serde_json::{Value as JsonValue, json};

use crate::Http;
use crate::answer::{self, failed};
use crate::auth::Who;

pub(crate) const LINES: &str = "application/x-ndjson";

pub(crate) async fn call(
    State(http): State<Arc<Http>>,
    Extension(Who(caller)): Extension<Who>,
    Path((api, function)): Path<(String, String)>,
    headers: HeaderMap,
    body: Result<axum::body::Bytes, BytesRejection>,
) -> Response {
    // Whether there is such a function is not for those who may not call it.
    if !caller.may(&api, &function) {
        let message = format!("{} may not call {api}.{function}", caller.name);
        return failed(&Error::new(ErrorCode::PermissionDenied, message));
    }
    let body = match body {
        Ok(body) => body,
        Err(rejected) => return answer::rejected(rejected.status(), &rejected.body_text()),
    };
    // Other types are those that a page of another origin may send without being asked (CORS).
    if !body.is_empty() && !is_json(&headers) {
        let message = "the arguments are sent as application/json";
        return answer::rejected(StatusCode::UNSUPPORTED_MEDIA_TYPE, message);
    }
    let found = http.host.api_function(&api, &function).filter(|it| it.allowed);
    let Some((it, host)) = found.and_then(|it| it.host.clone().map(|host| (it, host))) else {
        let error = Error::new(ErrorCode::UnknownMethod, format!("there is no function {api}.{function}"));
        return failed(&error.with_hint("GET openapi.json lists those that there are"));
    };
    let arguments = match arguments(&it.function, &body) {
        Ok(arguments) => arguments,
        Err(why) => {
            return failed(&Error::new(ErrorCode::InvalidArguments, format!("{api}.{function}: {why}")));
        }
    };
    // Dropped with the connection, a call is cancelled.
    let mut options = CallOptions::default().timeout(http.timeout).detached();
    if let Some(trace) = headers.get("traceparent").and_then(|it| it.to_str().ok()?.parse().ok()) {
        options = options.trace(trace);
    }
    let ApiStatus { function, .. } = it;
    if function.streams {
        return lines(http.host.stream(host.as_str(), &function.name, arguments, options));
    }
    match http.host.call(host.as_str(), &function.name, arguments, options).await.and_then(|it| to_json(&it))
    {
        Ok(result) => Json(result).into_response(),
        Err(error) => failed(&error),
    }
}

fn is_json(headers: &HeaderMap) -> bool {
    let value = headers.get(CONTENT_TYPE).and_then(|it| it.to_str().ok()).unwrap_or_default();
    value.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json"))
}

/// The list of arguments that a body says: nothing, a list, or a map by the names of the parameters.
fn arguments(function: &Method, body: &[u8]) -> Result<Bytes, String> {
    let body = match body {
        [] => json!([]),
        _ => serde_json::from_slice(body).map_err(|error| format!("the body is no JSON: {error}"))?,
    };
    let list = match body {
        JsonValue::Array(list) => list,
        JsonValue::Object(mut named) => {
            let parameters = &function.parameters;
            let last = parameters.iter().rposition(|it| named.contains_key(&it.name));
            let list = parameters.iter().take(last.map_or(0, |last| last + 1));
            let list: Vec<_> = list.map(|it| named.remove(&it.name).unwrap_or(JsonValue::Null)).collect();
            if let Some(name) = named.keys().next() {
                return Err(format!("there is no parameter {name:?}"));
            }
            list
        }
        _ => return Err("the body has to be a list of the arguments, or a map by their names".to_owned()),
    };
    let list = list.into_iter().enumerate().map(|(place, argument)| {
        Value::from_json(argument).map_err(|error| match function.parameters.get(place) {
            Some(parameter) => format!("{}: {error}", parameter.name),
            None => format!("argument {}: {error}", place + 1),
        })
    });
    let list = Value::List(list.collect::<Result<_, _>>()?);
    Ok(list.to_bytes().map_err(|error| error.to_string())?.into())
}

fn to_json(bytes: &[u8]) -> Result<JsonValue, Error> {
    let value: Value = codec::from_bytes(bytes)
        .map_err(|error| Error::new(ErrorCode::InvalidValue, format!("the result: {error}")))?;
    Ok(value.to_json())
}

/// One JSON text to a line: `{"item": …}` for each item, and `{"error": …}` if it ends with one.
fn lines(items: Items) -> Response {
    let lines = stream::unfold(Some(items), |items| async {
        let mut items = items?;
        let (line, rest) = match items.next().await?.and_then(|item| to_json(&item)) {
            Ok(item) => (json!({ "item": item }), Some(items)),
            Err(error) => (json!({ "error": answer::problem(&error) }), None),
        };
        Some((Ok::<_, std::convert::Infallible>(format!("{line}\n")), rest))
    });
    ([(CONTENT_TYPE, LINES)], Body::from_stream(lines)).into_response()
}

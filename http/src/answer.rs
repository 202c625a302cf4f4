//! Answers that say what went wrong: problem details (RFC 9457) with the code of the error.

use axum::Json;
use axum::http::header::{ALLOW, CONTENT_TYPE, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use quadriga_abi::{Error, ErrorCode};
use serde_json::{Value, json};

pub(crate) const PROBLEM: &str = "application/problem+json";

/// An error as those see it who call over HTTP: without the stack and the causes, which may show more
/// of the host than is theirs.
pub(crate) fn problem(error: &Error) -> Value {
    let status = status(error.code);
    let mut problem = json!({
        "title": error.code.as_str(),
        "status": status.as_u16(),
        "detail": error.message,
        "code": error.code.as_str(),
    });
    if let Some(hint) = &error.hint {
        problem["hint"] = hint.to_string().into();
    }
    problem
}

pub(crate) fn failed(error: &Error) -> Response {
    with(status(error.code), problem(error))
}

/// A request that is no call.
pub(crate) fn rejected(status: StatusCode, detail: &str) -> Response {
    let title = status.canonical_reason().unwrap_or("error");
    with(status, json!({ "title": title, "status": status.as_u16(), "detail": detail }))
}

pub(crate) fn unknown_caller() -> Response {
    let mut response = rejected(StatusCode::UNAUTHORIZED, "the request does not say who sends it");
    response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    response
}

pub(crate) async fn nowhere() -> Response {
    rejected(
        StatusCode::NOT_FOUND,
        "functions are called by POST /API/FUNCTION; GET /openapi.json lists them",
    )
}

pub(crate) async fn no_method() -> Response {
    let mut response = rejected(StatusCode::METHOD_NOT_ALLOWED, "functions are called by POST");
    response.headers_mut().entry(ALLOW).or_insert(HeaderValue::from_static("POST"));
    response
}

fn with(status: StatusCode, problem: Value) -> Response {
    (status, [(CONTENT_TYPE, PROBLEM)], Json(problem)).into_response()
}

/// What a code is in HTTP.
fn status(code: ErrorCode) -> StatusCode {
    match code {
        ErrorCode::InvalidArguments => StatusCode::BAD_REQUEST,
        ErrorCode::PermissionDenied => StatusCode::FORBIDDEN,
        ErrorCode::UnknownMethod | ErrorCode::UnknownExtension => StatusCode::NOT_FOUND,
        ErrorCode::HookVetoed | ErrorCode::HookConflict => StatusCode::CONFLICT,
        ErrorCode::MessageTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        ErrorCode::QuotaExceeded => StatusCode::INSUFFICIENT_STORAGE,
        ErrorCode::Overloaded
        | ErrorCode::ExtensionPaused
        | ErrorCode::ExtensionQuarantined
        | ErrorCode::ExtensionStopped => StatusCode::SERVICE_UNAVAILABLE,
        ErrorCode::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
        ErrorCode::Unsupported => StatusCode::NOT_IMPLEMENTED,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

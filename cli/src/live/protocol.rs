//! What is said over the socket of a host: one JSON object in a line for each request, and one for its
//! answer.
//!
//! ```text
//! {"v": 1, "request": "status", "id": "acme.hello"}
//! {"v": 1, "answer": {…}}
//! {"v": 1, "error": {"code": "unknown_extension", "message": "…", …}}
//! ```

use std::path::{Path, PathBuf};

use quadriga::abi::{Error, ErrorCode};
use serde::{Deserialize, Serialize};
use serde_json::{Value as Json, json};

/// The version of what is said.
const VERSION: u64 = 1;

/// The longest request, in bytes.
pub(super) const LONGEST: u64 = 4 << 20;

/// What a host can be asked. A host that does not know a request says so (`unsupported`).
#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) enum Request {
    /// How extensions do.
    Status {
        #[serde(default)]
        id: Option<String>,
    },
    /// Whether they are alive and ready.
    Health {
        #[serde(default)]
        id: Option<String>,
    },
    /// What they were called, as JSON or as text for Prometheus.
    Metrics {
        #[serde(default)]
        id: Option<String>,
        #[serde(default)]
        prometheus: bool,
    },
    /// Calls a method: a JSON array is the list of arguments, any other value the only one.
    Call {
        id: String,
        method: String,
        #[serde(default)]
        arguments: Option<Json>,
        /// Milliseconds; a minute if left out.
        #[serde(default)]
        timeout: Option<u64>,
    },
    /// Loads an extension anew.
    Reload { id: String },
}

/// The socket of a home, in a folder that only its user can look into.
pub(super) fn socket(home: &Path) -> PathBuf {
    home.join("run").join("host.sock")
}

/// A line that asks.
pub(super) fn ask(request: &Request) -> Result<String, serde_json::Error> {
    let mut json = serde_json::to_value(request)?;
    json["v"] = VERSION.into();
    Ok(format!("{json}\n"))
}

/// What a line asks.
pub(super) fn asked(line: &[u8]) -> Result<Request, Error> {
    let wrong = |why: String| Error::new(ErrorCode::InvalidArguments, why);
    let mut json: Json =
        serde_json::from_slice(line).map_err(|error| wrong(format!("the request is no JSON: {error}")))?;
    let version = json.as_object_mut().and_then(|object| object.remove("v"));
    if version.as_ref().and_then(Json::as_u64) != Some(VERSION) {
        let message = format!("this host speaks version {VERSION}: the request says otherwise");
        return Err(Error::new(ErrorCode::IncompatibleVersion, message)
            .with_hint(format!("say \"v\": {VERSION}, or use the command of the host's own version")));
    }
    let name = json["request"].as_str().map(str::to_owned);
    serde_json::from_value(json).map_err(|error| {
        let code = match &name {
            Some(_) if error.to_string().starts_with("unknown variant") => ErrorCode::Unsupported,
            _ => ErrorCode::InvalidArguments,
        };
        Error::new(code, format!("the request cannot be read: {error}"))
    })
}

/// A line that answers.
pub(super) fn answer(result: &Result<Json, Error>) -> String {
    let json = match result {
        Ok(answer) => json!({ "v": VERSION, "answer": answer }),
        Err(error) => json!({ "v": VERSION, "error": error }),
    };
    format!("{json}\n")
}

/// What a line answers.
pub(super) fn answered(line: &[u8]) -> Result<Json, Error> {
    let broken = |why: &str| Error::new(ErrorCode::ProtocolViolation, format!("the host's answer {why}"));
    let mut json: Json = serde_json::from_slice(line).map_err(|_| broken("is no JSON, or ends early"))?;
    if let Some(error) = json.get_mut("error") {
        return Err(serde_json::from_value(error.take()).map_err(|_| broken("has an error that is none"))?);
    }
    json.get_mut("answer").map(Json::take).ok_or_else(|| broken("has no answer"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_read_back() {
        let id = || Some("a.b".to_owned());
        let (one, method, arguments) = ("a.b".to_owned(), "m".to_owned(), Some(json!([1])));
        for request in [
            Request::Status { id: None },
            Request::Health { id: id() },
            Request::Metrics { id: id(), prometheus: true },
            Request::Call { id: one.clone(), method, arguments, timeout: Some(5) },
            Request::Reload { id: one },
        ] {
            let line = ask(&request).unwrap();
            assert_eq!(line.find('\n'), Some(line.len() - 1));
            assert_eq!(asked(line.as_bytes()).unwrap(), request);
        }
        assert_eq!(asked(br#"{"request":"status","v":1}"#).unwrap(), Request::Status { id: None });
    }

    #[test]
    fn what_is_no_request_is_told_so() {
        for (line, code) in [
            ("", ErrorCode::InvalidArguments),
            ("{", ErrorCode::InvalidArguments),
            ("\u{0}\u{7f}", ErrorCode::InvalidArguments),
            ("[]", ErrorCode::IncompatibleVersion),
            ("null", ErrorCode::IncompatibleVersion),
            (r#"{"request":"status"}"#, ErrorCode::IncompatibleVersion),
            (r#"{"v":2,"request":"status"}"#, ErrorCode::IncompatibleVersion),
            (r#"{"v":1}"#, ErrorCode::InvalidArguments),
            (r#"{"v":1,"request":"dance"}"#, ErrorCode::Unsupported),
            (r#"{"v":1,"request":"reload"}"#, ErrorCode::InvalidArguments),
            (r#"{"v":1,"request":"reload","id":"a.b","more":1}"#, ErrorCode::InvalidArguments),
        ] {
            assert_eq!(asked(line.as_bytes()).unwrap_err().code, code, "{line}");
        }
    }

    #[test]
    fn answers_read_back() {
        let error = Error::new(ErrorCode::UnknownExtension, "none").with_hint("there is a.b");
        for result in [Ok(json!({ "a": [1] })), Ok(Json::Null), Err(error)] {
            assert_eq!(answered(answer(&result).as_bytes()), result);
        }
        for line in ["", "{", "{}", r#"{"error":1}"#] {
            assert_eq!(answered(line.as_bytes()).unwrap_err().code, ErrorCode::ProtocolViolation);
        }
    }
}

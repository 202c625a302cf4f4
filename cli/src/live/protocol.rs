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
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value as Json, json};

use crate::failure::Failure;
use crate::home::operation::{Look, Operation};

/// The version of what is said.
const VERSION: u64 = 1;

/// The longest request, in bytes.
pub(super) const LONGEST: u64 = 4 << 20;

/// What a host can be asked, about itself or about its home. A host that does not know a request says so
/// (`unsupported`).
#[derive(Debug, PartialEq)]
pub(super) enum Asked {
    Host(Request),
    Home(Box<Operation>),
    Look(Look),
}

/// What a host can be asked about itself.
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
    /// What is done by the clock.
    Jobs {
        #[serde(default)]
        id: Option<String>,
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
pub(super) fn ask(request: &impl Serialize) -> Result<String, serde_json::Error> {
    let mut json = serde_json::to_value(request)?;
    json["v"] = VERSION.into();
    Ok(format!("{json}\n"))
}

/// What a line asks.
pub(super) fn asked(line: &[u8]) -> Result<Asked, Error> {
    let wrong = |why: String| Error::new(ErrorCode::InvalidArguments, why);
    let mut json: Json =
        serde_json::from_slice(line).map_err(|error| wrong(format!("the request is no JSON: {error}")))?;
    let version = json.as_object_mut().and_then(|object| object.remove("v"));
    if version.as_ref().and_then(Json::as_u64) != Some(VERSION) {
        let message = format!("this host speaks version {VERSION}: the request says otherwise");
        return Err(Error::new(ErrorCode::IncompatibleVersion, message)
            .with_hint(format!("say \"v\": {VERSION}, or use the command of the host's own version")));
    }
    read(&json)
        .map(|read| read.map(Asked::Host))
        .or_else(|| Some(read(&json)?.map(|it| Asked::Home(Box::new(it)))))
        .or_else(|| Some(read(&json)?.map(Asked::Look)))
        .unwrap_or_else(|| {
            let message = format!("there is no request {}", json["request"]);
            Err(Error::new(ErrorCode::Unsupported, message))
        })
}

/// Reads a request, if it is one of a sort.
fn read<T: DeserializeOwned>(json: &Json) -> Option<Result<T, Error>> {
    let unknown = json["request"].as_str().map(|name| format!("unknown variant `{name}`"));
    match T::deserialize(json) {
        Err(error) if unknown.is_some_and(|unknown| error.to_string().starts_with(&unknown)) => None,
        read => Some(read.map_err(|error| {
            let message = format!("the request cannot be read: {error}");
            Error::new(ErrorCode::InvalidArguments, message)
        })),
    }
}

/// A line that answers.
pub(super) fn answer(result: &Result<Json, Failure>) -> String {
    let json = match result {
        Ok(answer) => json!({ "v": VERSION, "answer": answer }),
        Err(error) => json!({ "v": VERSION, "error": error }),
    };
    format!("{json}\n")
}

/// What a line answers.
pub(super) fn answered(line: &[u8]) -> Result<Json, Box<Failure>> {
    let broken = |why: &str| {
        let error = Error::new(ErrorCode::ProtocolViolation, format!("the host's answer {why}"));
        Box::new(Failure::from(&error))
    };
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
            assert_eq!(asked(line.as_bytes()).unwrap(), Asked::Host(request));
        }
        let status = asked(br#"{"request":"status","v":1}"#).unwrap();
        assert_eq!(status, Asked::Host(Request::Status { id: None }));
        let unpin = Operation::Unpin { id: "a.b".to_owned() };
        assert_eq!(asked(ask(&unpin).unwrap().as_bytes()).unwrap(), Asked::Home(Box::new(unpin)));
        let show = Look::Show { id: "a.b".to_owned() };
        assert_eq!(asked(ask(&show).unwrap().as_bytes()).unwrap(), Asked::Look(show));
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
            (r#"{"v":1,"request":"unpin"}"#, ErrorCode::InvalidArguments),
            (r#"{"v":1,"request":"list","more":1}"#, ErrorCode::InvalidArguments),
            (r#"{"v":1,"request":"install","packages":[],"grant":"all"}"#, ErrorCode::InvalidArguments),
        ] {
            assert_eq!(asked(line.as_bytes()).unwrap_err().code, code, "{line}");
        }
    }

    #[test]
    fn answers_read_back() {
        let error = Error::new(ErrorCode::UnknownExtension, "none").with_hint("there is a.b");
        let error = Failure::from(&error.clone().with_cause(error));
        for result in [Ok(json!({ "a": [1] })), Ok(Json::Null), Err(error)] {
            assert_eq!(answered(answer(&result).as_bytes()).map_err(|told| *told), result);
        }
        for line in ["", "{", "{}", r#"{"error":1}"#] {
            assert_eq!(answered(line.as_bytes()).unwrap_err().code, "protocol_violation");
        }
    }
}

//! One message to a collector, and what it says:
//! <https://opentelemetry.io/docs/specs/otlp/#otlphttp>.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::header::{CONTENT_TYPE, HOST, HeaderMap, RETRY_AFTER, USER_AGENT};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceResponse;
use prost::Message as _;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::OtlpConfig;
use crate::net::{Connection, Trust};

/// The most bytes of an answer that are read.
const ANSWER: usize = 64 << 10;

/// What came of an attempt.
#[derive(Debug, PartialEq)]
pub(super) enum Sent {
    /// The collector took it, but for what it says here.
    Taken(Option<String>),
    /// It may take the same message later, and says after which time or nothing of that.
    Later(String, Option<Duration>),
    /// It will never take this one.
    Refused(String),
}

/// Sends messages, each over a connection of its own: they are minutes apart.
pub(super) struct Sender {
    config: OtlpConfig,
    trust: Trust,
}

impl Sender {
    pub(super) fn new(config: OtlpConfig) -> Self {
        let trust = Trust::new(Bytes::from(config.certificates.clone()));
        Self { config, trust }
    }

    /// Makes one attempt. It takes no longer than the time that is configured for one.
    pub(super) async fn send(&self, message: Bytes) -> Sent {
        let limit = self.config.timeout;
        match tokio::time::timeout(limit, self.post(message)).await {
            Ok(Ok(sent)) => sent,
            Ok(Err(error)) => Sent::Later(error.to_string(), None),
            Err(_) => Sent::Later(format!("it did not answer in {limit:?}"), None),
        }
    }

    async fn post(&self, message: Bytes) -> Result<Sent, Box<dyn std::error::Error + Send + Sync>> {
        let uri = &self.config.endpoint;
        let (host, is_secure) = (uri.host().unwrap_or_default(), uri.scheme_str() == Some("https"));
        let port = uri.port_u16().unwrap_or(if is_secure { 443 } else { 80 });
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let mut stream = Connection::new(TcpStream::connect((bare, port)).await?);
        if is_secure {
            stream = self.trust.secure(stream, host, port).await.map_err(|insecure| insecure.error)?;
        }
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        // Ends with the attempt.
        let mut driver = JoinSet::new();
        driver.spawn(connection);
        let path = uri.path_and_query().map_or("/", |it| it.as_str());
        let mut request = Request::post(path)
            .header(HOST, uri.authority().map(|it| it.as_str()).unwrap_or_default())
            .header(CONTENT_TYPE, "application/x-protobuf")
            .header(USER_AGENT, concat!("quadriga/", env!("CARGO_PKG_VERSION")));
        for (name, value) in &self.config.headers {
            request = request.header(name, value);
        }
        let answer = sender.send_request(request.body(Full::new(message))?).await?;
        let (status, headers) = (answer.status(), answer.headers().clone());
        if !status.is_success() {
            return Ok(failed(status, &headers));
        }
        // It took the message, whatever becomes of its answer.
        let body = Limited::new(answer.into_body(), ANSWER).collect().await;
        Ok(Sent::Taken(body.ok().and_then(|body| complaint(&body.to_bytes()))))
    }
}

/// What a collector says of a message that it took.
fn complaint(answer: &[u8]) -> Option<String> {
    let answer = ExportMetricsServiceResponse::decode(answer).ok()?.partial_success?;
    let (count, why) = (answer.rejected_data_points, answer.error_message);
    match (count, why.is_empty()) {
        (0, true) => None,
        (0, false) => Some(why),
        _ => Some(format!("{count} data points were rejected: {why}")),
    }
}

fn failed(status: StatusCode, headers: &HeaderMap) -> Sent {
    let why = format!("it answered {status}");
    match status.as_u16() {
        429 | 502 | 503 | 504 => Sent::Later(why, retry_after(headers, SystemTime::now())),
        _ => Sent::Refused(why),
    }
}

/// Seconds or a point in time: RFC 9110, section 10.2.3.
fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let seconds = text.parse().ok().map(Duration::from_secs);
    seconds.or_else(|| httpdate::parse_http_date(text).ok()?.duration_since(now).ok())
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsPartialSuccess;

    use super::*;

    #[test]
    fn answers_say_whether_to_try_again() {
        let later = |seconds: Option<u64>| seconds.map(Duration::from_secs);
        for (status, after, expected) in [
            (400, None, None),
            (401, Some("5"), None),
            (404, None, None),
            (413, None, None),
            (500, Some("5"), None),
            (301, None, None),
            (429, None, Some(None)),
            (429, Some("7"), Some(later(Some(7)))),
            (502, Some("soon"), Some(None)),
            (503, Some(" 0 "), Some(later(Some(0)))),
            (503, Some("-1"), Some(None)),
            (503, Some("Thu, 01 Jan 1970 00:00:00 GMT"), Some(None)),
            (504, None, Some(None)),
        ] {
            let mut headers = HeaderMap::new();
            headers.extend(after.map(|after: &str| (RETRY_AFTER, after.parse().unwrap())));
            let said = match failed(StatusCode::from_u16(status).unwrap(), &headers) {
                Sent::Later(_, after) => Some(after),
                Sent::Refused(_) => None,
                Sent::Taken(_) => panic!("{status} is no success"),
            };
            assert_eq!(said, expected, "{status} {after:?}");
        }
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(100);
        let mut headers = HeaderMap::new();
        headers.insert(RETRY_AFTER, "Thu, 01 Jan 1970 00:02:00 GMT".parse().unwrap());
        assert_eq!(retry_after(&headers, now), Some(Duration::from_secs(20)));
    }

    #[test]
    fn what_was_not_taken_is_told() {
        let answer = |rejected_data_points, error_message: &str| {
            let part =
                ExportMetricsPartialSuccess { rejected_data_points, error_message: error_message.into() };
            complaint(&ExportMetricsServiceResponse { partial_success: Some(part) }.encode_to_vec())
        };
        assert_eq!(answer(0, ""), None);
        assert_eq!(answer(0, "slow down").as_deref(), Some("slow down"));
        assert_eq!(answer(3, "too old").as_deref(), Some("3 data points were rejected: too old"));
        for garbage in [&b""[..], b"<html>", &[0xff; 40]] {
            assert_eq!(complaint(garbage), None);
        }
    }
}

//! Where metrics go, as the environment variables of OpenTelemetry say it:
//! <https://opentelemetry.io/docs/specs/otel/protocol/exporter/> and
//! <https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/>.

use std::fmt;
use std::time::Duration;

use hyper::Uri;
use hyper::header::{HeaderName, HeaderValue};
use percent_encoding::percent_decode_str;
use quadriga_abi::{Error, ErrorCode};

/// What is added to an endpoint that is for all signals.
const PATH: &str = "/v1/metrics";

/// Where the metrics of a host go, how often, and as whose.
#[derive(Clone)]
pub struct OtlpConfig {
    pub(super) endpoint: Uri,
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
    /// From one message to the next.
    pub interval: Duration,
    /// How long one attempt may take to deliver a message.
    pub timeout: Duration,
    /// Certificates in PEM that collectors may have, beside those of Mozilla's authorities.
    pub certificates: String,
    /// What is said of the host as a whole, by the names of OpenTelemetry's conventions.
    pub resource: Vec<(String, String)>,
    /// The first pause before a message is sent again; each next one is twice as long.
    pub(super) pause: Duration,
}

impl OtlpConfig {
    /// For a collector that speaks OTLP over HTTP, such as `http://127.0.0.1:4318`: messages are posted to
    /// `/v1/metrics` below that, each minute.
    ///
    /// # Errors
    /// `invalid_arguments`, if it is no URL with `http` or `https`.
    pub fn new(collector: &str) -> Result<Self, Error> {
        Self::at(&format!("{}{PATH}", collector.trim_end_matches('/')))
    }

    fn at(endpoint: &str) -> Result<Self, Error> {
        let wrong = |why: &str| {
            let error = Error::new(ErrorCode::InvalidArguments, format!("{endpoint:?} is no URL: {why}"));
            error.with_hint("expected one such as http://127.0.0.1:4318")
        };
        let uri: Uri =
            endpoint.parse().map_err(|error: hyper::http::uri::InvalidUri| wrong(&error.to_string()))?;
        match (uri.scheme_str(), uri.host()) {
            (Some("http" | "https"), Some(_)) => {}
            (_, None) => return Err(wrong("it names no host")),
            _ => return Err(wrong("it begins with neither http:// nor https://")),
        }
        if uri.authority().is_some_and(|it| it.as_str().contains('@')) {
            return Err(wrong("a password does not belong there; OTEL_EXPORTER_OTLP_HEADERS takes one"));
        }
        let resource = [
            ("service.name", "quadriga".to_owned()),
            ("service.version", env!("CARGO_PKG_VERSION").to_owned()),
            // Two hosts never write to one stream.
            ("service.instance.id", format!("{:032x}", fastrand::u128(..))),
        ];
        Ok(Self {
            endpoint: uri,
            headers: Vec::new(),
            interval: Duration::from_secs(60),
            timeout: Duration::from_secs(10),
            certificates: String::new(),
            resource: resource.map(|(key, value)| (key.to_owned(), value)).to_vec(),
            pause: Duration::from_secs(1),
        })
    }

    /// For the collector that is named here, or else by `OTEL_EXPORTER_OTLP_METRICS_ENDPOINT` or
    /// `OTEL_EXPORTER_OTLP_ENDPOINT`; `None` if none is. Also heeds `OTEL_EXPORTER_OTLP_HEADERS`,
    /// `_TIMEOUT` and `_CERTIFICATE`, each also with `METRICS_` before its last word,
    /// `OTEL_METRIC_EXPORT_INTERVAL`, `OTEL_SERVICE_NAME` and `OTEL_RESOURCE_ATTRIBUTES`; and unless a
    /// collector is named here, `OTEL_METRICS_EXPORTER=none` and `OTEL_SDK_DISABLED`.
    ///
    /// # Errors
    /// `invalid_arguments`, with the variable that cannot be read; `unsupported`, if a protocol other than
    /// `http/protobuf` is wanted.
    pub fn from_environment(
        collector: Option<&str>,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Option<Self>, Error> {
        // What is empty is not set.
        let set = |name: &str| variable(name).filter(|value| !value.trim().is_empty());
        let of_metrics = |name: &str| {
            let special = format!("OTEL_EXPORTER_OTLP_METRICS_{name}");
            let general = format!("OTEL_EXPORTER_OTLP_{name}");
            set(&special)
                .map(|value| (special, value))
                .or_else(|| set(&general).map(|value| (general, value)))
        };
        let is_off = set("OTEL_SDK_DISABLED").is_some_and(|it| it.eq_ignore_ascii_case("true"))
            || set("OTEL_METRICS_EXPORTER").is_some_and(|it| it == "none");
        let mut config = match (collector, of_metrics("ENDPOINT")) {
            (Some(collector), _) => Self::new(collector)?,
            (None, Some(_)) if is_off => return Ok(None),
            (None, Some((name, url))) if name.contains("METRICS") => Self::at(&url)?,
            (None, Some((_, url))) => Self::new(&url)?,
            (None, None) => return Ok(None),
        };
        if let Some((name, protocol)) = of_metrics("PROTOCOL").filter(|(_, it)| it != "http/protobuf") {
            let message = format!("{name} is {protocol:?}, and only http/protobuf is spoken");
            let hint = "collectors take that at port 4318";
            return Err(Error::new(ErrorCode::Unsupported, message).with_hint(hint));
        }
        for name in ["OTEL_EXPORTER_OTLP_HEADERS", "OTEL_EXPORTER_OTLP_METRICS_HEADERS"] {
            for (key, value) in pairs(name, set(name))? {
                // The value may be a secret: it is not told.
                let header = HeaderName::try_from(&key).ok().zip(HeaderValue::try_from(value).ok());
                let (key, mut value) = header.ok_or_else(|| wrong(name, &format!("{key} is no header")))?;
                value.set_sensitive(true);
                config.headers.retain(|(other, _)| *other != key);
                config.headers.push((key, value));
            }
        }
        if let Some((name, text)) = of_metrics("TIMEOUT") {
            config.timeout = millis(&name, &text)?;
        }
        if let Some((name, path)) = of_metrics("CERTIFICATE") {
            config.certificates =
                std::fs::read_to_string(path).map_err(|error| wrong(&name, &error.to_string()))?;
            crate::net::check_certificates(&config.certificates)?;
        }
        if let Some(text) = set("OTEL_METRIC_EXPORT_INTERVAL") {
            config.interval = millis("OTEL_METRIC_EXPORT_INTERVAL", &text)?;
        }
        let attributes = pairs("OTEL_RESOURCE_ATTRIBUTES", set("OTEL_RESOURCE_ATTRIBUTES"))?;
        let name = set("OTEL_SERVICE_NAME").map(|name| ("service.name".to_owned(), name));
        for (key, value) in attributes.into_iter().chain(name) {
            config.resource.retain(|(other, _)| *other != key);
            config.resource.push((key, value));
        }
        Ok(Some(config))
    }

    /// Where messages are posted.
    pub fn endpoint(&self) -> String {
        self.endpoint.to_string()
    }
}

impl fmt::Debug for OtlpConfig {
    /// Without the headers, which may be secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OtlpConfig")
            .field("endpoint", &self.endpoint)
            .field("interval", &self.interval)
            .field("timeout", &self.timeout)
            .field("resource", &self.resource)
            .finish_non_exhaustive()
    }
}

/// Reads `key=value,key=value`, with `%` and two digits for what cannot be written so.
fn pairs(name: &str, text: Option<String>) -> Result<Vec<(String, String)>, Error> {
    let decoded = |text: &str| percent_decode_str(text.trim()).decode_utf8().map(String::from).ok();
    let pair = |text: &str| {
        let (key, value) = text.split_once('=')?;
        decoded(key).filter(|key| !key.is_empty()).zip(decoded(value))
    };
    let text = text.unwrap_or_default();
    let each = text.split(',').filter(|it| !it.trim().is_empty());
    let all: Option<Vec<_>> = each.map(pair).collect();
    all.ok_or_else(|| wrong(name, "expected key=value, with commas between them"))
}

fn millis(name: &str, text: &str) -> Result<Duration, Error> {
    // Up to seven weeks.
    let count = text.trim().parse::<u32>().ok().filter(|count| *count > 0);
    let count = count.map(|count| Duration::from_millis(count.into()));
    count.ok_or_else(|| wrong(name, "expected milliseconds, at least 1"))
}

fn wrong(name: &str, why: &str) -> Error {
    Error::new(ErrorCode::InvalidArguments, format!("{name} cannot be read: {why}"))
}

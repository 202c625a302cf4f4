//! What is asked for, and how a redirect changes that.

use hyper::header::{
    ACCEPT, AUTHORIZATION, CONTENT_ENCODING, CONTENT_LANGUAGE, CONTENT_LENGTH, CONTENT_LOCATION,
    CONTENT_TYPE, COOKIE, HOST, HeaderMap, HeaderName, HeaderValue, USER_AGENT,
};
use hyper::{Method, StatusCode};
use quadriga_abi::{Bytes, Error, ErrorCode, codec};
use serde_bytes::ByteBuf;
use url::Url;

/// What a connection is about is for us to say; with these a guest could make two requests of one.
const OURS: [&str; 11] = [
    "connection",
    "content-length",
    "expect",
    "host",
    "keep-alive",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// What is done about a redirect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Redirect {
    Follow,
    Fail,
    Return,
}

/// A request, ready to be sent.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) method: Method,
    pub(super) url: Url,
    pub(super) headers: HeaderMap,
    pub(super) body: Option<Bytes>,
    pub(super) redirect: Redirect,
}

fn wrong(what: String) -> Error {
    Error::new(ErrorCode::InvalidArguments, what)
}

impl Request {
    /// Reads what the script wrote.
    pub(super) fn from_bytes(bytes: &[u8]) -> Result<Self, Error> {
        /// Method, URL, headers, body and what to do about a redirect.
        type Parts = (String, String, Vec<String>, Option<ByteBuf>, String);

        let (method, url, headers, body, redirect): Parts =
            codec::from_bytes(bytes).map_err(|error| wrong(format!("no request: {error}")))?;
        let method = Method::from_bytes(method.as_bytes())
            .ok()
            .filter(|method| !matches!(*method, Method::CONNECT | Method::TRACE))
            .ok_or_else(|| wrong(format!("{method:?} is no method of a request")))?;
        let redirect = match &*redirect {
            "error" => Redirect::Fail,
            "manual" => Redirect::Return,
            _ => Redirect::Follow,
        };
        let url = usable(Url::parse(&url).map_err(|error| wrong(format!("{url:?} is no URL: {error}")))?)?;
        let body = body.map(|body| Bytes::from(body.into_vec()));
        Ok(Self { method, url, headers: headers_of(&headers)?, body, redirect })
    }

    /// The host and port to connect to.
    pub(super) fn target(&self) -> Result<(&str, u16), Error> {
        let host = self.url.host_str().zip(self.url.port_or_known_default());
        host.ok_or_else(|| wrong(format!("{} names no host", self.url)))
    }

    /// What goes into the header `Host`.
    pub(super) fn host(&self) -> Result<HeaderValue, Error> {
        let host = self.url.host_str().unwrap_or_default();
        let text = self.url.port().map_or(host.to_owned(), |port| format!("{host}:{port}"));
        HeaderValue::from_str(&text).map_err(|_| wrong(format!("{} names no host", self.url)))
    }

    /// What comes next after a response: another request, or this response.
    ///
    /// # Errors
    /// If there may be no redirect, or it leads nowhere.
    pub(super) fn follow(&mut self, status: StatusCode, headers: &HeaderMap) -> Result<bool, Error> {
        let location = headers.get(hyper::header::LOCATION).filter(|_| is_redirect(status));
        let Some(location) = location.filter(|_| self.redirect != Redirect::Return) else {
            return Ok(false);
        };
        if self.redirect == Redirect::Fail {
            return Err(wrong(format!("{} answers with a redirect, which the request refuses", self.url)));
        }
        let nowhere = || wrong(format!("{} leads nowhere: {location:?}", self.url));
        let text = str::from_utf8(location.as_bytes()).map_err(|_| nowhere())?;
        let mut url = self.url.join(text).map_err(|_| nowhere()).and_then(usable)?;
        if url.fragment().is_none() {
            url.set_fragment(self.url.fragment());
        }
        let turns_to_get = match status {
            StatusCode::SEE_OTHER => !matches!(self.method, Method::GET | Method::HEAD),
            StatusCode::MOVED_PERMANENTLY | StatusCode::FOUND => self.method == Method::POST,
            _ => false,
        };
        if turns_to_get {
            (self.method, self.body) = (Method::GET, None);
            for name in [CONTENT_ENCODING, CONTENT_LANGUAGE, CONTENT_LOCATION, CONTENT_TYPE, CONTENT_LENGTH] {
                self.headers.remove(name);
            }
        }
        // What proves who somebody is, is for those whom it was given to.
        if url.origin() != self.url.origin() {
            for name in [AUTHORIZATION, COOKIE, HOST] {
                self.headers.remove(name);
            }
        }
        self.url = url;
        Ok(true)
    }
}

fn is_redirect(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}

fn usable(url: Url) -> Result<Url, Error> {
    match url.scheme() {
        "http" | "https" if url.username().is_empty() && url.password().is_none() => Ok(url),
        "http" | "https" => {
            Err(wrong("a URL with a name or password in it; use the header authorization".to_owned()))
        }
        other => Err(wrong(format!("fetch does not know the scheme {other:?} of {url}"))),
    }
}

/// From names and values in turn, a character for each byte.
fn headers_of(list: &[String]) -> Result<HeaderMap, Error> {
    let mut headers = HeaderMap::new();
    headers.insert(ACCEPT, HeaderValue::from_static("*/*"));
    headers.insert(USER_AGENT, HeaderValue::from_static(concat!("quadriga/", env!("CARGO_PKG_VERSION"))));
    let mut given = HeaderMap::new();
    for pair in list.chunks_exact(2) {
        let malformed = || wrong(format!("the header {:?} is malformed", pair[0]));
        let name: HeaderName = pair[0].parse().map_err(|_| malformed())?;
        let bytes: Vec<u8> = pair[1]
            .chars()
            .map(|letter| u8::try_from(u32::from(letter)))
            .collect::<Result<_, _>>()
            .map_err(|_| malformed())?;
        let value = HeaderValue::from_bytes(&bytes).map_err(|_| malformed())?;
        if !OURS.contains(&name.as_str()) {
            given.append(name, value);
        }
    }
    for name in given.keys() {
        headers.remove(name);
    }
    headers.extend(given);
    Ok(headers)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(method: &str, url: &str, headers: &[&str]) -> Result<Request, Error> {
        let parts = (method, url, headers, Some(ByteBuf::from(b"body".to_vec())), "follow");
        Request::from_bytes(&codec::to_bytes(&parts).unwrap())
    }

    #[test]
    fn what_cannot_be_sent_is_refused() {
        let cases: [(&str, &str, &[&str], ErrorCode, &str); 9] = [
            ("GET", "/path", &[], ErrorCode::InvalidArguments, "is no URL"),
            ("GET", "https://me@a/", &[], ErrorCode::InvalidArguments, "a name or password"),
            ("GET", "file:///etc/passwd", &[], ErrorCode::InvalidArguments, "the scheme \"file\""),
            ("GET", "http://me:secret@a/", &[], ErrorCode::InvalidArguments, "a name or password"),
            ("G T", "http://a/", &[], ErrorCode::InvalidArguments, "no method"),
            ("CONNECT", "http://a/", &[], ErrorCode::InvalidArguments, "no method"),
            ("GET", "http://a/", &["a b", "c"], ErrorCode::InvalidArguments, "malformed"),
            ("GET", "http://a/", &["a", "c\r\nd: e"], ErrorCode::InvalidArguments, "malformed"),
            ("GET", "http://a/", &["a", "\u{100}"], ErrorCode::InvalidArguments, "malformed"),
        ];
        for (method, url, headers, code, says) in cases {
            let error = request(method, url, headers).unwrap_err();
            assert!(error.code == code && error.message.contains(says), "{method} {url}: {error:?}");
        }
    }

    #[test]
    fn headers_are_the_guests_but_for_those_of_the_connection() {
        let list = ["Host", "b", "content-length", "9", "Accept", "text/plain", "X", "1", "x", "\u{e9}"];
        let headers = request("POST", "http://a:8080/", &list).unwrap().headers;
        assert!(headers.get(HOST).is_none() && headers.get(CONTENT_LENGTH).is_none());
        assert_eq!(headers.get_all(ACCEPT).iter().collect::<Vec<_>>(), ["text/plain"]);
        let values: Vec<_> = headers.get_all("x").iter().map(HeaderValue::as_bytes).collect();
        assert_eq!(values, [&b"1"[..], b"\xe9"]);
    }

    #[test]
    fn redirects_change_what_they_must() {
        let cases = [
            (301, "POST", "/b?c", Some(("GET", "http://a:1/b?c", true))),
            (302, "PUT", "//b/", Some(("PUT", "http://b/", false))),
            (303, "PUT", "http://a:1/", Some(("GET", "http://a:1/", true))),
            (303, "HEAD", "c", Some(("HEAD", "http://a:1/x/c", true))),
            (307, "POST", "http://a:2/", Some(("POST", "http://a:2/", false))),
            (308, "POST", "http://a:1/", Some(("POST", "http://a:1/", true))),
            (304, "GET", "/b", None),
            (200, "GET", "/b", None),
        ];
        for (status, method, location, after) in cases {
            let mut asked = request(method, "http://a:1/x/y", &["authorization", "key"]).unwrap();
            let headers = HeaderMap::from_iter([(hyper::header::LOCATION, location.parse().unwrap())]);
            let followed = asked.follow(StatusCode::from_u16(status).unwrap(), &headers).unwrap();
            let now = (asked.method.as_str(), asked.url.as_str(), asked.headers.contains_key(AUTHORIZATION));
            assert_eq!(followed.then_some(now), after, "{status} {method} {location}");
            let keeps = asked.method.as_str() == method;
            assert_eq!(asked.body.is_some(), keeps, "{status} {method} {location}");
        }
        let mut asked = request("GET", "http://a/", &[]).unwrap();
        let to_file = HeaderMap::from_iter([(hyper::header::LOCATION, "file:///x".parse().unwrap())]);
        assert!(asked.follow(StatusCode::FOUND, &to_file).is_err());
    }
}

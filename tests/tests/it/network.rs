//! The network, as extensions use it in their own ways: what was granted is reached, and nothing
//! else, in the host's process and in workers.

mod authority;
mod server;

use std::time::Duration;

use quadriga::abi::permission::{AccessKind, NetPattern, Permissions};
use quadriga::abi::{Error, ErrorCode, Isolation};
use quadriga::{DecisionFilter, Dispatcher, Effect, Grant, LoadOptions, Policy, Verdict};
use quadriga_tests::{guest, with};
use tempfile::TempDir;

use authority::Authority;
use server::Server;

/// Where each language can be let at the network.
const PLACES: &[(&str, Isolation)] = &[
    ("js", Isolation::InProcess),
    ("js", Isolation::Process),
    ("js", Isolation::Container),
    ("wasm", Isolation::InProcess),
    ("wasm", Isolation::Process),
    ("wasm", Isolation::Container),
    ("python", Isolation::Process),
    ("python", Isolation::Container),
    ("native", Isolation::Process),
    ("native", Isolation::Container),
];

/// How long what is quick may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

struct Guest {
    host: Dispatcher,
    id: String,
    _package: TempDir,
}

impl Guest {
    async fn load(language: &str, isolation: Isolation, net: &[String], grant: Grant) -> Result<Self, Error> {
        Self::load_with(Policy::default(), language, isolation, net, grant).await
    }

    async fn load_with(
        policy: Policy,
        language: &str,
        isolation: Isolation,
        net: &[String],
        grant: Grant,
    ) -> Result<Self, Error> {
        let host = quadriga::builder().policy(policy).build().unwrap();
        let asks = if net.is_empty() { String::new() } else { format!("[permissions]\nnet = {net:?}") };
        let package = with(&guest("network", language), &asks);
        let options = LoadOptions { grant, isolation: Some(isolation), ..LoadOptions::default() };
        let id = host.load(package.path(), options).await?.to_string();
        Ok(Self { host, id, _package: package })
    }

    async fn granted(language: &str, isolation: Isolation, net: &[String]) -> Self {
        Self::load(language, isolation, net, Grant::Requested).await.unwrap()
    }

    async fn get(&self, url: &str) -> Result<String, Error> {
        self.host.invoke(&self.id, "get", &(url,)).await
    }

    /// It was denied, said so in its own way, and the host knows of what.
    async fn is_denied(&self, url: &str, what: &str) {
        let filter = DecisionFilter { verdict: Some(Verdict::Denied), ..DecisionFilter::default() };
        let before = self.host.accesses(&self.id).unwrap()[&AccessKind::Net].denied;
        let error = self.get(url).await.unwrap_err();
        let text = format!("{error:?}");
        match &self.id[..] {
            "network.js" => {
                assert_eq!(error.code, ErrorCode::PermissionDenied, "{text}");
                assert!(text.contains(&format!("may not {what}")), "{text}");
            }
            "network.wasm" => assert!(text.contains("HttpRequestDenied"), "{text}"),
            _ => assert!(text.contains(&format!("permission_denied: {} may not {what}", self.id)), "{text}"),
        }
        let denied = self.host.decisions(&self.id, &filter).unwrap();
        assert_eq!(denied.last().map(|decision| &*decision.what), Some(what), "{text}");
        let after = self.host.accesses(&self.id).unwrap()[&AccessKind::Net].denied;
        assert_eq!(after, before + 1, "{text}");
    }
}

fn net(patterns: &[String]) -> Permissions {
    let net = patterns.iter().map(|text| NetPattern::try_from(text.clone()).unwrap()).collect();
    Permissions { net, ..Permissions::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_granted_is_reached_and_nothing_else() {
    for (language, isolation) in PLACES {
        eprintln!("{language} at {isolation}");
        let (server, other) = (Server::start(), Server::start());
        let ask = [server.pattern()];
        let guest = Guest::granted(language, *isolation, &ask).await;
        assert_eq!(guest.get(&server.url("/hello")).await.unwrap(), "200 hello");
        let posted: String =
            guest.host.invoke(&guest.id, "post", &(server.url("/echo"), "a body")).await.unwrap();
        assert_eq!(posted, "200 a body");
        let large = guest.get(&server.url("/large")).await.unwrap();
        assert_eq!(large.len(), "200 ".len() + server::LARGE);

        let to_other = format!("connect to 127.0.0.1:{}", other.port());
        guest.is_denied(&other.url("/hello"), &to_other).await;
        let as_localhost = format!("connect to localhost:{}", server.port());
        guest.is_denied(&format!("http://localhost:{}/hello", server.port()), &as_localhost).await;
        // A redirect is a request of its own.
        if !matches!(*language, "wasm" | "native") {
            let redirect = |to: &str| server.url(&format!("/redirect?{to}"));
            assert_eq!(guest.get(&redirect("/hello")).await.unwrap(), "200 hello");
            guest.is_denied(&redirect(&other.url("/hello")), &to_other).await;
        }
        assert_eq!(other.requests(), 0, "{language} at {isolation}");
        assert!(guest.host.accesses(&guest.id).unwrap()[&AccessKind::Net].allowed >= 3);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_grants_come_and_go_while_it_runs() {
    let authority = Authority::new();
    let tls = [None, Some(authority.certify("127.0.0.1"))];
    for ((language, isolation), tls) in
        PLACES.iter().flat_map(|place| tls.iter().map(move |tls| (place, tls)))
    {
        if *language == "native" && tls.is_some() {
            // It brings no TLS.
            continue;
        }
        eprintln!("{language} at {isolation}, {}", if tls.is_some() { "https" } else { "http" });
        let server = Server::listen("127.0.0.1:0", tls.clone());
        let ask = [server.pattern()];
        let policy = Policy { trusted_certificates: authority.pem(), ..Policy::default() };
        let guest = Guest::load_with(policy, language, *isolation, &ask, Grant::Nothing).await.unwrap();
        let what = format!("connect to 127.0.0.1:{}", server.port());
        guest.is_denied(&server.url("/hello"), &what).await;
        assert_eq!(guest.host.grant(&guest.id, &net(&ask)).unwrap(), Effect::Now);
        assert_eq!(guest.get(&server.url("/hello")).await.unwrap(), "200 hello");

        // The server sends half of what it said it would, and waits.
        let slow = tokio::spawn({
            let (host, id, url) = (guest.host.clone(), guest.id.clone(), server.url("/half"));
            async move { host.invoke::<String>(&id, "get", &(url,)).await }
        });
        server.until(|server| server.halves() == 1).await;
        assert_eq!(guest.host.revoke(&guest.id, &net(&ask)).unwrap(), Effect::Now);
        let cut = tokio::time::timeout(PATIENCE, slow).await.expect("it is cut").unwrap().unwrap_err();
        let text = format!("{cut:?}");
        // The head of the answer may have come through by then, or not.
        let says: &[&str] = match *language {
            "js" => &["the connection was cut"],
            "python" if tls.is_some() => &["IncompleteRead", "RemoteDisconnected", "EOF occurred"],
            "python" => &["IncompleteRead", "permission_denied: the connection was cut"],
            "native" => &["an answer that was cut", "permission_denied: the connection was cut"],
            _ => &["HTTP request denied", "HttpRequestDenied"],
        };
        assert!(says.iter().any(|says| text.contains(says)), "{language}: {text}");
        guest.is_denied(&server.url("/hello"), &what).await;
        assert_eq!(guest.host.status(&guest.id).unwrap().metrics.errors, 3, "it runs on");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asks_for_no_network_has_none() {
    let server = Server::start();
    for (language, isolation) in PLACES {
        let guest = Guest::granted(language, *isolation, &[]).await;
        let error = guest.get(&server.url("/hello")).await.unwrap_err();
        let text = format!("{error:?}");
        let says = match *language {
            "js" => format!("network.js may not connect to 127.0.0.1:{}", server.port()),
            "wasm" => "HttpRequestDenied".to_owned(),
            "native" => "no proxy for".to_owned(),
            _ => "Operation not permitted".to_owned(),
        };
        assert!(text.contains(&says), "{language} at {isolation}: {text}");
    }
    assert_eq!(server.requests(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn https_believes_whom_its_host_believes() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    for (language, isolation) in PLACES.iter().filter(|(language, _)| *language != "native") {
        eprintln!("{language} at {isolation}");
        let start = |tls| Server::listen("127.0.0.1:0", Some(tls));
        let (server, named) = (start(authority.certify("127.0.0.1")), start(authority.certify("localhost")));
        let (strange, other) = (start(stranger.certify("127.0.0.1")), start(authority.certify("127.0.0.1")));
        let ask =
            [server.pattern(), strange.pattern(), named.pattern(), format!("localhost:{}", named.port())];
        let policy = Policy { trusted_certificates: authority.pem(), ..Policy::default() };
        let guest = Guest::load_with(policy, language, *isolation, &ask, Grant::Requested).await.unwrap();
        assert_eq!(guest.get(&server.url("/hello")).await.unwrap(), "200 hello");
        assert_eq!(guest.get(&named.url_by("localhost", "/hello")).await.unwrap(), "200 hello");
        let posted: String =
            guest.host.invoke(&guest.id, "post", &(server.url("/echo"), "a body")).await.unwrap();
        assert_eq!(posted, "200 a body");
        let large = guest.get(&server.url("/large")).await.unwrap();
        assert_eq!(large.len(), "200 ".len() + server::LARGE);

        let cases = [
            (&strange, "nobody signed whom this host trusts", "unable to get local issuer certificate"),
            (&named, "has a certificate for other names", "certificate is not valid for '127.0.0.1'"),
        ];
        for (server, ours, openssl) in cases {
            let error = guest.get(&server.url("/hello")).await.unwrap_err();
            let text = format!("{error:?}");
            let says = match *language {
                "js" => format!("127.0.0.1:{} has a certificate", server.port()),
                "wasm" => "TlsCertificateError".to_owned(),
                _ => "CERTIFICATE_VERIFY_FAILED".to_owned(),
            };
            assert!(text.contains(&says), "{language}: {text}");
            let says = if *language == "python" { openssl } else { ours };
            assert!(*language == "wasm" || text.contains(says), "{language}: {text}");
        }
        let what = format!("connect to 127.0.0.1:{}", other.port());
        guest.is_denied(&other.url("/hello"), &what).await;
        assert_eq!(other.requests(), 0, "{language} at {isolation}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn https_of_a_server_without_it_says_so() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            std::io::Write::write_all(&mut stream, b"HTTP/1.1 400 Bad Request\r\n\r\n").unwrap();
            // Closed only after the client, so that it reads this first.
            let _ = std::io::Read::read_to_end(&mut stream, &mut Vec::new());
        }
    });
    let (ask, url) = ([format!("127.0.0.1:{port}")], format!("https://127.0.0.1:{port}/"));
    for (language, says) in [("js", "does not speak TLS"), ("wasm", "TlsProtocolError")] {
        let guest = Guest::granted(language, Isolation::InProcess, &ask).await;
        let error = guest.get(&url).await.unwrap_err();
        assert!(format!("{error:?}").contains(says), "{error:?}");
    }
    // Nobody is believed who is not on a list.
    let policy = Policy { trusted_certificates: "what is this?".to_owned(), ..Policy::default() };
    let error = quadriga::builder().policy(policy).build().err().unwrap();
    assert!(error.to_string().contains("no certificate in PEM"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_addresses_of_ipv6_are_in_brackets() {
    for (language, isolation) in PLACES {
        eprintln!("{language} at {isolation}");
        let (server, other) = (Server::listen("[::1]:0", None), Server::listen("[::1]:0", None));
        let guest = Guest::granted(language, *isolation, &[format!("[::1]:{}", server.port())]).await;
        let host = format!("200 [::1]:{}", server.port());
        assert_eq!(guest.get(&server.url_by("[::1]", "/host")).await.unwrap(), host);
        let error = guest.get(&other.url_by("[::1]", "/hello")).await.unwrap_err();
        let says = if *language == "wasm" { "HttpRequestDenied" } else { "may not connect to [::1]:" };
        assert!(format!("{error:?}").contains(says), "{error:?}");
        assert_eq!(other.requests(), 0);
    }
}

/// In the host's process native code and Python could not be held to it.
#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_held_to_it_goes_to_a_worker() {
    let server = Server::start();
    let host = quadriga_tests::host();
    let package =
        with(&guest("network", "python"), &format!("[permissions]\nnet = [{:?}]", server.pattern()));
    let options = LoadOptions { grant: Grant::Requested, ..LoadOptions::default() };
    let id = host.load(package.path(), options).await.unwrap().to_string();
    assert_eq!(host.status(&id).unwrap().isolation, Isolation::Process);
    let hello: String = host.invoke(&id, "get", &(server.url("/hello"),)).await.unwrap();
    assert_eq!(hello, "200 hello");
}

#[tokio::test(flavor = "multi_thread")]
async fn python_has_the_proxy_and_nothing_beside_it() {
    for isolation in [Isolation::Process, Isolation::Container] {
        let (server, other) = (Server::start(), Server::start());
        let guest = Guest::granted("python", isolation, &[server.pattern()]).await;
        let (host, id) = (&guest.host, &*guest.id);
        let tunnelled: String = host.invoke(id, "tunnelled", &(server.url("/hello"),)).await.unwrap();
        assert_eq!(tunnelled, "200 hello");
        let error = host.invoke::<String>(id, "tunnelled", &(other.url("/hello"),)).await.unwrap_err();
        let says = format!(
            "Tunnel connection failed: 403 permission_denied: network.python may not connect to 127.0.0.1:{}",
            other.port()
        );
        assert!(format!("{error:?}").contains(&says), "{error:?}");
        // Not even what it was granted is there without the proxy.
        for (to, port) in [("127.0.0.1", server.port()), ("127.0.0.1", other.port()), ("1.1.1.1", 53)] {
            let said: String = host.invoke(id, "raw", &(to, port)).await.unwrap();
            assert_ne!(said, "connected", "{to}:{port}");
        }
        let said: String = host.invoke(id, "listen", &()).await.unwrap();
        assert_eq!(said, "PermissionError");
        // A request is for whom its first line names.
        let said: String = host.invoke(id, "lie", &(server.url("/host"), "elsewhere")).await.unwrap();
        assert_eq!(said, format!("127.0.0.1:{}", server.port()));
        let cases = [
            ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", "HTTP/1.1 400 invalid_arguments: this is a proxy"),
            ("CONNECT nowhere HTTP/1.1\r\n\r\n", "HTTP/1.1 400 "),
            ("GET https://127.0.0.1/ HTTP/1.1\r\nHost: a\r\n\r\n", "HTTP/1.1 400 invalid_arguments"),
            ("GET http://127.0.0.1:1/ HTTP/1.1\r\nHost: a\r\n\r\n", "HTTP/1.1 403 permission_denied"),
            ("nonsense\r\n\r\n", "HTTP/1.1 400 Bad Request"),
        ];
        for (text, answer) in cases {
            let said: String = host.invoke(id, "say", &(text,)).await.unwrap();
            assert!(said.starts_with(answer), "{text:?}: {said:?}");
        }
        let endless = format!("GET http://127.0.0.1:1/ HTTP/1.1\r\nx: {}", "a".repeat(1 << 20));
        let said = host.invoke::<String>(id, "say", &(endless,)).await;
        assert!(said.as_ref().map_or(true, |said| said.contains(" 431 ") || said.is_empty()), "{said:?}");
        // Connections that say nothing are let go, and others served.
        let held: u32 = host.invoke(id, "hog", &(100,)).await.unwrap();
        assert!(held >= 64, "{held}");
        assert_eq!(guest.get(&server.url("/hello")).await.unwrap(), "200 hello");
        assert_eq!(other.requests(), 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn fetch_is_what_the_web_platform_has() {
    for isolation in [Isolation::InProcess, Isolation::Process] {
        let server = Server::start();
        let guest = Guest::granted("js", isolation, &[server.pattern()]).await;
        let (host, id) = (&guest.host, &*guest.id);
        let tour: serde_json::Value = host.invoke(id, "tour", &(server.url("/echo"),)).await.unwrap();
        let expected = serde_json::json!({
            "parsed": {}, "ok": true, "status": 200, "statusText": "Fine", "type": "text/plain",
            "none": null, "used": [true, true], "twin": true, "url": true, "redirected": false,
            "made": [201, "application/json", 1], "again": "TypeError", "names": ["x-one"],
            "buffer": 3, "bytes": [1, 2], "head": "",
        });
        assert_eq!(tour, expected);
        let caught: Vec<String> = host.invoke(id, "caught", &("http://127.0.0.1:1/",)).await.unwrap();
        let hint =
            "ask for it in the manifest, [permissions] net = [\"127.0.0.1:1\"], and have the host grant it";
        let expected = [
            "TypeError",
            "fetch failed: network.js may not connect to 127.0.0.1:1",
            "permission_denied",
            hint,
        ];
        assert_eq!(caught, expected);
        let cases = [
            ("/relative", "is no URL", "invalid_arguments"),
            ("https://127.0.0.1/", "may not connect to 127.0.0.1:443", "permission_denied"),
            ("ftp://127.0.0.1/", "does not know the scheme", "invalid_arguments"),
            (&server.url("/redirect?/redirect?/"), "", "undefined"),
            (&server.url("/loop"), "more than 20 redirects", "connection_failed"),
            (&server.url("/reset"), "the connection failed", "connection_failed"),
        ];
        for (url, says, code) in cases {
            let caught: Vec<String> = host.invoke(id, "caught", &(url,)).await.unwrap();
            if code == "undefined" {
                assert_eq!(caught, ["nothing"], "{url}");
            } else {
                assert_eq!((&*caught[0], &*caught[2]), ("TypeError", code), "{url}: {caught:?}");
                assert!(caught[1].contains(says), "{url}: {caught:?}");
            }
        }
        let said: String = host.invoke(id, "impatient", &(server.url("/half"), 200)).await.unwrap();
        assert_eq!(said, "TimeoutError");
        let said: String = host.invoke(id, "impatient", &(server.url("/never"), 200)).await.unwrap();
        assert_eq!(said, "TimeoutError");
    }
}

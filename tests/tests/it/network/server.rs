//! A small server of HTTP, with TLS or without, on threads of its own.

use std::io::{BufRead as _, BufReader, Read, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rustls::{ServerConfig, ServerConnection, StreamOwned};

/// The bytes of a large answer.
pub(crate) const LARGE: usize = 1 << 20;

#[derive(Clone)]
pub(crate) struct Server {
    port: u16,
    scheme: &'static str,
    seen: Arc<Seen>,
}

#[derive(Default)]
struct Seen {
    connections: AtomicUsize,
    halves: AtomicUsize,
}

impl Server {
    pub(crate) fn start() -> Self {
        Self::listen("127.0.0.1:0", None)
    }

    pub(crate) fn listen(address: &str, tls: Option<Arc<ServerConfig>>) -> Self {
        let listener = TcpListener::bind(address).unwrap();
        let (port, scheme) =
            (listener.local_addr().unwrap().port(), tls.as_ref().map_or("http", |_| "https"));
        let server = Self { port, scheme, seen: Arc::default() };
        let seen = Arc::clone(&server.seen);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                seen.connections.fetch_add(1, Ordering::SeqCst);
                let (seen, tls) = (Arc::clone(&seen), tls.clone());
                std::thread::spawn(move || match tls {
                    None => serve(stream, &seen),
                    Some(tls) => {
                        let tls = ServerConnection::new(tls).ok()?;
                        serve(StreamOwned::new(tls, stream), &seen)
                    }
                });
            }
        });
        server
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// What has to be granted to reach it.
    pub(crate) fn pattern(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    pub(crate) fn url(&self, path: &str) -> String {
        self.url_by("127.0.0.1", path)
    }

    /// By another name.
    pub(crate) fn url_by(&self, host: &str, path: &str) -> String {
        format!("{}://{host}:{}{path}", self.scheme, self.port)
    }

    /// How many connections it has seen.
    pub(crate) fn requests(&self) -> usize {
        self.seen.connections.load(Ordering::SeqCst)
    }

    /// How many answers it has sent half of.
    pub(crate) fn halves(&self) -> usize {
        self.seen.halves.load(Ordering::SeqCst)
    }

    pub(crate) async fn until(&self, so: impl Fn(&Self) -> bool) {
        let late = Instant::now() + Duration::from_secs(20);
        while !so(self) {
            assert!(Instant::now() < late, "it never became so");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}

/// One request, and then the end of the connection. Whoever asked may go at any time.
fn serve(stream: impl Read + Write, seen: &Seen) -> Option<()> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let mut words = line.split_whitespace();
    let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
    let (mut length, mut host, mut chunked) = (0, String::new(), false);
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        match &*name.to_ascii_lowercase() {
            "content-length" => length = value.parse().ok()?,
            "host" => host = value.to_owned(),
            "transfer-encoding" => chunked = value == "chunked",
            _ => {}
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    if chunked {
        body = dechunk(&mut reader)?;
    }
    answer(reader.get_mut(), seen, &method, &path, &host, &body)
}

fn dechunk(reader: &mut BufReader<impl Read>) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let mut chunk = vec![0; usize::from_str_radix(line.trim(), 16).ok()? + 2];
        reader.read_exact(&mut chunk).ok()?;
        if chunk.len() == 2 {
            return Some(body);
        }
        body.extend_from_slice(&chunk[..chunk.len() - 2]);
    }
}

fn answer<S: Read + Write>(
    to: &mut S,
    seen: &Seen,
    method: &str,
    path: &str,
    host: &str,
    body: &[u8],
) -> Option<()> {
    let mut say = |status: &str, more: &str, body: &[u8]| {
        let head = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n{more}\r\n", body.len());
        to.write_all(head.as_bytes()).ok()?;
        // Of an answer to HEAD there is no more.
        let body = if method == "HEAD" { &[] } else { body };
        to.write_all(body).ok()
    };
    if let Some(to) = path.strip_prefix("/redirect?") {
        return say("302 Found", &format!("location: {to}\r\n"), b"not here");
    }
    match path {
        "/hello" => say("200 OK", "", b"hello"),
        "/echo" => say("200 Fine", "content-type: text/plain\r\n", body),
        "/large" => say("200 OK", "", &vec![b'x'; LARGE]),
        "/host" => say("200 OK", "", host.as_bytes()),
        "/loop" => say("302 Found", "location: /loop\r\n", b""),
        "/half" => {
            to.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf-").ok()?;
            seen.halves.fetch_add(1, Ordering::SeqCst);
            // Until whoever asked is gone.
            to.read(&mut [0; 1]).ok().map(drop)
        }
        "/never" => to.read(&mut [0; 1]).ok().map(drop),
        "/reset" => None,
        _ => say("404 Not Found", "", b"nothing here"),
    }
}

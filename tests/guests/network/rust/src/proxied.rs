//! Requests by what the standard library has, to the proxy that the environment names.

use std::env;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;

pub(crate) fn send(url: &str, body: Option<&str>) -> Result<String, String> {
    let text = |error: std::io::Error| format!("{error:?}");
    let proxy = env::var("http_proxy").map_err(|_| format!("no proxy for {url}"))?;
    let mut stream = TcpStream::connect(proxy.trim_start_matches("http://")).map_err(text)?;
    let method = if body.is_some() { "POST" } else { "GET" };
    let body = body.unwrap_or_default();
    let request = format!("{method} {url} HTTP/1.0\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    stream.write_all(request.as_bytes()).map_err(text)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).map_err(text)?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or("no answer")?;
    let status = head.lines().next().and_then(|line| line.split_once(' ')).ok_or("no status")?.1;
    let (number, _) = status.split_once(' ').unwrap_or((status, ""));
    let promised = head.lines().filter_map(|line| line.split_once(": "));
    let promised = promised.filter(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    let whole = promised.map(|(_, length)| length.parse()).all(|length| length == Ok(body.len()));
    match number {
        "403" => Err(status.to_owned()),
        _ if !whole => Err(format!("an answer that was cut: {answer:?}")),
        _ => Ok(format!("{number} {body}")),
    }
}

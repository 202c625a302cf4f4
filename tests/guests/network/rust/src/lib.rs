//! A component that reaches for the network as `wasi:http` has it.

#[cfg(target_family = "wasm")]
mod http;

#[quadriga_sdk::extension]
mod network {
    use std::io;

    /// Gets something, and says its status and text.
    pub fn get(url: &str) -> io::Result<String> {
        send(url, None).map_err(io::Error::other)
    }

    /// Posts something, and says what came back.
    pub fn post(url: &str, body: &str) -> io::Result<String> {
        send(url, Some(body)).map_err(io::Error::other)
    }

    #[cfg(target_family = "wasm")]
    fn send(url: &str, body: Option<&str>) -> Result<String, String> {
        crate::http::send(url, body)
    }

    #[cfg(not(target_family = "wasm"))]
    fn send(url: &str, _body: Option<&str>) -> Result<String, String> {
        Err(format!("no wasi:http for {url}"))
    }
}

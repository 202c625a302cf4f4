//! Reaches for the network: a component as `wasi:http` has it, native code through the proxy that its
//! environment names.

#[cfg_attr(not(target_family = "wasm"), path = "proxied.rs")]
mod http;

#[quadriga_sdk::extension]
mod network {
    use std::io;

    use crate::http::send;

    /// Gets something, and says its status and text.
    pub fn get(url: &str) -> io::Result<String> {
        send(url, None).map_err(io::Error::other)
    }

    /// Posts something, and says what came back.
    pub fn post(url: &str, body: &str) -> io::Result<String> {
        send(url, Some(body)).map_err(io::Error::other)
    }
}

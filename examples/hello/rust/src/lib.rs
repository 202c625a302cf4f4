//! Says hello.
#[quadriga_sdk::extension]
mod hello {
    use quadriga_sdk::host;
    /// Greets someone.
    pub fn greet(name: String) -> String {
        host::log::info(format!("greeting {name}"));
        format!("Hello, {name}")
    }
}

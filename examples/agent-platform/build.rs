//! Lets the program find libpython without an environment variable.

fn main() {
    #[cfg(feature = "engines")]
    pyo3_build_config::add_libpython_rpath_link_args();
}

//! Lets the binary find libpython without an environment variable.

fn main() {
    pyo3_build_config::add_libpython_rpath_link_args();
}

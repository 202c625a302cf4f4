//! What holds in every runtime alike. A subject says how a runtime loads the conformance guest;
//! each file beside this one holds cases that are run against any subject. A further runtime needs
//! a guest, a subject in `subject.rs` and a line at the end of this file.

mod pairs;
mod subject;
mod values;

/// Every case of the suite, for one subject.
macro_rules! conforms {
    ($($(#[$when:meta])* $name:ident: $subject:expr;)*) => {
        /// All subjects of this build.
        fn subjects() -> Vec<subject::Subject> {
            vec![$($(#[$when])* $subject),*]
        }

        $($(#[$when])* mod $name {
            use super::{subject, values};

            conforms! { @cases $subject,
                values::are_read, values::are_written, values::come_back, values::are_also_taken,
                values::are_refused, values::are_read_from_other_forms, values::of_malformed_bytes_are_refused,
                values::slow_big_ones_come_back
            }
        })*
    };
    (@cases $subject:expr, $($module:ident::$case:ident),*) => {$(
        #[tokio::test(flavor = "multi_thread")]
        async fn $case() {
            $module::$case(&$subject).await;
        }
    )*};
}

conforms! {
    #[cfg(any(feature = "js-v8", feature = "js-quickjs"))]
    js: subject::JS;
    #[cfg(feature = "python")]
    python: subject::PYTHON;
    #[cfg(feature = "wasm")]
    wasm: subject::WASM;
    #[cfg(feature = "native")]
    native: subject::NATIVE;
    mock: subject::MOCK;
}

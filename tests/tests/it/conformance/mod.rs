//! What holds in every runtime alike. A subject says how a runtime loads the guests of the suite:
//! conformance, relay, flow and counter of `tests/guests`. Each file beside this one holds cases that
//! are run against any subject. A further runtime needs these guests, a subject in `subject.rs` and a
//! line at the end of this file, and one more for itself in worker processes; `mocked.rs` is all of it for a runtime of nothing but the traits.

mod behaviour;
mod broadcast;
mod cancel;
mod log;
mod mocked;
mod order;
mod pairs;
mod streams;
mod subject;
mod values;

/// Every case of the suite, for one subject.
macro_rules! conforms {
    ($($(#[$when:meta])* $name:ident: $subject:expr;)*) => {
        /// The subjects of this build that run in the process of their host: a host has room for
        /// one of each language.
        fn subjects() -> Vec<subject::Subject> {
            let all = vec![$($(#[$when])* $subject),*];
            all.into_iter().filter(|subject| subject.isolation.is_none()).collect()
        }

        $($(#[$when])* mod $name {
            conforms! { @cases $subject,
                behaviour:
                    a_call_that_fails_says_why_and_where, a_reload_keeps_the_state,
                    each_of_many_calls_gets_its_own_answer, the_state_is_for_the_host_alone;
                broadcast:
                    reaches_all_that_it_is_for;
                cancel:
                    a_guest_is_told_that_nobody_waits, an_endless_loop_does_not_harm_its_siblings,
                    an_endless_loop_ends_soon_after_its_deadline;
                order:
                    a_call_that_computes_lets_its_siblings_pass_where_they_have_threads,
                    a_call_that_waits_lets_its_siblings_pass, a_slow_call_delays_no_other_extension,
                    calls_begin_in_the_order_in_which_they_were_made,
                    what_a_call_logs_is_there_before_its_result;
                streams:
                    are_read, are_sent, are_told_apart_from_single_results,
                    end_at_the_deadline_though_nobody_reads, end_with_the_error_after_the_items_before_it,
                    stop_when_their_consumer_goes_away, that_are_too_large_as_a_whole_are_refused;
                values:
                    are_also_taken, are_read, are_read_from_other_forms, are_refused, are_written,
                    come_back, of_malformed_bytes_are_refused, slow_big_ones_come_back;
            }
        })*
    };
    (@cases $subject:expr, $($module:ident: $($case:ident),*;)*) => {$(
        mod $module {
            use super::super::{$module as cases, subject};

            $(
                #[tokio::test(flavor = "multi_thread")]
                async fn $case() {
                    cases::$case(&$subject).await;
                }
            )*
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
    #[cfg(all(feature = "process", any(feature = "js-v8", feature = "js-quickjs")))]
    js_in_workers: subject::JS.in_workers();
    #[cfg(all(feature = "process", feature = "python"))]
    python_in_workers: subject::PYTHON.in_workers();
    #[cfg(all(feature = "process", feature = "wasm"))]
    wasm_in_workers: subject::WASM.in_workers();
    #[cfg(all(feature = "process", feature = "native"))]
    native_in_workers: subject::NATIVE.in_workers();
}

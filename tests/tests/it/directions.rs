//! Every runtime calls every runtime: the sixteen directions, and chains that come back to where
//! they have been. All of them in the host's process, all of them in worker processes, and some here
//! and some there. A deadlock shows as a test that nextest ends.

mod cases;

use quadriga::abi::Isolation;

/// Where the guest of a language runs.
type Place = fn(&str) -> Option<Isolation>;

/// In the process of the host.
const HERE: Place = |_| None;

macro_rules! directions {
    ($($(#[$test:meta])* $case:ident;)*) => {
        #[cfg(feature = "process")]
        mod in_workers {
            use super::{Isolation, cases};

            directions! { @at |_| Some(Isolation::Process); $($(#[$test])* $case;)* }
        }

        #[cfg(feature = "process")]
        mod here_and_there {
            use super::{Isolation, cases};

            directions! {
                @at |language| matches!(language, "js" | "python").then_some(Isolation::Process);
                $($(#[$test])* $case;)*
            }
        }

        #[cfg(feature = "process")]
        mod there_and_here {
            use super::{Isolation, cases};

            directions! {
                @at |language| matches!(language, "wasm" | "native").then_some(Isolation::Process);
                $($(#[$test])* $case;)*
            }
        }
    };
    (@at $place:expr; $($(#[$test:meta])* $case:ident;)*) => {$(
        $(#[$test])*
        async fn $case() {
            cases::$case($place).await;
        }
    )*};
}

directions! {
    #[tokio::test]
    sixteen_directions;
    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    sixteen_directions_at_once;
    #[tokio::test]
    slow_chains_of_depth_eight;
    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    slow_chains_of_depth_eight_at_once;
    #[tokio::test]
    a_language_calls_itself_again_and_again;
    #[tokio::test]
    an_exception_below_two_calls_shows_three_stacks;
    #[tokio::test]
    unload_and_load_again_while_others_call;
}

#[tokio::test]
async fn sixteen_directions() {
    cases::sixteen_directions(HERE).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn sixteen_directions_at_once() {
    cases::sixteen_directions_at_once(HERE).await;
}

#[tokio::test]
async fn chains_of_depth_eight() {
    cases::slow_chains_of_depth_eight(HERE).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn chains_of_depth_eight_at_once() {
    cases::slow_chains_of_depth_eight_at_once(HERE).await;
}

#[tokio::test]
async fn a_language_calls_itself_again_and_again() {
    cases::a_language_calls_itself_again_and_again(HERE).await;
}

#[tokio::test]
async fn an_exception_below_two_calls_shows_three_stacks() {
    cases::an_exception_below_two_calls_shows_three_stacks(HERE).await;
}

#[tokio::test]
async fn unload_and_load_again_while_others_call() {
    cases::unload_and_load_again_while_others_call(HERE).await;
}

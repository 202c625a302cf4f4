//! Every runtime calls every runtime: the sixteen directions, and chains that come back to where
//! they have been. All of them in the host's process, all of them in worker processes, and some here
//! and some there. A deadlock shows as a test that nextest ends.

mod cases;

use quadriga::abi::Isolation;

/// Where the guest of a language runs.
type Place = fn(&str) -> Option<Isolation>;

macro_rules! directions {
    ($($(#[$test:meta])* $case:ident;)*) => {
        directions! { @at |_| None; $($(#[$test])* $case;)* }

        #[cfg(feature = "process")]
        mod in_workers {
            use super::*;

            directions! { @at |_| Some(Isolation::Process); $($(#[$test])* $case;)* }
        }

        #[cfg(feature = "process")]
        mod here_and_there {
            use super::*;

            directions! {
                @at |language| matches!(language, "js" | "python").then_some(Isolation::Process);
                $($(#[$test])* $case;)*
            }
        }

        #[cfg(feature = "process")]
        mod there_and_here {
            use super::*;

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
    chains_of_depth_eight;
    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    chains_of_depth_eight_at_once;
    #[tokio::test]
    a_language_calls_itself_again_and_again;
    #[tokio::test]
    an_exception_below_two_calls_shows_three_stacks;
    #[tokio::test]
    unload_and_load_again_while_others_call;
}

//! What goes through every ordered pair of runtimes: all of them in the host's process, all of them
//! in worker processes, and some here and some there.

mod cases;

use quadriga::abi::Isolation;

use super::subject::{MOCK, Subject};

/// Where a subject runs, the so-manieth.
type Place = fn(&Subject, usize) -> Option<Isolation>;

/// In the process of the host.
const HERE: Place = |_, _| None;

macro_rules! pairs {
    ($($case:ident),* $(,)?) => {
        #[cfg(feature = "process")]
        mod in_workers {
            use super::{cases, worker};

            pairs! { @at |subject, _| worker(subject); $($case),* }
        }

        #[cfg(feature = "process")]
        mod here_and_there {
            use super::{cases, worker};

            pairs! { @at |subject, n| if n % 2 == 0 { worker(subject) } else { None }; $($case),* }
        }
    };
    (@at $place:expr; $($case:ident),*) => {$(
        #[tokio::test(flavor = "multi_thread")]
        async fn $case() {
            cases::$case($place).await;
        }
    )*};
}

pairs! {
    values_come_back_through_every_pair,
    slow_longer_values_come_back_through_every_pair,
    slow_streams_flow_through_every_pair,
    errors_keep_code_and_chain_through_every_pair,
    a_deadline_bounds_both_of_every_pair,
}

/// What has no engine has no worker.
#[cfg(feature = "process")]
fn worker(subject: &Subject) -> Option<Isolation> {
    (subject.name != MOCK.name).then_some(Isolation::Process)
}

#[tokio::test(flavor = "multi_thread")]
async fn values_come_back_through_every_pair() {
    cases::values_come_back_through_every_pair(HERE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_longer_values_come_back_through_every_pair() {
    cases::slow_longer_values_come_back_through_every_pair(HERE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_streams_flow_through_every_pair() {
    cases::slow_streams_flow_through_every_pair(HERE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_keep_code_and_chain_through_every_pair() {
    cases::errors_keep_code_and_chain_through_every_pair(HERE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deadline_bounds_both_of_every_pair() {
    cases::a_deadline_bounds_both_of_every_pair(HERE).await;
}

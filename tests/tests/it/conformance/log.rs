//! What guests log, line by line.

use std::fmt;
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Mutex, Once};
use std::time::Duration;

use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::layer::{Context, SubscriberExt};
use tracing_subscriber::{Layer, Registry};

/// Who hears what an extension logs.
static LISTENERS: Mutex<Vec<(String, Sender<String>)>> = Mutex::new(Vec::new());

struct Lines;

#[derive(Default)]
struct Line {
    extension: String,
    message: String,
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        match field.name() {
            "extension" => self.extension = format!("{value:?}").trim_matches('"').to_owned(),
            "message" => self.message = format!("{value:?}"),
            _ => {}
        }
    }
}

impl<S: Subscriber> Layer<S> for Lines {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        if event.metadata().target() == "quadriga::guest" {
            let mut line = Line::default();
            event.record(&mut line);
            for (_, listener) in LISTENERS.lock().unwrap().iter().filter(|(of, _)| *of == line.extension) {
                let _ = listener.send(line.message.clone());
            }
        }
    }
}

/// What one extension logs from now on.
pub(super) fn lines(extension: &str) -> Receiver<String> {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        tracing::subscriber::set_global_default(Registry::default().with(Lines)).unwrap();
    });
    let (send, receive) = mpsc::channel();
    LISTENERS.lock().unwrap().push((extension.to_owned(), send));
    receive
}

/// The guest's next line is this one.
#[track_caller]
pub(super) fn says(lines: &Receiver<String>, line: &str) {
    match lines.recv_timeout(Duration::from_secs(10)) {
        Ok(said) => assert_eq!(said, line),
        Err(_) => panic!("it does not say {line:?}"),
    }
}

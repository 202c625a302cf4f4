use std::thread;

use tokio::sync::{mpsc, oneshot};

type Message = (Vec<u8>, oneshot::Sender<Vec<u8>>);

/// A thread that sends back what it gets: the least that a call into an event loop can cost.
pub(crate) struct Hop {
    to: mpsc::UnboundedSender<Message>,
}

impl Hop {
    pub(crate) fn start() -> Self {
        let (to, mut from) = mpsc::unbounded_channel::<Message>();
        thread::spawn(move || {
            quadriga::block_on(async {
                while let Some((message, reply)) = from.recv().await {
                    let _ = reply.send(message);
                }
            });
        });
        Self { to }
    }

    pub(crate) fn there_and_back(&self) {
        let (send, receive) = oneshot::channel();
        let sent = self.to.send((vec![7; 100], send)).is_ok();
        assert!(sent && quadriga::block_on(receive).is_ok(), "the thread is gone");
    }
}

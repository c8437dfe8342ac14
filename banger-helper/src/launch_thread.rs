//! A thread of its own for starting programs: Landlock is inherited, and a VMM has to reach what
//! the thread that talks to the bus must not.

use std::io;
use std::sync::mpsc::{Sender, channel};

use tokio::runtime::Handle;
use tokio::sync::oneshot;

type Work = Box<dyn FnOnce() + Send>;

/// Runs what it is given, one after the other.
pub struct LaunchThread(Sender<Work>);

impl LaunchThread {
    /// Starts the thread, which is confined as its starter is now.
    ///
    /// # Errors
    /// When there can be no more threads.
    pub fn start() -> io::Result<Self> {
        let (sender, receiver) = channel::<Work>();
        std::thread::Builder::new()
            .name("launch".to_owned())
            .spawn(move || receiver.into_iter().for_each(|work| work()))?;
        Ok(Self(sender))
    }

    /// Runs `work` in the thread, within the caller's runtime.
    ///
    /// # Errors
    /// When `work` has panicked, now or before.
    pub async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
        let (answer, answered) = oneshot::channel();
        let runtime = Handle::current();
        let work = Box::new(move || {
            let _runtime = runtime.enter();
            // Who asked may have been cancelled; what was made is dropped with the answer.
            let _ = answer.send(work());
        });
        self.0.send(work).map_err(|_| ended())?;
        answered.await.map_err(|_| ended())
    }
}

fn ended() -> io::Error {
    io::Error::other("The thread that starts programs has ended")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn work_is_done_elsewhere_within_the_runtime() {
        let thread = LaunchThread::start().unwrap();
        let here = std::thread::current().id();
        let (there, runtime) = thread
            .run(|| (std::thread::current().id(), Handle::try_current().is_ok()))
            .await
            .unwrap();
        assert!(there != here && runtime);
    }
}

//! Keeps a server while there are names, and the helper told about it.

use std::future::Future;
use std::net::Ipv4Addr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use banger_dns::{Server, Zone};
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use tokio::sync::watch;
use tokio::time::sleep;

use crate::helper::{Failure, Helper};

/// Until what failed is tried again.
const PAUSE: Duration = if cfg!(test) {
    Duration::ZERO
} else {
    Duration::from_secs(5)
};

/// Who makes the host ask us.
pub(super) trait Router: Sync {
    /// 0 takes it back.
    fn route(&self, port: u16) -> impl Future<Output = Result<(), Failure>> + Send;
    /// Yields whenever it may have forgotten, and ends when it is not there.
    fn losses(&self) -> impl Future<Output = BoxStream<'static, ()>> + Send;
}

impl Router for Helper {
    async fn route(&self, port: u16) -> Result<(), Failure> {
        self.route_names(port).await
    }

    async fn losses(&self) -> BoxStream<'static, ()> {
        let changes = self.changes().await;
        changes.unwrap_or_else(|_| futures_util::stream::empty().boxed())
    }
}

/// Says each trouble once, until there is none.
#[derive(Default)]
struct Trouble(Option<String>);

/// Serves the zone at `place`, of which the port may be 0, whenever it is not empty. Never ends.
pub(super) async fn keep(zone: &watch::Sender<Arc<Zone>>, place: (Ipv4Addr, u16), router: &impl Router) {
    let mut trouble = Trouble::default();
    let mut changes = zone.subscribe();
    loop {
        // The sender is ours.
        let _ = changes.wait_for(|zone| !zone.is_empty()).await;
        let (address, wanted) = place;
        let server = match Server::bind(address, wanted).await {
            Ok(server) => server,
            Err(e) => {
                trouble.say(&format!(
                    "Names of VMs cannot be served at {address}:{wanted}: {e}"
                ));
                wait(&mut changes).await;
                continue;
            }
        };
        let port = server.port();
        let serving = server.serve(zone.subscribe());
        let failed = tokio::select! {
            e = serving => Some(e),
            () = offer(port, zone.subscribe(), router, &mut trouble) => None,
        };
        if let Some(e) = failed {
            trouble.say(&format!("Names of VMs are not served any more: {e}"));
            sleep(PAUSE).await;
        } else if let Err(why) = router.route(0).await {
            // Without it nobody asks us either.
            tracing::debug!(%why, "The host may go on asking for names of VMs");
        }
    }
}

/// Has the host ask at the port, until the zone is empty.
async fn offer(port: u16, mut zone: watch::Receiver<Arc<Zone>>, router: &impl Router, trouble: &mut Trouble) {
    let mut ends = zone.clone();
    let mut empty = pin!(ends.wait_for(|zone| zone.is_empty()));
    let routing = async {
        loop {
            // First: what happens after we have told is heard.
            let mut losses = router.losses().await;
            loop {
                let told = router.route(port).await;
                trouble.note(&told);
                tokio::select! {
                    lost = losses.next() => if lost.is_none() { break },
                    // Another VM is a reason to try again what was refused.
                    _ = zone.changed(), if told.is_err() => {}
                }
            }
            wait(&mut zone).await;
        }
    };
    tokio::select! {
        _ = &mut empty => {}
        () = routing => {}
    }
}

/// Until it is time to try again, or something has changed.
async fn wait(zone: &mut watch::Receiver<Arc<Zone>>) {
    tokio::select! {
        _ = zone.changed() => {}
        () = sleep(PAUSE) => {}
    }
}

impl Trouble {
    fn note(&mut self, told: &Result<(), Failure>) {
        match told {
            Ok(()) => {
                self.0 = None;
                tracing::debug!("The host asks for names of VMs");
            }
            Err(why) => self.say(&format!("The host does not know names of VMs: {why}")),
        }
    }

    fn say(&mut self, text: &str) {
        if self.0.as_deref() != Some(text) {
            tracing::warn!("{text}");
            self.0 = Some(text.to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use banger_model::VmName;
    use tokio::sync::mpsc;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(20);

    /// Tells the ports that it was told, and refuses while it is told to.
    struct Recorder {
        ports: mpsc::UnboundedSender<u16>,
        refuses: Mutex<bool>,
        losses: Mutex<Option<mpsc::UnboundedReceiver<()>>>,
    }

    impl Router for Recorder {
        async fn route(&self, port: u16) -> Result<(), Failure> {
            let _ = self.ports.send(port);
            if *self.refuses.lock().unwrap() {
                return Err(Failure::NotAuthorized("not now".to_owned()));
            }
            Ok(())
        }

        async fn losses(&self) -> BoxStream<'static, ()> {
            match self.losses.lock().unwrap().take() {
                Some(losses) => futures_util::stream::unfold(losses, |mut losses| async {
                    Some((losses.recv().await?, losses))
                })
                .boxed(),
                None => futures_util::stream::pending().boxed(),
            }
        }
    }

    struct Rig {
        zone: watch::Sender<Arc<Zone>>,
        router: Arc<Recorder>,
        ports: mpsc::UnboundedReceiver<u16>,
        lose: mpsc::UnboundedSender<()>,
        task: tokio::task::JoinSet<()>,
    }

    impl Rig {
        fn new(address: Ipv4Addr) -> Self {
            let (sender, ports) = mpsc::unbounded_channel();
            let (lose, losses) = mpsc::unbounded_channel();
            let router = Arc::new(Recorder {
                ports: sender,
                refuses: Mutex::new(false),
                losses: Mutex::new(Some(losses)),
            });
            let zone = watch::Sender::default();
            let mut task = tokio::task::JoinSet::new();
            let (kept, by) = (zone.clone(), router.clone());
            task.spawn(async move { keep(&kept, (address, 0), &*by).await });
            Self {
                zone,
                router,
                ports,
                lose,
                task,
            }
        }

        fn vms(&self, names: &[&str]) {
            let vm = |name: &&str| (name.parse::<VmName>().unwrap(), Ipv4Addr::new(10, 119, 0, 16));
            self.zone.send_replace(Arc::new(names.iter().map(vm).collect()));
        }

        async fn port(&mut self) -> u16 {
            let told = tokio::time::timeout(LIMIT, self.ports.recv());
            told.await.expect("the router is told").unwrap()
        }
    }

    #[tokio::test]
    async fn the_server_lives_as_long_as_there_are_names() {
        let mut rig = Rig::new(Ipv4Addr::LOCALHOST);
        rig.vms(&["a"]);
        let port = rig.port().await;
        assert_ne!(port, 0);
        // It listens, and no second one can.
        assert!(
            tokio::net::TcpStream::connect((Ipv4Addr::LOCALHOST, port))
                .await
                .is_ok()
        );
        assert!(std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, port)).is_err());
        // Other names are the same server's.
        rig.vms(&["a", "b"]);
        rig.vms(&[]);
        assert_eq!(rig.port().await, 0);
        assert!(std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, port)).is_ok());
        rig.vms(&["b"]);
        assert_ne!(rig.port().await, 0);
        assert!(rig.task.try_join_next().is_none());
    }

    #[tokio::test]
    async fn a_helper_that_starts_anew_is_told_again() {
        let mut rig = Rig::new(Ipv4Addr::LOCALHOST);
        rig.vms(&["a"]);
        let port = rig.port().await;
        rig.lose.send(()).unwrap();
        assert_eq!(rig.port().await, port);
        // Without the bus it is tried again.
        let (other, _) = mpsc::unbounded_channel();
        rig.lose = other;
        assert_eq!(rig.port().await, port);
    }

    #[tokio::test]
    async fn what_was_refused_is_tried_again_for_the_next_vm() {
        let mut rig = Rig::new(Ipv4Addr::LOCALHOST);
        *rig.router.refuses.lock().unwrap() = true;
        rig.vms(&["a"]);
        let port = rig.port().await;
        rig.vms(&["a", "b"]);
        assert_eq!(rig.port().await, port);
        *rig.router.refuses.lock().unwrap() = false;
        rig.vms(&["b"]);
        assert_eq!(rig.port().await, port);
    }

    #[test]
    fn a_trouble_is_said_once() {
        let mut trouble = Trouble::default();
        trouble.say("a");
        assert_eq!(trouble.0.as_deref(), Some("a"));
        trouble.note(&Ok(()));
        assert_eq!(trouble.0, None);
    }
}

//! Waiting for what the daemon announces, without asking again and again.

use std::time::Duration;

use banger_bus::{ManagerProxy, SERVICE, VmInfo};
use futures_util::StreamExt;
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::net::UnixStream;
use tokio::time::timeout;
use zbus::fdo::PropertiesProxy;
use zbus::{Connection, connection};

use crate::rig::{LIMIT, Rig};

impl Rig {
    /// A client of the daemon's private socket.
    ///
    /// # Panics
    /// When no daemon listens.
    pub async fn client(&self) -> Connection {
        let stream = UnixStream::connect(self.dirs().socket())
            .await
            .expect("the daemon listens");
        let building = connection::Builder::unix_stream(stream.into_std().expect("a socket"))
            .p2p()
            .build();
        timeout(LIMIT, building)
            .await
            .expect("the daemon answers")
            .expect("the daemon speaks D-Bus")
    }

    /// Waits until a VM is as wanted.
    ///
    /// # Panics
    /// When it is not in time, with what it is.
    pub async fn wait_for(&self, vm: &str, what: &str, wanted: impl Fn(&VmInfo) -> bool) -> VmInfo {
        // Whoever calls first after a crash starts the daemon.
        self.banger(["vm", "list"]).await.ok();
        let client = self.client().await;
        let manager = ManagerProxy::new(&client).await.expect("the manager is there");
        let path = manager.look_up_vm(vm.to_owned()).await.expect("the VM is there");
        let properties = PropertiesProxy::builder(&client)
            .destination(SERVICE)
            .path(path)
            .build()
            .await
            .expect("the VM has properties");
        let mut changes = properties
            .receive_properties_changed()
            .await
            .expect("signals can be had");
        let mut last = None;
        let waiting = async {
            loop {
                let interface = "org.banger.VM".try_into().expect("the name is valid");
                let all = properties.get_all(interface).await.expect("the VM is there");
                let info = VmInfo::from_properties(&all).expect("the properties are of the contract");
                if wanted(&info) {
                    return info;
                }
                last = Some(info);
                assert!(changes.next().await.is_some(), "the daemon left: {last:?}");
            }
        };
        match timeout(LIMIT, waiting).await {
            Ok(info) => info,
            Err(_) => panic!("{vm} did not become {what}: {last:?}"),
        }
    }

    /// Waits until the daemon's log has a line with these words.
    ///
    /// # Panics
    /// When it has none in time.
    pub async fn wait_for_log(&self, words: &str) {
        let mut tail = self.program("tail");
        tail.args(["-n", "+1", "-F"]).arg(self.dirs().daemon_log());
        let mut child = tail.spawn().expect("tail can be started");
        let stdout = child.stdout.take().expect("standard output is a pipe");
        line_with(stdout, words, LIMIT).await;
    }
}

/// Reads lines until one has these words, and returns it.
///
/// # Panics
/// At the end, or after the limit.
pub async fn line_with(stream: impl AsyncRead + Unpin, words: &str, limit: Duration) -> String {
    let mut lines = BufReader::new(stream).lines();
    let mut last = String::new();
    let found = timeout(limit, async {
        while let Ok(Some(line)) = lines.next_line().await {
            if line.contains(words) {
                return Some(line);
            }
            last = line;
        }
        None
    });
    match found.await {
        Ok(Some(line)) => line,
        other => panic!(
            "no line with {words:?} ({}), the last was: {last}",
            if other.is_ok() { "end" } else { "time" }
        ),
    }
}

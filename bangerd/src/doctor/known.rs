//! The owner's VMs: asked of his daemon where one runs, else read from the database.

use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use banger_bus::{SERVICE, VmInfo, path};
use banger_dns::is_ours;
use banger_model::{Dirs, VmId, VmState};
use banger_store::Store;
use rustix::net::sockopt::socket_peercred;
use rustix::process::geteuid;
use zbus::connection::Builder;
use zbus::fdo::ObjectManagerProxy;

/// How long the daemon may take to answer.
const LIMIT: Duration = Duration::from_secs(5);

/// What is known of the VMs.
pub(super) enum Known {
    /// By a daemon that runs, which is this process.
    Daemon(i32, Vec<Guest>),
    /// By the database; nobody works with it.
    Database(Vec<Guest>),
    /// A daemon was killed, and what it wrote last is not in the database yet.
    Unsettled,
    /// Not at all, and why.
    Unknown(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Guest {
    pub id: VmId,
    pub name: String,
    /// Where its agent is, while it runs.
    pub agent: Option<SocketAddr>,
    /// Whether it may reach the Internet.
    pub is_public: bool,
    /// A line of authorized_keys(5); empty until it is made.
    pub host_key: String,
}

impl Known {
    /// Starts nothing and changes nothing.
    pub(super) async fn find(dirs: &Dirs) -> Self {
        if let Ok(stream) = UnixStream::connect(dirs.socket()) {
            let pid = match socket_peercred(&stream) {
                Ok(peer) if peer.uid == geteuid() => peer.pid.as_raw_nonzero().get(),
                Ok(peer) => {
                    return Self::Unknown(format!("user {} listens on its socket", peer.uid.as_raw()));
                }
                Err(error) => return Self::Unknown(error.to_string()),
            };
            return match tokio::time::timeout(LIMIT, ask(stream)).await {
                Ok(Ok(guests)) => Self::Daemon(pid, guests),
                Ok(Err(why)) => Self::Unknown(why),
                Err(_) => Self::Unknown(format!("it gives no answer within {} seconds", LIMIT.as_secs())),
            };
        }
        let mut log = dirs.database().into_os_string();
        log.push("-wal");
        if std::fs::metadata(log).is_ok_and(|log| log.len() > 0) {
            return Self::Unsettled;
        }
        Self::Database(read(dirs))
    }

    /// The VMs that are known for sure.
    pub(super) fn guests(&self) -> &[Guest] {
        match self {
            Self::Daemon(_, guests) | Self::Database(guests) => guests,
            Self::Unsettled | Self::Unknown(_) => &[],
        }
    }
}

async fn ask(stream: UnixStream) -> Result<Vec<Guest>, String> {
    let told = |error: zbus::Error| error.to_string();
    let connection = Builder::unix_stream(stream).p2p().build().await.map_err(told)?;
    let manager = ObjectManagerProxy::new(&connection, SERVICE, path::MANAGER)
        .await
        .map_err(told)?;
    let objects = manager.get_managed_objects().await.map_err(|e| e.to_string())?;
    let vms = objects
        .values()
        .flatten()
        .filter(|(name, _)| name.as_str() == "org.banger.VM");
    vms.map(|(_, properties)| {
        let vm = VmInfo::from_properties(properties).map_err(|e| e.to_string())?;
        Ok(Guest {
            id: vm
                .id
                .parse()
                .map_err(|_| format!("it has a VM with the id {:?}", vm.id))?,
            agent: agent(&vm),
            is_public: vm.network == "public",
            name: vm.name,
            host_key: vm.host_key,
        })
    })
    .collect()
}

fn agent(vm: &VmInfo) -> Option<SocketAddr> {
    if vm.state != VmState::Running.as_str() {
        return None;
    }
    let port = u16::try_from(vm.ssh_port).ok().filter(|port| *port != 0)?;
    Some(SocketAddr::new(vm.address.parse().ok()?, port))
}

/// A database that cannot be read was reported.
fn read(dirs: &Dirs) -> Vec<Guest> {
    let store = Store::open_read_only(&dirs.database()).ok().flatten();
    let vms = store.and_then(|store| store.vms().ok()).unwrap_or_default();
    vms.into_iter()
        .map(|vm| Guest {
            id: vm.id,
            name: vm.spec.name.to_string(),
            // Whether it still runs, only a daemon knows.
            agent: None,
            is_public: false,
            host_key: vm.host_key,
        })
        .collect()
}

impl Guest {
    /// Whether it is on system mode's network.
    pub(super) fn is_of_system_mode(&self) -> bool {
        matches!(self.agent, Some(SocketAddr::V4(address)) if is_ours(*address.ip()))
    }
}

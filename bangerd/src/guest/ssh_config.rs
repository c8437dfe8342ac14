//! The file by which ssh and what is built on it know VMs as `NAME.vm`, which the owner's own
//! configuration includes after `banger ssh-config --install`. It has addresses and ports, so that
//! clients that run no command for a host find them too; it is written again when they change.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use banger_bus::VmInfo;
use banger_model::{Dirs, VmId, ssh_config};

use super::known_hosts::replace;

/// The file and what it should hold.
pub(crate) struct SshConfig {
    path: PathBuf,
    key: PathBuf,
    known_hosts: PathBuf,
    hosts: Mutex<BTreeMap<VmId, ssh_config::Host>>,
}

impl SshConfig {
    /// The owner's file, which names `key`.
    pub(crate) fn new(dirs: &Dirs, key: PathBuf) -> Self {
        Self {
            path: dirs.ssh_config(),
            key,
            known_hosts: dirs.known_hosts(),
            hosts: Mutex::default(),
        }
    }

    /// Makes the file hold exactly these VMs. Blocks.
    pub(crate) fn reset(&self, vms: impl IntoIterator<Item = (VmId, VmInfo)>) {
        let mut hosts = self.lock();
        *hosts = vms
            .into_iter()
            .filter_map(|(id, info)| Some((id, host(&info)?)))
            .collect();
        self.write(&hosts);
    }

    /// Takes note of what a VM is now. Blocks when that changes the file.
    pub(crate) fn set(&self, id: VmId, info: &VmInfo) {
        let mut hosts = self.lock();
        let host = host(info);
        if hosts.get(&id) == host.as_ref() {
            return;
        }
        match host {
            Some(host) => drop(hosts.insert(id, host)),
            None => drop(hosts.remove(&id)),
        }
        self.write(&hosts);
    }

    /// Forgets a VM. Blocks.
    pub(crate) fn remove(&self, id: VmId) {
        let mut hosts = self.lock();
        if hosts.remove(&id).is_some() {
            self.write(&hosts);
        }
    }

    /// VMs are worth more than this file: what is wrong with it is only logged.
    fn write(&self, hosts: &BTreeMap<VmId, ssh_config::Host>) {
        let text = match ssh_config::text(hosts.values().cloned(), &self.key, &self.known_hosts) {
            Ok(text) => text,
            Err(error) => return tracing::warn!(%error, "ssh will not know VMs by their names"),
        };
        if std::fs::read(&self.path).is_ok_and(|there| there == text.as_bytes()) {
            return;
        }
        if let Err(error) = replace(&self.path, text.as_bytes()) {
            tracing::warn!(%error, path = ?self.path, "ssh will not know VMs by their names");
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<VmId, ssh_config::Host>> {
        self.hosts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn host(info: &VmInfo) -> Option<ssh_config::Host> {
    ssh_config::Host::read(&info.name, &info.id, &info.address, info.ssh_port)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bus::fake::vm;

    #[test]
    fn the_file_follows_names_addresses_and_ports() {
        let home = tempfile::tempdir().unwrap();
        let dirs = Dirs::resolve(|key| (key == "HOME").then(|| home.path().into())).unwrap();
        std::fs::create_dir_all(&dirs.state).unwrap();
        let config = SshConfig::new(&dirs, dirs.ssh_key());
        let read = || std::fs::read_to_string(dirs.ssh_config()).unwrap();
        config.reset([]);
        assert!(read().contains("\nHost *.vm\n"), "{}", read());
        let id = VmId::from_bytes([1; 16]);
        let mut info = vm("alpha");
        info.id = id.to_string();
        (info.address, info.ssh_port) = ("127.0.0.1".to_owned(), 4022);
        config.set(id, &info);
        assert!(read().contains(&format!(
            "\nHost alpha.vm\n    HostName 127.0.0.1\n    Port 4022\n    HostKeyAlias banger-{id}\n"
        )));
        "beta".clone_into(&mut info.name);
        config.set(id, &info);
        assert!(read().contains("Host beta.vm") && !read().contains("alpha"));
        info.ssh_port = 0;
        config.set(id, &info);
        assert!(!read().contains("beta"), "one that does not run is not reached");
        config.reset([(id, info)]);
        config.remove(id);
        assert!(!read().contains("HostName"));
    }
}

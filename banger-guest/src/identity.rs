//! Who this guest is: read from the initramfs, and written into the root file system at every
//! boot, whatever the image. What cannot be written is a warning: a guest that is reachable
//! and wrongly named is better than none.

mod files;
mod hosts;
mod network;
mod resolver;
mod ssh;
mod systemd;

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use banger_model::guest::{IDENTITY_VERSION, Identity};

use crate::console;

/// Far more than an identity with every allowed key and variable.
const MAX_DOCUMENT: u64 = 4 << 20;

/// Why there is no identity.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("The identity {path} cannot be read")]
    Read { path: String, source: io::Error },
    #[error("The identity is not understood: {0}")]
    NotUnderstood(serde_json::Error),
    #[error("The identity has version {found}, and this guest program knows {IDENTITY_VERSION}")]
    Version { found: u32 },
}

/// Reads an identity.
pub(crate) fn read(path: &Path) -> Result<Identity, Error> {
    let mut document = Vec::new();
    File::open(path)
        .and_then(|file| file.take(MAX_DOCUMENT).read_to_end(&mut document))
        .map_err(|source| Error::Read {
            path: path.display().to_string(),
            source,
        })?;
    let identity: Identity = serde_json::from_slice(&document).map_err(Error::NotUnderstood)?;
    if identity.version != IDENTITY_VERSION {
        return Err(Error::Version {
            found: identity.version,
        });
    }
    Ok(identity)
}

/// A part of the identity: a name for the warning, and what writes it.
type Part = (&'static str, fn(&Path, &Identity) -> io::Result<()>);

/// Makes the running system, whose root is mounted at `/`, the one that the identity names.
pub(crate) fn apply(identity: &Identity) {
    if let Err(error) = rustix::system::sethostname(identity.hostname.as_bytes()) {
        console::warn("The host name is not set", &io::Error::from(error));
    }
    apply_to(Path::new("/"), identity);
}

fn apply_to(root: &Path, identity: &Identity) {
    let parts: [Part; 7] = [
        ("host name", |root, identity| {
            let line = format!("{}\n", identity.hostname);
            files::write(root, "etc/hostname", 0o644, line.as_bytes())
        }),
        ("list of hosts", hosts::apply),
        ("resolver", resolver::apply),
        ("machine id", |root, identity| {
            let line = format!("{}\n", identity.machine_id);
            files::write(root, "etc/machine-id", 0o444, line.as_bytes())
        }),
        ("ssh configuration", ssh::apply),
        ("network's services", network::apply),
        ("services", systemd::apply),
    ];
    for (name, part) in parts {
        if let Err(error) = part(root, identity) {
            console::warn(format_args!("The {name} cannot be written"), &error);
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::collections::BTreeMap;
    use std::fs;

    use banger_model::guest::{GuestNetwork, GuestSsh};
    use russh::keys::PrivateKey;
    use russh::keys::ssh_key::LineEnding;
    use russh::keys::ssh_key::private::Ed25519Keypair;

    use super::*;

    /// A host key, the same each time and used nowhere else.
    fn host_key() -> String {
        let pair = Ed25519Keypair::from_seed(&[7; 32]);
        let key = PrivateKey::new(pair.into(), "").unwrap();
        key.to_openssh(LineEnding::LF).unwrap().to_string()
    }

    pub(crate) fn identity() -> Identity {
        Identity {
            version: IDENTITY_VERSION,
            vm_id: "vm".into(),
            hostname: "beta".into(),
            machine_id: "0123456789abcdef0123456789abcdef".into(),
            root_serial: "banger-root".into(),
            network: Some(GuestNetwork {
                mac: "52:54:00:ab:00:01".into(),
                address: "10.0.2.15".parse().unwrap(),
                prefix: 24,
                gateway: Some("10.0.2.2".parse().unwrap()),
                dns: vec!["10.0.2.3".parse().unwrap()],
            }),
            ssh: GuestSsh {
                port: 1022,
                host_key: host_key(),
                authorized_keys: vec!["ssh-ed25519 AAAA me".into()],
            },
            env: BTreeMap::new(),
        }
    }

    /// All files below `root`, with their content.
    fn tree(root: &Path) -> BTreeMap<String, Vec<u8>> {
        let mut found = BTreeMap::new();
        let mut directories = vec![root.to_owned()];
        while let Some(directory) = directories.pop() {
            for entry in fs::read_dir(directory).unwrap() {
                let path = entry.unwrap().path();
                let name = path.strip_prefix(root).unwrap().display().to_string();
                if path.is_symlink() {
                    let target = fs::read_link(&path).unwrap();
                    found.insert(name, target.into_os_string().into_encoded_bytes());
                } else if path.is_dir() {
                    directories.push(path);
                } else {
                    found.insert(name, fs::read(&path).unwrap());
                }
            }
        }
        found
    }

    #[test]
    fn an_empty_root_gets_what_every_guest_has() {
        let root = tempfile::tempdir().unwrap();
        apply_to(root.path(), &identity());
        let found = tree(root.path());
        let names: Vec<_> = found.keys().map(String::as_str).collect();
        assert_eq!(
            names,
            [
                "etc/hostname",
                "etc/hosts",
                "etc/machine-id",
                "etc/resolv.conf",
                "root/.ssh/authorized_keys"
            ]
        );
        assert_eq!(found["etc/hostname"], b"beta\n");
    }

    #[test]
    fn a_second_time_changes_nothing() {
        let root = tempfile::tempdir().unwrap();
        for directory in ["etc/ssh/sshd_config.d", "usr/lib/systemd/system"] {
            fs::create_dir_all(root.path().join(directory)).unwrap();
        }
        fs::write(root.path().join("etc/hosts"), "10.0.0.9 mine\n").unwrap();
        apply_to(root.path(), &identity());
        let once = tree(root.path());
        apply_to(root.path(), &identity());
        assert_eq!(tree(root.path()), once);
        assert!(once.contains_key("run/systemd/system/banger-agent.service"));
        assert!(once.contains_key("etc/ssh/ssh_host_ed25519_key"));
    }

    #[test]
    fn a_file_where_a_directory_belongs_stops_that_part_only() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("etc/hostname")).unwrap();
        fs::write(root.path().join("root"), b"").unwrap();
        apply_to(root.path(), &identity());
        assert!(root.path().join("etc/machine-id").exists());
    }

    #[test]
    fn another_version_is_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut future = identity();
        future.version = IDENTITY_VERSION + 1;
        fs::write(file.path(), serde_json::to_vec(&future).unwrap()).unwrap();
        assert!(matches!(read(file.path()), Err(Error::Version { .. })));
        fs::write(file.path(), b"{}").unwrap();
        assert!(matches!(read(file.path()), Err(Error::NotUnderstood(_))));
        let error = read(Path::new("/nowhere")).unwrap_err();
        assert!(matches!(error, Error::Read { .. }));
        let text = console::chain(&error);
        assert_eq!(text.matches("No such file").count(), 1, "{text}");
    }
}

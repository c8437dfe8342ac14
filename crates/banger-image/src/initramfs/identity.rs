//! The archive that says who the VM is. It holds a private key: it is made in memory for one
//! start and lies in no file.

use std::io;

use banger_model::guest::{IDENTITY_PATH, Identity};

use super::cpio::Writer;

/// The archive of one identity, readable by root only.
#[must_use]
pub fn identity_archive(identity: &Identity) -> Vec<u8> {
    write_archive(identity).expect("plain data is written to memory")
}

fn write_archive(identity: &Identity) -> io::Result<Vec<u8>> {
    let document = serde_json::to_vec(identity)?;
    let mut archive = Writer::new(Vec::with_capacity(document.len() + 512));
    if let Some((directory, _)) = IDENTITY_PATH.rsplit_once('/') {
        archive.directory(directory, 0o755)?;
    }
    archive.file(IDENTITY_PATH, 0o600, &document)?;
    archive.finish()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use banger_model::guest::{GuestSsh, IDENTITY_VERSION, ROOT_SERIAL};

    use super::super::cpio::tests::read;
    use super::*;

    #[test]
    fn the_identity_is_private_and_whole() {
        let identity = Identity {
            version: IDENTITY_VERSION,
            vm_id: "x".into(),
            hostname: "x".into(),
            machine_id: "0".repeat(32),
            root_serial: ROOT_SERIAL.into(),
            network: None,
            ssh: GuestSsh {
                port: 1022,
                host_key: "key".into(),
                authorized_keys: vec![],
            },
            env: BTreeMap::new(),
        };
        let members = read(&identity_archive(&identity));
        let (path, mode, content) = &members[1];
        assert_eq!((path.as_str(), *mode), (IDENTITY_PATH, 0o100_600));
        assert_eq!(serde_json::from_slice::<Identity>(content).unwrap(), identity);
    }
}

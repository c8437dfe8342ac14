//! The VM's directory below the state directory, and the one of its sockets below the runtime
//! directory.

use std::fs::{DirBuilder, Permissions};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::Path;

use async_trait::async_trait;
use banger_bus::{Error, ErrorKind};
use banger_model::VmId;
use banger_model::guest::CONTROL_VSOCK_PORT;

use super::{Capability, Parts, Site, VmPaths, blocking};
use crate::core::error;
use crate::core::registry::Core;

/// The longest path of a unix socket: `sun_path` without its NUL (unix(7)).
const MAX_SOCKET_PATH: usize = 107;

pub(super) struct Directory;

#[async_trait]
impl Capability for Directory {
    fn plan(&self, site: &Site<'_>) -> Result<(), Error> {
        check_length(&site.core.paths(site.vm.id))
    }

    fn is_made(&self, core: &Core, id: VmId) -> bool {
        core.paths(id).directory.is_dir()
    }

    async fn make(&self, site: &Site<'_>, _: &Parts) -> Result<(), Error> {
        make(&site.core.paths(site.vm.id).directory)
    }

    async fn unmake(&self, core: &Core, id: VmId, _: &Parts) -> Result<(), Error> {
        let directory = core.paths(id).directory;
        blocking(move || remove_tree(&directory)).await
    }

    async fn prepare(&self, site: &Site<'_>, _: &Parts) -> Result<(), Error> {
        let paths = site.core.paths(site.vm.id);
        make(&paths.runtime)?;
        let link = paths.owner_link();
        match std::os::unix::fs::symlink(&paths.directory, &link) {
            Ok(()) => Ok(()),
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            Err(e) => Err(error::io("make", &link, &e)),
        }
    }

    async fn cleanup(&self, core: &Core, id: VmId) -> Result<(), Error> {
        remove_tree(&core.paths(id).runtime)
    }
}

/// Checked before anything is made, because `bind` names neither the path nor the limit.
fn check_length(paths: &VmPaths) -> Result<(), Error> {
    let firecracker = paths.vmm_sockets();
    for socket in [
        paths.control(),
        paths.monitor(),
        firecracker.join(banger_vmm::firecracker::API_SOCKET),
        firecracker.join(banger_vmm::firecracker::guest_socket(CONTROL_VSOCK_PORT)),
    ] {
        let length = socket.as_os_str().as_bytes().len();
        if length > MAX_SOCKET_PATH {
            return Err(Error::new(
                ErrorKind::InvalidArgument,
                format!(
                    "The socket path {} has {length} bytes (at most {MAX_SOCKET_PATH})",
                    socket.display()
                ),
            )
            .hint("Set XDG_RUNTIME_DIR to a shorter directory and restart bangerd."));
        }
    }
    Ok(())
}

/// A directory for the owner alone. One that is there keeps its content, not its mode.
pub(super) fn make(directory: &Path) -> Result<(), Error> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
        .and_then(|()| std::fs::set_permissions(directory, Permissions::from_mode(0o700)))
        .map_err(|e| error::io("make", directory, &e))
}

/// Removes a tree and does not follow links, the top included.
pub(crate) fn remove_tree(directory: &Path) -> Result<(), Error> {
    match std::fs::remove_dir_all(directory) {
        Ok(()) => Ok(()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) if e.kind() == io::ErrorKind::NotADirectory => super::remove_file(directory),
        Err(e) => Err(error::io("remove", directory, &e)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(runtime: &str) -> VmPaths {
        let mut dirs =
            banger_model::Dirs::resolve(|key| matches!(key, "HOME").then(|| "/home/u".into())).unwrap();
        dirs.runtime = runtime.into();
        VmPaths::new(&dirs, VmId::from_bytes([1; 16]))
    }

    #[test]
    fn a_long_socket_path_is_named() {
        assert_eq!(check_length(&paths("/run/user/1000/banger")), Ok(()));
        let error = check_length(&paths(&format!("/tmp/{}", "x".repeat(60)))).unwrap_err();
        assert!(error.message.contains("at most 107"), "{error}");
    }

    #[test]
    fn removing_twice_and_removing_a_link_is_fine() {
        let home = tempfile::tempdir().unwrap();
        let kept = home.path().join("kept");
        make(&kept).unwrap();
        let link = home.path().join("link");
        std::os::unix::fs::symlink(&kept, &link).unwrap();
        remove_tree(&link).unwrap();
        remove_tree(&link).unwrap();
        assert!(kept.is_dir() && !link.exists());
        assert_eq!(kept.metadata().unwrap().permissions().mode() & 0o777, 0o700);
    }
}

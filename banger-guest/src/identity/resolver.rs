//! `/etc/resolv.conf`: the name servers that the identity names.

use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

use banger_model::guest::Identity;

use super::files;

const NAME: &str = "etc/resolv.conf";

pub(super) fn apply(root: &Path, identity: &Identity) -> io::Result<()> {
    let Some(network) = &identity.network else {
        return Ok(());
    };
    if network.dns.is_empty() {
        return Ok(());
    }
    let mut text = String::from("# Written by banger at boot.\n");
    for server in &network.dns {
        text.push_str(&format!("nameserver {server}\n"));
    }
    // A link into /run is how a resolver's service takes the file over: ours then stands in
    // its place until that service starts, and the image keeps its link.
    match link_into_run(root) {
        Some(inside) if root.join(&inside).exists() => Ok(()),
        Some(inside) => files::write(root, &inside, 0o644, text.as_bytes()),
        None => files::write(root, NAME, 0o644, text.as_bytes()),
    }
}

/// The path below the root, without a leading slash, of the link's target in `/run`.
fn link_into_run(root: &Path) -> Option<String> {
    let target = fs::read_link(root.join(NAME)).ok()?;
    let absolute = Path::new("/etc").join(target);
    let mut path = PathBuf::new();
    for component in absolute.components() {
        match component {
            Component::ParentDir => {
                path.pop();
            }
            Component::Normal(name) => path.push(name),
            _ => {}
        }
    }
    // /var/run is /run everywhere.
    let path = path.strip_prefix("var").map(Path::to_owned).unwrap_or(path);
    path.starts_with("run")
        .then(|| path.to_str().map(str::to_owned))?
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::super::tests::identity;
    use super::*;

    #[test]
    fn a_link_into_run_is_kept() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("etc")).unwrap();
        let link = root.path().join(NAME);
        symlink("../run/systemd/resolve/stub-resolv.conf", &link).unwrap();
        apply(root.path(), &identity()).unwrap();
        let inside = root.path().join("run/systemd/resolve/stub-resolv.conf");
        assert!(
            fs::read_to_string(&inside)
                .unwrap()
                .contains("nameserver 10.0.2.3\n")
        );
        assert!(link.is_symlink());
        fs::write(&inside, "the service's own").unwrap();
        apply(root.path(), &identity()).unwrap();
        assert_eq!(fs::read_to_string(&inside).unwrap(), "the service's own");
    }

    #[test]
    fn a_link_that_leads_elsewhere_is_no_link_into_run() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("etc")).unwrap();
        symlink("/var/lib/resolv", root.path().join(NAME)).unwrap();
        assert_eq!(link_into_run(root.path()), None);
        apply(root.path(), &identity()).unwrap();
        assert!(!root.path().join(NAME).is_symlink());
    }
}

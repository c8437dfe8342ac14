//! The keys of root, and the image's own sshd where it has one: the same pinned host key as
//! the agent's, and keys only.

use std::io;
use std::path::Path;

use banger_model::guest::Identity;
use russh::keys::PrivateKey;
use russh::keys::ssh_key::LineEnding;

use super::files;

const BEGIN: &str = "# BEGIN banger (written at every boot)";
const END: &str = "# END banger";
const HOST_KEY: &str = "etc/ssh/ssh_host_ed25519_key";
const POSTURE: &str = "\
# Written by banger at every boot.
HostKey /etc/ssh/ssh_host_ed25519_key
PermitRootLogin prohibit-password
PubkeyAuthentication yes
PasswordAuthentication no
KbdInteractiveAuthentication no
StrictModes yes
";

pub(super) fn apply(root: &Path, identity: &Identity) -> io::Result<()> {
    authorize(root, &identity.ssh.authorized_keys)?;
    if files::is_directory(root, "etc/ssh") {
        let key = PrivateKey::from_openssh(&identity.ssh.host_key).map_err(io::Error::other)?;
        let private = key.to_openssh(LineEnding::LF).map_err(io::Error::other)?;
        let public = key.public_key().to_openssh().map_err(io::Error::other)?;
        files::write(root, HOST_KEY, 0o600, private.as_bytes())?;
        let line = format!("{public}\n");
        files::write(root, &format!("{HOST_KEY}.pub"), 0o644, line.as_bytes())?;
    }
    if files::is_directory(root, "etc/ssh/sshd_config.d") {
        // The first value of an option counts, and the files are read in the order of their
        // names.
        files::write(
            root,
            "etc/ssh/sshd_config.d/05-banger.conf",
            0o644,
            POSTURE.as_bytes(),
        )?;
    }
    Ok(())
}

fn authorize(root: &Path, keys: &[String]) -> io::Result<()> {
    files::directory(root, "root", 0o755)?;
    files::directory(root, "root/.ssh", 0o700)?;
    let name = "root/.ssh/authorized_keys";
    let now = files::read_text(root, name)?;
    files::write(root, name, 0o600, with_keys(&now, keys).as_bytes())
}

/// The user's lines, with ours between markers at the end. Without the second marker nothing
/// tells where ours end: then all are the user's.
fn with_keys(text: &str, keys: &[String]) -> String {
    let mut lines = Vec::new();
    let mut rest = text.lines();
    while let Some(line) = rest.next() {
        if line != BEGIN {
            lines.push(line);
        } else if rest.clone().any(|line| line == END) {
            rest.find(|&line| line == END);
        }
    }
    lines.push(BEGIN);
    lines.extend(keys.iter().map(|key| key.trim()));
    lines.push(END);
    lines.join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::tests::identity;
    use super::*;

    #[test]
    fn the_users_keys_stay_and_ours_are_replaced() {
        let first = with_keys("ssh-rsa THEIRS\n", &["one".into(), "two".into()]);
        assert_eq!(first, format!("ssh-rsa THEIRS\n{BEGIN}\none\ntwo\n{END}\n"));
        let cut = first.replace(END, "ssh-rsa LATER");
        let mended = with_keys(&cut, &[]);
        assert!(mended.contains("\none\ntwo\nssh-rsa LATER\n"), "{mended}");
        assert_eq!(mended.matches(BEGIN).count(), 1);
        let second = with_keys(&first, &["three".into()]);
        assert_eq!(second, format!("ssh-rsa THEIRS\n{BEGIN}\nthree\n{END}\n"));
    }

    #[test]
    fn the_images_sshd_gets_the_pinned_key() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("etc/ssh/sshd_config.d")).unwrap();
        apply(root.path(), &identity()).unwrap();
        let private = fs::read(root.path().join(HOST_KEY)).unwrap();
        let private = PrivateKey::from_openssh(private).unwrap();
        let public = fs::read_to_string(root.path().join(format!("{HOST_KEY}.pub"))).unwrap();
        assert_eq!(private.public_key().to_openssh().unwrap(), public.trim());
        let posture = root.path().join("etc/ssh/sshd_config.d/05-banger.conf");
        assert!(
            fs::read_to_string(posture)
                .unwrap()
                .contains("PasswordAuthentication no")
        );
    }
}

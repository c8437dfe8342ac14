//! A tree as umoci unpacks it, and whether another one is the same.

use std::fs;
use std::path::Path;
use std::time::Duration;

use tokio::process::Command;
use tree_listing::Listing;

use crate::rig::finished;

const LIMIT: Duration = Duration::from_secs(300);

/// What may differ between an image's tree and the same tree after a boot, and why.
#[derive(Debug, Clone, Copy)]
pub struct Exception {
    /// A path as listings have it, without what is below it.
    pub path: &'static str,
    pub what: Differs,
    pub why: &'static str,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Differs {
    /// It may be there although the image has none.
    Added,
    /// It may be there, and with other content.
    Whole,
    /// This field alone.
    Field(&'static str),
}

const fn except(path: &'static str, what: Differs, why: &'static str) -> Exception {
    Exception { path, what, why }
}

/// What every ext4 file system has.
pub const EXT4: [Exception; 1] = [except(
    "lost+found",
    Differs::Added,
    "where e2fsck puts what it finds",
)];

/// What the guest program writes at every boot (banger-guest/src/identity, init/mounts.rs).
pub const BOOT: [Exception; 24] = [
    except(
        ".",
        Differs::Field("mtime"),
        "directories that are missing are made",
    ),
    except("dev", Differs::Added, "devices are mounted there"),
    except("proc", Differs::Added, "the kernel's files are mounted there"),
    except("sys", Differs::Added, "the kernel's objects are mounted there"),
    except("run", Differs::Added, "what lasts a boot is mounted there"),
    except("etc", Differs::Added, "the identity is written there"),
    except("etc", Differs::Field("mtime"), "files are renamed into it"),
    except("etc/hostname", Differs::Whole, "the VM's name"),
    except("etc/hosts", Differs::Whole, "the VM's name and localhost"),
    except("etc/resolv.conf", Differs::Whole, "the network's name servers"),
    except("etc/machine-id", Differs::Whole, "the VM's own"),
    except("root", Differs::Added, "the home of the agent's sessions"),
    except("root", Differs::Field("mtime"), ".ssh is made in it"),
    except(
        "root",
        Differs::Field("mode"),
        "sshd wants it closed for writing, users want it open",
    ),
    except("root", Differs::Field("uid"), "sshd's strict modes"),
    except("root", Differs::Field("gid"), "sshd's strict modes"),
    except("root/.ssh", Differs::Whole, "the owner's key"),
    except("root/.ssh/authorized_keys", Differs::Whole, "the owner's key"),
    except(
        "etc/ssh",
        Differs::Field("mtime"),
        "the host key is renamed into it",
    ),
    except(
        "etc/ssh/ssh_host_ed25519_key",
        Differs::Whole,
        "the pinned host key",
    ),
    except(
        "etc/ssh/ssh_host_ed25519_key.pub",
        Differs::Whole,
        "the pinned host key",
    ),
    except(
        "etc/ssh/sshd_config.d",
        Differs::Field("mtime"),
        "a file is renamed into it",
    ),
    except(
        "etc/ssh/sshd_config.d/05-banger.conf",
        Differs::Whole,
        "keys only",
    ),
    except("lost+found", Differs::Added, "where e2fsck puts what it finds"),
];

/// The tree of the image `tag` of a layout, as umoci unpacks it. `None` for who may not make
/// devices and files of others; that was said.
///
/// # Panics
/// When umoci cannot unpack it.
pub async fn unpacked(rung: &str, layout: &Path, tag: &str) -> Option<Listing> {
    if !rustix::process::geteuid().is_root() {
        crate::skipped(rung, "umoci needs root for devices and owners");
        return None;
    }
    let dir = tempfile::Builder::new()
        .prefix("bng-umoci-")
        .tempdir_in(crate::rig::temporary())
        .expect("a temporary directory can be made");
    let bundle = dir.path().join("bundle");
    let mut umoci = Command::new("umoci");
    umoci
        .arg("unpack")
        .arg("--image")
        .arg(format!("{}:{tag}", layout.display()))
        .arg(&bundle)
        .stdin(std::process::Stdio::null());
    finished(&mut umoci, LIMIT).await.ok();
    let listing = tree_listing::list(&bundle.join("rootfs")).expect("root can read everything");
    // A directory of mode 0 in it would keep an ordinary removal from going on.
    _ = fs::remove_dir_all(&bundle);
    Some(listing)
}

/// Fails unless two trees are the same but for the exceptions.
///
/// # Panics
/// With the first of the differences.
#[track_caller]
pub fn assert_same(what: &str, wanted: &Listing, found: &Listing, exceptions: &[Exception]) {
    let differences = differences(wanted, found, exceptions);
    assert!(
        differences.is_empty(),
        "{what} has {} differences:\n{}",
        differences.len(),
        differences[..differences.len().min(60)].join("\n")
    );
}

fn differences(wanted: &Listing, found: &Listing, exceptions: &[Exception]) -> Vec<String> {
    let excepted = |path: &str, what: &[Differs]| {
        exceptions
            .iter()
            .any(|e| e.path == path && what.contains(&e.what))
    };
    let mut text = Vec::new();
    for (path, fields) in wanted {
        let Some(other) = found.get(path) else {
            text.push(format!("lost: {path} {fields:?}"));
            continue;
        };
        if excepted(path, &[Differs::Whole]) {
            continue;
        }
        let keys: std::collections::BTreeSet<_> = fields.keys().chain(other.keys()).collect();
        for key in keys {
            let is_excepted = exceptions
                .iter()
                .any(|e| e.path == path && matches!(e.what, Differs::Field(name) if name == key));
            let (a, b) = (fields.get(key), other.get(key));
            if a != b && !is_excepted {
                text.push(format!("differs: {path} {key}: {a:?} became {b:?}"));
            }
        }
    }
    for (path, fields) in found {
        if !wanted.contains_key(path) && !excepted(path, &[Differs::Added, Differs::Whole]) {
            text.push(format!("added: {path} {fields:?}"));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_excepted_may_differ() {
        let parse = tree_listing::parse;
        let wanted = parse("a\tmode=1\tuid=0\netc\tmtime=1\nlost\tmode=2\n");
        let found = parse("a\tmode=1\tuid=5\netc\tmtime=2\nextra\tmode=2\nlost+found\tmode=3\n");
        let differences = differences(&wanted, &found, &BOOT);
        let words: Vec<_> = differences
            .iter()
            .map(|line| line.split_whitespace().take(2).collect::<Vec<_>>().join(" "))
            .collect();
        assert_eq!(words, ["differs: a", "lost: lost", "added: extra"]);
    }
}

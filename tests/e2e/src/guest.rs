//! Looking into a guest whatever its image has: the agent alone is needed.

use std::path::{Path, PathBuf};

use tokio::process::Command;
use tree_listing::Listing;

use crate::rig::{LIMIT, Out, Rig, bin_dir, finished};

/// Where the lister is put, and where it mounts what it lists: in memory.
const PROGRAM: &str = "/run/tree-listing";
const PLACE: &str = "/run/tree";

impl Rig {
    /// The tree of a guest's root disk, without what is mounted over it, as its kernel sees it.
    ///
    /// # Panics
    /// When the guest does not answer, or the lister was not built.
    pub async fn guest_tree(&self, vm: &str) -> Listing {
        let program = self.static_program("tree-listing");
        let batch = self.dir().join("lister.sftp");
        let commands = format!("put {} {PROGRAM}\nchmod 755 {PROGRAM}\n", program.display());
        std::fs::write(&batch, commands).expect("the rig is writable");
        let mut sftp = self.program("sftp");
        sftp.arg("-b").arg(&batch);
        self.reach(vm, &mut sftp, "-P").await;
        finished(sftp.arg("root@127.0.0.1"), LIMIT).await.ok();
        let out = self.ssh(vm, &[PROGRAM, PLACE]).await.ok();
        let text = out.text();
        assert!(text.ends_with("end"), "the listing has no end: {out}");
        tree_listing::parse(text.trim_end_matches("end"))
    }

    /// A program that runs in any guest.
    ///
    /// # Panics
    /// When it was not built.
    pub fn static_program(&self, name: &str) -> PathBuf {
        let program = bin_dir().join(name);
        assert!(
            program.exists(),
            "no {}: run scripts/build test-programs",
            program.display()
        );
        program
    }

    /// Runs a command in a guest as root, by the host's own `ssh`.
    pub async fn ssh(&self, vm: &str, words: &[&str]) -> Out {
        let mut ssh = self.program("ssh");
        self.reach(vm, &mut ssh, "-p").await;
        finished(ssh.arg("root@127.0.0.1").args(words), 2 * LIMIT).await
    }

    /// Adds the options by which OpenSSH's programs reach a guest; `port` is that of the port.
    pub async fn reach(&self, vm: &str, command: &mut Command, port: &str) {
        let info = self.show(vm).await;
        let text = |key: &str| {
            info[key]
                .as_str()
                .map_or_else(|| info[key].to_string(), str::to_owned)
        };
        let option = |key: &str, path: PathBuf| format!("-o{key}={}", path.display());
        command
            .args(["-F", "none", "-oBatchMode=yes", "-oStrictHostKeyChecking=yes"])
            .args(["-oIdentitiesOnly=yes", "-oIdentityAgent=none", "-oLogLevel=ERROR"])
            .arg(option("IdentityFile", self.dirs().ssh_key()))
            .arg(option("UserKnownHostsFile", self.dirs().known_hosts()))
            .arg(option("GlobalKnownHostsFile", Path::new("/dev/null").to_owned()))
            .arg(format!("-oHostKeyAlias=banger-{}", text("id")))
            .args([port.to_owned(), text("ssh_port")]);
    }
}

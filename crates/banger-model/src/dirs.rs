//! Where banger's files are: the XDG base directory specification.

use std::ffi::OsString;
use std::path::PathBuf;

/// The owner's directories, each absolute. None of them is made here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dirs {
    /// `$XDG_CONFIG_HOME/banger`: `config.toml`, `catalog.d`. Only read.
    pub config: PathBuf,
    /// `$XDG_STATE_HOME/banger`: the database, the owner's key, the VMs' disks.
    pub state: PathBuf,
    /// `$XDG_DATA_HOME/banger`: images and kernels.
    pub data: PathBuf,
    /// `$XDG_CACHE_HOME/banger`: what can be made or fetched again.
    pub cache: PathBuf,
    /// `$XDG_RUNTIME_DIR/banger`: sockets and locks; gone after a reboot.
    pub runtime: PathBuf,
}

/// Why the directories cannot be told.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DirsError {
    #[error(
        "HOME is not set to an absolute path: set it, or set XDG_STATE_HOME, XDG_DATA_HOME, XDG_CACHE_HOME and XDG_CONFIG_HOME"
    )]
    NoHome,
}

impl Dirs {
    /// Resolves the directories from an environment. As the specification says, a variable
    /// that is not an absolute path is ignored. Without `XDG_RUNTIME_DIR` the runtime
    /// directory is `run` below the state directory: never a predictable name in `/tmp`.
    ///
    /// # Errors
    /// Without `HOME`, unless nothing depends on it.
    pub fn resolve(env: impl Fn(&str) -> Option<OsString>) -> Result<Self, DirsError> {
        let absolute = |key: &str| env(key).map(PathBuf::from).filter(|path| path.is_absolute());
        let home = absolute("HOME");
        let base = |key: &str, below_home: &str| {
            absolute(key)
                .or_else(|| home.as_ref().map(|home| home.join(below_home)))
                .map(|base| base.join("banger"))
                .ok_or(DirsError::NoHome)
        };
        let state = base("XDG_STATE_HOME", ".local/state")?;
        Ok(Self {
            config: base("XDG_CONFIG_HOME", ".config")?,
            data: base("XDG_DATA_HOME", ".local/share")?,
            cache: base("XDG_CACHE_HOME", ".cache")?,
            runtime: absolute("XDG_RUNTIME_DIR").map_or_else(|| state.join("run"), |dir| dir.join("banger")),
            state,
        })
    }

    /// `config.toml`.
    pub fn config_file(&self) -> PathBuf {
        self.config.join("config.toml")
    }

    /// The owner's database.
    pub fn database(&self) -> PathBuf {
        self.state.join("banger.db")
    }

    /// The daemon's private socket: the same D-Bus interface, peer to peer.
    pub fn socket(&self) -> PathBuf {
        self.runtime.join("bangerd.sock")
    }

    /// Held by whoever starts a daemon, until the daemon listens.
    pub fn start_lock(&self) -> PathBuf {
        self.runtime.join("start.lock")
    }

    /// Held by the one daemon of this owner for its whole life. It lies with the database,
    /// so that two sessions with different runtime directories still share one daemon.
    pub fn daemon_lock(&self) -> PathBuf {
        self.state.join("bangerd.lock")
    }

    /// What a daemon that a client started says on its standard error.
    pub fn daemon_log(&self) -> PathBuf {
        self.state.join("bangerd.log")
    }

    /// The private key that the daemon makes where the configuration names none.
    pub fn ssh_key(&self) -> PathBuf {
        self.state.join("ssh/id_ed25519")
    }

    /// The guests' host keys, each as `banger-<id>`.
    pub fn known_hosts(&self) -> PathBuf {
        self.state.join("known_hosts")
    }

    /// What ssh reads to know VMs as `NAME.vm`; the daemon keeps it true.
    pub fn ssh_config(&self) -> PathBuf {
        self.state.join("ssh_config")
    }

    /// The directory that holds one directory per VM.
    pub fn vms(&self) -> PathBuf {
        self.state.join("vms")
    }

    /// Images of the store, one directory each.
    pub fn images(&self) -> PathBuf {
        self.data.join("images")
    }

    /// Kernels of the store, one directory each.
    pub fn kernels(&self) -> PathBuf {
        self.data.join("kernels")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(env: &[(&str, &str)]) -> Result<Dirs, DirsError> {
        Dirs::resolve(|key| env.iter().find(|(k, _)| *k == key).map(|(_, v)| v.into()))
    }

    #[test]
    fn home_is_enough() {
        let dirs = resolve(&[("HOME", "/home/a")]).unwrap();
        assert_eq!(
            dirs.database(),
            PathBuf::from("/home/a/.local/state/banger/banger.db")
        );
        assert_eq!(
            dirs.socket(),
            PathBuf::from("/home/a/.local/state/banger/run/bangerd.sock")
        );
    }

    #[test]
    fn relative_variables_are_ignored() {
        let dirs = resolve(&[
            ("HOME", "/h"),
            ("XDG_STATE_HOME", "state"),
            ("XDG_RUNTIME_DIR", "/run/user/1"),
        ])
        .unwrap();
        assert_eq!(dirs.state, PathBuf::from("/h/.local/state/banger"));
        assert_eq!(dirs.runtime, PathBuf::from("/run/user/1/banger"));
        assert_eq!(resolve(&[("HOME", "h")]), Err(DirsError::NoHome));
    }
}

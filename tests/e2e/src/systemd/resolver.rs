//! systemd-resolved for the machine. On Debian it is a package of its own which, installed on the
//! host, would take over the host's names: its files are put into the machine alone.

use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;

use super::{LIMIT, Machine};
use crate::rig::finished;
use crate::store;

const PACKAGES: [&str; 2] = ["systemd-resolved", "libnss-resolve"];

impl Machine {
    /// Starts resolved, and has names asked there. Where it cannot be had that is said, and the
    /// machine is one without it.
    pub(super) async fn resolver(&self) {
        let own = [
            "/lib/systemd/systemd-resolved",
            "/usr/lib/systemd/systemd-resolved",
        ];
        if !own.iter().any(|path| Path::new(path).exists())
            && let Err(why) = self.unpack_resolver().await
        {
            crate::skipped("resolved", &why);
            return;
        }
        self.sh("systemd-sysusers systemd-resolve.conf || true
             rm -f /etc/systemd/system/systemd-resolved.service
             systemctl daemon-reload
             busctl call org.freedesktop.DBus /org/freedesktop/DBus org.freedesktop.DBus ReloadConfig
             sed -i 's/^hosts:.*/hosts: files resolve [!UNAVAIL=return] dns/' /etc/nsswitch.conf
             systemctl start systemd-resolved.service")
            .await
            .ok();
    }

    /// Whether names are asked at resolved.
    pub async fn has_resolver(&self) -> bool {
        let active = self.sh("systemctl is-active -q systemd-resolved.service").await;
        active.status == 0
    }

    async fn unpack_resolver(&self) -> Result<(), String> {
        let version = finished(
            Command::new("dpkg-query").args(["-W", "-f=${Version}", "systemd"]),
            LIMIT,
        )
        .await;
        if version.status != 0 {
            return Err("no systemd-resolved here".to_owned());
        }
        // The same version as the rest of systemd, whose private library it is linked with.
        let name = format!("resolved-{}", version.text().replace(['/', ':'], "_"));
        let packages = PACKAGES.map(|package| format!("{package}={}", version.text()));
        let dir = store::kept(&name, async |dir| {
            let mut apt = Command::new("apt-get");
            apt.args(["-q", "download"]).args(&packages).current_dir(dir);
            let out = finished(&mut apt, Duration::from_secs(120)).await;
            (out.status == 0).then_some(()).ok_or(format!(
                "systemd-resolved cannot be fetched: {}",
                out.stderr.lines().last().unwrap_or_default()
            ))
        })
        .await?;
        for package in fs::read_dir(dir).into_iter().flatten().flatten() {
            if package.path().extension().is_some_and(|e| e == "deb") {
                self.unpack(&package.path()).await;
            }
        }
        Ok(())
    }

    async fn unpack(&self, package: &Path) {
        let mut files = Command::new("dpkg-deb");
        files.arg("--fsys-tarfile").arg(package).stdout(Stdio::piped());
        let mut files = files.spawn().expect("dpkg-deb is there with dpkg-query");
        let archive: Stdio = files
            .stdout
            .take()
            .expect("standard output is a pipe")
            .try_into()
            .expect("a pipe can be handed on");
        // What is /lib in a package is a link here.
        let mut tar = self.root("tar");
        tar.args(["-x", "--keep-directory-symlink", "-C", "/"])
            .stdin(archive);
        finished(&mut tar, LIMIT).await.ok();
        assert!(files.wait().await.is_ok_and(|status| status.success()));
    }
}

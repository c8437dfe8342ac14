//! Whether the owner's ssh knows VMs as NAME.vm, and by files that are still the right ones.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use banger_model::Dirs;

use super::report::Report;

const NAME: &str = "ssh-config";
const INSTALL: &str = "banger ssh-config --install";
/// No configuration is larger.
const MAX_BYTES: u64 = 1 << 20;

/// Reads only: the owner's configuration is changed by `banger ssh-config --install` alone.
pub(super) fn check(report: &mut Report, dirs: &Dirs) {
    let Some(ssh) = std::env::home_dir().map(|home| home.join(".ssh")) else {
        return;
    };
    let own = read(&ssh.join("config")).unwrap_or_default();
    let Some(included) = included(&own, &ssh) else {
        return report.add(
            NAME,
            super::report::Status::Info,
            "ssh does not know VMs as NAME.vm; `banger vm ssh NAME` needs nothing",
            INSTALL,
        );
    };
    let shown = included.display();
    match read(&included) {
        None => report.warning(
            NAME,
            format!("~/.ssh/config includes {shown}, which is not there"),
            INSTALL,
        ),
        Some(text) if !text.contains(&dirs.known_hosts().display().to_string()) => report.warning(
            NAME,
            format!(
                "{shown} is stale: it does not name {}",
                dirs.known_hosts().display()
            ),
            INSTALL,
        ),
        Some(_) => report.ok(NAME, format!("ssh knows VMs as NAME.vm by {shown}")),
    }
}

/// What the configuration takes from banger: the file of an `Include` that has its name.
fn included(config: &str, ssh: &Path) -> Option<PathBuf> {
    let file = config.lines().find_map(|line| {
        let (key, value) = line.trim().split_once([' ', '\t', '='])?;
        let value = value
            .trim_start_matches([' ', '\t', '='])
            .trim()
            .trim_matches('"');
        let is_ours = Path::new(value).components().any(|part| {
            let part = part.as_os_str().to_string_lossy();
            part == "banger" || part.starts_with("banger.")
        });
        (key.eq_ignore_ascii_case("include") && is_ours).then(|| value.to_owned())
    })?;
    // ssh_config(5): what is not absolute is in ~/.ssh.
    Some(match file.strip_prefix("~/") {
        Some(below) => ssh.parent().unwrap_or(ssh).join(below),
        None => ssh.join(file),
    })
}

fn read(path: &Path) -> Option<String> {
    let mut bytes = Vec::new();
    File::open(path)
        .ok()?
        .take(MAX_BYTES)
        .read_to_end(&mut bytes)
        .ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_bangers_own_include_counts() {
        let of = |text| included(text, Path::new("/h/.ssh")).map(|path| path.display().to_string());
        assert_eq!(of("Host a\n  Include other.conf\n# Include banger.conf\n"), None);
        assert_eq!(
            of("Include banger.conf\n").as_deref(),
            Some("/h/.ssh/banger.conf")
        );
        assert_eq!(
            of("x y\n\tinclude \"/h/.local/state/banger/ssh_config\"").as_deref(),
            Some("/h/.local/state/banger/ssh_config")
        );
        assert_eq!(of("Include=~/banger/ssh").as_deref(), Some("/h/banger/ssh"));
    }
}

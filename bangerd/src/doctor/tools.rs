//! Programs and files of the host that images, workspaces and consoles need.

use std::path::{Path, PathBuf};

use rustix::fs::{Access, access};
use rustix::process::geteuid;

use super::report::Report;

/// Where programs are besides PATH: those of `sbin` are not on everybody's.
const SBIN: [&str; 3] = ["/usr/local/sbin", "/usr/sbin", "/sbin"];
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// Name, packages of Debian and Fedora, and what it is for.
const TOOLS: [(&str, &str, &str, &str); 6] = [
    ("mmdebstrap", "mmdebstrap", "mmdebstrap", "building images"),
    ("apt-get", "apt", "apt", "building images and fetching kernels"),
    ("dpkg-deb", "dpkg", "dpkg", "unpacking kernels"),
    ("git", "git", "git-core", "bringing a repository into a VM"),
    ("ssh", "openssh-client", "openssh-clients", "vm ssh"),
    ("journalctl", "systemd", "systemd", "consoles in the journal"),
];

pub(super) fn check(report: &mut Report) {
    for (tool, debian, fedora, purpose) in TOOLS {
        tool_or_warning(report, tool, debian, fedora, purpose);
    }
    if Path::new(KEYRING).is_file() {
        report.ok("debian-keyring", KEYRING);
    } else {
        report.warning(
            "debian-keyring",
            format!("{KEYRING} is missing: the archive's signatures cannot be checked"),
            "apt install debian-archive-keyring (Fedora: dnf install debian-keyring)",
        );
    }
    subordinate_ids(report);
}

fn tool_or_warning(report: &mut Report, tool: &str, debian: &str, fedora: &str, purpose: &str) {
    let name = format!("tool-{tool}");
    match find(tool) {
        Some(path) => report.ok(&name, path.display().to_string()),
        None => report.warning(
            &name,
            format!("{tool} is missing, which {purpose} needs"),
            &format!("apt install {debian} (Fedora: dnf install {fedora})"),
        ),
    }
}

/// Building an image as an ordinary user takes a range of ids in a user namespace.
fn subordinate_ids(report: &mut Report) {
    let uid = geteuid();
    if uid.is_root() {
        return report.ok("subordinate-ids", "Not needed by root");
    }
    for tool in ["newuidmap", "newgidmap"] {
        tool_or_warning(
            report,
            tool,
            "uidmap",
            "shadow-utils",
            "building images without root",
        );
    }
    let id = uid.as_raw().to_string();
    let user = user_name(&id).unwrap_or_else(|| id.clone());
    let has_range = |file: &str| {
        std::fs::read_to_string(file).is_ok_and(|text| {
            text.lines()
                .filter_map(|line| line.split(':').next())
                .any(|owner| owner == user || owner == id)
        })
    };
    if ["/etc/subuid", "/etc/subgid"].into_iter().all(has_range) {
        report.ok(
            "subordinate-ids",
            format!("{user} has ranges in /etc/subuid and /etc/subgid"),
        );
    } else {
        report.warning(
            "subordinate-ids",
            format!(
                "{user} has no range in /etc/subuid and /etc/subgid: images cannot be built without root"
            ),
            &format!("sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {user}"),
        );
    }
}

fn user_name(uid: &str) -> Option<String> {
    let passwd = std::fs::read_to_string("/etc/passwd").ok()?;
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)? == uid).then(|| name.to_owned())
    })
}

fn find(tool: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .filter(|directory| directory.is_absolute())
        .chain(SBIN.map(PathBuf::from))
        .map(|directory| directory.join(tool))
        .find(|file| file.is_file() && access(file, Access::EXEC_OK).is_ok())
}

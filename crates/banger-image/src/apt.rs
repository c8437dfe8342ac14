//! apt with a root directory of its own: any user can fetch from a signed archive, and
//! nothing of the host's package management is read or changed.

use std::fs::{self, File, OpenOptions};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::{FlockOperation, flock};

use crate::Cancel;
use crate::catalog::Word;
use crate::error::{Error, Result, home};
use crate::process::{APT_CACHE, APT_CONFIG, APT_GET, NO_SPACE, Tool, each_line};
use crate::progress::Progress;
use crate::store::make_dir;

/// The keys that Debian signs its archive with.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
/// The architecture of guests, as Debian calls it.
pub(crate) const ARCHITECTURE: &str = "amd64";
/// What the lists of a suite, or a kernel's package, take at most.
const LISTS: u64 = 128 << 20;
/// apt says little about one package; more is not for us.
const MAX_OUTPUT: u64 = 1 << 20;

/// Where Debian's archive is read from. Its signatures are checked whatever the place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mirrors {
    pub debian: String,
    pub security: String,
}

impl Default for Mirrors {
    fn default() -> Self {
        Self {
            debian: "http://deb.debian.org/debian".to_owned(),
            security: "http://deb.debian.org/debian-security".to_owned(),
        }
    }
}

/// A suite with its updates and security fixes, in apt's one-line form.
///
/// # Errors
/// [`Error::MissingTool`] without the archive's keys.
pub(crate) fn sources(mirrors: &Mirrors, suite: &Word, components: &[Word]) -> Result<Vec<String>> {
    keyring()?;
    let components = components.iter().map(Word::as_str).collect::<Vec<_>>().join(" ");
    let line = |url: &str, suite: &str| {
        format!("deb [arch={ARCHITECTURE} signed-by={KEYRING}] {url} {suite} {components}")
    };
    let main = line(&mirrors.debian, suite.as_str());
    if matches!(suite.as_str(), "sid" | "unstable" | "experimental") {
        return Ok(vec![main]);
    }
    Ok(vec![
        main,
        line(&mirrors.debian, &format!("{suite}-updates")),
        line(&mirrors.security, &format!("{suite}-security")),
    ])
}

/// # Errors
/// [`Error::MissingTool`] without the archive's keys.
pub(crate) fn keyring() -> Result<&'static Path> {
    let keyring = Path::new(KEYRING);
    if keyring.is_file() {
        return Ok(keyring);
    }
    Err(Error::MissingTool {
        tool: "The keyring of Debian's archive",
        debian: "debian-archive-keyring",
        fedora: "debian-keyring",
    })
}

/// What the archive says about a package.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Package {
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) sha256: String,
    /// Alternatives and versions included.
    pub(crate) depends: Vec<String>,
}

/// apt, with the package lists of some sources.
#[derive(Debug)]
pub(crate) struct Apt {
    config: PathBuf,
    /// Lists that others may use too are ours as long as this lives.
    _lock: Option<File>,
}

impl Apt {
    /// Fetches the lists of `sources` into `shared`, or into `own` while somebody else uses
    /// `shared`.
    pub(crate) fn update(
        shared: &Path,
        own: &Path,
        sources: &[String],
        progress: &dyn Progress,
        cancel: &Cancel,
    ) -> Result<Self> {
        make_dir(shared)?;
        let lock = lock(shared)?;
        let root = if lock.is_some() { shared } else { own };
        for dir in [
            "etc/apt.conf.d",
            "etc/preferences.d",
            "etc/sources.list.d",
            "lists/partial",
            "archives/partial",
            "log",
        ] {
            make_dir(&root.join(dir))?;
        }
        write(&root.join("etc/sources.list"), &(sources.join("\n") + "\n"))?;
        write(&root.join("status"), "")?;
        let config = root.join("apt.conf");
        write(&config, &configuration(root, cancel)?)?;
        let apt = Self { config, _lock: lock };
        apt.get(&["update"], root, progress, cancel)?;
        Ok(apt)
    }

    /// The newest version of a package, or the version that is named.
    pub(crate) fn show(&self, package: &str, version: Option<&str>, cancel: &Cancel) -> Result<Package> {
        let mut command = self.command(&APT_CACHE)?;
        command
            .args(["show", "--no-all-versions"])
            .arg(pinned(package, version));
        let text = APT_CACHE.output(command, cancel, MAX_OUTPUT)?;
        parse_package(&text).ok_or_else(|| Error::Package {
            package: package.to_owned(),
            reason: "the archive's entry for it cannot be read".to_owned(),
        })
    }

    /// Fetches a package into `dir`, verified, and returns its file.
    pub(crate) fn download(
        &self,
        package: &Package,
        dir: &Path,
        progress: &dyn Progress,
        cancel: &Cancel,
    ) -> Result<PathBuf> {
        make_dir(dir)?;
        let pinned = pinned(&package.name, Some(&package.version));
        self.get(&["download", &pinned], dir, progress, cancel)?;
        let mut files = fs::read_dir(dir).map_err(Error::io("read", dir))?;
        let file = files.find_map(|entry| {
            let path = entry.ok()?.path();
            (path.extension()? == "deb").then_some(path)
        });
        file.ok_or_else(|| Error::Package {
            package: package.name.clone(),
            reason: "apt fetched no file for it".to_owned(),
        })
    }

    fn command(&self, tool: &Tool) -> Result<Command> {
        let mut command = tool.command()?;
        command.env("APT_CONFIG", &self.config);
        Ok(command)
    }

    /// Runs apt-get in `dir`, and passes its progress on.
    fn get(&self, arguments: &[&str], dir: &Path, progress: &dyn Progress, cancel: &Cancel) -> Result<()> {
        let mut command = self.command(&APT_GET)?;
        command
            .args(["-q", "-o", "APT::Status-Fd=1"])
            .args(arguments)
            .current_dir(dir);
        let read = |out: &mut dyn Read| {
            each_line(out, |line| {
                if let Some(percent) = status_percent(line) {
                    progress.fraction(percent / 100.0);
                }
            });
            Ok(())
        };
        APT_GET
            .run(command, cancel, |_| {}, read)
            .map_err(|error| no_space(error, dir, LISTS))
    }
}

/// The lists belong to one apt at a time.
fn lock(dir: &Path) -> Result<Option<File>> {
    let path = dir.join("banger.lock");
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .map_err(Error::io("open", &path))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(file)),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
        Err(error) => Err(Error::os("lock", &path)(error)),
    }
}

/// apt's configuration: its own directories, and of the host's only the proxies.
fn configuration(root: &Path, cancel: &Cancel) -> Result<String> {
    let root = root
        .to_str()
        .filter(|root| !root.contains(['"', '\\', '\n']))
        .ok_or_else(|| Error::Package {
            package: "lists".to_owned(),
            reason: format!("apt cannot work in {root:?}: choose another cache directory"),
        })?;
    let mut text = format!(
        "Dir \"{root}\";\n\
         Dir::Etc \"etc\";\n\
         Dir::Etc::parts \"apt.conf.d\";\n\
         Dir::State \"{root}\";\n\
         Dir::State::lists \"lists\";\n\
         Dir::State::status \"{root}/status\";\n\
         Dir::Cache \"{root}\";\n\
         Dir::Cache::archives \"archives\";\n\
         Dir::Log \"{root}/log\";\n\
         APT::Architecture \"{ARCHITECTURE}\";\n\
         APT::Architectures \"{ARCHITECTURE}\";\n\
         APT::Update::Error-Mode \"any\";\n\
         Acquire::Languages \"none\";\n\
         Acquire::GzipIndexes \"true\";\n\
         Dir::Cache::srcpkgcache \"\";\n\
         Acquire::Retries \"3\";\n\
         Acquire::AllowInsecureRepositories \"false\";\n"
    );
    // The user of apt's downloads could not reach a private directory.
    if rustix::process::geteuid().is_root() {
        text.push_str("APT::Sandbox::User \"root\";\n");
    }
    for line in host_proxies(cancel)?.lines() {
        text.push_str(line);
        text.push('\n');
    }
    Ok(text)
}

/// The proxies of the host's apt, in apt's form.
fn host_proxies(cancel: &Cancel) -> Result<String> {
    let mut command = APT_CONFIG.command()?;
    command.args(["dump", "--no-empty", "--format", "%F \"%v\";\n"]);
    let all = APT_CONFIG.output(command, cancel, MAX_OUTPUT)?;
    let wanted = |line: &&str| {
        [
            "Acquire::http::Proxy",
            "Acquire::https::Proxy",
            "Acquire::http::proxy",
            "Acquire::https::proxy",
        ]
        .iter()
        .any(|key| line.starts_with(key))
    };
    Ok(all.lines().filter(wanted).collect::<Vec<_>>().join("\n"))
}

/// A package, or one of its versions, as apt's commands take it.
fn pinned(package: &str, version: Option<&str>) -> String {
    match version {
        Some(version) => format!("{package}={version}"),
        None => package.to_owned(),
    }
}

/// One paragraph of an archive's index.
fn parse_package(text: &str) -> Option<Package> {
    let field = |name: &str| {
        text.lines()
            .take_while(|line| !line.is_empty())
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    };
    let sha256 = field("SHA256")?;
    let version = field("Version")?;
    let good_version = version.starts_with(|c: char| c.is_ascii_digit())
        && version
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || ".+-~:".contains(c));
    let good_sum = sha256.len() == 64 && sha256.chars().all(|c| c.is_ascii_hexdigit());
    let depends = field("Depends").unwrap_or_default();
    (good_version && good_sum).then(|| Package {
        name: field("Package").unwrap_or_default().to_owned(),
        version: version.to_owned(),
        sha256: sha256.to_owned(),
        depends: depends
            .split(',')
            .filter_map(|dependency| dependency.split_whitespace().next())
            .map(str::to_owned)
            .collect(),
    })
}

/// The percentage in a line of apt's status descriptor, "dlstatus:1:42.5:Retrieving …".
fn status_percent(line: &str) -> Option<f64> {
    let mut fields = line.strip_prefix("dlstatus:")?.split(':');
    let percent: f64 = fields.nth(1)?.parse().ok()?;
    (0.0..=100.0).contains(&percent).then_some(percent)
}

/// A tool that failed because of a full disk says so in words only.
pub(crate) fn no_space(error: Error, dir: &Path, needed: u64) -> Error {
    let full = |message: &str| message.contains(NO_SPACE) || message.contains("enough free space");
    match error {
        Error::Tool { message, .. } if full(&message) => Error::NoSpace {
            path: home(&dir.join("file")),
            needed,
            quota: false,
        },
        other => other,
    }
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).map_err(Error::io("write", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_is_read() {
        let sum = "ab".repeat(32);
        let text = format!(
            "Package: linux-image-cloud-amd64\nVersion: 6.1.192-2\nDepends: linux-image-6.1.0-56-cloud-amd64 (= 6.1.192-2), a | b\nSHA256: {sum}\n\nVersion: 9\n"
        );
        let package = parse_package(&text).unwrap();
        assert_eq!(package.version, "6.1.192-2");
        assert_eq!(package.depends, ["linux-image-6.1.0-56-cloud-amd64", "a"]);
        assert_eq!(parse_package(&text.replace("6.1.192-2\nD", "1 -o x\nD")), None);
        assert_eq!(parse_package(&text.replace("abab", "xyxy")), None);
        assert_eq!(parse_package(""), None);
    }

    #[test]
    fn progress_is_read() {
        assert_eq!(
            status_percent("dlstatus:1:42.5:Retrieving file 2 of 3"),
            Some(42.5)
        );
        for other in [
            "pmstatus:x:1:y",
            "dlstatus:1:nan:x",
            "dlstatus:1:900:x",
            "dlstatus:",
            "",
        ] {
            assert_eq!(status_percent(other), None);
        }
    }

    #[test]
    fn a_full_disk_is_seen_in_words() {
        let tool = |message: &str| Error::Tool {
            tool: "apt-get",
            message: message.to_owned(),
        };
        let dir = Path::new("/x");
        assert!(matches!(
            no_space(tool("E: Write error (28: No space left on device)"), dir, 7),
            Error::NoSpace { needed: 7, .. }
        ));
        assert!(matches!(no_space(tool("E: no"), dir, 7), Error::Tool { .. }));
    }

    #[test]
    fn every_suite_comes_with_its_fixes() {
        let word = |text: &str| Word::try_from(text.to_owned()).unwrap();
        match sources(&Mirrors::default(), &word("bookworm"), &[word("main")]) {
            Ok(lines) => {
                assert_eq!(lines.len(), 3);
                assert!(
                    lines
                        .iter()
                        .all(|line| line.contains("signed-by=") && line.ends_with(" main"))
                );
                assert!(lines[2].contains("debian-security bookworm-security"));
            }
            Err(Error::MissingTool { debian, .. }) => assert_eq!(debian, "debian-archive-keyring"),
            Err(error) => panic!("{error}"),
        }
    }
}

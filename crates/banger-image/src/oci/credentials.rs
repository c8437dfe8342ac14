//! What the user has stored by `docker login` or `podman login`: files, and helper programs.

use std::collections::BTreeMap;
use std::env;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{ChildStdout, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use serde::Deserialize;

use super::error::shown;
use crate::Cancel;
use crate::group::Group;

/// Who the user is for a registry. Never printed.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Credentials {
    Basic {
        user: String,
        password: String,
    },
    /// A token with which a token server gives others.
    Identity(String),
}

/// The files that may have credentials, the first to be looked at first.
#[derive(Debug, Clone)]
pub(super) struct Files(Vec<PathBuf>);

/// The keys under which credentials of the hub are stored.
const HUB: &str = "docker.io";
const HUB_ALIASES: [&str; 2] = ["index.docker.io", "registry-1.docker.io"];
const HUB_SERVER: &str = "https://index.docker.io/v1/";
const MAX_FILE: u64 = 1 << 20;
const MAX_ANSWER: u64 = 64 << 10;
/// A helper may ask the user to unlock a key ring.
const HELPER_TIME: Duration = Duration::from_secs(60);
/// How a helper says that it has none (docker-credential-helpers).
const NOT_FOUND: &str = "credentials not found";
const TOKEN_USER: &str = "<token>";
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The `Basic` scheme's form of a user and a password (RFC 7617).
pub(super) fn basic(user: &str, password: &str) -> String {
    BASE64.encode(format!("{user}:{password}"))
}

impl Files {
    /// Where docker and podman look: an explicit file, docker's, podman's.
    pub(super) fn find(env: impl Fn(&str) -> Option<OsString>) -> Self {
        let dir = |key: &str| env(key).filter(|value| !value.is_empty()).map(PathBuf::from);
        let home = |below: &str| dir("HOME").map(|home| home.join(below));
        let found = [
            dir("REGISTRY_AUTH_FILE"),
            dir("DOCKER_CONFIG")
                .or_else(|| home(".docker"))
                .map(|dir| dir.join("config.json")),
            dir("XDG_RUNTIME_DIR").map(|dir| dir.join("containers/auth.json")),
            dir("XDG_CONFIG_HOME")
                .or_else(|| home(".config"))
                .map(|dir| dir.join("containers/auth.json")),
        ];
        Self(found.into_iter().flatten().collect())
    }

    pub(super) fn of_user() -> Self {
        Self::find(|key| env::var_os(key))
    }

    /// The first credentials for a repository of a host. What cannot be read or asked is left
    /// out, and `warn` gets why: many images need none.
    pub(super) fn lookup(
        &self,
        host: &str,
        repository: &str,
        cancel: &Cancel,
        warn: &mut dyn FnMut(String),
    ) -> Option<Credentials> {
        for path in &self.0 {
            let config = match Config::read(path) {
                Ok(config) => config,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => {
                    warn(format!(
                        "Cannot read the credentials in {}: {error}",
                        path.display()
                    ));
                    continue;
                }
            };
            match config.lookup(host, repository, cancel) {
                Ok(Some(found)) => return Some(found),
                Ok(None) => {}
                Err(reason) => warn(format!(
                    "Cannot use the credentials for {host} that {} names: {reason}",
                    path.display()
                )),
            }
        }
        None
    }
}

/// Whether the text of a file has credentials for a repository, or names who has.
///
/// # Errors
/// What [`Files::lookup`] warns of.
pub(super) fn is_in(text: &[u8], host: &str, repository: &str) -> Result<bool, String> {
    let config = Config::parse(text).map_err(|error| error.to_string())?;
    config.find(host, repository).map(|found| found.is_some())
}

/// The part of docker's and podman's files that is about credentials.
#[derive(Deserialize, Default)]
#[serde(default)]
struct Config {
    auths: Option<BTreeMap<String, Entry>>,
    #[serde(rename = "credsStore")]
    store: Option<String>,
    #[serde(rename = "credHelpers")]
    helpers: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Entry {
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
    identitytoken: Option<String>,
}

/// Who has the credentials for a repository.
enum Source<'a> {
    File(Credentials),
    /// The program with this name.
    Helper(&'a str),
}

impl Config {
    fn read(path: &Path) -> io::Result<Self> {
        let mut text = Vec::new();
        File::open(path)?.take(MAX_FILE + 1).read_to_end(&mut text)?;
        if text.len() as u64 > MAX_FILE {
            return Err(io::Error::other("the file is too large"));
        }
        Self::parse(&text)
    }

    fn parse(text: &[u8]) -> io::Result<Self> {
        // serde's words could repeat a secret: only the place is told.
        serde_json::from_slice(text)
            .map_err(|error| io::Error::other(format!("line {} is not what it should be", error.line())))
    }

    fn lookup(&self, host: &str, repository: &str, cancel: &Cancel) -> Result<Option<Credentials>, String> {
        let server = if host == HUB { HUB_SERVER } else { host };
        match self.find(host, repository)? {
            Some(Source::Helper(helper)) => ask(helper, server, cancel),
            Some(Source::File(found)) => Ok(Some(found)),
            None => Ok(None),
        }
    }

    fn find(&self, host: &str, repository: &str) -> Result<Option<Source<'_>>, String> {
        let keys = keys(host, repository);
        let helper = most_specific(self.helpers.iter().flatten(), &keys).next();
        // An empty name says that the file has them.
        if let Some(helper) = helper.filter(|helper| !helper.is_empty()) {
            return Ok(Some(Source::Helper(helper)));
        }
        // One without a secret hides no other that has it.
        for entry in most_specific(self.auths.iter().flatten(), &keys) {
            if let Some(found) = entry.credentials()? {
                return Ok(Some(Source::File(found)));
            }
        }
        let store = self.store.as_deref();
        let store = store.filter(|store| helper.is_none() && !store.is_empty());
        Ok(store.map(Source::Helper))
    }
}

impl Entry {
    /// An entry without a secret only says that a helper has it.
    fn credentials(&self) -> Result<Option<Credentials>, String> {
        let given = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        if let Some(token) = given(&self.identitytoken) {
            return Ok(Some(Credentials::Identity(token)));
        }
        if let Some(auth) = given(&self.auth) {
            let text = BASE64
                .decode(auth)
                .ok()
                .and_then(|bytes| String::from_utf8(bytes).ok());
            let (user, password) = text
                .as_deref()
                .and_then(|text| text.split_once(':'))
                .ok_or("they are not in base64, or without a ':'")?;
            return Ok(Some(Credentials::Basic {
                user: user.to_owned(),
                // Old files of docker have a NUL at the end.
                password: password.trim_end_matches('\0').to_owned(),
            }));
        }
        Ok(match (given(&self.username), given(&self.password)) {
            (Some(user), Some(password)) => Some(Credentials::Basic { user, password }),
            _ => None,
        })
    }
}

/// The keys that are good for a repository, the most specific first: podman's own can name a
/// part of a registry.
fn keys(host: &str, repository: &str) -> Vec<String> {
    let whole = format!("{host}/{repository}");
    let mut keys = vec![whole.clone()];
    let mut rest = whole.as_str();
    while let Some((shorter, _)) = rest.rsplit_once('/') {
        keys.push(shorter.to_owned());
        rest = shorter;
    }
    keys
}

/// What is stored under the keys, in their order.
fn most_specific<'a, T: 'a>(
    all: impl Iterator<Item = (&'a String, &'a T)> + Clone,
    keys: &[String],
) -> impl Iterator<Item = &'a T> {
    keys.iter().flat_map(move |key| {
        let same = all.clone().filter(move |(stored, _)| normal(stored) == *key);
        same.map(|(_, value)| value)
    })
}

/// A stored key without what docker puts around the host. What follows the host of an address
/// says nothing; of a key without a scheme it is a namespace.
fn normal(key: &str) -> String {
    let (scheme, rest) = match key.split_once("://") {
        Some((_, rest)) => (true, rest),
        None => (false, key),
    };
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let host = match host.to_ascii_lowercase() {
        host if HUB_ALIASES.contains(&host.as_str()) => HUB.to_owned(),
        host => host,
    };
    let path = path.trim_end_matches('/');
    if scheme || path.is_empty() || path == "v1" || path == "v2" {
        host
    } else {
        format!("{host}/{path}")
    }
}

#[derive(Deserialize)]
struct Answer {
    #[serde(rename = "Username")]
    user: String,
    #[serde(rename = "Secret")]
    secret: String,
}

/// Asks a helper program, by the protocol of docker-credential-helpers. It gets the user's
/// whole environment: it may need his session to find a key ring.
fn ask(helper: &str, server: &str, cancel: &Cancel) -> Result<Option<Credentials>, String> {
    let word = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
    if !helper.bytes().all(word) {
        return Err(format!("{} is not the name of a helper", shown(helper)));
    }
    ask_program(
        &format!("docker-credential-{helper}"),
        server,
        HELPER_TIME,
        cancel,
    )
}

fn ask_program(
    program: &str,
    server: &str,
    time: Duration,
    cancel: &Cancel,
) -> Result<Option<Credentials>, String> {
    let start = Instant::now();
    let failed = |error: io::Error| format!("cannot run {program}: {error}");
    let (input, mut writer) = io::pipe().map_err(failed)?;
    // Less than a pipe holds, so nobody waits for a reader.
    writer.write_all(server.as_bytes()).map_err(failed)?;
    drop(writer);
    let mut command = Command::new(program);
    command
        .arg("get")
        .stdin(input)
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    let mut group = Group::start(&mut command, cancel).map_err(failed)?;
    let Some(stdout) = group.child.stdout.take() else {
        return Err(format!("{program} has no output"));
    };
    let late = || format!("{program} does not answer");
    let text = read_in_time(stdout, time).ok_or_else(late)?;
    let left = time.saturating_sub(start.elapsed());
    let status = group.wait_for(left).map_err(failed)?.ok_or_else(late)?;
    if !status.success() {
        // What it said may have a secret.
        return if String::from_utf8_lossy(&text).contains(NOT_FOUND) {
            Ok(None)
        } else {
            Err(format!("{program} failed ({status})"))
        };
    }
    let answer: Answer =
        serde_json::from_slice(&text).map_err(|_| format!("{program} answers what cannot be read"))?;
    Ok(Some(if answer.user == TOKEN_USER {
        Credentials::Identity(answer.secret)
    } else {
        Credentials::Basic {
            user: answer.user,
            password: answer.secret,
        }
    }))
}

/// What a helper says until it ends; nothing when that takes too long.
fn read_in_time(stdout: ChildStdout, time: Duration) -> Option<Vec<u8>> {
    let (sender, receiver) = mpsc::channel();
    // It ends with the helper, which the caller kills.
    thread::spawn(move || {
        let mut text = Vec::new();
        let read = stdout.take(MAX_ANSWER).read_to_end(&mut text);
        _ = sender.send(read.map(|_| text));
    });
    receiver.recv_timeout(time).ok()?.ok()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn files(env: &[(&str, &Path)]) -> Files {
        Files::find(|key| {
            let found = env.iter().find(|(name, _)| *name == key);
            found.map(|(_, path)| path.as_os_str().to_owned())
        })
    }

    fn lookup(text: &str, host: &str, repository: &str) -> (Option<Credentials>, Vec<String>) {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("config.json"), text).unwrap();
        let mut warnings = Vec::new();
        let found =
            files(&[("DOCKER_CONFIG", dir.path())])
                .lookup(host, repository, &Cancel::new(), &mut |text| warnings.push(text));
        (found, warnings)
    }

    fn user(user: &str, password: &str) -> Option<Credentials> {
        Some(Credentials::Basic {
            user: user.to_owned(),
            password: password.to_owned(),
        })
    }

    fn found(text: &str, host: &str) -> Option<Credentials> {
        let (found, warnings) = lookup(text, host, "library/alpine");
        assert_eq!(warnings, [""; 0]);
        found
    }

    #[test]
    fn docker_files_are_understood() {
        // a:b:c
        let auth = r#"{"auth": "YTpiOmM="}"#;
        for key in [
            "r.example",
            "https://r.example",
            "https://r.example/v2/",
            "R.example/",
        ] {
            let text = format!(r#"{{"auths": {{"{key}": {auth}}}, "HttpHeaders": {{}}}}"#);
            assert!(found(&text, "r.example") == user("a", "b:c"), "{key}");
            assert!(found(&text, "r.example:5000").is_none());
            assert!(found(&text, "evil.example").is_none());
        }
        for key in ["https://index.docker.io/v1/", "docker.io", "index.docker.io"] {
            let text = format!(r#"{{"auths": {{"{key}": {auth}}}}}"#);
            assert!(found(&text, "docker.io") == user("a", "b:c"), "{key}");
        }
        let text = r#"{"auths": {"r.example": {"auth": "", "identitytoken": "t"}}}"#;
        assert!(found(text, "r.example") == Some(Credentials::Identity("t".to_owned())));
        let text = r#"{"auths": {"r.example": {"username": "a", "password": "b"}}}"#;
        assert!(found(text, "r.example") == user("a", "b"));
    }

    #[test]
    fn files_without_credentials_give_none() {
        for text in [
            "{}",
            r#"{"auths": null}"#,
            r#"{"auths": {}}"#,
            r#"{"auths": {"r.example": {}}}"#,
            r#"{"auths": {"r.example": {"auth": ""}}, "credsStore": ""}"#,
        ] {
            assert!(found(text, "r.example").is_none(), "{text}");
        }
        let nowhere = files(&[]).lookup("r.example", "a", &Cancel::new(), &mut |text| panic!("{text}"));
        assert!(nowhere.is_none());
    }

    #[test]
    fn the_most_specific_entry_wins() {
        let text = r#"{"auths": {
            "r.example": {"auth": "YTox"},
            "r.example/team": {"auth": "YToy"},
            "r.example/team/app": {"auth": "YToz"}
        }}"#;
        for (repository, password) in [
            ("other/app", "1"),
            ("team/x", "2"),
            ("team/app", "3"),
            ("teams", "1"),
        ] {
            assert!(
                lookup(text, "r.example", repository).0 == user("a", password),
                "{repository}"
            );
        }
    }

    #[test]
    fn an_empty_helper_is_the_file() {
        let text = r#"{"credHelpers": {"r.example": ""}, "credsStore": "no-such",
            "auths": {"r.example": {"auth": "YTox"}}}"#;
        assert!(found(text, "r.example") == user("a", "1"));
        let text = r#"{"credHelpers": {"r.example": ""}, "credsStore": "no-such"}"#;
        assert!(found(text, "r.example").is_none());
        let (_, warnings) = lookup(text, "other.example", "a");
        assert!(warnings[0].contains("docker-credential-no-such"), "{warnings:?}");
    }

    #[test]
    fn an_empty_entry_hides_no_alias() {
        for empty in ["docker.io", "https://index.docker.io/v1/", "index.docker.io"] {
            for filled in ["docker.io", "https://index.docker.io/v1/", "index.docker.io"] {
                if empty != filled {
                    let text = format!(r#"{{"auths": {{"{empty}": {{}}, "{filled}": {{"auth": "YTox"}}}}}}"#);
                    assert!(found(&text, "docker.io") == user("a", "1"), "{text}");
                }
            }
        }
    }

    #[test]
    fn damaged_files_are_told_without_their_secrets() {
        for text in [
            r#"{"auths": {"r.example": {"auth": "c2VjcmV0"}}}"#,
            r#"{"auths": {"r.example": {"auth": "s e c r e t"}}}"#,
            r#"{"auths": "secret"}"#,
            r#"{"auths": {"r.example": {"auth": {"secret": 1}}}}"#,
            &format!(r#"{{"auths": {{}}, "x": "{}"}}"#, "secret".repeat(1 << 18)),
        ] {
            let (found, warnings) = lookup(text, "r.example", "a");
            assert!(found.is_none());
            assert_eq!(warnings.len(), 1);
            assert!(!warnings[0].contains("secret"), "{warnings:?}");
        }
    }

    #[test]
    fn podman_comes_after_docker_unless_it_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, auth: &str| {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(
                &path,
                format!(r#"{{"auths": {{"r.example": {{"auth": "{auth}"}}}}}}"#),
            )
            .unwrap();
            path
        };
        let home = dir.path().join("home");
        let run = dir.path().join("run");
        write("run/containers/auth.json", "YToy");
        let explicit = write("mine.json", "YToz");
        let ask = |env: &[(&str, &Path)]| {
            files(env).lookup("r.example", "a", &Cancel::new(), &mut |text| panic!("{text}"))
        };
        let env = [("HOME", home.as_path()), ("XDG_RUNTIME_DIR", run.as_path())];
        assert!(ask(&env) == user("a", "2"));
        write("home/.docker/config.json", "YTox");
        assert!(ask(&env) == user("a", "1"));
        assert!(ask(&[("HOME", &home), ("REGISTRY_AUTH_FILE", &explicit)]) == user("a", "3"));
    }

    /// A helper by its path: the search path of the tests' process cannot be changed.
    fn helper(script: &str) -> Result<Option<Credentials>, String> {
        helper_in(script, HELPER_TIME)
    }

    fn helper_in(script: &str, time: Duration) -> Result<Option<Credentials>, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("docker-credential-test");
        fs::write(&path, format!("#!/bin/sh\n{script}")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
        ask_program(path.to_str().unwrap(), "r.example", time, &Cancel::new())
    }

    #[test]
    fn helpers_are_asked() {
        let answer = r#"read -r host; [ "$1" = get ] && echo "{\"ServerURL\":\"x\",\"Username\":\"u-$host\",\"Secret\":\"s\"}""#;
        assert!(helper(answer) == Ok(user("u-r.example", "s")));
        let token = r#"echo '{"Username":"<token>","Secret":"s"}'"#;
        assert!(helper(token) == Ok(Some(Credentials::Identity("s".to_owned()))));
        let none = "echo credentials not found in native keychain; exit 1";
        assert!(helper(none) == Ok(None));
        for bad in [
            "exit 1",
            "echo secret",
            "echo secret; exit 1",
            "printf '\\033[2J'; exit 3",
            "exec /no/such/program",
        ] {
            let Err(error) = helper(bad) else { panic!("{bad}") };
            assert!(!error.contains("secret") && !error.contains('\u{1b}'), "{error}");
        }
        let (found, warnings) = lookup(r#"{"credsStore": "../../bin/sh"}"#, "r.example", "a");
        assert!(
            found.is_none() && warnings[0].contains("not the name"),
            "{warnings:?}"
        );
        let (found, warnings) = lookup(r#"{"credHelpers": {"r.example": "no-such"}}"#, "r.example", "a");
        assert!(
            found.is_none() && warnings[0].contains("docker-credential-no-such"),
            "{warnings:?}"
        );
    }

    #[test]
    fn the_words_of_a_failing_helper_are_not_repeated() {
        let Err(error) = helper(r#"echo '{"Username":"u","Secret":"hunter2"}'; exit 3"#) else {
            panic!()
        };
        assert!(
            error.ends_with("docker-credential-test failed (exit status: 3)"),
            "{error}"
        );
    }

    #[test]
    fn a_helper_that_closes_its_output_and_stays_is_ended() {
        for script in ["exec >&-; exec sleep 1000", "exec sleep 1000"] {
            let Err(error) = helper_in(script, Duration::from_millis(50)) else {
                panic!()
            };
            assert!(error.ends_with("does not answer"), "{error}");
        }
    }
}

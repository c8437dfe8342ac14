//! Commits out of a guest, which is hostile.

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use banger_workspace::import::{Import, Reference};
use banger_workspace::{Cancel, Error, ErrorKind, Repository};
use common::{Guest, Repo, can_run, git_ok, options};

struct Rig {
    repo: Repo,
    guest: Guest,
    base: String,
}

fn rig() -> Option<Rig> {
    if !can_run() {
        return None;
    }
    let repo = Repo::new();
    let base = text(repo.git(&["rev-parse", "HEAD"]));
    let guest = Guest::of(&repo.plan(&options()).unwrap());
    Some(Rig { repo, guest, base })
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap().trim().to_owned()
}

impl Rig {
    fn in_guest(&self, args: &[&str]) -> String {
        text(git_ok(self.guest.path(), args))
    }

    fn commit(&self, name: &str, contents: &str) -> String {
        fs::write(self.guest.path().join(name), contents).unwrap();
        self.in_guest(&["add", "-A"]);
        self.in_guest(&["commit", "-q", "-m", name]);
        self.in_guest(&["rev-parse", "HEAD"])
    }

    /// As the guest is asked to make it.
    fn bundle(&self) -> PathBuf {
        let path = self.repo.beside("bundle");
        let name = path.to_str().unwrap();
        self.in_guest(&["bundle", "create", "-q", name, "--branches", "--not", &self.base]);
        path
    }

    fn import(&self, branches: &[&str], to: Option<&str>, force: bool) -> Result<Vec<Reference>, Error> {
        self.import_file(&self.bundle(), branches, to, force)
    }

    fn import_file(
        &self,
        bundle: &Path,
        branches: &[&str],
        to: Option<&str>,
        force: bool,
    ) -> Result<Vec<Reference>, Error> {
        let branches: Vec<_> = branches.iter().map(|&branch| branch.to_owned()).collect();
        let import = Import {
            vm: "web",
            bundle,
            to,
            branches: &branches,
            force,
        };
        import.run(&Repository::discover(&self.repo.path()).unwrap(), &Cancel::new())
    }

    /// Everything but objects and references.
    fn rest(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let mut found = BTreeMap::new();
        let mut dirs = vec![self.repo.path()];
        while let Some(dir) = dirs.pop() {
            for entry in fs::read_dir(dir).unwrap() {
                let path = entry.unwrap().path();
                let inside = path.strip_prefix(self.repo.path()).unwrap();
                if inside.starts_with(".git/objects") || inside.starts_with(".git/refs") {
                    continue;
                }
                if path.is_dir() && !path.is_symlink() {
                    dirs.push(path);
                } else {
                    let bytes = fs::read(&path).unwrap_or_default();
                    found.insert(path, bytes);
                }
            }
        }
        found
    }

    fn host_ref(&self, name: &str) -> Option<String> {
        let out = common::git_in(&self.repo.path(), &["rev-parse", "-q", "--verify", name]);
        out.status.success().then(|| text(out.stdout))
    }
}

#[test]
fn a_commit_comes_back_and_nothing_else_changes() {
    let Some(rig) = rig() else { return };
    let before = rig.rest();
    let commit = rig.commit("new", "from the guest\n");
    let written = rig.import(&["main"], None, false).unwrap();
    let name = "refs/banger/web/main".to_owned();
    assert_eq!(
        written,
        [Reference {
            name: name.clone(),
            commit: commit.clone()
        }]
    );
    assert_eq!(rig.host_ref(&name), Some(commit.clone()));
    let shown = rig.repo.git(&["show", &format!("{commit}:new")]);
    assert_eq!(shown, b"from the guest\n");
    assert_eq!(rig.rest(), before);
    rig.repo.git(&["fsck", "--strict"]);
    // Once more there is nothing to do.
    assert_eq!(rig.import(&["main"], None, false).unwrap(), []);
}

#[test]
fn branches_are_made_and_go_forward_only() {
    let Some(rig) = rig() else { return };
    rig.commit("one", "1");
    let checked_out = rig.import(&["main"], Some("main"), true).unwrap_err();
    assert!(matches!(checked_out, Error::CheckedOut(_)), "{checked_out}");
    rig.import(&["main"], Some("topic/x"), false).unwrap();
    let second = rig.commit("two", "2");
    rig.import(&["main"], Some("topic/x"), false).unwrap();
    assert_eq!(rig.host_ref("refs/heads/topic/x"), Some(second.clone()));
    // The guest rewrites its history.
    rig.in_guest(&["reset", "-q", "--hard", &rig.base]);
    let other = rig.commit("three", "3");
    let refused = rig.import(&["main"], None, false).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::WouldOverwrite);
    assert_eq!(rig.host_ref("refs/banger/web/main"), Some(second.clone()));
    rig.import(&["main"], None, true).unwrap();
    assert_eq!(rig.host_ref("refs/banger/web/main"), Some(other));
    // Not even by force does it take from a branch of the owner's.
    let refused = rig.import(&["main"], Some("topic/x"), true).unwrap_err();
    assert!(
        matches!(refused, Error::Rejected { can_force: false, .. }),
        "{refused}"
    );
    assert_eq!(rig.host_ref("refs/heads/topic/x"), Some(second));
}

#[test]
fn a_branch_of_another_work_tree_is_left_alone() {
    let Some(rig) = rig() else { return };
    let other = rig.repo.beside("other");
    rig.repo
        .git(&["worktree", "add", "-q", "-b", "busy", other.to_str().unwrap()]);
    rig.commit("one", "1");
    let refused = rig.import(&["main"], Some("busy"), true).unwrap_err();
    assert!(matches!(refused, Error::CheckedOut(_)), "{refused}");
}

#[test]
fn hostile_objects_stay_out() {
    let Some(rig) = rig() else { return };
    let blob = rig.in_guest(&["hash-object", "-w", "a"]);
    let modules = rig.guest.path().join("modules");
    fs::write(
        &modules,
        "[submodule \"x\"]\n\tpath = -x\n\turl = --upload-pack=id\n",
    )
    .unwrap();
    let modules = rig.in_guest(&["hash-object", "-w", "modules"]);
    let tree = |mode: &str, object: &str, name: &str| {
        let entry = format!("{mode} {name}\0");
        let mut bytes = entry.into_bytes();
        bytes.extend(
            (0..object.len())
                .step_by(2)
                .map(|i| u8::from_str_radix(&object[i..i + 2], 16).unwrap()),
        );
        let file = rig.guest.path().join(".git/raw");
        fs::write(&file, bytes).unwrap();
        rig.in_guest(&["hash-object", "-t", "tree", "-w", "--literally", ".git/raw"])
    };
    let hooks = tree("100755", &blob, "post-checkout");
    for (what, tree) in [
        ("a .git directory", tree("40000", &hooks, ".git")),
        ("a .git in other letters", tree("40000", &hooks, ".GiT")),
        ("a parent", tree("40000", &hooks, "..")),
        ("a submodule's options", tree("100644", &modules, ".gitmodules")),
        ("modules by a link", tree("120000", &blob, ".gitmodules")),
        ("a name with a slash", tree("100644", &blob, "a/b")),
    ] {
        let commit = rig.in_guest(&["commit-tree", "-p", "HEAD", "-m", "x", &tree]);
        rig.in_guest(&["update-ref", "refs/heads/evil", &commit]);
        let before = rig.rest();
        let refused = rig.import(&["evil"], None, true).map(|_| what).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::BadGuest, "{what}: {refused}");
        assert_eq!(rig.host_ref("refs/banger/web/evil"), None, "{what}");
        assert_eq!(rig.rest(), before, "{what}");
    }
}

#[test]
fn what_is_no_bundle_or_lacks_something_stays_out() {
    let Some(rig) = rig() else { return };
    rig.commit("new", &"x\n".repeat(10_000));
    let bundle = rig.bundle();
    let good = fs::read(&bundle).unwrap();
    let mut flipped = good.clone();
    let last = flipped.len() - 40;
    flipped[last] ^= 1;
    let first = rig.in_guest(&["rev-parse", "HEAD"]);
    rig.commit("later", "y\n");
    let incomplete = rig.repo.beside("incomplete");
    let create = ["bundle", "create", "-q", incomplete.to_str().unwrap()];
    rig.in_guest(&[&create[..], &["main", "--not", &first]].concat());
    let incomplete = fs::read(&incomplete).unwrap();
    rig.in_guest(&["reset", "-q", "--hard", &first]);
    let name = good.windows(10).position(|w| w == b"refs/heads").unwrap();
    let mut other_name = good.clone();
    other_name[name..name + 15].copy_from_slice(b"refs/../x/main1");
    for (what, bytes) in [
        ("nothing", &b""[..]),
        ("text", b"# v2 git bundle\nnonsense\n"),
        ("half of it", &good[..good.len() / 2]),
        ("a changed byte", &flipped),
        ("a commit without its parent", &incomplete),
        ("another name", &other_name),
    ] {
        let path = rig.repo.beside("broken");
        fs::write(&path, bytes).unwrap();
        let refused = rig
            .import_file(&path, &["main"], None, true)
            .map(|_| what)
            .unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::BadGuest, "{what}: {refused}");
        assert_eq!(rig.host_ref("refs/banger/web/main"), None, "{what}");
    }
    for branch in ["../x", "-x", "a..b", "a b", "x.lock", ""] {
        let refused = rig.import_file(&bundle, &[branch], None, true).unwrap_err();
        assert!(matches!(refused, Error::BadBranch(_)), "{branch:?}: {refused}");
    }
    assert_eq!(rig.import_file(&bundle, &["main"], None, false).unwrap().len(), 1);
}

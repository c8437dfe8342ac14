use super::*;

fn file(path: &str, content: &str) -> File {
    File {
        path: path.into(),
        mode: 0o644,
        content: content.into(),
    }
}

fn read(root: &Path, path: &str) -> String {
    fs::read_to_string(below(root, Path::new(path))).unwrap()
}

/// Installs, as the command does.
fn install(root: &Path, files: &[File]) -> Manifest {
    let before = Manifest::load(root).unwrap().unwrap_or_default();
    let plan = plan(root, files, &before).unwrap();
    assert_eq!(plan.foreign, Vec::<PathBuf>::new());
    let during = during(&before, files, &plan);
    during.save(root).unwrap();
    apply(root, files, &plan).unwrap();
    let (changed, errors) = remove(root, &plan.remove, &before, false);
    assert!(changed.is_empty() && errors.is_empty(), "{changed:?} {errors:?}");
    let after = after(&during, files, &plan);
    after.save(root).unwrap();
    after
}

#[test]
fn a_second_installation_changes_nothing_and_another_version_leaves_nothing() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    fs::create_dir_all(root.join("etc")).unwrap();
    let first = [file("/usr/local/lib/b/a", "1"), file("/etc/x.d/b", "1")];
    let manifest = install(root, &first);
    let plan = plan(root, &first, &manifest).unwrap();
    assert_eq!(plan, Plan::default());

    let manifest = install(root, &[file("/usr/local/lib/b/a", "2")]);
    assert_eq!(read(root, "/usr/local/lib/b/a"), "2");
    assert!(!root.join("etc/x.d/b").exists());

    let (changed, errors) = remove(root, manifest.files.keys(), &manifest, false);
    assert!(changed.is_empty() && errors.is_empty(), "{changed:?} {errors:?}");
    assert!(remove_directories(root, &manifest).is_empty());
    Manifest::remove(root).unwrap();
    let left: Vec<_> = fs::read_dir(root)
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .collect();
    // What was there before, and /var, in which manifests are.
    assert!(left.iter().all(|name| name == "etc" || name == "var"), "{left:?}");
    assert_eq!(fs::read_dir(root.join("etc")).unwrap().count(), 0);
}

#[test]
fn the_files_of_others_are_named_and_not_touched() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    fs::create_dir_all(root.join("etc")).unwrap();
    fs::write(root.join("etc/a"), "theirs").unwrap();
    std::os::unix::fs::symlink("a", root.join("etc/link")).unwrap();
    fs::write(root.join("etc/same"), "s").unwrap();
    fs::set_permissions(root.join("etc/same"), Permissions::from_mode(0o644)).unwrap();
    let files = [
        file("/etc/a", "ours"),
        file("/etc/link", "ours"),
        file("/etc/same", "s"),
    ];
    let plan = plan(root, &files, &Manifest::default()).unwrap();
    assert_eq!(plan.foreign, [PathBuf::from("/etc/a"), "/etc/link".into()]);
    assert_eq!(plan.kept, [PathBuf::from("/etc/same")]);
    // What somebody else wrote stays when we go.
    assert!(
        !during(&Manifest::default(), &files, &plan)
            .files
            .contains_key(Path::new("/etc/same"))
    );
}

#[test]
fn what_was_changed_since_stays() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    let manifest = install(root, &[file("/etc/a", "1"), file("/etc/b", "1")]);
    fs::write(root.join("etc/a"), "the administrator's").unwrap();
    let found = plan(root, &[file("/etc/a", "2"), file("/etc/b", "2")], &manifest).unwrap();
    assert_eq!(found.foreign, [PathBuf::from("/etc/a")]);
    let (changed, errors) = remove(root, manifest.files.keys(), &manifest, false);
    assert!(errors.is_empty(), "{errors:?}");
    assert_eq!(changed, [PathBuf::from("/etc/a")]);
    assert!(root.join("etc/a").exists() && !root.join("etc/b").exists());
    let (changed, _) = remove(root, manifest.files.keys(), &manifest, true);
    assert!(changed.is_empty() && !root.join("etc/a").exists());
}

/// Interrupted between any two files, the next run knows the old and the new ones as its own.
#[test]
fn an_interrupted_installation_is_finished_or_taken_back() {
    let versions = |n: &str| [file("/etc/a", n), file("/etc/b", n)];
    for written in 0..=2 {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        let before = install(root, &versions("1"));
        let files = versions("2");
        let planned = plan(root, &files, &before).unwrap();
        during(&before, &files, &planned).save(root).unwrap();
        for file in &files[..written] {
            write(&below(root, &file.path), file.mode, &file.content).unwrap();
        }
        let manifest = Manifest::load(root).unwrap().unwrap();
        assert!(!manifest.complete);
        let again = plan(root, &files, &manifest).unwrap();
        assert_eq!((again.foreign.len(), again.write.len()), (0, 2 - written));
        let (changed, errors) = remove(root, manifest.files.keys(), &manifest, false);
        assert!(changed.is_empty() && errors.is_empty(), "{changed:?} {errors:?}");
    }
}

#[test]
fn modes_do_not_depend_on_the_umask() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("p");
    write(&path, 0o755, b"x").unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o755);
    write(&path, 0o644, b"y").unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o644);
    assert_eq!(fs::read_dir(root.path()).unwrap().count(), 1);
}

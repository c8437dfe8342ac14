use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use banger_files::{Meta, Packer, Root, Rules, unpack};
use banger_model::agent::{Look, PutAnswer, Stat, Which};

use super::*;

fn asked(request: &Request, data: &[u8]) -> Result<Vec<u8>, Failure> {
    let mut input = serde_json::to_vec(request).unwrap();
    input.push(b'\n');
    input.extend_from_slice(data);
    let mut output = Vec::new();
    answer_to(&input[..], &mut output).map_err(Refusal::failure)?;
    Ok(output)
}

fn put(root: &std::path::Path, remove: u64) -> Request {
    Request::Put {
        root: root.to_str().unwrap().to_owned(),
        make_root: true,
        replace: true,
        owner: Some((
            rustix::process::geteuid().as_raw(),
            rustix::process::getegid().as_raw(),
        )),
        remove,
    }
}

#[test]
fn files_are_written_and_others_removed_and_it_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("a/work");
    fs::create_dir_all(root.join("old/full")).unwrap();
    fs::write(root.join("old/full/kept"), "1").unwrap();
    fs::write(root.join("gone"), "1").unwrap();
    let mut data = b"gone\0old/full\0never\0".to_vec();
    let length = data.len() as u64;
    let mut packer = Packer::new(&mut data, |_| Ok(()));
    let meta = Meta {
        mode: 0o4755,
        mtime_ns: 1_700_000_000_123_456_789,
    };
    packer.bytes("sub/new".as_ref(), meta, b"hello").unwrap();
    packer.finish().unwrap();
    let answer = asked(&put(&root, length), &data).unwrap();
    let answer: PutAnswer = serde_json::from_slice(&answer).unwrap();
    assert_eq!((answer.files, answer.bytes), (1, 5));
    assert!(!root.join("gone").exists() && root.join("old/full/kept").exists());
    let meta = fs::metadata(root.join("sub/new")).unwrap();
    assert_eq!(meta.permissions().mode() & 0o7777, 0o755);
    assert_eq!((meta.mtime(), meta.mtime_nsec()), (1_700_000_000, 123_456_789));

    let list = b"sub/new\0missing\0sub\0";
    let stat = Request::Stat {
        root: root.to_str().unwrap().to_owned(),
        list: list.len() as u64,
    };
    let lines = asked(&stat, list).unwrap();
    let lines: Vec<Option<Stat>> = lines
        .split_inclusive(|byte| *byte == b'\n')
        .map(|line| serde_json::from_slice(line).unwrap())
        .collect();
    assert_eq!(lines.len(), 3);
    assert_eq!(lines[0].unwrap().mtime_ns, 1_700_000_000_123_456_789);
    assert_eq!(lines[1], None);
    assert_eq!(lines[2].unwrap().kind, banger_model::agent::Kind::Directory);
}

#[test]
fn a_directory_is_sent_under_the_name_that_is_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("real")).unwrap();
    fs::write(dir.path().join("real/file"), "text").unwrap();
    symlink("real", dir.path().join("link")).unwrap();
    let get = |path: &str, follow| Request::Get {
        path: dir.path().join(path).to_str().unwrap().to_owned(),
        follow,
        name: "x".to_owned(),
    };
    let to = tempfile::tempdir().unwrap();
    let root = Root::open(to.path()).unwrap();
    let stream = asked(&get("link", true), b"").unwrap();
    unpack(&stream[..], &root, &Rules::hostile(), &mut |_| Ok(())).unwrap();
    assert_eq!(fs::read(to.path().join("x/file")).unwrap(), b"text");
    // Not followed it is the link.
    let to = tempfile::tempdir().unwrap();
    let root = Root::open(to.path()).unwrap();
    let stream = asked(&get("link", false), b"").unwrap();
    unpack(&stream[..], &root, &Rules::hostile(), &mut |_| Ok(())).unwrap();
    assert_eq!(fs::read_link(to.path().join("x")).unwrap().to_str(), Some("real"));
    let failure = asked(&get("none/at/all", true), b"").unwrap_err();
    assert_eq!(failure.kind, FailureKind::NotFound);
    assert!(failure.message.contains("none/at/all"), "{}", failure.message);
}

#[test]
fn small_questions_are_answered() {
    let which = |program: &str| {
        let request = Request::Which {
            program: program.to_owned(),
        };
        serde_json::from_slice::<Which>(&asked(&request, b"").unwrap())
            .unwrap()
            .path
    };
    assert!(which("sh").is_some_and(|path| path.ends_with("/sh")));
    assert_eq!(which("no-such-program"), None);
    assert_eq!(which("../bin/sh"), None);
    let look = |path: &str| {
        let request = Request::Look {
            path: path.to_owned(),
            follow: true,
        };
        serde_json::from_slice::<Look>(&asked(&request, b"").unwrap()).unwrap()
    };
    assert!(look("/").found.is_some() && look("/").parent);
    assert!(look("/no-such").found.is_none() && look("/no-such").parent);
    assert!(!look("/no-such/x").parent);
}

#[test]
fn what_is_no_request_is_refused() {
    for input in [
        &b""[..],
        b"{\"request\":\"which\",\"program\":\"a\"}",
        b"{\"request\":\"exec\"}\n",
        b"\xff\n",
        &[b'['; 2 * MAX_REQUEST],
    ] {
        let refusal = answer_to(input, &mut Vec::new()).unwrap_err();
        assert_eq!(refusal.failure().kind, FailureKind::BadRequest);
    }
    let dir = tempfile::tempdir().unwrap();
    let failure = asked(&put(dir.path(), 9), b"short\0").unwrap_err();
    assert_eq!(failure.kind, FailureKind::BadRequest);
    let failure = asked(&put(dir.path(), 0), b"no stream at all").unwrap_err();
    assert_eq!(failure.kind, FailureKind::BadRequest);
    let failure = asked(&put(dir.path(), u64::MAX), b"").unwrap_err();
    assert_eq!(failure.kind, FailureKind::BadRequest);
}

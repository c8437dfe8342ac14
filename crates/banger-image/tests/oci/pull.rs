//! What a pull does, and what it does again.

use std::fs::{self, File};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use banger_image::oci::{OciError, Reference, cache};
use banger_image::{Cancel, Digest, Error, NoProgress, PartState};
use serde_json::json;

use crate::child::pull_on_small_disk;
use crate::registry::{self, INDEX, MANIFEST, Registry, Reply, entry};
use crate::{Client, Heard, bytes, layers, say};

#[test]
fn a_pull_hands_over_all_layers_in_order_and_keeps_them() {
    let server = Registry::start();
    let mut content = layers(7);
    // One layer twice: docker's empty one often is.
    content.push(content[2].clone());
    let digest = server.image("team/app:1", &content);
    let client = Client::new();
    let reference = server.reference("team/app:1");
    let (manifest, pulled) = client.pull(&reference).unwrap();
    assert_eq!(pulled, content);
    assert_eq!(manifest.digest, digest);
    assert_eq!(manifest.reference, format!("{}/team/app:1", server.address));
    assert_eq!(manifest.created, Some(1_716_401_900));
    assert_eq!(manifest.config.process.command, ["/bin/sh"]);
    let requests = server.requests();
    assert_eq!(requests.iter().filter(|request| request.is_manifest()).count(), 1);
    assert_eq!(requests.iter().filter(|request| request.is_blob()).count(), 8);

    // Again: one request for the manifest, and nothing else.
    assert_eq!(
        client.pull(&reference).unwrap(),
        (manifest.clone(), content.clone())
    );
    let lines: Vec<String> = server.requests().iter().map(registry::Request::line).collect();
    assert_eq!(lines, ["HEAD /v2/team/app/manifests/1"]);

    // By its digest, and offline: none at all.
    let pinned = server.reference(&format!("team/app@{digest}"));
    assert_eq!(client.pull(&pinned).unwrap().1, content);
    let offline = Client {
        offline: true,
        ..client
    };
    assert_eq!(offline.pull(&reference).unwrap(), (manifest, content));
    assert!(matches!(
        offline.failure(&server.reference("team/app:2")),
        OciError::Offline
    ));
    assert_eq!(server.requests().len(), 0);
}

#[test]
fn a_tag_that_moved_is_fetched_again() {
    let server = Registry::start();
    let client = Client::new();
    let reference = server.reference("app:1");
    server.image("app:1", &layers(2));
    client.pull(&reference).unwrap();
    let digest = server.image("app:1", &layers(3));
    let (manifest, pulled) = client.pull(&reference).unwrap();
    assert_eq!((manifest.digest, pulled), (digest, layers(3)));
}

#[test]
fn unwanted_layers_are_not_fetched() {
    let server = Registry::start();
    let digest = server.image("app:1", &layers(2));
    let client = Client::new();
    let manifest = client.registry().pull_if(
        &server.reference("app:1"),
        &mut |manifest| manifest.digest != digest,
        &mut |_, _, _| panic!("unwanted"),
        &NoProgress,
        &Cancel::new(),
    );
    assert_eq!(manifest.unwrap().digest, digest);
    assert_eq!(server.requests().len(), 2);
}

#[test]
fn an_index_leads_to_this_platform() {
    let server = Registry::start();
    let content = layers(2);
    let manifest = server.manifest(&content);
    let size = manifest.to_string().len();
    let mine = server.document("app:mine", &manifest, MANIFEST);
    let other = Digest::of(b"other");
    let index = json!({
        "schemaVersion": 2,
        "mediaType": INDEX,
        "manifests": [
            entry(&other, 5, "linux/arm64/v8"),
            entry(&other, 5, "unknown/unknown"),
            entry(&mine, size, "linux/amd64"),
        ],
    });
    server.document("app:1", &index, INDEX);
    let client = Client::new();
    let (pulled, blobs) = client.pull(&server.reference("app:1")).unwrap();
    assert_eq!((pulled.digest, blobs), (mine, content));
    server.requests();
    client.pull(&server.reference("app:1")).unwrap();
    assert_eq!(server.requests().len(), 1);
}

#[test]
fn each_layer_says_where_it_is() {
    let server = Registry::start();
    let content = vec![bytes(10), bytes(200_000)];
    server.image("app:1", &content);
    let client = Client::new();
    let states = |heard: &Heard, bytes: &[u8]| {
        let name = Digest::of(bytes).short();
        let parts = heard.parts.lock().unwrap();
        let mut states: Vec<_> = parts
            .iter()
            .filter(|part| part.0 == name)
            .map(|part| part.1)
            .collect();
        states.dedup();
        states
    };
    for expected in [
        vec![PartState::Waiting, PartState::Fetching, PartState::Fetched],
        vec![PartState::Waiting, PartState::Cached],
    ] {
        let heard = Heard::default();
        client
            .pull_with(&server.reference("app:1"), &heard, &Cancel::new())
            .unwrap();
        assert_eq!(states(&heard, &content[0]), expected);
        assert_eq!(states(&heard, &content[1]), expected);
        let parts = heard.parts.lock().unwrap();
        let most = parts.iter().map(|part| part.2).max();
        assert_eq!(most, Some(200_000));
    }
}

#[test]
fn a_broken_connection_goes_on_where_it_broke() {
    for ranges in [true, false] {
        let server = Registry::start();
        let content = bytes(3_000_000);
        server.image("app:1", std::slice::from_ref(&content));
        let whole = content.clone();
        let broken = AtomicUsize::new(0);
        server.rule(move |request, _| {
            if !request.is_blob() {
                return None;
            }
            if request.path.contains(&Digest::of(&whole).to_string()) {
                if broken.fetch_add(1, Ordering::SeqCst) < 3 {
                    let from = request
                        .header("range")
                        .filter(|_| ranges)
                        .map_or(0, |range| range[6..range.len() - 1].parse::<usize>().unwrap());
                    let status = if from > 0 { 206 } else { 200 };
                    let reply = Reply::new(status, &whole[from..])
                        .with("Content-Range", &format!("bytes {from}-2999999/3000000"));
                    return Some(reply.cut(700_000));
                }
                return (!ranges).then(|| Reply::new(200, whole.clone()));
            }
            None
        });
        let client = Client::new();
        let (_, pulled) = client.pull(&server.reference("app:1")).unwrap();
        assert_eq!(pulled, [content]);
        let asked: Vec<Option<String>> = server
            .requests()
            .iter()
            .filter(|request| request.is_blob())
            .skip(1)
            .map(|request| request.header("range").map(str::to_owned))
            .collect();
        assert_eq!(asked.len(), 4);
        assert_eq!(asked[0], None);
        let starts: Vec<u64> = asked[1..]
            .iter()
            .map(|range| {
                range.as_deref().unwrap()[6..]
                    .trim_end_matches('-')
                    .parse()
                    .unwrap()
            })
            .collect();
        // What a broken connection had already brought may be lost in a buffer of the system.
        assert!(starts[0] > 0 && starts.is_sorted(), "{starts:?}");
    }
}

#[test]
fn a_later_pull_goes_on_where_an_earlier_one_broke() {
    let server = Registry::start();
    let content = bytes(2_000_000);
    server.image("app:1", std::slice::from_ref(&content));
    let whole = content.clone();
    server.rule(move |request, _| {
        let mine = request.path.contains(&Digest::of(&whole).to_string());
        (mine && request.header("range").is_none())
            .then(|| Reply::new(200, whole.clone()).cut(1_200_000))
            .or_else(|| mine.then(|| Reply::new(503, "")))
    });
    let client = Client::new();
    let failure = client.failure(&server.reference("app:1"));
    assert!(
        matches!(failure, OciError::Status { status: 503, .. }),
        "{failure}"
    );
    assert!(client.files().iter().any(|name| name.ends_with(".partial")));
    server.no_rule();
    server.requests();
    assert_eq!(client.pull(&server.reference("app:1")).unwrap().1, [content]);
    let requests = server.requests();
    let ranges: Vec<_> = requests
        .iter()
        .filter_map(|request| request.header("range"))
        .collect();
    assert_eq!(ranges.len(), 1, "{requests:?}");
    assert!(!client.files().iter().any(|name| name.ends_with(".partial")));
}

/// The remains of another day may be anything: they get one more chance, as a whole.
#[test]
fn a_damaged_remainder_is_fetched_again_as_a_whole() {
    let server = Registry::start();
    let content = bytes(2_000_000);
    server.image("app:1", std::slice::from_ref(&content));
    let client = Client::new();
    let dir = client.cache.path().join("oci/blobs/sha256");
    fs::create_dir_all(&dir).unwrap();
    let partial = dir.join(Digest::of(&content).hex() + ".partial");
    for remainder in [vec![0; 1_000_000], vec![0; 3_000_000], vec![0; 2_000_000]] {
        fs::write(&partial, remainder).unwrap();
        let (_, pulled) = client.pull(&server.reference("app:1")).unwrap();
        assert_eq!(pulled, std::slice::from_ref(&content));
        assert!(!partial.exists());
        fs::remove_file(partial.with_extension("")).unwrap();
    }
}

#[test]
fn busy_registries_are_asked_again() {
    let server = Registry::start();
    let content = layers(3);
    server.image("app:1", &content);
    // Every request fails twice.
    let seen = Mutex::new(std::collections::BTreeMap::new());
    server.rule(move |request, _| {
        let mut seen = seen.lock().unwrap();
        let count = seen.entry(request.path.clone()).or_insert(0);
        *count += 1;
        match count {
            1 => Some(Reply::new(429, "").with("Retry-After", &1)),
            2 => Some(Reply::new(502, "<html>")),
            _ => None,
        }
    });
    let client = Client::new();
    assert_eq!(client.pull(&server.reference("app:1")).unwrap().1, content);
}

#[test]
fn registries_that_stay_busy_are_given_up() {
    let server = Registry::start();
    server.image("app:1", &layers(1));
    let client = Client::new();
    for (after, requests) in [("1", 5), ("21600", 1)] {
        server.rule(move |_, _| Some(Reply::new(429, "").with("Retry-After", &after)));
        let failure = client.failure(&server.reference("app:1"));
        assert!(matches!(failure, OciError::RateLimited { .. }), "{failure}");
        assert_eq!(server.requests().len(), requests);
        let minutes = if after == "1" { "1 s" } else { "360 min" };
        assert!(failure.to_string().contains(minutes), "{failure}");
    }
    server.rule(|_, _| {
        Some(Reply::new(
            500,
            r#"{"errors":[{"code":"X","message":"on\u001b[2Jfire"}]}"#,
        ))
    });
    let failure = client.failure(&server.reference("app:1")).to_string();
    assert!(failure.ends_with(r"answers 500: X on\u{1b}[2Jfire"), "{failure}");
    let reference: Reference = "127.0.0.1:1/app:1".parse().unwrap();
    let failure = client.failure(&reference);
    assert!(matches!(failure, OciError::Unreachable { .. }), "{failure}");
    assert!(client.files().is_empty());
}

#[test]
fn two_pulls_share_one_download() {
    let server = Arc::new(Registry::start());
    let content = layers(4);
    server.image("app:1", &content);
    let client = Client::new();
    thread::scope(|scope| {
        let pulls: Vec<_> = (0..4)
            .map(|_| scope.spawn(|| client.pull(&server.reference("app:1")).unwrap().1))
            .collect();
        for pull in pulls {
            assert_eq!(pull.join().unwrap(), content);
        }
    });
    let requests = server.requests();
    for layer in &content {
        let digest = Digest::of(layer).to_string();
        let times = requests
            .iter()
            .filter(|request| request.path.ends_with(&digest))
            .count();
        assert_eq!(times, 1);
    }
}

#[test]
fn a_pull_that_is_cancelled_ends_at_once() {
    // A server that stalls in the manifest, then in a layer; then a lock that is held.
    for stalls in ["/manifests/", "/blobs/", "lock"] {
        let server = Registry::start();
        let content = bytes(100_000);
        server.image("app:1", std::slice::from_ref(&content));
        let client = Client::new();
        let (sender, stalled) = mpsc::channel();
        let mut held = None;
        let name = Digest::of(&content).to_string();
        if stalls == "lock" {
            let dir = client.cache.path().join("oci/blobs/sha256");
            fs::create_dir_all(&dir).unwrap();
            let file = File::create(dir.join(Digest::of(&content).hex() + ".partial")).unwrap();
            file.lock().unwrap();
            held = Some(file);
            sender.send(()).unwrap();
        }
        server.rule(move |request, _| {
            let mine = request.path.contains(stalls) && !request.path.contains("/blobs/")
                || request.path.ends_with(&name);
            mine.then(|| {
                _ = sender.send(());
                Reply {
                    stall: true,
                    length: Some(100_000),
                    ..Reply::new(200, bytes(50_000))
                }
            })
        });
        let cancel = Cancel::new();
        let pull = || client.pull_with(&server.reference("app:1"), &NoProgress, &cancel);
        thread::scope(|scope| {
            let pulling = scope.spawn(pull);
            stalled.recv().unwrap();
            let started = Instant::now();
            cancel.cancel();
            let result = pulling.join().unwrap();
            assert!(matches!(result, Err(Error::Cancelled)), "{stalls}");
            assert!(
                started.elapsed() < Duration::from_secs(2),
                "{:?}",
                started.elapsed()
            );
        });
        drop(held);
    }
}

#[test]
fn who_uses_the_layers_can_end_the_pull() {
    let server = Registry::start();
    server.image("app:1", &layers(5));
    let client = Client::new();
    let mut seen = 0;
    let result = client.registry().pull(
        &server.reference("app:1"),
        &mut |_, _, _| {
            seen += 1;
            Err(Error::NotInCatalogue("mine".to_owned()))
        },
        &NoProgress,
        &Cancel::new(),
    );
    assert!(matches!(result, Err(Error::NotInCatalogue(_))));
    assert_eq!(seen, 1);
}

#[test]
fn the_cache_is_held_to_its_size() {
    let server = Registry::start();
    let (old, new) = (vec![bytes(300_000)], vec![bytes(400_000), bytes(100_000)]);
    server.image("old:1", &old);
    server.image("new:1", &new);
    let client = Client::new();
    client.pull(&server.reference("old:1")).unwrap();
    let client = Client {
        cache_bytes: 510_000,
        ..client
    };
    client.pull(&server.reference("new:1")).unwrap();
    let usage = cache::usage(client.cache.path()).unwrap();
    assert!(usage.bytes <= 510_000, "{usage:?}");
    let here = |bytes: &[u8]| client.files().contains(&Digest::of(bytes).hex());
    assert!(!here(&old[0]) && here(&new[0]) && here(&new[1]));
    assert_eq!(client.pull(&server.reference("old:1")).unwrap().1, old);
    let none = Client {
        cache_bytes: 0,
        ..client
    };
    assert_eq!(none.pull(&server.reference("new:1")).unwrap().1, new);
    assert_eq!(cache::usage(none.cache.path()).unwrap().bytes, 0);
}

#[test]
fn prune_keeps_what_is_wanted_and_what_grows() {
    let server = Registry::start();
    let (kept, gone) = (layers(2), vec![bytes(77_777)]);
    let manifest = server.image("kept:1", &kept);
    server.image("gone:1", &gone);
    let client = Client::new();
    client.pull(&server.reference("kept:1")).unwrap();
    client.pull(&server.reference("gone:1")).unwrap();
    let dir = client.cache.path().join("oci/blobs/sha256");
    let partial = |name: &str| {
        let path = dir.join(Digest::of(name.as_bytes()).hex() + ".partial");
        fs::write(&path, name).unwrap();
        File::open(path).unwrap()
    };
    let grows = partial("grows");
    grows.lock().unwrap();
    drop(partial("abandoned"));
    let before = client.files();
    let wanted: Vec<Digest> = kept
        .iter()
        .map(|bytes| Digest::of(bytes))
        .chain([manifest])
        .collect();
    let prune =
        |dry_run| cache::prune(client.cache.path(), |digest| wanted.contains(digest), dry_run).unwrap();
    let would = prune(true);
    assert_eq!(client.files(), before);
    let pruned = prune(false);
    assert_eq!(pruned, would);
    assert!(pruned.digests.contains(&Digest::of(&gone[0])));
    assert_eq!(pruned.digests.len(), 3);
    let left = client.files();
    assert!(left.contains(&format!("{}.partial", Digest::of(b"grows").hex())));
    assert_eq!(left.len(), before.len() - 5);
    let offline = Client {
        offline: true,
        ..client
    };
    assert_eq!(offline.pull(&server.reference("kept:1")).unwrap().1, kept);
    assert!(matches!(
        offline.failure(&server.reference("gone:1")),
        OciError::Offline
    ));
    assert_eq!(cache::usage(offline.cache.path()).unwrap().references, 1);
    drop(grows);
    cache::prune(offline.cache.path(), |_| false, false).unwrap();
    assert_eq!(offline.files(), [""; 0]);
}

/// Also what is damaged stays, and nothing counts as used.
#[test]
fn a_dry_run_of_prune_changes_nothing() {
    let server = Registry::start();
    let digest = server.image("app:1", &layers(2));
    let damaged = server.image("bad:1", &[bytes(7)]);
    let client = Client::new();
    for name in ["app:1", "bad:1"] {
        client.pull(&server.reference(name)).unwrap();
    }
    let dir = client.cache.path().join("oci/blobs/sha256");
    fs::write(dir.join(damaged.hex()), "{}").unwrap();
    let empty = Digest::of(b"empty").hex() + ".partial";
    fs::write(dir.join(&empty), "").unwrap();
    let long_ago = std::time::UNIX_EPOCH + Duration::from_secs(1);
    let files = || fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().path());
    for path in files() {
        File::options()
            .write(true)
            .open(path)
            .unwrap()
            .set_modified(long_ago)
            .unwrap();
    }
    let before = client.files();
    let prune = |dry_run| cache::prune(client.cache.path(), |_| true, dry_run).unwrap();
    assert_eq!(prune(true).digests, []);
    let nothing = cache::prune(client.cache.path(), |_| false, true).unwrap();
    assert!(nothing.digests.contains(&digest) && nothing.digests.contains(&damaged));
    assert_eq!(client.files(), before);
    for path in files() {
        let modified = path.metadata().unwrap().modified().unwrap();
        assert_eq!(modified, long_ago, "{}", path.display());
    }
    prune(false);
    assert!(!client.files().contains(&empty));
}

#[test]
fn a_damaged_cache_heals() {
    let server = Registry::start();
    let content = layers(2);
    let digest = server.image("app:1", &content);
    let client = Client::new();
    let (manifest, _) = client.pull(&server.reference("app:1")).unwrap();
    let path = |digest: &Digest| client.cache.path().join("oci/blobs/sha256").join(digest.hex());
    // A document of another content, a layer cut short, one of another content.
    fs::write(path(&digest), "{}").unwrap();
    let file = File::options()
        .write(true)
        .open(path(&Digest::of(&content[0])))
        .unwrap();
    file.set_len(5).unwrap();
    assert_eq!(client.pull(&server.reference("app:1")).unwrap().1, content);
    assert!(client.registry().scrub(&manifest).unwrap());
    fs::write(path(&Digest::of(&content[1])), vec![0; content[1].len()]).unwrap();
    assert!(!client.registry().scrub(&manifest).unwrap());
    assert_eq!(client.pull(&server.reference("app:1")).unwrap().1, content);
    // An entry of the index that is none.
    let index = client.cache.path().join("oci/index");
    for entry in fs::read_dir(&index).unwrap() {
        fs::write(entry.unwrap().path(), "{").unwrap();
    }
    assert_eq!(client.pull(&server.reference("app:1")).unwrap().1, content);
}

#[test]
fn a_full_disk_is_an_error_of_its_own_and_is_not_left_full() {
    let server = Registry::start();
    server.image("app:1", &[bytes(100_000), bytes(3_000_000)]);
    let reference = server.reference("app:1").to_string();
    let Some(out) = pull_on_small_disk(&reference, 2048) else {
        return say("skipped: no file system can be made for a process alone");
    };
    assert!(out.contains("error: No space left in"), "{out}");
    assert!(out.contains("unfinished: 0"), "{out}");
    let out = pull_on_small_disk(&reference, 4096).unwrap();
    assert!(out.contains("pulled 2 layers"), "{out}");
}

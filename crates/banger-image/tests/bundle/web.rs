//! Bundles of the web: fetched into the cache, and nothing but what the catalogue says.

use std::fs;
use std::sync::Arc;

use banger_image::catalog::Catalog;
use banger_image::oci::OciError;
use banger_image::{Cancel, Digest, Error, NoProgress, image};

use crate::fixture::{Machine, catalog};
use crate::server::{Registry as Server, Reply, Request};

/// A bundle of an image `a`.
fn bundle() -> Arc<Vec<u8>> {
    let machine = Machine::new();
    let image = machine.image("a");
    let file = machine.path("a.tar.zst");
    image::export(
        &machine.images(),
        &image.name,
        &file,
        false,
        &NoProgress,
        &Cancel::new(),
    )
    .unwrap();
    Arc::new(fs::read(file).unwrap())
}

fn catalog_at(server: &Server, content: &[u8]) -> Catalog {
    let url = format!("http://{}/some/a.tar.zst?x=1", server.address);
    catalog("image", "a", &url, Digest::of(content), content.len() as u64)
}

/// What is asked for, from where it is asked for.
fn part(request: &Request, content: &[u8]) -> Reply {
    let from = request.header("range").map(|range| {
        let range = range.strip_prefix("bytes=").unwrap().strip_suffix('-').unwrap();
        range.parse::<usize>().unwrap()
    });
    match from {
        None => Reply::new(200, content),
        Some(from) => Reply::new(206, &content[from..]).with(
            "content-range",
            &format!("bytes {from}-{}/{}", content.len() - 1, content.len()),
        ),
    }
}

#[test]
fn a_bundle_is_fetched_once_and_goes_on_where_it_broke_off() {
    let bundle = bundle();
    let server = Server::start();
    let content = bundle.clone();
    server.rule(move |request, number| {
        let reply = part(request, &content);
        Some(if number == 0 { reply.cut(100_000) } else { reply })
    });
    let machine = Machine::new();
    let catalog = catalog_at(&server, &bundle);
    let pulled = machine.pull_image(&catalog, "a").unwrap();
    assert_eq!(pulled.origin.digest(), Some(Digest::of(&bundle)));
    let requests = server.requests();
    assert_eq!(requests.len(), 2, "{requests:?}");
    assert_eq!(requests[0].path, "/some/a.tar.zst?x=1");
    assert!(requests[1].header("range").is_some());
    machine.pull_image(&catalog, "a").unwrap();
    assert!(server.requests().is_empty());
}

#[test]
fn what_the_web_says_otherwise_is_refused() {
    let bundle = bundle();
    let server = Server::start();
    let machine = Machine::new();
    let mut other = bundle.to_vec();
    other[1000] ^= 1;
    let longer = [&bundle[..], b"x"].concat();
    type Check = fn(&OciError) -> bool;
    let rows: [(&str, Reply, Check); 7] = [
        ("another content", Reply::new(200, other), |error| {
            matches!(error, OciError::DigestMismatch { .. })
        }),
        ("more", Reply::new(200, longer), |error| {
            matches!(error, OciError::SizeMismatch { .. })
        }),
        ("less", Reply::new(200, &bundle[..100]), |error| {
            matches!(error, OciError::SizeMismatch { .. })
        }),
        ("nothing there", Reply::new(404, ""), |error| {
            matches!(error, OciError::NotFound { .. })
        }),
        (
            "a wish for a password",
            Reply::new(401, "").with("www-authenticate", &"Basic realm=\"x\""),
            |error| matches!(error, OciError::Status { status: 401, .. }),
        ),
        (
            "plain HTTP elsewhere",
            Reply::new(302, "").with("location", &"http://192.0.2.1/a"),
            |error| matches!(error, OciError::Redirect { .. } | OciError::InsecureHost { .. }),
        ),
        (
            "a file of this machine",
            Reply::new(302, "").with("location", &"file:///etc/passwd"),
            |error| matches!(error, OciError::Redirect { .. } | OciError::InsecureHost { .. }),
        ),
    ];
    for (what, reply, expected) in rows {
        server.rule(move |_, _| Some(reply.clone()));
        let pulled = machine.pull_image(&catalog_at(&server, &bundle), "a");
        let Err(Error::Oci { source, reference }) = &pulled else {
            panic!("{what}: {pulled:?}");
        };
        assert!(expected(source), "{what}: {source:?}");
        assert!(reference.starts_with("http://127.0.0.1"), "{reference}");
        let requests = server.requests();
        assert!(
            requests
                .iter()
                .all(|request| request.header("authorization").is_none())
        );
        assert!(machine.entries("images").is_empty(), "{what}");
        let blobs = machine.entries("cache/oci/blobs/sha256");
        assert!(blobs.is_empty(), "{what}: {blobs:?}");
    }
}

//! What a registry and the way to it may do: ask for a login or a token, be busy, break off,
//! lie.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use banger_e2e::proxy::{Action, Proxy, Request};
use banger_e2e::registry::{PASSWORD, Registry, Stock, USER};
use banger_e2e::{Content, Out, Rig, samples};

const RUNG: &str = "registry";
/// base64 of `USER:PASSWORD`.
const BASIC: &str = "dGVzdGVyOm5vdCBhIHNlY3JldA==";
const TOKEN: &str = "the-test-s-own-token";

#[tokio::test]
async fn a_login_is_taken_from_dockers_configuration() {
    let Some(registry) = Registry::with_login() else {
        return;
    };
    let Some((stock, mut rig)) = filled(registry).await else {
        return;
    };
    let registry = stock.registry.address().to_owned();
    let reference = stock.registry.reference("test/busybox:1");

    let none = rig.try_pull(&reference, &[]).await.exits(1);
    assert!(says(&none, &registry) && says(&none, "login"), "{none}");
    let auths = |auth: &str| format!(r#"{{"auths":{{"{registry}":{{"auth":"{auth}"}}}}}}"#);
    configure(&rig, &auths("dGVzdGVyOndyb25n"));
    let wrong = rig.try_pull(&reference, &[]).await.exits(1);
    assert!(says(&wrong, &registry) && !says(&wrong, "wrong"), "{wrong}");
    assert_eq!(rig.banger(["image", "list", "-q"]).await.ok().text(), "bare");

    configure(&rig, &auths(BASIC));
    rig.pull(&reference, &[]).await;
    rig.banger(["image", "delete", &reference]).await.ok();
    rig.banger(["image", "prune", "-a", "-y"]).await.ok();

    // The same from a helper, which docker's configuration names.
    let bin = rig.dir().join("bin");
    fs::create_dir(&bin).unwrap();
    let helper = bin.join("docker-credential-for-tests");
    let answer = format!(r#"{{"ServerURL":"{registry}","Username":"{USER}","Secret":"{PASSWORD}"}}"#);
    fs::write(
        &helper,
        format!("#!/bin/sh\nread server\n[ \"$1 $server\" = 'get {registry}' ] && echo '{answer}'\n"),
    )
    .unwrap();
    fs::set_permissions(&helper, fs::Permissions::from_mode(0o755)).unwrap();
    configure(
        &rig,
        &format!(r#"{{"credHelpers":{{"{registry}":"for-tests"}}}}"#),
    );
    let path = std::env::var("PATH").unwrap();
    rig.set("PATH", format!("{}:{path}:/usr/sbin:/sbin", bin.display()));
    for pid in rig.pids("bangerd") {
        rig.kill(pid).await;
    }
    rig.banger(["kernel", "list"]).await.ok();
    rig.try_pull(&reference, &[]).await.ok();
}

#[tokio::test]
async fn a_token_is_fetched_for_the_one_repository() {
    let Some((stock, rig)) = filled_open().await else {
        return;
    };
    let proxy = Proxy::with_rule(stock.registry.address(), token_server);
    let reference = proxy.reference("test/busybox:1");
    // Anybody may have the token for a public image: none for who has no login here.
    let none = rig.try_pull(&reference, &[]).await.exits(1);
    assert!(says(&none, "login"), "{none}");
    proxy.take();

    configure(
        &rig,
        &format!(r#"{{"auths":{{"{}":{{"auth":"{BASIC}"}}}}}}"#, proxy.address()),
    );
    rig.pull(&reference, &[]).await;
    let seen = proxy.take();
    let tokens: Vec<_> = seen
        .iter()
        .filter(|request| request.path.starts_with("/token"))
        .collect();
    assert!(!tokens.is_empty(), "{seen:#?}");
    for request in &tokens {
        assert!(request.path.contains("service=test"), "{request:?}");
        let scope = request.path.replace("%3A", ":").replace("%2F", "/");
        assert!(
            scope.contains("scope=repository:test/busybox:pull"),
            "{request:?}"
        );
    }
    // The password goes to the token's server alone.
    for request in seen.iter().filter(|request| !request.path.starts_with("/token")) {
        let sent = request.header("authorization").unwrap_or_default();
        assert!(!sent.contains(BASIC), "{request:?}");
    }
}

#[tokio::test]
async fn a_layer_that_breaks_off_goes_on_where_it_was() {
    let Some((stock, rig)) = filled_open().await else {
        return;
    };
    let proxy = Proxy::with_rule(stock.registry.address(), |request| {
        if request.is_blob() && request.earlier == 0 {
            Action::Cut(300_000)
        } else {
            Action::Forward
        }
    });
    let reference = proxy.reference("test/busybox:1");
    rig.pull(&reference, &[]).await;
    let seen = proxy.take();
    let resumed: Vec<u64> = seen
        .iter()
        .filter(|r| r.is_blob())
        .filter_map(start_of_range)
        .collect();
    assert_eq!(resumed.len(), 1, "the large layer alone was cut: {seen:#?}");
    assert!((1..=300_000).contains(&resumed[0]), "{resumed:?}");
}

#[tokio::test]
async fn a_pull_that_was_given_up_goes_on_at_the_next() {
    let Some((stock, rig)) = filled_open().await else {
        return;
    };
    let broken = Arc::new(AtomicBool::new(true));
    let state = Arc::clone(&broken);
    let proxy = Proxy::with_rule(stock.registry.address(), move |request| {
        if !request.is_blob() || !state.load(Ordering::Acquire) {
            Action::Forward
        } else if request.earlier == 0 {
            Action::Cut(200_000)
        } else {
            Action::Cut(0)
        }
    });
    let reference = proxy.reference("test/busybox:1");
    let out = rig.try_pull(&reference, &[]).await.exits(1);
    assert!(says(&out, proxy.address()) || says(&out, "sha256:"), "{out}");
    assert_eq!(rig.banger(["image", "list", "-q"]).await.ok().text(), "bare");
    proxy.take();
    broken.store(false, Ordering::Release);
    rig.pull(&reference, &[]).await;
    let seen = proxy.take();
    assert!(
        seen.iter().any(|r| r.is_blob() && start_of_range(r).is_some()),
        "{seen:#?}"
    );
}

#[tokio::test]
async fn a_busy_registry_is_asked_again_when_it_says() {
    let Some((stock, rig)) = filled_open().await else {
        return;
    };
    let proxy = Proxy::with_rule(stock.registry.address(), |request| match request.earlier {
        0 if request.is_manifest() => busy(429, "2"),
        0 if request.is_blob() => busy(503, "1"),
        _ => Action::Forward,
    });
    rig.pull(&proxy.reference("test/busybox:1"), &[]).await;
    let seen = proxy.take();
    for request in seen.iter().filter(|request| request.earlier == 1) {
        let first = seen.iter().find(|other| other.path == request.path).unwrap();
        let least = if request.is_manifest() { 2 } else { 1 };
        assert!(request.at - first.at >= Duration::from_secs(least), "{request:?}");
    }
    assert!(
        seen.iter().any(|r| r.is_manifest() && r.earlier == 1),
        "{seen:#?}"
    );
    assert!(seen.iter().any(|r| r.is_blob() && r.earlier == 1), "{seen:#?}");
}

#[tokio::test]
async fn bytes_that_are_not_those_of_the_digest_are_never_used() {
    let Some((stock, rig)) = filled_open().await else {
        return;
    };
    let honest = stock.registry.reference("test/busybox:1");
    // A manifest that was asked for by its digest, with another size of a layer in it.
    let by_digest = format!("test/busybox@{}", stock.layout.digest("busybox"));
    let proxy = Proxy::with_rule(stock.registry.address(), |request| {
        if request.is_manifest() {
            Action::Lie(40)
        } else {
            Action::Forward
        }
    });
    let out = rig.try_pull(&proxy.reference(&by_digest), &[]).await.exits(1);
    assert!(says(&out, "not what its name says"), "{out}");
    assert!(
        !proxy.take().iter().any(Request::is_blob),
        "nothing of it is believed"
    );
    drop(proxy);
    // A layer.
    let proxy = Proxy::with_rule(stock.registry.address(), |request| {
        if request.is_blob() {
            Action::Lie(70_000)
        } else {
            Action::Forward
        }
    });
    let out = rig
        .try_pull(&proxy.reference("test/busybox:1"), &[])
        .await
        .exits(1);
    assert!(
        says(&out, "not what its name says") && says(&out, "received sha256:"),
        "{out}"
    );
    drop(proxy);

    assert_eq!(rig.banger(["image", "list", "-q"]).await.ok().text(), "bare");
    // Nothing wrong was kept, and the true one is had.
    let pulled = rig.pull(&honest, &[]).await;
    assert_eq!(
        pulled["digest"],
        stock.layout.digest("busybox").as_str(),
        "{pulled}"
    );
}

#[tokio::test]
async fn plain_http_is_for_this_machine_and_on_demand() {
    let Some((stock, rig)) = filled_open().await else {
        return;
    };
    let reference = stock.registry.reference("test/busybox:1");
    let proxy = Proxy::start(stock.registry.address());
    let out = rig
        .banger(["image", "pull", &proxy.reference("test/busybox:1")])
        .await
        .exits(1);
    assert!(
        proxy.take().iter().all(|request| request.method != "GET"),
        "no plain request was made"
    );
    assert!(out.stderr.contains("--insecure"), "{out}");
    let out = rig.try_pull("192.0.2.1:5000/test/busybox:1", &[]).await.exits(1);
    assert!(says(&out, "loopback"), "{out}");
    rig.pull(&reference, &[]).await;
}

async fn filled_open() -> Option<(Stock, Rig)> {
    filled(Registry::start()?).await
}

async fn filled(registry: Registry) -> Option<(Stock, Rig)> {
    let stock = Stock::fill(registry, [("busybox", samples::busybox())]).await?;
    Some((stock, Rig::for_rung(RUNG, Content::Bare).await?))
}

/// Writes docker's configuration.
fn configure(rig: &Rig, text: &str) {
    let dir = rig.dir().join("h/.docker");
    fs::create_dir_all(&dir).unwrap();
    fs::write(dir.join("config.json"), text).unwrap();
}

/// A registry that wants a token, and the server that gives it to who logs in.
fn token_server(request: &Request) -> Action {
    let sent = request.header("authorization").unwrap_or_default();
    if request.path.starts_with("/token") {
        if sent == format!("Basic {BASIC}") {
            return Action::Answer {
                status: 200,
                headers: vec![("Content-Type", "application/json".to_owned())],
                body: format!(r#"{{"token":"{TOKEN}","expires_in":300}}"#),
            };
        }
        return refused("Basic realm=\"tokens\"".to_owned());
    }
    if sent == format!("Bearer {TOKEN}") {
        return Action::Forward;
    }
    let host = request.header("host").unwrap_or_default();
    refused(format!(
        "Bearer realm=\"http://{host}/token\",service=\"test\",scope=\"repository:test/busybox:pull\""
    ))
}

fn refused(challenge: String) -> Action {
    Action::Answer {
        status: 401,
        headers: vec![("WWW-Authenticate", challenge)],
        body: r#"{"errors":[{"code":"UNAUTHORIZED","message":"no"}]}"#.to_owned(),
    }
}

fn busy(status: u16, after: &str) -> Action {
    Action::Answer {
        status,
        headers: vec![("Retry-After", after.to_owned())],
        body: String::new(),
    }
}

fn start_of_range(request: &Request) -> Option<u64> {
    let range = request.header("range")?.strip_prefix("bytes=")?;
    range.split('-').next()?.parse().ok().filter(|&start| start > 0)
}

/// Whether a failed pull says this, as JSON or for people.
fn says(out: &Out, words: &str) -> bool {
    let said = format!("{}{}", out.text(), out.stderr).to_lowercase();
    said.contains(&words.to_lowercase())
}

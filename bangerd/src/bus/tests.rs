//! The bus over socket pairs, with fake objects.

use std::collections::HashMap;
use std::io::Read;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};

use banger_bus::{
    CreateOptions, Error, ErrorKind, JobOutcome, JobPart, JobProxy, ManagerProxy, SERVICE, VmProxy, path,
};
use banger_image::{Part, PartState, Progress as _};
use futures_util::StreamExt;
use zbus::connection::Builder;
use zbus::fdo::ObjectManagerProxy;
use zbus::message::Type;
use zbus::{Connection, MatchRule, MessageStream, Variant};

use super::fake::{FakeVm, client, hub, vm, vm_path};

async fn manager(connection: &Connection) -> ManagerProxy<'_> {
    ManagerProxy::new(connection).await.unwrap()
}

async fn create(connection: &Connection, name: &str) -> zbus::OwnedObjectPath {
    let manager = manager(connection).await;
    manager
        .create_vm(name.to_owned(), CreateOptions::default())
        .await
        .unwrap()
}

#[tokio::test]
async fn errors_have_their_names_and_unknown_options_are_refused() {
    let (bus, _jobs) = hub();
    let connection = client(&bus).await;
    let refused = manager(&connection).await.look_up_vm("x".to_owned()).await;
    let error = refused.unwrap_err();
    assert_eq!(
        (error.kind, error.message.as_str()),
        (ErrorKind::NoSuchVm, "No such VM: \"x\"")
    );
    for (options, good) in [
        (HashMap::from([("Vcpu", Variant::from(1u32))]), false),
        (HashMap::from([("Vcpus", Variant::from("1"))]), false),
    ] {
        let called = connection
            .call_method(
                None::<&str>,
                path::MANAGER,
                Some("org.banger.Manager"),
                "CreateVm",
                &("a", options),
            )
            .await;
        assert_eq!(called.is_ok(), good);
        let error = Error::from(called.unwrap_err());
        assert_eq!(error.kind, ErrorKind::InvalidArgument, "{error}");
    }
}

#[tokio::test]
async fn a_jobs_end_is_told_in_order_on_every_connection() {
    let (bus, mut jobs) = hub();
    let (one, two) = (client(&bus).await, client(&bus).await);
    let rule = MatchRule::builder().msg_type(Type::Signal).build().unwrap();
    let mut heard = MessageStream::for_match_rule(rule, &two, None).await.unwrap();
    let job = create(&one, "a").await;
    // The caller can use the job at once.
    let proxy = JobProxy::builder(&one).path(&job).build().await.unwrap();
    assert_eq!(proxy.operation().await.unwrap(), "create");
    let started = jobs.recv().await.unwrap();
    started.ctx.stage("Working");
    started
        .ctx
        .about("30313233343536373839616263646566".parse().unwrap());
    let status = JobOutcome {
        exit_status: Some(3),
        ..JobOutcome::done()
    };
    started.end.send(Ok(status)).unwrap();
    let mut story = Vec::new();
    while story
        .last()
        .is_none_or(|(_, last): &(String, String)| last != "InterfacesRemoved")
    {
        let message = heard.next().await.unwrap().unwrap();
        let header = message.header();
        let member = header.member().unwrap().to_string();
        if member == "Removed" {
            let body = message.body();
            let (result, error, text, details): (&str, &str, &str, HashMap<String, zbus::OwnedVariant>) =
                body.deserialize().unwrap();
            let outcome = JobOutcome::from_signal(result, error, text, &details);
            assert_eq!(
                (result, outcome.exit_status, outcome.object),
                ("done", Some(3), Some(vm_path()))
            );
        }
        story.push((header.path().unwrap().to_string(), member));
    }
    let members: Vec<&str> = story.iter().map(|(_, member)| member.as_str()).collect();
    let ends: Vec<&str> = members
        .iter()
        .copied()
        .skip_while(|member| *member != "Removed")
        .collect();
    assert_eq!(ends[..2], ["Removed", "JobRemoved"]);
    assert!(members.contains(&"PropertiesChanged"), "{members:?}");
    assert_eq!(members[..2], ["InterfacesAdded", "InterfacesAdded"]);
    assert!(!bus.is_busy());
}

#[tokio::test(start_paused = true)]
async fn progress_is_told_seldom_and_to_its_end() {
    const STEPS: u64 = 5_000;
    let (bus, mut jobs) = hub();
    let connection = client(&bus).await;
    let rule = MatchRule::builder().msg_type(Type::Signal).build().unwrap();
    let mut heard = MessageStream::for_match_rule(rule, &connection, None)
        .await
        .unwrap();
    create(&connection, "a").await;
    let started = jobs.recv().await.unwrap();
    started.ctx.stage("Fetching");
    let begun = tokio::time::Instant::now();
    for done in 1..=STEPS {
        let state = PartState::Fetching;
        let (name, total) = ("a", STEPS);
        started.ctx.part(&Part {
            name,
            state,
            done,
            total,
        });
        tokio::time::advance(std::time::Duration::from_millis(1)).await;
    }
    let tenths = u64::try_from(begun.elapsed().as_millis()).unwrap() / 100;
    started.end.send(Ok(JobOutcome::done())).unwrap();
    let (mut signals, mut last): (u64, Vec<JobPart>) = (0, Vec::new());
    loop {
        let message = heard.next().await.unwrap().unwrap();
        match message.header().member().unwrap().as_str() {
            "PropertiesChanged" => {
                let body = message.body();
                let (_, changed, _): (&str, HashMap<String, zbus::OwnedVariant>, Vec<&str>) =
                    body.deserialize().unwrap();
                signals += 1;
                if let Some(parts) = changed.get("Parts") {
                    last = parts.try_clone().unwrap().try_into().unwrap();
                }
            }
            "Removed" => break,
            _ => {}
        }
    }
    // The last part of all is told at the job's end, if not before.
    assert!(signals <= tenths + 2, "{signals} signals in {tenths}00 ms");
    assert!(signals > 1);
    let expected: JobPart = ("a".to_owned(), "fetching".to_owned(), STEPS, STEPS);
    assert_eq!(last, [expected]);
}

#[tokio::test]
async fn who_leaves_cancels_what_he_waited_for() {
    let (bus, mut jobs) = hub();
    let (one, two) = (client(&bus).await, client(&bus).await);
    create(&two, "b").await;
    let stays = jobs.recv().await.unwrap();
    create(&one, "a").await;
    let leaves = jobs.recv().await.unwrap();
    one.close().await.unwrap();
    leaves.ctx.cancelled().await;
    assert!(stays.ctx.check().is_ok());
    assert!(bus.is_busy());
    drop((stays.end, leaves.end));
}

#[tokio::test]
async fn a_job_that_breaks_is_a_job_that_failed() {
    let (bus, mut jobs) = hub();
    let connection = client(&bus).await;
    let rule = MatchRule::builder()
        .msg_type(Type::Signal)
        .member("Removed")
        .build()
        .unwrap();
    let mut removed = MessageStream::for_match_rule(rule, &connection, None)
        .await
        .unwrap();
    create(&connection, "a").await;
    // Its receiver of this panics.
    drop(jobs.recv().await.unwrap().end);
    let message = removed.next().await.unwrap().unwrap();
    let body = message.body();
    let (result, error, ..): (&str, &str, &str, HashMap<String, zbus::OwnedVariant>) =
        body.deserialize().unwrap();
    assert_eq!((result, error), ("failed", ErrorKind::Failed.name()));
    assert!(!bus.is_busy());
}

#[tokio::test]
async fn jobs_are_bounded() {
    let (bus, mut jobs) = hub();
    let connection = client(&bus).await;
    let manager = manager(&connection).await;
    let mut ends = Vec::new();
    for _ in 0..crate::jobs::MAX_JOBS {
        manager
            .create_vm("a".to_owned(), CreateOptions::default())
            .await
            .unwrap();
        ends.push(jobs.recv().await.unwrap());
    }
    let refused = manager.create_vm("a".to_owned(), CreateOptions::default()).await;
    assert_eq!(refused.unwrap_err().kind, ErrorKind::LimitExceeded);
}

#[tokio::test]
async fn properties_follow_and_vms_are_listed() {
    let (bus, _jobs) = hub();
    let early = client(&bus).await;
    let fake = Arc::new(FakeVm(Mutex::new(vm("a"))));
    bus.vm_added(&vm_path(), fake.clone());
    let late = client(&bus).await;
    let proxy = VmProxy::builder(&late).path(vm_path()).build().await.unwrap();
    let mut states = proxy.receive_state_changed().await;
    assert_eq!(states.next().await.unwrap().get().await.unwrap(), "stopped");
    let mut after = vm("a");
    after.state = "running".to_owned();
    *fake.0.lock().unwrap() = after.clone();
    bus.vm_changed(&vm_path(), &vm("a"), &after);
    assert_eq!(states.next().await.unwrap().get().await.unwrap(), "running");
    assert!(bus.is_busy());
    for connection in [&early, &late] {
        let objects = ObjectManagerProxy::builder(connection)
            .destination(SERVICE)
            .path(path::MANAGER)
            .build()
            .await
            .unwrap();
        let objects = objects.get_managed_objects().await.unwrap();
        assert!(objects[&vm_path()].contains_key("org.banger.VM"));
    }
    bus.removed(&vm_path());
    assert!(!bus.is_busy());
}

#[tokio::test]
async fn a_client_that_does_not_read_holds_up_nobody() {
    let (bus, _jobs) = hub();
    let fake = Arc::new(FakeVm(Mutex::new(vm("a"))));
    bus.vm_added(&vm_path(), fake.clone());
    let good = client(&bus).await;
    // One that introduces itself and then reads no more.
    let (ours, theirs) = UnixStream::pair().unwrap();
    let mut silent = theirs.try_clone().unwrap();
    tokio::spawn(bus.serve_client(ours));
    let deaf = Builder::unix_stream(theirs)
        .p2p()
        .max_queued(1.try_into().unwrap())
        .build()
        .await
        .unwrap();
    let unread = MessageStream::from(&deaf);
    let proxy = VmProxy::builder(&good).path(vm_path()).build().await.unwrap();
    let mut details = proxy.receive_state_detail_changed().await;
    details.next().await.unwrap();
    let mut before = vm("a");
    for round in 0..20_000u32 {
        let mut after = before.clone();
        after.state_detail = format!("{round} {}", "x".repeat(500));
        *fake.0.lock().unwrap() = after.clone();
        bus.vm_changed(&vm_path(), &before, &after);
        before = after;
        // The one that reads keeps up.
        details.next().await.unwrap();
        if bus.clients() == 1 {
            break;
        }
    }
    assert_eq!(bus.clients(), 1, "the deaf client was dropped");
    drop((unread, deaf));
    silent.set_nonblocking(false).unwrap();
    let mut rest = Vec::new();
    silent.read_to_end(&mut rest).unwrap();
    assert_eq!(manager(&good).await.mode().await.unwrap(), "user");
}

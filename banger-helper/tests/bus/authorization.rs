//! What polkit is asked, and what becomes of its answers.

use std::time::Duration;

use banger_bus::helper::{ACTIONS, HELPER_PATH, HELPER_SERVICE};
use futures_util::future::join_all;
use tokio::time::Instant;
use zbus::message::{Flags, Message};

use crate::generated::{Arguments, call};
use crate::support::{ALICE, Answer, BOB, NOBODY, Rig, can_run, error_name, within};

const DENIED: &str = "org.freedesktop.DBus.Error.AccessDenied";

#[tokio::test]
async fn the_subject_is_the_sender_and_the_flag_is_the_messages() {
    if !can_run() {
        return;
    }
    let rig = Rig::start().await;
    let connection = rig.bus.connect(ALICE).await;
    let alice = crate::support::proxy(&connection).await;
    alice.list().await.unwrap();
    alice.acquire_slot(1).await.unwrap();
    let checks = rig.polkit.take_checks();
    assert_eq!(checks.len(), 2, "one question for each call");
    for check in &checks {
        assert_eq!(check.kind, "system-bus-name");
        assert_eq!(check.name, connection.unique_name().unwrap().as_str());
        assert_eq!(check.details["user"], ALICE.to_string());
        assert!(!check.cancellation.is_empty());
    }
    // The proxy allows to ask for a password where one may be wanted.
    assert_eq!((checks[0].action.as_str(), checks[0].flags), ("list", 0));
    assert_eq!((checks[1].action.as_str(), checks[1].flags), ("acquire-slot", 1));
    assert_eq!(checks[1].details["network"], "closed");
    assert_ne!(checks[0].cancellation, checks[1].cancellation);
}

#[tokio::test]
async fn a_prompt_names_what_it_is_about_to_the_owner_alone() {
    if !can_run() {
        return;
    }
    let rig = Rig::start().await;
    let (alice, bob) = (rig.proxy(ALICE).await, rig.proxy(BOB).await);
    let grant = alice.acquire_slot(0).await.unwrap();
    rig.polkit.answers(Answer::No);
    rig.polkit.take_checks();
    for who in [&alice, &bob] {
        assert_eq!(error_name(who.release_slot(grant.handle).await), DENIED);
    }
    let checks = rig.polkit.take_checks();
    assert_eq!(checks[0].details["slot"], "0");
    assert_eq!(checks[1].details["slot"], "unknown");
    // A VM's name, as far as it is one.
    let own = Arguments {
        handle: grant.handle,
        ..Arguments::default()
    };
    for (name, shown) in [("web-1", "web-1"), ("a\n\u{202e}b", "unknown")] {
        let launch = call(alice.inner().connection(), "Launch", 0, Arguments { name, ..own }).await;
        assert_eq!(error_name(launch), DENIED);
        let check = &rig.polkit.take_checks()[0];
        assert_eq!(
            (check.details["slot"].as_str(), check.details["vm"].as_str()),
            ("0", shown)
        );
    }
}

#[tokio::test]
async fn nothing_but_a_plain_yes_in_time_is_a_yes() {
    if !can_run() {
        return;
    }
    let rig = Rig::start().await;
    let alice = rig.proxy(ALICE).await;
    let before = rig.effects();
    for (answer, name) in [
        (Answer::No, DENIED),
        (Answer::Error, DENIED),
        (Answer::Garbage, DENIED),
        (Answer::Hang, DENIED),
        (Answer::Challenge, DENIED),
    ] {
        rig.polkit.answers(answer);
        let begin = Instant::now();
        // Without the flag: `Repair` and so on would wait for 25 seconds.
        let call = alice.inner().call::<_, _, ()>("Status", &());
        let refused = error_name(within(call).await);
        let expected = if answer == Answer::Challenge {
            "org.freedesktop.DBus.Error.InteractiveAuthorizationRequired"
        } else {
            name
        };
        if answer == Answer::Challenge {
            // The conversion of the client keeps the two apart.
            assert_eq!(refused, expected);
        } else {
            assert_eq!(refused, name, "{answer:?}");
        }
        assert!(begin.elapsed() < Duration::from_secs(5), "{answer:?}");
    }
    rig.polkit.wait_for_open(0).await;
    // With the flag, a challenge that nobody answered is a refusal.
    rig.polkit.answers(Answer::Challenge);
    assert_eq!(error_name(alice.acquire_slot(0).await), DENIED);
    // polkit goes away in the middle, and is away.
    rig.polkit.answers(Answer::Die);
    assert_eq!(error_name(alice.status().await), DENIED);
    assert_eq!(error_name(alice.acquire_slot(0).await), DENIED);
    assert_eq!(rig.effects(), before);
    rig.polkit.answers(Answer::Yes);
    rig.polkit.come_back(&rig.bus).await;
    alice.acquire_slot(0).await.unwrap();
}

#[tokio::test]
async fn a_question_ends_with_its_caller() {
    if !can_run() {
        return;
    }
    let rig = Rig::start().await;
    rig.polkit.answers(Answer::Hang);
    // At most as many at once as one user may have open; they are not waited for.
    for _ in 0..100 {
        let callers = join_all((0..10).map(|_| rig.bus.connect(NOBODY))).await;
        for caller in &callers {
            let ask = Message::method_call(HELPER_PATH, "AcquireSlot")
                .interface("org.banger.Helper")
                .destination(HELPER_SERVICE)
                .with_flags(Flags::ALLOW_INTERACTIVE_AUTH)
                .build(&(0_u8,))
                .unwrap();
            caller.send(&ask).await.unwrap();
        }
        rig.polkit.wait_for_open(10).await;
        for caller in callers {
            caller.close().await.unwrap();
        }
        rig.polkit.wait_for_open(0).await;
    }
    assert_eq!(rig.polkit.take_checks().len(), 1000);
    rig.polkit.answers(Answer::Yes);
    assert_eq!(rig.proxy(NOBODY).await.list().await.unwrap(), []);
}

#[tokio::test]
async fn signals_of_others_are_not_believed() {
    if !can_run() {
        return;
    }
    let rig = Rig::start().await;
    rig.polkit.rule(|check| match check.details["user"].as_str() {
        "1" => Answer::Hang,
        _ => Answer::Yes,
    });
    let alice = rig.bus.connect(ALICE).await;
    let asking = alice.clone();
    let asking = tokio::spawn(async move { crate::support::proxy(&asking).await.acquire_slot(0).await });
    rig.polkit.wait_for_open(1).await;

    // root's are not the bus's either, though they get through.
    for liar in [BOB, 0] {
        let liar = rig.bus.connect(liar).await;
        let dbus = zbus::fdo::DBusProxy::new(&liar).await.unwrap();
        let helper = dbus
            .get_name_owner(HELPER_SERVICE.try_into().unwrap())
            .await
            .unwrap();
        let gone = alice.unique_name().unwrap().as_str();
        let bus = "org.freedesktop.DBus";
        let body = (gone, gone, "");
        liar.emit_signal(
            Some(helper),
            "/org/freedesktop/DBus",
            bus,
            "NameOwnerChanged",
            &body,
        )
        .await
        .unwrap();
        // What was sent before has been seen when this is answered.
        crate::support::proxy(&liar).await.list().await.unwrap();
        rig.polkit.wait_for_open(1).await;
    }
    asking.abort();
}

#[tokio::test]
async fn one_users_open_questions_are_bounded_and_do_not_hold_up_another() {
    if !can_run() {
        return;
    }
    let rig = Rig::start().await;
    let (alice, bob) = (rig.proxy(ALICE).await, rig.proxy(BOB).await);
    let bobs = rig.bus.connect(BOB).await.unique_name().unwrap().to_string();
    drop(bobs);
    rig.polkit.rule(|check| match check.details["user"].as_str() {
        "2" => Answer::Hang,
        _ => Answer::Yes,
    });
    let asking: Vec<_> = (0..80)
        .map(|_| {
            let bob = bob.clone();
            tokio::spawn(async move { error_name(bob.acquire_slot(0).await) })
        })
        .collect();
    // 16 are asked, 48 wait, the rest is refused.
    rig.polkit.wait_for_open(16).await;
    for _ in 0..20 {
        let begin = Instant::now();
        alice.list().await.unwrap();
        assert!(begin.elapsed() < Duration::from_secs(1));
    }
    let mut refused = 0;
    for call in asking {
        if call.is_finished() {
            assert_eq!(call.await.unwrap(), "org.banger.Error.LimitExceeded");
            refused += 1;
        } else {
            call.abort();
        }
    }
    assert_eq!(refused, 16);
    bob.inner().connection().clone().close().await.unwrap();
    rig.polkit.wait_for_open(0).await;
}

#[tokio::test]
async fn every_method_has_its_action() {
    if !can_run() {
        return;
    }
    let rig = Rig::start().await;
    rig.polkit.answers(Answer::No);
    let connection = rig.bus.connect(ALICE).await;
    for (method, action) in ACTIONS {
        let refused = call(&connection, method, 0, Arguments::default()).await;
        assert_eq!(error_name(refused), DENIED, "{method}");
        let checks = rig.polkit.take_checks();
        assert_eq!(checks.len(), 1, "{method}");
        assert_eq!(checks[0].action, *action, "{method}");
    }
}

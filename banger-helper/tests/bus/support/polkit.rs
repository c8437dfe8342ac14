//! A polkit that writes down what it is asked.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};

use futures_util::StreamExt;
use tokio::sync::Notify;
use zbus::message::{Message, Type};
use zbus::{Connection, MessageStream, OwnedVariant};

use super::Bus;

/// One question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Check {
    pub(crate) kind: String,
    pub(crate) name: String,
    /// Without the prefix.
    pub(crate) action: String,
    pub(crate) details: HashMap<String, String>,
    pub(crate) flags: u32,
    pub(crate) cancellation: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    Yes,
    No,
    Challenge,
    Error,
    /// A reply of another type.
    Garbage,
    Hang,
    /// Leaves the bus.
    Die,
}

type Rule = Box<dyn Fn(&Check) -> Answer + Send>;

#[derive(Clone)]
pub(crate) struct Polkit(Arc<Shared>);

struct Shared {
    checks: Mutex<Vec<Check>>,
    /// Neither answered nor taken back.
    open: Mutex<HashSet<String>>,
    changed: Notify,
    rule: Mutex<Rule>,
}

impl Polkit {
    pub(crate) async fn start(bus: &Bus) -> Self {
        let polkit = Self(Arc::new(Shared {
            checks: Mutex::default(),
            open: Mutex::default(),
            changed: Notify::new(),
            rule: Mutex::new(Box::new(|_| Answer::Yes)),
        }));
        polkit.come_back(bus).await;
        polkit
    }

    /// Takes its name, at first and after it has died.
    pub(crate) async fn come_back(&self, bus: &Bus) {
        let connection = bus.connect(0).await;
        let messages = MessageStream::from(&connection);
        connection
            .request_name("org.freedesktop.PolicyKit1")
            .await
            .unwrap();
        tokio::spawn(self.clone().answer(connection, messages));
    }

    pub(crate) fn answers(&self, answer: Answer) {
        self.rule(move |_| answer);
    }

    pub(crate) fn rule(&self, rule: impl Fn(&Check) -> Answer + Send + 'static) {
        *self.0.rule.lock().unwrap() = Box::new(rule);
    }

    /// What it was asked since the last time that somebody looked.
    pub(crate) fn take_checks(&self) -> Vec<Check> {
        std::mem::take(&mut self.0.checks.lock().unwrap())
    }

    /// Waits until so many questions are open.
    pub(crate) async fn wait_for_open(&self, number: usize) {
        super::within(async {
            loop {
                let changed = self.0.changed.notified();
                if self.0.open.lock().unwrap().len() == number {
                    return;
                }
                changed.await;
            }
        })
        .await;
    }

    async fn answer(self, connection: Connection, mut messages: MessageStream) {
        while let Some(Ok(message)) = messages.next().await {
            if message.message_type() != Type::MethodCall {
                continue;
            }
            let header = message.header();
            match header.member().map(|member| member.as_str()) {
                Some("CheckAuthorization") => {
                    let check = read(&message);
                    let answer = (self.0.rule.lock().unwrap())(&check);
                    self.0.checks.lock().unwrap().push(check.clone());
                    if answer == Answer::Die {
                        connection.close().await.unwrap();
                        return;
                    }
                    reply(&connection, &message, answer).await;
                    if answer == Answer::Hang {
                        self.0.open.lock().unwrap().insert(check.cancellation);
                        self.0.changed.notify_waiters();
                    }
                }
                Some("CancelCheckAuthorization") => {
                    let id: String = message.body().deserialize().unwrap();
                    self.0.open.lock().unwrap().remove(&id);
                    self.0.changed.notify_waiters();
                    connection.reply(&header, &()).await.unwrap();
                }
                other => panic!("polkit has no method {other:?}"),
            }
        }
    }
}

fn read(message: &Message) -> Check {
    type Subject = (String, HashMap<String, OwnedVariant>);
    type Body = (Subject, String, HashMap<String, String>, u32, String);
    let body = message.body();
    let ((kind, mut subject), action, details, flags, cancellation): Body = body.deserialize().unwrap();
    let name = subject.remove("name").expect("a subject by its name");
    Check {
        kind,
        name: String::try_from(name).unwrap(),
        action: action.strip_prefix("org.banger.helper.").unwrap().to_owned(),
        details,
        flags,
        cancellation,
    }
}

async fn reply(connection: &Connection, call: &Message, answer: Answer) {
    let header = call.header();
    let nothing = HashMap::<&str, &str>::new();
    match answer {
        Answer::Yes => connection
            .reply(&header, &((true, false, nothing),))
            .await
            .unwrap(),
        Answer::No => connection
            .reply(&header, &((false, false, nothing),))
            .await
            .unwrap(),
        Answer::Challenge => connection
            .reply(&header, &((false, true, nothing),))
            .await
            .unwrap(),
        Answer::Garbage => connection.reply(&header, &("yes", true)).await.unwrap(),
        Answer::Error => {
            let name = "org.freedesktop.PolicyKit1.Error.Failed";
            connection
                .reply_error(&header, name, &("it failed",))
                .await
                .unwrap();
        }
        Answer::Hang | Answer::Die => {}
    }
}

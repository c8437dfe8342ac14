//! A PID 1 with scopes, as far as the helper asks it.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use futures_util::StreamExt;
use zbus::message::{Message, Type};
use zbus::{Connection, MessageStream, OwnedObjectPath};

use super::Bus;

const PATH: &str = "/org/freedesktop/systemd1";
const MANAGER: &str = "org.freedesktop.systemd1.Manager";

#[derive(Clone, Default)]
pub(crate) struct FakeSystemd(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    scopes: BTreeSet<String>,
    /// What it was told to do; looking at it is not among it.
    changes: Vec<String>,
}

impl FakeSystemd {
    pub(crate) async fn start(bus: &Bus) -> Self {
        let connection = bus.connect(0).await;
        let messages = MessageStream::from(&connection);
        connection.request_name("org.freedesktop.systemd1").await.unwrap();
        let systemd = Self::default();
        tokio::spawn(systemd.clone().answer(connection, messages));
        systemd
    }

    pub(crate) fn add_scope(&self, name: &str) {
        self.0.lock().unwrap().scopes.insert(name.to_owned());
    }

    pub(crate) fn scopes(&self) -> Vec<String> {
        self.0.lock().unwrap().scopes.iter().cloned().collect()
    }

    pub(crate) fn changes(&self) -> Vec<String> {
        self.0.lock().unwrap().changes.clone()
    }

    async fn answer(self, connection: Connection, mut messages: MessageStream) {
        while let Some(Ok(message)) = messages.next().await {
            if message.message_type() == Type::MethodCall {
                self.call(&connection, &message).await;
            }
        }
    }

    async fn call(&self, connection: &Connection, message: &Message) {
        let header = message.header();
        let member = header.member().unwrap().as_str().to_owned();
        let body = message.body();
        match member.as_str() {
            "Subscribe" => connection.reply(&header, &()).await.unwrap(),
            "ListUnitsByPatterns" => {
                let rows: Vec<_> = self.scopes().iter().map(|name| row(name)).collect();
                connection.reply(&header, &(rows,)).await.unwrap();
            }
            "GetUnit" => {
                let unit: String = body.deserialize().unwrap();
                if self.scopes().contains(&unit) {
                    connection.reply(&header, &(path(&unit),)).await.unwrap();
                } else {
                    no_such_unit(connection, message).await;
                }
            }
            "KillUnit" => {
                let (unit, whom, signal): (String, String, i32) = body.deserialize().unwrap();
                let known = {
                    let mut state = self.0.lock().unwrap();
                    state.changes.push(format!("{member} {unit} {whom} {signal}"));
                    if signal == 9 {
                        state.scopes.remove(&unit)
                    } else {
                        state.scopes.contains(&unit)
                    }
                };
                if !known {
                    return no_such_unit(connection, message).await;
                }
                connection.reply(&header, &()).await.unwrap();
                if signal == 9 {
                    let gone = (unit.as_str(), path(&unit));
                    let to = None::<zbus::names::BusName<'_>>;
                    connection
                        .emit_signal(to, PATH, MANAGER, "UnitRemoved", &gone)
                        .await
                        .unwrap();
                }
            }
            "ResetFailedUnit" => no_such_unit(connection, message).await,
            _ => {
                self.0.lock().unwrap().changes.push(member);
                let name = "org.freedesktop.DBus.Error.NotSupported";
                connection
                    .reply_error(&header, name, &("not here",))
                    .await
                    .unwrap();
            }
        }
    }
}

async fn no_such_unit(connection: &Connection, message: &Message) {
    let name = "org.freedesktop.systemd1.NoSuchUnit";
    connection
        .reply_error(&message.header(), name, &("not loaded",))
        .await
        .unwrap();
}

fn path(unit: &str) -> OwnedObjectPath {
    let escaped: String = unit
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '_' })
        .collect();
    OwnedObjectPath::try_from(format!("{PATH}/unit/{escaped}")).unwrap()
}

type Row = (
    String,
    String,
    &'static str,
    &'static str,
    &'static str,
    &'static str,
    OwnedObjectPath,
    u32,
    &'static str,
    OwnedObjectPath,
);

fn row(unit: &str) -> Row {
    let none = OwnedObjectPath::try_from("/").unwrap();
    (
        unit.to_owned(),
        String::new(),
        "loaded",
        "active",
        "running",
        "",
        path(unit),
        0,
        "",
        none,
    )
}

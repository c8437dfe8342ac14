//! A PID 1 with scopes, as far as the helper asks it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use banger_sys::pidfd::Pidfd;
use futures_util::StreamExt;
use rustix::process::Signal;
use tokio::sync::watch;
use zbus::message::{Message, Type};
use zbus::{Connection, MessageStream, OwnedObjectPath, Variant};

use super::{Bus, within};

const PATH: &str = "/org/freedesktop/systemd1";
const MANAGER: &str = "org.freedesktop.systemd1.Manager";

#[derive(Clone)]
pub(crate) struct FakeSystemd(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    changed: watch::Sender<()>,
}

#[derive(Default)]
struct State {
    /// With the process that was put into it, if one was.
    scopes: BTreeMap<String, Option<Arc<Pidfd>>>,
    /// What it was told to do; looking at it is not among it.
    changes: Vec<String>,
    /// The properties of the last scope that was asked for, as text.
    asked: BTreeMap<String, String>,
    starting: Starting,
    jobs: u32,
}

/// What becomes of `StartTransientUnit`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Starting {
    #[default]
    Works,
    /// As before 255: without PIDFDs.
    Old,
    /// The unit is there, says the answer.
    Exists,
    /// The job ends as `failed`.
    Fails,
    /// The scope is there, and its job never ends.
    Hangs,
}

type Properties<'a> = Vec<(String, Variant<'a>)>;

impl FakeSystemd {
    pub(crate) async fn start(bus: &Bus) -> Self {
        let connection = bus.connect(0).await;
        let messages = MessageStream::from(&connection);
        connection.request_name("org.freedesktop.systemd1").await.unwrap();
        let systemd = Self(Arc::new(Shared {
            state: Mutex::default(),
            changed: watch::channel(()).0,
        }));
        tokio::spawn(systemd.clone().answer(connection, messages));
        systemd
    }

    pub(crate) fn add_scope(&self, name: &str) {
        self.state().scopes.insert(name.to_owned(), None);
    }

    pub(crate) fn set_starting(&self, starting: Starting) {
        self.state().starting = starting;
    }

    pub(crate) fn scopes(&self) -> Vec<String> {
        self.state().scopes.keys().cloned().collect()
    }

    pub(crate) fn changes(&self) -> Vec<String> {
        self.state().changes.clone()
    }

    /// A property of the last scope that was asked for.
    pub(crate) fn asked(&self, property: &str) -> String {
        self.state().asked.get(property).cloned().unwrap_or_default()
    }

    /// The process in a scope.
    pub(crate) fn process(&self, scope: &str) -> Arc<Pidfd> {
        self.state().scopes[scope].clone().unwrap()
    }

    /// Waits until its scopes are as wanted.
    pub(crate) async fn wait_for(&self, wanted: impl Fn(&[String]) -> bool) {
        let mut changes = self.0.changed.subscribe();
        within(async {
            while !wanted(&self.scopes()) {
                changes.changed().await.unwrap();
            }
        })
        .await;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap()
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
            "Get" => {
                let id = Variant::from(vec![0xab_u8; 16]);
                connection.reply(&header, &(id,)).await.unwrap();
            }
            "StartTransientUnit" => self.start_unit(connection, message).await,
            "KillUnit" => self.kill_unit(connection, message).await,
            "ResetFailedUnit" => no_such_unit(connection, message).await,
            _ => {
                self.state().changes.push(member);
                let name = "org.freedesktop.DBus.Error.NotSupported";
                connection
                    .reply_error(&header, name, &("not here",))
                    .await
                    .unwrap();
            }
        }
    }

    async fn start_unit(&self, connection: &Connection, message: &Message) {
        let header = message.header();
        let body = message.body();
        let (unit, mode, properties, _): (String, String, Properties<'_>, Vec<(String, Properties<'_>)>) =
            body.deserialize().unwrap();
        let (starting, job) = {
            let mut state = self.state();
            state.changes.push(format!("StartTransientUnit {unit} {mode}"));
            let texts = properties.iter().map(|(key, value)| (key.clone(), text(value)));
            state.asked = texts.collect();
            state.jobs += 1;
            (state.starting, state.jobs)
        };
        let process = process(&properties);
        let by_pidfd = properties.iter().any(|(key, _)| key == "PIDFDs");
        let refusal = match starting {
            Starting::Exists => Some("org.freedesktop.systemd1.UnitExists"),
            Starting::Old if by_pidfd => Some("org.freedesktop.DBus.Error.PropertyReadOnly"),
            _ => None,
        };
        if let Some(name) = refusal {
            return connection.reply_error(&header, name, &("no",)).await.unwrap();
        }
        let job_path = OwnedObjectPath::try_from(format!("{PATH}/job/{job}")).unwrap();
        if starting != Starting::Fails {
            let process = Arc::new(process.unwrap());
            self.state().scopes.insert(unit.clone(), Some(process.clone()));
            self.0.changed.send_replace(());
            tokio::spawn(self.clone().watch(connection.clone(), unit.clone(), process));
        }
        connection.reply(&header, &(&job_path,)).await.unwrap();
        if starting != Starting::Hangs {
            let result = if starting == Starting::Fails {
                "failed"
            } else {
                "done"
            };
            emit(connection, "JobRemoved", &(job, &job_path, &unit, result)).await;
        }
    }

    async fn kill_unit(&self, connection: &Connection, message: &Message) {
        let header = message.header();
        let body = message.body();
        let (unit, whom, signal): (String, String, i32) = body.deserialize().unwrap();
        let scope = {
            let mut state = self.state();
            state.changes.push(format!("KillUnit {unit} {whom} {signal}"));
            state.scopes.get(&unit).cloned()
        };
        let Some(process) = scope else {
            return no_such_unit(connection, message).await;
        };
        connection.reply(&header, &()).await.unwrap();
        match process {
            Some(process) => {
                let signal = Signal::from_named_raw(signal).unwrap();
                let _ = process.send_signal(signal);
            }
            None if signal == 9 => self.remove(connection, &unit).await,
            None => {}
        }
    }

    /// A scope goes with its last process.
    async fn watch(self, connection: Connection, unit: String, process: Arc<Pidfd>) {
        process.exited().await.unwrap();
        self.remove(&connection, &unit).await;
    }

    async fn remove(&self, connection: &Connection, unit: &str) {
        self.state().scopes.remove(unit);
        self.0.changed.send_replace(());
        emit(connection, "UnitRemoved", &(unit, path(unit))).await;
    }
}

async fn emit<B: serde::Serialize + zbus::Type>(connection: &Connection, name: &str, body: &B) {
    let to = None::<zbus::names::BusName<'_>>;
    connection
        .emit_signal(to, PATH, MANAGER, name, body)
        .await
        .unwrap();
}

fn process(properties: &Properties<'_>) -> Option<Pidfd> {
    let (key, value) = properties.iter().find(|(key, _)| key.starts_with("PID"))?;
    let Variant::Array(list) = value else { return None };
    match (key.as_str(), list.inner().first()?) {
        ("PIDFDs", Variant::Fd(fd)) => {
            let fd = std::os::fd::AsFd::as_fd(fd).try_clone_to_owned().unwrap();
            Some(Pidfd::from_fd(fd).unwrap())
        }
        ("PIDs", Variant::U32(pid)) => Some(Pidfd::open(*pid).unwrap()),
        _ => None,
    }
}

fn text(value: &Variant<'_>) -> String {
    match value {
        Variant::Str(text) => text.to_string(),
        Variant::U64(number) => number.to_string(),
        other => other.to_string(),
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

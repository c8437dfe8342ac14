//! Whose DNS server the host's resolver asks for names of VMs.
//!
//! The resolver asks one server of a link, so one owner's names are known at a time: those of
//! the first who came, until he takes that back or leaves the bus. Then it is the next one's turn.
//! While somebody waits here the helper stays: nobody else would see him leave, and whoever
//! gets his port would answer for his names.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use banger_bus::ErrorKind;
use banger_bus::helper::{HelperError, HelperResult};
use banger_model::Event;
use banger_net::NetError;
use futures_util::StreamExt;
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;
use tokio::task::JoinHandle;
use zbus::Connection;
use zbus::fdo::DBusProxy;
use zbus::names::OwnedUniqueName;

use crate::departures::{Departure, Departures};
use crate::idle::{Activity, Token};
use crate::journal::{self, Priority};
use crate::resolver::{Resolver, ResolverError};

/// Owners who can wait. More have no VMs.
const MAX_OWNERS: usize = 64;
/// Of the file, in bytes.
const MAX_FILE: u64 = 64 << 10;

/// Tells the index of the host's end of the link.
pub(crate) type LinkIndex = Arc<dyn Fn() -> Result<u32, NetError> + Send + Sync>;

/// Who offers names.
#[derive(Clone)]
pub(crate) struct NameRoutes(Arc<Shared>);

struct Shared {
    resolver: Resolver,
    link: LinkIndex,
    /// What the next helper has to know, when this one is killed.
    file: PathBuf,
    activity: Activity,
    table: Mutex<Table>,
}

struct Table {
    /// The first one's names are known.
    owners: Vec<Owner>,
    told: Told,
}

struct Owner {
    claim: Claim,
    watch: JoinHandle<()>,
    _stays: Token,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Claim {
    uid: u32,
    name: OwnedUniqueName,
    port: u16,
}

/// What the resolver was told last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    /// By an earlier helper, or lost.
    Unknown,
    Nothing,
    Route {
        link: u32,
        port: u16,
    },
}

/// Why it was not done.
#[derive(Debug, thiserror::Error)]
enum RouteError {
    #[error("The network's link to the host is not there")]
    Link(#[source] NetError),
    #[error(transparent)]
    Resolver(#[from] ResolverError),
}

impl NameRoutes {
    /// Takes over what an earlier helper has noted in `file`: owners who are still on the bus.
    ///
    /// # Errors
    /// When the bus is gone.
    pub(crate) async fn open(
        bus: &Connection,
        link: LinkIndex,
        file: PathBuf,
        activity: Activity,
    ) -> zbus::Result<Self> {
        let noted = read(&file);
        let told = if noted.is_some() {
            Told::Unknown
        } else {
            Told::Nothing
        };
        let resolver = Resolver::new(bus).await?;
        let mut starts = Box::pin(resolver.starts().await?);
        let routes = Self(Arc::new(Shared {
            resolver,
            link,
            file,
            activity,
            table: Mutex::new(Table {
                owners: Vec::new(),
                told,
            }),
        }));
        routes.recover(bus, noted.unwrap_or_default()).await?;
        let restarted = routes.clone();
        tokio::spawn(async move {
            while starts.next().await.is_some() {
                let mut table = restarted.0.table.lock().await;
                table.told = Told::Unknown;
                restarted.settle_or_say(&mut table).await;
            }
        });
        Ok(routes)
    }

    /// Has the caller's server asked at this port, now or when those before him have left. A
    /// second time it replaces his first. The names are those of one uid, whatever connection.
    ///
    /// # Errors
    /// `MissingTool` without systemd-resolved, `LimitExceeded`, `Failed`; he does not wait then.
    pub(crate) async fn claim(
        &self,
        uid: u32,
        name: &OwnedUniqueName,
        port: u16,
        departure: Departure,
    ) -> HelperResult<()> {
        let claim = Claim {
            uid,
            name: name.clone(),
            port,
        };
        let mut table = self.0.table.lock().await;
        let place = table.owners.iter().position(|owner| owner.claim.uid == uid);
        if place.is_none() && table.owners.len() >= MAX_OWNERS {
            let text = format!("{MAX_OWNERS} users offer names of VMs, which is the most");
            return Err(HelperError::new(ErrorKind::LimitExceeded, text));
        }
        let owner = self.watch(claim, departure);
        match place {
            Some(place) => table.owners[place] = owner,
            None => table.owners.push(owner),
        }
        if let Err(error) = self.settle(&mut table).await {
            table.owners.retain(|owner| owner.claim.uid != uid);
            self.settle_or_say(&mut table).await;
            return Err(error.into());
        }
        self.note(&table);
        Ok(())
    }

    /// Has the caller's server asked no more. Nothing happens when it was not.
    ///
    /// # Errors
    /// When the resolver does not follow.
    pub(crate) async fn withdraw(&self, uid: u32) -> HelperResult<()> {
        let mut table = self.0.table.lock().await;
        table.owners.retain(|owner| owner.claim.uid != uid);
        let settled = self.settle(&mut table).await;
        self.note(&table);
        Ok(settled?)
    }

    /// Tells the resolver again when the link is another one than it was told about.
    pub(crate) async fn look_again(&self) {
        let mut table = self.0.table.lock().await;
        self.settle_or_say(&mut table).await;
    }

    /// Whose names are known: uid and port.
    pub(crate) async fn current(&self) -> Option<(u32, u16)> {
        let table = self.0.table.lock().await;
        let first = table.owners.first()?;
        Some((first.claim.uid, first.claim.port))
    }

    async fn recover(&self, bus: &Connection, noted: Vec<Claim>) -> zbus::Result<()> {
        let mut table = self.0.table.lock().await;
        if !noted.is_empty() {
            let dbus = DBusProxy::new(bus).await?;
            let departures = Departures::listen(bus).await?;
            for claim in noted.into_iter().take(MAX_OWNERS) {
                let departure = departures.of(&claim.name);
                let known = dbus.get_connection_credentials(claim.name.as_ref().into()).await;
                if known.is_ok_and(|known| known.unix_user_id() == Some(claim.uid)) {
                    table.owners.push(self.watch(claim, departure));
                }
            }
        }
        self.settle_or_say(&mut table).await;
        self.note(&table);
        Ok(())
    }

    fn watch(&self, claim: Claim, mut departure: Departure) -> Owner {
        let (routes, name) = (self.clone(), claim.name.clone());
        let watch = tokio::spawn(async move {
            departure.happened().await;
            routes.left(&name).await;
        });
        Owner {
            claim,
            watch,
            _stays: self.0.activity.begin(),
        }
    }

    async fn left(&self, name: &OwnedUniqueName) {
        let mut table = self.0.table.lock().await;
        // The task that runs this is the one that would be stopped.
        let gone: Vec<_> = table
            .owners
            .extract_if(.., |owner| owner.claim.name == *name)
            .collect();
        self.settle_or_say(&mut table).await;
        self.note(&table);
        drop(gone);
    }

    async fn settle_or_say(&self, table: &mut Table) {
        if let Err(error) = self.settle(table).await {
            journal::say(Priority::Warning, &journal::chain(&error), &[]);
        }
    }

    /// Makes the resolver ask the first owner. Nothing is said when it does already.
    async fn settle(&self, table: &mut Table) -> Result<(), RouteError> {
        let link = (self.0.link)();
        let Some(first) = table.owners.first() else {
            // What was set for a link goes with the link.
            if let (Ok(link), false) = (link, table.told == Told::Nothing) {
                self.0.resolver.revert(link).await?;
                let text = "Names of VMs are not known to this host any more";
                journal::tell(Event::NamesWithdrawn, Priority::Info, text, &[]);
            }
            table.told = Told::Nothing;
            return Ok(());
        };
        let (uid, port) = (first.claim.uid, first.claim.port);
        let link = link.map_err(RouteError::Link)?;
        let wanted = Told::Route { link, port };
        if table.told != wanted {
            table.told = Told::Unknown;
            self.0.resolver.route(link, port).await?;
            table.told = wanted;
            let text = format!("Names of VMs are those of uid {uid}, asked at port {port}");
            let uid = uid.to_string();
            journal::tell(Event::NamesRouted, Priority::Info, &text, &[("BANGER_UID", &uid)]);
        }
        Ok(())
    }

    /// Without the note, a helper that follows a killed one leaves the resolver as it is.
    fn note(&self, table: &Table) {
        let claims: Vec<&Claim> = table.owners.iter().map(|owner| &owner.claim).collect();
        let noted = if claims.is_empty() && table.told == Told::Nothing {
            remove(&self.0.file)
        } else {
            write(&self.0.file, &claims)
        };
        if let Err(error) = noted {
            let text = format!("Cannot note whose names are known: {error}");
            journal::say(Priority::Warning, &text, &[]);
        }
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.watch.abort();
    }
}

impl From<RouteError> for HelperError {
    fn from(error: RouteError) -> Self {
        match error {
            RouteError::Resolver(error) => error.into(),
            RouteError::Link(_) => Self::new(ErrorKind::Failed, journal::chain(&error)),
        }
    }
}

/// What was noted; `None` when nothing was. A file that is not ours to read says that something
/// was, and not what.
fn read(file: &Path) -> Option<Vec<Claim>> {
    let bytes = match std::fs::metadata(file) {
        Ok(meta) if meta.len() <= MAX_FILE => std::fs::read(file).unwrap_or_default(),
        Ok(_) => Vec::new(),
        Err(_) => return None,
    };
    Some(serde_json::from_slice(&bytes).unwrap_or_default())
}

fn write(file: &Path, claims: &[&Claim]) -> io::Result<()> {
    let new = file.with_extension("new");
    std::fs::write(&new, serde_json::to_vec(claims)?)?;
    std::fs::rename(&new, file)
}

fn remove(file: &Path) -> io::Result<()> {
    match std::fs::remove_file(file) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
#[path = "../tests/unit/name_routes.rs"]
mod tests;

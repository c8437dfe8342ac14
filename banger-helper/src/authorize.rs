//! The one place that asks polkit. Nobody else decides who may do what, and no answer but a
//! plain yes in time is one.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use banger_bus::helper::{ACTION_PREFIX, HelperError, HelperResult};
use banger_model::Slot;
use zbus::message::Message;
use zbus::names::OwnedUniqueName;
use zbus::proxy::CacheProperties;
use zbus::{Connection, fdo};
use zbus_polkit::policykit1::{AuthorityProxy, CheckAuthorizationFlags, Subject};

use crate::departures::{Departure, Departures};
use crate::limits::Turn;
use crate::ops::Details;

/// How long a question that somebody may answer by a password may stay open, waiting for its
/// turn included: the time that common clients wait for a reply.
const ASKING: Duration = Duration::from_secs(25);
/// How long polkit may take where nobody is asked.
const DECIDING: Duration = Duration::from_secs(2);

/// polkit, and the bus that says who is who.
pub(crate) struct Authority {
    bus: fdo::DBusProxy<'static>,
    polkit: AuthorityProxy<'static>,
    departures: Departures,
    /// Makes each question's name for taking it back.
    questions: AtomicU64,
}

/// Somebody on the bus.
pub(crate) struct Caller {
    pub(crate) name: OwnedUniqueName,
    pub(crate) uid: u32,
    pub(crate) departure: Departure,
}

impl Authority {
    pub(crate) async fn new(bus: &Connection) -> zbus::Result<Self> {
        let polkit = AuthorityProxy::builder(bus)
            .cache_properties(CacheProperties::No)
            .build()
            .await?;
        Ok(Self {
            bus: fdo::DBusProxy::new(bus).await?,
            polkit,
            departures: Departures::listen(bus).await?,
            questions: AtomicU64::new(0),
        })
    }

    /// Whose connection it is, by the bus.
    ///
    /// # Errors
    /// `AccessDenied` when he has left or the bus does not say.
    pub(crate) async fn identify(&self, name: &OwnedUniqueName) -> HelperResult<Caller> {
        let departure = self.departures.of(name);
        let asking = self.bus.get_connection_credentials(name.as_ref().into());
        let answer = tokio::time::timeout(DECIDING, asking).await;
        match answer.map(|known| known.map(|known| known.unix_user_id())) {
            // Nothing that runs as a slot's uid has business here, whatever rules say.
            Ok(Ok(Some(uid))) if Slot::of_uid(uid).is_none() => Ok(Caller {
                name: name.clone(),
                uid,
                departure,
            }),
            Ok(Ok(Some(_))) => Err(denied("A VMM calls")),
            _ => Err(denied("The bus does not say who calls")),
        }
    }

    /// Asks polkit whether he may. `interactive`: whether somebody may be asked for a password.
    /// When he leaves or `ending` resolves, the question is taken back.
    ///
    /// # Errors
    /// `AccessDenied`, or `InteractiveAuthorizationRequired` when a password may help and nobody
    /// may be asked for it.
    pub(crate) async fn check(
        &self,
        who: &mut Caller,
        turn: &Turn<u32>,
        action: &str,
        details: &Details,
        interactive: bool,
        ending: impl Future<Output = ()>,
    ) -> HelperResult<()> {
        let number = self.questions.fetch_add(1, Ordering::Relaxed);
        let question = format!("banger-helper-{number}");
        let asking = async {
            let _permit = turn.check().await;
            self.ask(&who.name, action, details, interactive, &question).await
        };
        let limit = if interactive { ASKING } else { DECIDING };
        let answer = tokio::select! {
            answer = tokio::time::timeout(limit, asking) => answer,
            () = who.departure.happened() => {
                self.take_back(&question).await;
                return Err(denied("The caller has left"));
            }
            () = ending => {
                self.take_back(&question).await;
                return Err(denied("The helper is ending"));
            }
        };
        match answer {
            Ok(Ok(answer)) if answer.is_authorized => Ok(()),
            Ok(Ok(answer)) if answer.is_challenge && !interactive => {
                Err(HelperError::AuthorizationRequired(format!(
                    "{ACTION_PREFIX}{action} needs a password, and the call did not allow to ask for one"
                )))
            }
            Ok(Ok(_)) => Err(denied(&format!("polkit refuses {ACTION_PREFIX}{action}"))),
            Ok(Err(_)) => Err(denied("polkit does not answer as it should")),
            Err(_) => {
                self.take_back(&question).await;
                Err(denied("polkit does not answer in time"))
            }
        }
    }

    async fn ask(
        &self,
        name: &OwnedUniqueName,
        action: &str,
        details: &Details,
        interactive: bool,
        question: &str,
    ) -> Result<zbus_polkit::policykit1::AuthorizationResult, Box<dyn std::error::Error + Send + Sync>> {
        let subject = subject(name)?;
        let action = format!("{ACTION_PREFIX}{action}");
        let details: HashMap<&str, &str> = details.iter().map(|(key, value)| (*key, &**value)).collect();
        let flags = if interactive {
            CheckAuthorizationFlags::ALLOW_USER_INTERACTION
        } else {
            CheckAuthorizationFlags::empty()
        };
        let asked = self
            .polkit
            .check_authorization(&subject, &action, &details, flags, question);
        Ok(asked.await?)
    }

    async fn take_back(&self, question: &str) {
        // polkit may have answered just now, or be gone.
        let _ = tokio::time::timeout(DECIDING, self.polkit.cancel_check_authorization(question)).await;
    }
}

/// The subject is the sender's name on the bus, which the bus vouches for and never gives to
/// another; a process id would be somebody else's by the time it is looked at. The crate makes
/// such a subject of a message's header only.
fn subject(name: &OwnedUniqueName) -> Result<Subject, Box<dyn std::error::Error + Send + Sync>> {
    let message = Message::method_call("/", "Call").sender(name).build(&())?;
    Ok(Subject::new_for_message_header(&message.header()).map_err(|error| format!("{error:?}"))?)
}

fn denied(text: &str) -> HelperError {
    HelperError::AccessDenied(text.to_owned())
}

//! Requests to one repository of a registry, with a login where the registry wants one
//! (RFC 7235, and the token protocol of the distribution project).

use std::sync::atomic::AtomicBool;

use http_auth::ChallengeRef;
use http_auth::parser::ChallengeParser;
use reqwest::header::{HeaderValue, WWW_AUTHENTICATE};
use reqwest::{Method, Response, StatusCode, Url};
use serde::Deserialize;
use tokio::sync::Mutex;

use super::credentials::{Credentials, Files, basic};
use super::error::{OciError, shown};
use super::http::{Http, Request, body, host_of, same_origin};
use super::reference::Reference;
use super::retry::retry_after;
use crate::Cancel;
use crate::progress::Progress;

/// A repository that is being read.
pub(super) struct Session<'a> {
    http: Http,
    base: Url,
    /// As the user names it.
    host: String,
    repository: String,
    /// It is one file and no registry: nobody logs in there.
    plain: bool,
    login: Mutex<Login>,
    /// A download found no space: the others are not worth what they take either.
    pub(super) full: AtomicBool,
    pub(super) progress: &'a dyn Progress,
    pub(super) cancel: &'a Cancel,
}

#[derive(Default)]
struct Login {
    header: Option<HeaderValue>,
    /// How often there was a new header.
    generation: u32,
    /// Looked up once, and only when they are asked for.
    known: Option<Known>,
}

/// What the user has stored for a registry.
#[derive(Default)]
struct Known {
    credentials: Option<Credentials>,
    /// Why there may be others that cannot be used.
    trouble: Option<String>,
}

/// What a registry wants to see.
struct Challenge {
    /// Of a token server; without it, the credentials themselves are wanted.
    realm: Option<Url>,
    service: Option<String>,
    scope: Option<String>,
}

#[derive(Deserialize)]
struct Token {
    token: Option<String>,
    access_token: Option<String>,
}

#[derive(Deserialize)]
struct Messages {
    errors: Vec<Message>,
}

#[derive(Deserialize)]
struct Message {
    #[serde(default)]
    code: String,
    #[serde(default)]
    message: String,
}

const MAX_TOKEN: usize = 256 << 10;
const MAX_MESSAGE: usize = 64 << 10;
/// A token may end between two requests, so a second login is normal; a third is not.
const LOGINS: u32 = 2;
const CLIENT: &str = "banger";

impl<'a> Session<'a> {
    pub(super) fn new(
        reference: &Reference,
        insecure: bool,
        progress: &'a dyn Progress,
        cancel: &'a Cancel,
    ) -> Result<Self, OciError> {
        let http = Http::new(insecure);
        Ok(Self {
            base: http.base(reference.registry())?,
            http,
            host: reference.host().to_owned(),
            repository: reference.repository().to_owned(),
            plain: false,
            login: Mutex::default(),
            full: AtomicBool::new(false),
            progress,
            cancel,
        })
    }

    /// For a single file. Plain HTTP is for this machine alone.
    pub(super) fn of_file(
        url: &Url,
        progress: &'a dyn Progress,
        cancel: &'a Cancel,
    ) -> Result<Self, OciError> {
        let http = Http::new(url.scheme() == "http");
        http.check(url)?;
        Ok(Self {
            base: url.clone(),
            http,
            host: host_of(url),
            repository: String::new(),
            plain: true,
            login: Mutex::default(),
            full: AtomicBool::new(false),
            progress,
            cancel,
        })
    }

    /// The address of a manifest or a blob.
    pub(super) fn url(&self, kind: &str, name: &str) -> Result<Url, OciError> {
        if self.plain {
            return Ok(self.base.clone());
        }
        self.base
            .join(&format!("{}/{kind}/{name}", self.repository))
            .map_err(|error| OciError::malformed("address", error.to_string()))
    }

    /// Sends a request, with a login when the registry asks for one. The answer is a success.
    ///
    /// # Errors
    /// What the network and the registry say.
    pub(super) async fn send(&self, mut request: Request, what: &str) -> Result<Response, OciError> {
        let mut logins = 0;
        loop {
            let generation = {
                let login = self.login.lock().await;
                request.authorization.clone_from(&login.header);
                login.generation
            };
            let response = self.http.send(&request).await?;
            // Storage to which a registry sends its readers gets no login.
            let asks =
                response.status() == StatusCode::UNAUTHORIZED && same_origin(&request.url, response.url());
            if !asks || self.plain || logins == LOGINS {
                return self.judge(response, what).await;
            }
            logins += 1;
            self.log_in(&response, generation).await?;
        }
    }

    /// Makes an answer that is no success an error.
    async fn judge(&self, response: Response, what: &str) -> Result<Response, OciError> {
        let status = response.status();
        let host = if same_origin(&self.base, response.url()) {
            self.host.clone()
        } else {
            host_of(response.url())
        };
        let after = retry_after(response.headers());
        match status {
            StatusCode::OK | StatusCode::PARTIAL_CONTENT => Ok(response),
            StatusCode::NOT_FOUND => Err(OciError::NotFound {
                host,
                what: what.to_owned(),
            }),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN if host == self.host && !self.plain => {
                Err(self.login_required(self.login.lock().await.known.as_ref()))
            }
            StatusCode::TOO_MANY_REQUESTS => Err(OciError::RateLimited { host, after }),
            status => Err(OciError::Status {
                host,
                status: status.as_u16(),
                message: message(response).await,
                after,
            }),
        }
    }

    /// Gets what the registry wants, unless another request has got it meanwhile.
    async fn log_in(&self, response: &Response, generation: u32) -> Result<(), OciError> {
        let mut login = self.login.lock().await;
        if login.generation != generation {
            return Ok(());
        }
        let challenge = self.challenge(response)?;
        if login.known.is_none() {
            login.known = Some(self.look_up().await);
        }
        let known = login.known.as_ref();
        let credentials = known.and_then(|known| known.credentials.as_ref());
        let header = match (&challenge.realm, credentials) {
            (Some(realm), _) => self.token(realm, &challenge, known).await?,
            (None, Some(Credentials::Basic { user, password })) if generation == 0 => {
                self.header("Basic", &basic(user, password))?
            }
            (None, _) => return Err(self.login_required(known)),
        };
        login.header = Some(header);
        login.generation += 1;
        Ok(())
    }

    /// In a thread of its own: a helper program may ask the user.
    async fn look_up(&self) -> Known {
        let (host, repository, cancel) = (self.host.clone(), self.repository.clone(), self.cancel.clone());
        let looked_up = tokio::task::spawn_blocking(move || {
            let mut trouble = Vec::new();
            let found = Files::of_user().lookup(&host, &repository, &cancel, &mut |text| trouble.push(text));
            (found, trouble)
        });
        let (credentials, trouble) = looked_up.await.unwrap_or_default();
        for text in &trouble {
            self.progress.message(text);
        }
        Known {
            credentials,
            trouble: (!trouble.is_empty()).then(|| trouble.join("; ")),
        }
    }

    /// Asks the token server, which sees the credentials where there are any.
    async fn token(
        &self,
        realm: &Url,
        challenge: &Challenge,
        known: Option<&Known>,
    ) -> Result<HeaderValue, OciError> {
        let credentials = known.and_then(|known| known.credentials.as_ref());
        let scope = challenge
            .scope
            .clone()
            .unwrap_or_else(|| format!("repository:{}:pull", self.repository));
        let mut fields = vec![("scope", scope.as_str())];
        if let Some(service) = &challenge.service {
            fields.push(("service", service));
        }
        let mut request = Request::get(realm.clone());
        if let Some(Credentials::Identity(token)) = credentials {
            fields.extend([
                ("grant_type", "refresh_token"),
                ("client_id", CLIENT),
                ("refresh_token", token),
            ]);
            let mut form = realm.clone();
            form.query_pairs_mut().clear().extend_pairs(fields);
            request.method = Method::POST;
            request.form = Some(form.query().unwrap_or_default().to_owned());
        } else {
            request.url.query_pairs_mut().extend_pairs(fields);
            if let Some(Credentials::Basic { user, password }) = credentials {
                request.authorization = Some(self.header("Basic", &basic(user, password))?);
            }
        }
        let response = self.http.send(&request).await?;
        match response.status() {
            StatusCode::OK => {}
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                return Err(self.login_required(known));
            }
            _ => {
                return Err(self
                    .judge(response, "token")
                    .await
                    .err()
                    .unwrap_or_else(|| self.no_token()));
            }
        }
        let text = body(response, "token", MAX_TOKEN).await?;
        let token: Token = serde_json::from_slice(&text).map_err(|_| self.no_token())?;
        let token = token
            .token
            .or(token.access_token)
            .filter(|token| !token.is_empty());
        self.header("Bearer", &token.ok_or_else(|| self.no_token())?)
    }

    fn challenge(&self, response: &Response) -> Result<Challenge, OciError> {
        let failed = |reason: String| OciError::Challenge {
            host: self.host.clone(),
            reason,
        };
        let headers = response.headers().get_all(WWW_AUTHENTICATE).iter();
        let mut basic = false;
        for text in headers.filter_map(|value| value.to_str().ok()) {
            for challenge in ChallengeParser::new(text).map_while(Result::ok) {
                if challenge.scheme.eq_ignore_ascii_case("Bearer") {
                    let realm = parameter(&challenge, "realm").unwrap_or_default();
                    let realm = Url::parse(&realm)
                        .map_err(|_| failed(format!("its token server {} is no address", shown(&realm))))?;
                    if self.http.check(&realm).is_err() {
                        return Err(failed(format!(
                            "its token server {} speaks plain HTTP",
                            host_of(&realm)
                        )));
                    }
                    return Ok(Challenge {
                        realm: Some(realm),
                        service: parameter(&challenge, "service"),
                        scope: parameter(&challenge, "scope"),
                    });
                }
                basic |= challenge.scheme.eq_ignore_ascii_case("Basic");
            }
        }
        if !basic {
            return Err(failed("neither a token nor a password".to_owned()));
        }
        Ok(Challenge {
            realm: None,
            service: None,
            scope: None,
        })
    }

    fn header(&self, scheme: &str, value: &str) -> Result<HeaderValue, OciError> {
        let mut header = HeaderValue::try_from(format!("{scheme} {value}")).map_err(|_| self.no_token())?;
        header.set_sensitive(true);
        Ok(header)
    }

    fn no_token(&self) -> OciError {
        OciError::Challenge {
            host: self.host.clone(),
            reason: "its token server gives none that can be used".to_owned(),
        }
    }

    fn login_required(&self, known: Option<&Known>) -> OciError {
        let host = self.host.clone();
        match known {
            Some(Known {
                credentials: None,
                trouble: Some(reason),
            }) => OciError::Credentials {
                host,
                reason: reason.clone(),
            },
            known => OciError::LoginRequired {
                host,
                refused: known.is_some_and(|known| known.credentials.is_some()),
            },
        }
    }
}

fn parameter(challenge: &ChallengeRef<'_>, name: &str) -> Option<String> {
    let mut found = challenge
        .params
        .iter()
        .filter(|(key, _)| key.eq_ignore_ascii_case(name));
    found.next().map(|(_, value)| value.to_unescaped())
}

/// The registry's own words about a failure, if it has any.
async fn message(response: Response) -> String {
    let Ok(text) = body(response, "message", MAX_MESSAGE).await else {
        return String::new();
    };
    match serde_json::from_slice(&text) {
        Ok(Messages { errors }) => errors
            .first()
            .map(|error| shown(format!("{} {}", error.code, error.message).trim()))
            .unwrap_or_default(),
        Err(_) => String::new(),
    }
}

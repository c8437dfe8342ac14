//! A small synchronous rtnetlink(7): a request, its answer, an error with what was asked for.

mod links;
mod routes;
mod socket;

pub(crate) use links::{BridgePort, Link, LinkKind};
pub(crate) use routes::{Address, Route, RouteTarget, Rule, RuleTarget};
pub(crate) use socket::Netlink;

//! A small synchronous rtnetlink(7): a request, its answer, an error with what was asked for.

mod links;
mod routes;
mod socket;
mod tables;

pub(crate) use links::{BridgePort, Link, LinkKind};
pub(crate) use routes::{Route, RouteTarget, Rule, RuleTarget};
pub(crate) use socket::{HEADER, Netlink, messages};
pub(crate) use tables::{BRIDGE, INET, families_of, table_of};

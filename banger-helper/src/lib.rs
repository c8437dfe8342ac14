//! banger's root helper: mechanism only. Each method of `org.banger.Helper` is one file of
//! [`ops`]; all of them go through [`api::Helper`], which authorises before anything else. The
//! program is confined before its runtime exists.

pub mod api;
pub mod authorize;
mod confine;
pub mod context;
mod departures;
pub mod fail_point;
mod idle;
pub mod journal;
pub mod launch;
pub mod launch_thread;
mod limits;
mod name_routes;
pub mod net;
pub mod network;
pub mod ops;
mod reconcile;
mod resolver;
pub mod serve;
pub mod slots;
mod status;
pub mod systemd;

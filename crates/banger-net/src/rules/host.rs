use banger_model::slot::{GuestBridge, HOST_LINK};
use serde_json::json;

use super::{
    PRIVATE, Table, accept, count, differ, dropped, equal, field, from_link, meta, names, network, state,
    to_link,
};
use crate::facts::Resolver;
use crate::nft::Tables;

/// Before the chains of everybody who uses the standard priority.
const EARLY: i32 = -10;
/// `srcnat`.
const SOURCE_NAT: i32 = 100;

/// The host's table: the guests' addresses are translated, and what their namespace refuses is
/// refused once more. No rule here opens what another table closes: an accept ends only its chain.
pub(crate) fn host(resolver: Option<Resolver>) -> Tables {
    let mut table = Table::new("ip");
    for counter in ["to-the-host", "from-elsewhere", "private-destination"] {
        table.counter(counter);
    }
    let private = PRIVATE.iter().copied().map(network).collect();
    table.set("private", &json!("ipv4_addr"), &["interval"], private);
    table.hook("filter", "input", EARLY, "accept");
    table.hook("filter", "forward", EARLY, "accept");
    table.hook("nat", "postrouting", SOURCE_NAT, "accept");

    // Guests answer the host, and never speak first.
    let answers = || state(&["established", "related"]);
    table.rule("input", &[from_link(HOST_LINK), answers(), accept()]);
    table.rule("input", &[from_link(HOST_LINK), count("to-the-host"), dropped()]);

    table.rule("forward", &[to_link(HOST_LINK), answers(), accept()]);
    table.rule(
        "forward",
        &[to_link(HOST_LINK), count("from-elsewhere"), dropped()],
    );
    table.rule("forward", &[from_link(HOST_LINK), answers(), accept()]);
    if let Some(Resolver { address, .. }) = resolver {
        let [protocol, port] = names();
        let to = equal(&field("ip", "daddr"), &json!(address.to_string()));
        table.rule("forward", &[from_link(HOST_LINK), to, protocol, port, accept()]);
    }
    table.rule(
        "forward",
        &[
            from_link(HOST_LINK),
            equal(&field("ip", "daddr"), &json!("@private")),
            count("private-destination"),
            dropped(),
        ],
    );

    table.rule(
        "postrouting",
        &[
            equal(&field("ip", "saddr"), &network(GuestBridge::Public.network())),
            differ(&meta("oifname"), &json!(HOST_LINK)),
            json!({"masquerade": null}),
        ],
    );
    Tables {
        name: "ip banger",
        families: &["ip"],
        objects: table.objects,
    }
}

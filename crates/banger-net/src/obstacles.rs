//! Other firewalls that keep the guests from the Internet. A packet has to be accepted by every
//! table; what another drops, banger can only point at: nothing of anybody else's is changed.

use std::fmt;

use banger_model::slot::HOST_LINK;
use serde_json::Value;

use crate::NetError;
use crate::nft::{self, TABLE};

/// A chain that drops or rejects forwarded packets of which it does not know, in a table that
/// does not know the guests' link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Obstacle {
    pub family: String,
    pub table: String,
    pub chain: String,
}

/// Looks at the rules of the calling thread's namespace, the host's. Reads everybody's rules, which
/// may be many: not for every change. Rules of the old iptables (`iptables-legacy`) are not seen.
///
/// # Errors
/// When nft fails.
pub fn obstacles() -> Result<Vec<Obstacle>, NetError> {
    Ok(in_ruleset(&nft::ruleset()?))
}

impl fmt::Display for Obstacle {
    /// As nft(8) names it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Names are others': anything but a line.
        let Self { family, table, chain } = self;
        write!(f, "{family} {} {}", table.escape_debug(), chain.escape_debug())
    }
}

fn in_ruleset(objects: &[Value]) -> Vec<Obstacle> {
    let of_kind = |kind: &'static str| objects.iter().filter_map(move |object| object.get(kind));
    let text = |object: &Value, key: &str| object.get(key).and_then(Value::as_str).map(str::to_owned);
    let is_obstacle = |chain: &&Value| {
        let rules = || {
            of_kind("rule").filter(|rule| {
                rule.get("table") == chain.get("table") && rule.get("family") == chain.get("family")
            })
        };
        let drops = chain.get("policy").is_some_and(|policy| policy == "drop")
            || rules().any(|rule| rule.get("chain") == chain.get("name") && refuses_all(rule));
        let knows = || rules().any(|rule| rule.to_string().contains(&format!("\"{HOST_LINK}\"")));
        chain.get("hook").is_some_and(|hook| hook == "forward")
            && chain
                .get("family")
                .is_some_and(|family| family == "ip" || family == "inet")
            && chain.get("table").is_some_and(|table| table != TABLE)
            && drops
            && !knows()
    };
    of_kind("chain")
        .filter(is_obstacle)
        .filter_map(|chain| {
            Some(Obstacle {
                family: text(chain, "family")?,
                table: text(chain, "table")?,
                chain: text(chain, "name")?,
            })
        })
        .collect()
}

/// Whether a rule refuses whatever gets to it.
fn refuses_all(rule: &Value) -> bool {
    let parts = rule.get("expr").and_then(Value::as_array);
    let is_word = |part: &Value, words: &[&str]| words.iter().any(|word| part.get(word).is_some());
    parts
        .and_then(|parts| parts.split_last())
        .is_some_and(|(last, rest)| {
            is_word(last, &["drop", "reject"]) && rest.iter().all(|part| is_word(part, &["counter", "log"]))
        })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn chain(table: &str, policy: &str) -> Value {
        json!({"chain": {"family": "ip", "table": table, "name": "FORWARD", "type": "filter",
            "hook": "forward", "prio": 0, "policy": policy}})
    }

    fn rule(chain: &str, parts: &Value) -> Value {
        json!({"rule": {"family": "ip", "table": "filter", "chain": chain, "expr": parts}})
    }

    #[test]
    fn dockers_policy_is_an_obstacle_until_its_table_knows_the_link() {
        let mut rules = vec![chain("filter", "drop"), chain("banger", "drop")];
        rules.push(rule("FORWARD", &json!([{"jump": {"target": "DOCKER-USER"}}])));
        let found = in_ruleset(&rules);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].to_string(), "ip filter FORWARD");
        let known = json!([{"match": {"op": "==", "left": {"meta": {"key": "iifname"}}, "right": "banger0"}},
            {"accept": null}]);
        rules.push(rule("DOCKER-USER", &known));
        assert_eq!(in_ruleset(&rules), []);
    }

    #[test]
    fn a_last_rule_that_refuses_is_as_good_as_a_policy() {
        let accepting = chain("filter", "accept");
        assert_eq!(in_ruleset(std::slice::from_ref(&accepting)), []);
        let rejecting = rule("FORWARD", &json!([{"counter": {"packets": 1}}, {"reject": null}]));
        assert_eq!(in_ruleset(&[accepting.clone(), rejecting]).len(), 1);
        let some = rule("FORWARD", &json!([{"match": {}}, {"drop": null}]));
        assert_eq!(in_ruleset(&[accepting, some]), []);
    }
}

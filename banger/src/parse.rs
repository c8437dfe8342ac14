//! Values of options.

use std::collections::{BTreeMap, HashMap};

use banger_model::Size;

/// `KEY=VALUE`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pair {
    pub(crate) key: String,
    pub(crate) value: String,
}

/// `label=KEY` or `label=KEY=VALUE`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Filter {
    key: String,
    value: Option<String>,
}

/// Reads `KEY=VALUE`; the value may be empty and may hold `=`.
pub(crate) fn pair(text: &str) -> Result<Pair, String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok(Pair {
            key: key.to_owned(),
            value: value.to_owned(),
        }),
        _ => Err("write it as KEY=VALUE".to_owned()),
    }
}

/// Reads `--filter`.
pub(crate) fn filter(text: &str) -> Result<Filter, String> {
    let label = text
        .strip_prefix("label=")
        .filter(|label| !label.is_empty() && !label.starts_with('='))
        .ok_or("write it as label=KEY or label=KEY=VALUE")?;
    let (key, value) = match label.split_once('=') {
        Some((key, value)) => (key, Some(value.to_owned())),
        None => (label, None),
    };
    Ok(Filter {
        key: key.to_owned(),
        value,
    })
}

/// Memory: at least one whole MiB, as the machine takes no less.
pub(crate) fn memory(text: &str) -> Result<Size, String> {
    let size: Size = text
        .parse()
        .map_err(|e: banger_model::size::ParseSizeError| e.to_string())?;
    if size.bytes() == 0 || !size.bytes().is_multiple_of(1 << 20) {
        return Err("write whole MiB, as 512M or 4G".to_owned());
    }
    Ok(size)
}

/// A disk's size.
pub(crate) fn disk(text: &str) -> Result<Size, String> {
    let size: Size = text
        .parse()
        .map_err(|e: banger_model::size::ParseSizeError| e.to_string())?;
    if size.bytes() == 0 {
        return Err("a disk cannot be empty: write a size as 8G".to_owned());
    }
    Ok(size)
}

/// The later of two pairs with one key wins, as in a shell.
pub(crate) fn map(pairs: &[Pair]) -> Option<HashMap<String, String>> {
    let map: HashMap<_, _> = pairs
        .iter()
        .map(|pair| (pair.key.clone(), pair.value.clone()))
        .collect();
    (!map.is_empty()).then_some(map)
}

impl Filter {
    pub(crate) fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        labels
            .get(&self.key)
            .is_some_and(|value| self.value.as_ref().is_none_or(|wanted| wanted == value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_keep_everything_after_the_first_sign() {
        let read = |text| pair(text).map(|pair| (pair.key, pair.value));
        assert_eq!(read("A=b=c"), Ok(("A".into(), "b=c".into())));
        assert_eq!(read("A="), Ok(("A".into(), String::new())));
        assert!(read("A").is_err() && read("=b").is_err() && read("").is_err());
        let pairs = [pair("A=1").unwrap(), pair("A=2").unwrap()];
        assert_eq!(map(&pairs).unwrap()["A"], "2");
        assert_eq!(map(&[]), None);
    }

    #[test]
    fn sizes_have_their_least() {
        assert_eq!(memory("4G").unwrap().mib(), 4096);
        assert_eq!(disk("8G").unwrap().bytes(), 8 << 30);
        for bad in ["0", "1000", "512K", "x", "-1G"] {
            assert!(memory(bad).is_err(), "{bad}");
        }
        assert!(disk("0").is_err() && disk("8X").is_err());
    }

    #[test]
    fn filters_ask_for_a_key_or_a_value() {
        let labels = BTreeMap::from([
            ("team".to_owned(), "a".to_owned()),
            ("e".to_owned(), String::new()),
        ]);
        let matches = |text: &str| filter(text).unwrap().matches(&labels);
        assert!(matches("label=team") && matches("label=team=a") && matches("label=e="));
        assert!(!matches("label=team=b") && !matches("label=tea") && !matches("label=team="));
        for bad in ["team", "label=", "label==a", "name=x"] {
            assert!(filter(bad).is_err(), "{bad}");
        }
    }
}

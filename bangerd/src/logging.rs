//! What the daemon says about itself: entries with fields where standard error is the journal,
//! lines with the time elsewhere.

use std::fmt::{self, Write as _};
use std::io::Write as _;

use banger_model::Event as Known;
use banger_sys::journal::{Entry, Priority, is_stderr, printable};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, registry};

/// What is logged unless `BANGER_LOG` says otherwise (a filter as RUST_LOG's).
const DEFAULT: &str = "info,zbus=warn,russh=warn";
const IDENTIFIER: &str = "bangerd";
/// Fields of ours in the journal begin with it: what another crate calls its fields is not
/// mistaken for one of the journal's own.
const PREFIX: &str = "BANGER_";

/// Starts logging.
pub(crate) fn start() {
    let filter = std::env::var("BANGER_LOG")
        .ok()
        .and_then(|text| EnvFilter::try_new(text).ok())
        .unwrap_or_else(|| EnvFilter::new(DEFAULT));
    let lines = Lines { journal: is_stderr() };
    // A second subscriber in one process: only tests have that.
    let _ = registry().with(filter).with(lines).try_init();
}

struct Lines {
    journal: bool,
}

impl<S: Subscriber> Layer<S> for Lines {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut said = Said::default();
        event.record(&mut said);
        let metadata = event.metadata();
        if self.journal {
            said.entry(metadata.level(), metadata.file(), metadata.line())
                .send();
        } else {
            let line = said.line(metadata.level(), now());
            // There is nobody else to tell.
            let _ = std::io::stderr().write_all(line.as_bytes());
        }
    }
}

/// An event's message and fields. Names are constants of the program that was compiled.
#[derive(Debug, Default)]
struct Said {
    message: String,
    event: Option<Known>,
    fields: Vec<(&'static str, String)>,
}

impl Said {
    fn entry(&self, level: &Level, file: Option<&str>, line: Option<u32>) -> Entry {
        let mut entry = Entry::new(IDENTIFIER, priority(level), &self.text());
        if let Some(event) = self.event {
            entry = entry.with("MESSAGE_ID", event.id());
            entry = entry.with("BANGER_EVENT", event.name());
        }
        for (name, value) in &self.fields {
            entry = entry.with(&journal_name(name), value);
        }
        if let (Some(file), Some(line)) = (file, line) {
            entry = entry.with("CODE_FILE", file).with("CODE_LINE", &line.to_string());
        }
        entry
    }

    fn line(&self, level: &Level, seconds: u64) -> String {
        format!("{} {level:5} {}\n", Seconds(seconds), printable(&self.text()))
    }

    /// The message, and what the fields add to it: journalctl(1) shows no other fields.
    fn text(&self) -> String {
        let mut text = self.message.clone();
        for (name, value) in &self.fields {
            // Of use to programs alone.
            if *name != "vm_id" {
                // A string takes everything.
                let _ = write!(text, " {name}={value}");
            }
        }
        text
    }

    fn put(&mut self, field: &Field, value: String) {
        match field.name() {
            "message" => self.message = value,
            "event" => self.event = Known::of_name(&value),
            name => self.fields.push((name, value)),
        }
    }
}

impl Visit for Said {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, value.to_owned());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, format!("{value:?}"));
    }
}

/// `vm_id` as `BANGER_VM_ID`.
fn journal_name(name: &str) -> String {
    let rest = name.chars().map(|c| match c.to_ascii_uppercase() {
        c @ ('A'..='Z' | '0'..='9') => c,
        _ => '_',
    });
    // journald takes no longer ones.
    PREFIX.chars().chain(rest).take(64).collect()
}

fn priority(level: &Level) -> Priority {
    match *level {
        Level::ERROR => Priority::Error,
        Level::WARN => Priority::Warning,
        Level::INFO => Priority::Info,
        _ => Priority::Debug,
    }
}

/// A time of day, UTC.
struct Seconds(u64);

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let day = self.0 % 86_400;
        write!(f, "{:02}:{:02}:{:02}Z", day / 3600, day / 60 % 60, day % 60)
    }
}

fn now() -> u64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    /// Keeps what was said.
    #[derive(Clone, Default)]
    struct Keep(Arc<Mutex<Vec<Said>>>);

    impl<S: Subscriber> Layer<S> for Keep {
        fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
            let mut said = Said::default();
            event.record(&mut said);
            self.0.lock().unwrap().push(said);
        }
    }

    fn said(say: impl FnOnce()) -> Said {
        let keep = Keep::default();
        tracing::subscriber::with_default(registry().with(keep.clone()), say);
        keep.0.lock().unwrap().pop().unwrap()
    }

    #[test]
    fn fields_are_in_the_text_and_apart() {
        let error = std::io::Error::other("a\nb");
        let said = said(|| {
            tracing::warn!(event = "vm-died", vm = "a", vm_id = %"00ff", %error, count = 3, "It ended");
        });
        assert_eq!(said.text(), "It ended vm=a error=a\nb count=3");
        assert_eq!(
            said.line(&Level::WARN, 86_400 + 3_661),
            "01:01:01Z WARN  It ended vm=a error=a\\nb count=3\n"
        );
        let entry = format!("{:?}", said.entry(&Level::WARN, Some("f.rs"), Some(7)));
        assert!(entry.contains("<4>It ended"), "{entry}");
        assert_eq!(said.event, Some(Known::VmDied));
        let names: Vec<_> = said.fields.iter().map(|(name, _)| journal_name(name)).collect();
        assert_eq!(
            names,
            ["BANGER_VM", "BANGER_VM_ID", "BANGER_ERROR", "BANGER_COUNT"]
        );
    }

    #[test]
    fn every_name_is_one_of_ours() {
        assert_eq!(journal_name("_hostname"), "BANGER__HOSTNAME");
        assert_eq!(journal_name("otel.kind"), "BANGER_OTEL_KIND");
        assert_eq!(journal_name(&"x".repeat(100)).len(), 64);
    }
}

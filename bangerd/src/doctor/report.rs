//! The report: `docs/doctor.schema.json` describes its form.

use std::fmt::Write;

use serde::Serialize;

/// The version of the form. Additions keep it.
const VERSION: u32 = 1;
/// What a reader is told of a check that can be put right.
const FIX: &str = "`banger doctor --fix` does it.";

#[derive(Debug, Serialize)]
pub(super) struct Report {
    version: u32,
    status: Status,
    checks: Vec<Check>,
    /// Whether what can be put right is.
    #[serde(skip)]
    fixes: bool,
}

#[derive(Debug, Serialize)]
struct Check {
    /// Stays the same from version to version.
    name: String,
    status: Status,
    message: String,
    /// How it is known, or more of it.
    #[serde(skip_serializing_if = "String::is_empty")]
    detail: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "String::is_empty")]
    hint: String,
    /// Whether `--fix` would put it right.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    fixable: bool,
    /// What `--fix` did about it.
    #[serde(skip_serializing_if = "String::is_empty")]
    fixed: String,
}

/// From good to bad.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Status {
    Ok,
    /// Something to know, neither good nor bad.
    Info,
    /// Something works less well, or not at all, and the rest does.
    Warning,
    /// Nothing will run.
    Failure,
}

impl Default for Report {
    fn default() -> Self {
        Self {
            version: VERSION,
            status: Status::Ok,
            checks: Vec::new(),
            fixes: false,
        }
    }
}

impl Report {
    pub(super) fn ok(&mut self, name: &str, message: impl Into<String>) {
        self.add(name, Status::Ok, message, "");
    }

    pub(super) fn info(&mut self, name: &str, message: impl Into<String>) {
        self.add(name, Status::Info, message, "");
    }

    pub(super) fn warning(&mut self, name: &str, message: impl Into<String>, hint: &str) {
        self.add(name, Status::Warning, message, hint);
    }

    pub(super) fn failure(&mut self, name: &str, message: impl Into<String>, hint: &str) {
        self.add(name, Status::Failure, message, hint);
    }

    pub(super) fn add(&mut self, name: &str, status: Status, message: impl Into<String>, hint: &str) {
        self.status = self.status.max(status);
        self.checks.push(Check {
            name: name.to_owned(),
            status,
            message: message.into(),
            detail: String::new(),
            hint: hint.to_owned(),
            fixable: false,
            fixed: String::new(),
        });
    }

    /// A report that puts right what is safe and the owner's own.
    pub(super) fn fixing() -> Self {
        Self {
            fixes: true,
            ..Self::default()
        }
    }

    /// Whether it puts right what it can.
    pub(super) fn fixes(&self) -> bool {
        self.fixes
    }

    /// Puts nothing right from now on.
    pub(super) fn stop_fixing(&mut self) {
        self.fixes = false;
    }

    /// Something that `--fix` can put right, which is done here where it is wanted: `repair` says
    /// what it did, or why it could not. `hint` is what somebody would do by hand.
    pub(super) fn fixable(
        &mut self,
        name: &str,
        status: Status,
        message: impl Into<String>,
        hint: &str,
        repair: impl FnOnce() -> Result<String, String>,
    ) {
        let outcome = self.fixes.then(repair);
        self.repaired(name, status, message, hint, outcome);
    }

    /// The same where the repair was tried before; `None` when it was not.
    pub(super) fn repaired(
        &mut self,
        name: &str,
        status: Status,
        message: impl Into<String>,
        hint: &str,
        outcome: Option<Result<String, String>>,
    ) {
        match outcome {
            Some(Ok(done)) => {
                self.add(name, Status::Ok, message, "");
                self.last(|check| check.fixed = done);
            }
            Some(Err(problem)) => {
                self.add(name, status, message, hint);
                self.detail(format!("It could not be put right: {problem}"));
            }
            None => {
                self.add(name, status, message, hint);
                self.last(|check| check.fixable = true);
            }
        }
    }

    /// More about the last check.
    pub(super) fn detail(&mut self, detail: impl Into<String>) {
        self.last(|check| check.detail = detail.into());
    }

    fn last(&mut self, change: impl FnOnce(&mut Check)) {
        if let Some(check) = self.checks.last_mut() {
            change(check);
        }
    }

    pub(super) fn worst(&self) -> Status {
        self.status
    }

    pub(super) fn json(&self) -> String {
        // Strings and numbers: nothing of it can fail to be written.
        serde_json::to_string_pretty(self).unwrap_or_default() + "\n"
    }

    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        for check in &self.checks {
            let _ = writeln!(
                text,
                "{:8} {:18} {}",
                check.status.word(),
                check.name,
                check.message
            );
            for (mark, more) in [(" ", &check.detail), ("→", &check.hint), ("✓", &check.fixed)] {
                if !more.is_empty() {
                    let _ = writeln!(text, "{:8} {:18} {mark} {more}", "", "");
                }
            }
            if check.fixable {
                let _ = writeln!(text, "{:8} {:18} → {FIX}", "", "");
            }
        }
        text
    }
}

impl Status {
    const fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Failure => "failure",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_check_is_the_report() {
        let mut report = Report::default();
        report.info("a", "A");
        assert_eq!(report.worst(), Status::Info);
        report.warning("b", "B", "Do it");
        report.ok("c", "C");
        report.detail("more");
        assert_eq!(report.worst(), Status::Warning);
        assert_eq!(report.text().lines().count(), 5);
        let json: serde_json::Value = serde_json::from_str(&report.json()).unwrap();
        assert_eq!(json["status"], "warning");
        assert_eq!(json["checks"][1]["hint"], "Do it");
        assert_eq!(json["checks"][0].get("hint"), None);
    }

    #[test]
    fn a_repair_is_made_only_where_it_is_wanted() {
        let never = || -> Result<String, String> { panic!("it was not to be made") };
        let mut report = Report::default();
        report.fixable("a", Status::Failure, "A", "Do it", never);
        assert_eq!(report.worst(), Status::Failure);
        assert!(report.text().contains("--fix"), "{}", report.text());
        let mut report = Report::fixing();
        report.fixable("a", Status::Failure, "A", "Do it", || Ok("Done".to_owned()));
        assert_eq!(report.worst(), Status::Ok);
        let json: serde_json::Value = serde_json::from_str(&report.json()).unwrap();
        assert_eq!(json["checks"][0]["fixed"], "Done");
        report.fixable("b", Status::Warning, "B", "Do it", || Err("No right".to_owned()));
        assert_eq!(report.worst(), Status::Warning);
        assert!(report.text().contains("No right"), "{}", report.text());
    }

    /// The schema's own words against a report that has everything.
    #[test]
    fn the_schema_names_what_is_written() {
        let schema: serde_json::Value =
            serde_json::from_str(include_str!("../../../docs/doctor.schema.json")).unwrap();
        let mut report = Report::default();
        report.warning("b", "B", "Do it");
        report.detail("more");
        report.fixable("c", Status::Warning, "C", "Do it", || Ok("Done".to_owned()));
        report.last(|check| check.fixed = "Done".to_owned());
        report.detail("more");
        let json: serde_json::Value = serde_json::from_str(&report.json()).unwrap();
        let keys = |value: &serde_json::Value| {
            let mut keys: Vec<String> = value.as_object().unwrap().keys().cloned().collect();
            keys.sort_unstable();
            keys
        };
        assert_eq!(keys(&json), keys(&schema["properties"]));
        assert_eq!(
            keys(&json["checks"][1]),
            keys(&schema["$defs"]["check"]["properties"])
        );
        let words = schema["$defs"]["status"]["enum"].as_array().unwrap();
        let all = [Status::Ok, Status::Info, Status::Warning, Status::Failure];
        assert!(words.iter().zip(all).all(|(word, status)| word == status.word()));
        assert_eq!(words.len(), all.len());
    }
}

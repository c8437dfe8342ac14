//! One file for each command.

mod bundle;
pub(crate) mod completion;
pub(crate) mod daemon;
pub(crate) mod doctor;
pub(crate) mod engine;
pub(crate) mod image;
pub(crate) mod kernel;
pub(crate) mod man;
pub(crate) mod ssh_config;
pub(crate) mod system;
pub(crate) mod version;
pub(crate) mod vm;

use std::collections::BTreeSet;
use std::io::{self, IsTerminal, Write};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use serde::Serialize;

use crate::client::Client;
use crate::error::{Error, Result};
use crate::exit;
use crate::output::{self, Finished, Progress, ProgressArgs, Style, Table, View};

/// Does something to several objects at once. Each gets its result as soon as it has one, the
/// line that `operation` gives; a failure of one does not keep the others.
///
/// # Errors
/// When one failed: everything has been told then.
pub(crate) async fn each<T: Into<Finished>>(
    names: &[String],
    args: ProgressArgs,
    operation: impl AsyncFn(&str, View) -> Result<T>,
) -> Result<()> {
    let progress = Progress::new(args);
    let mut seen = BTreeSet::new();
    let mut running = FuturesUnordered::new();
    for name in names {
        if seen.insert(name) {
            let view = progress.view(name);
            let operation = &operation;
            running.push(async move { (name, operation(name, view).await.map(Into::into)) });
        }
    }
    let several = running.len() > 1;
    let mut status = 0;
    while let Some((name, result)) = running.next().await {
        progress.result(name, result.as_ref())?;
        if let Err(error) = result {
            status = status.max(exit::ordinary(&error));
            if !matches!(error, Error::Reported(_)) {
                progress.around(|| exit::tell(several.then_some(name.as_str()), &error));
            }
        }
    }
    if status == 0 {
        Ok(())
    } else {
        Err(Error::Reported(status))
    }
}

/// Lists what the catalogue offers of a kind, `images` or `kernels`.
async fn list_available(client: &Client, kind: &str, quiet: bool, json: bool) -> Result<()> {
    #[derive(Serialize)]
    struct Entry<'a> {
        name: &'a str,
        description: &'a str,
    }
    let entries = client.manager().await?.list_available(kind.to_owned()).await?;
    if json {
        let entries = entries
            .iter()
            .map(|(name, description)| Entry { name, description });
        return output::json(&entries.collect::<Vec<_>>());
    }
    if quiet {
        return entries.iter().try_for_each(|(name, _)| output::line(name));
    }
    let mut table = Table::new(&["NAME", "DESCRIPTION"]);
    for (name, description) in &entries {
        table.row([name, description]);
    }
    output::data(table.render(Style::stdout()).as_bytes())
}

/// Asks before something is lost. Without a terminal nobody can answer, and `option` must have
/// done so before.
pub(crate) fn confirm(question: &str, option: &str) -> Result<bool> {
    if !io::stdin().is_terminal() {
        return Err(Error::refused(
            "Will not delete anything without being told: standard input is no terminal",
            &format!("Give {option}, or look first with --dry-run"),
        ));
    }
    let mut err = io::stderr().lock();
    let asked = write!(err, "{} [y/N] ", output::plain(question)).and_then(|()| err.flush());
    asked.map_err(Error::Output)?;
    let mut answer = String::new();
    io::stdin()
        .read_line(&mut answer)
        .map_err(|e| Error::io("Cannot read the answer", e))?;
    Ok(matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
}

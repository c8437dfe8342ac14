//! `banger vm stats`.

use std::collections::HashMap;
use std::io::{self, IsTerminal};
use std::time::Duration;

use banger_model::VmState;
use clap::Args;
use futures_util::future::join_all;
use serde::Serialize;
use tokio::time::{MissedTickBehavior, interval, sleep};

use crate::client::{Client, Vm};
use crate::completion;
use crate::error::{Error, Result};
use crate::exit;
use crate::output::{self, Style, Table};

/// Show what VMs use: processor, memory, disk
///
/// CPU % is of one processor of the host, so two busy ones are 200 %. MEM is what the VM takes of
/// the host, GUEST MEM what the guest says that it uses of its own. PRESSURE is the share of the
/// last 10 s in which it waited for processor, memory and disk. DISK is what its disk occupies.
#[derive(Debug, Args)]
pub(crate) struct Stats {
    /// Names, ids, or unambiguous prefixes of VMs [default: those that run]
    #[arg(value_name = "NAME", add = completion::vms())]
    names: Vec<String>,
    /// Go on, once a second
    #[arg(long, short)]
    watch: bool,
    /// Write JSON: an array; with --watch one a line
    #[arg(long)]
    json: bool,
}

/// Between the two samples of one look: short enough that nobody waits for it, and the kernel
/// counts in microseconds.
const LOOK: Duration = Duration::from_millis(25);
const WATCH: Duration = Duration::from_secs(1);

type Figures = HashMap<String, u64>;

/// A VM's figures at a moment.
struct Sample {
    name: String,
    id: String,
    figures: Figures,
}

#[derive(Debug, PartialEq, Serialize)]
struct Row {
    name: String,
    /// Of one processor of the host; `null` when it cannot be told, as everything here.
    cpu_percent: Option<f64>,
    memory_bytes: Option<u64>,
    memory_max_bytes: Option<u64>,
    guest_memory_bytes: Option<u64>,
    guest_available_bytes: Option<u64>,
    read_bytes: Option<u64>,
    written_bytes: Option<u64>,
    cpu_pressure_percent: Option<f64>,
    memory_pressure_percent: Option<f64>,
    io_pressure_percent: Option<f64>,
    disk_used_bytes: Option<u64>,
}

impl Stats {
    pub(crate) async fn run(self) -> Result<()> {
        let client = Client::connect().await?;
        let (mut before, mut status) = self.sample(&client, true).await?;
        let period = if self.watch { WATCH } else { LOOK };
        if !self.watch {
            if !before.is_empty() {
                sleep(period).await;
            }
            let (now, failed) = self.sample(&client, false).await?;
            status = status.max(failed);
            self.print(&before, &now)?;
            return if status == 0 {
                Ok(())
            } else {
                Err(Error::Reported(status))
            };
        }
        if status != 0 {
            return Err(Error::Reported(status));
        }
        let mut ticks = interval(period);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ticks.tick().await;
        loop {
            ticks.tick().await;
            let (now, failed) = self.sample(&client, true).await?;
            self.print(&before, &now)?;
            if failed != 0 {
                return Err(Error::Reported(failed));
            }
            before = now;
        }
    }

    /// The figures of all, asked for at once, and the status of those that gave none.
    async fn sample(&self, client: &Client, tell: bool) -> Result<(Vec<Sample>, u8)> {
        let mut samples = Vec::new();
        let mut status = 0;
        if self.names.is_empty() {
            let running = client.everything().await?.vms.into_iter();
            let running: Vec<_> = running
                .filter(|vm| vm.state == VmState::Running.as_str())
                .collect();
            let of = running.iter().map(|info| sample(client, &info.id));
            // One that ends meanwhile was not asked for by name: it is left out.
            samples.extend(join_all(of).await.into_iter().filter_map(Result::ok));
            return Ok((samples, status));
        }
        let several = self.names.len() > 1;
        let results = join_all(self.names.iter().map(|name| sample(client, name))).await;
        for (name, result) in self.names.iter().zip(results) {
            match result {
                Ok(sample) => samples.push(sample),
                Err(error) => {
                    status = status.max(exit::ordinary(&error));
                    if tell {
                        exit::tell(several.then_some(name), &error);
                    }
                }
            }
        }
        Ok((samples, status))
    }

    fn print(&self, before: &[Sample], now: &[Sample]) -> Result<()> {
        let rows: Vec<Row> = now
            .iter()
            .map(|now| Row::new(before.iter().find(|before| before.id == now.id), now))
            .collect();
        if self.json {
            return if self.watch {
                output::json_line(&rows)
            } else {
                output::json(&rows)
            };
        }
        if rows.is_empty() && !self.names.is_empty() {
            return Ok(());
        }
        let text = table(&rows).render(Style::stdout());
        if self.watch && io::stdout().is_terminal() {
            // From the top again, and nothing left of what was there.
            return output::data(format!("\x1b[H\x1b[2J{text}").as_bytes());
        }
        output::data(text.as_bytes())
    }
}

async fn sample(client: &Client, name: &str) -> Result<Sample> {
    let vm: Vm = client.vm(name).await?;
    let (info, figures) = tokio::join!(client.vm_info(&vm), vm.proxy.stats());
    let (info, figures) = (info?, figures?);
    Ok(Sample {
        name: info.name,
        id: info.id,
        figures,
    })
}

impl Row {
    fn new(before: Option<&Sample>, now: &Sample) -> Self {
        let get = |key: &str| now.figures.get(key).copied();
        // Hundredths of a percent on the bus.
        let percent = |key: &str| get(key).map(|hundredths| hundredths as f64 / 100.0);
        Self {
            name: now.name.clone(),
            cpu_percent: before.and_then(|before| rate(&before.figures, &now.figures)),
            memory_bytes: get("MemoryBytes"),
            memory_max_bytes: get("MemoryMaxBytes"),
            guest_memory_bytes: get("GuestMemoryBytes"),
            guest_available_bytes: get("GuestAvailableBytes"),
            read_bytes: get("ReadBytes"),
            written_bytes: get("WrittenBytes"),
            cpu_pressure_percent: percent("CpuPressure"),
            memory_pressure_percent: percent("MemoryPressure"),
            io_pressure_percent: percent("IoPressure"),
            disk_used_bytes: get("DiskUsedBytes"),
        }
    }
}

/// Percent of one processor; nothing when the VM was started again in between.
fn rate(before: &Figures, now: &Figures) -> Option<f64> {
    let passed = |key: &str| now.get(key)?.checked_sub(*before.get(key)?);
    let (used, time) = (passed("CpuUSec")?, passed("TimeUSec")?);
    (time > 0).then(|| used as f64 / time as f64 * 100.0)
}

fn table(rows: &[Row]) -> Table {
    let mut table = Table::new(&[
        "NAME",
        "CPU %",
        "MEM USAGE / LIMIT",
        "GUEST MEM",
        "BLOCK I/O",
        "PRESSURE",
        "DISK",
    ]);
    for row in rows {
        let guest = row.guest_memory_bytes.zip(row.guest_available_bytes);
        table.row([
            row.name.clone(),
            row.cpu_percent
                .map_or_else(|| NONE.to_owned(), |percent| format!("{percent:.2}%")),
            pair(row.memory_bytes, row.memory_max_bytes, binary),
            pair(
                guest.map(|(all, available)| all.saturating_sub(available)),
                row.guest_memory_bytes,
                binary,
            ),
            pair(row.read_bytes, row.written_bytes, decimal),
            [
                row.cpu_pressure_percent,
                row.memory_pressure_percent,
                row.io_pressure_percent,
            ]
            .map(|percent| percent.map_or_else(|| NONE.to_owned(), |percent| format!("{percent:.0}%")))
            .join(" "),
            row.disk_used_bytes.map_or_else(|| NONE.to_owned(), binary),
        ]);
    }
    table
}

/// What docker writes for what cannot be told.
const NONE: &str = "--";

fn pair(first: Option<u64>, second: Option<u64>, unit: fn(u64) -> String) -> String {
    let text = |value: Option<u64>| value.map_or_else(|| NONE.to_owned(), unit);
    format!("{} / {}", text(first), text(second))
}

/// Memory as docker writes it: powers of 1024, four digits.
fn binary(bytes: u64) -> String {
    scaled(bytes, 1024.0, &["B", "KiB", "MiB", "GiB", "TiB"], 4)
}

/// What is read and written as docker writes it: powers of 1000, three digits.
fn decimal(bytes: u64) -> String {
    scaled(bytes, 1000.0, &["B", "kB", "MB", "GB", "TB"], 3)
}

fn scaled(bytes: u64, base: f64, units: &[&str], digits: usize) -> String {
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= base && unit + 1 < units.len() {
        value /= base;
        unit += 1;
    }
    let whole = value.trunc().to_string().len();
    let text = format!("{value:.*}", digits.saturating_sub(whole));
    let text = if text.contains('.') {
        text.trim_end_matches('0').trim_end_matches('.')
    } else {
        &text
    };
    format!("{text}{}", units[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_docker_s() {
        assert_eq!(
            [0, 999, 1536, 512 << 20, (17 << 30) + (1 << 29)].map(binary),
            ["0B", "999B", "1.5KiB", "512MiB", "17.5GiB"]
        );
        assert_eq!(
            [0, 1000, 12_345_678, 987_654_321_000].map(decimal),
            ["0B", "1kB", "12.3MB", "988GB"]
        );
    }

    #[test]
    fn a_rate_needs_two_samples_of_one_run() {
        let of =
            |cpu: u64, time: u64| Figures::from([("CpuUSec".to_owned(), cpu), ("TimeUSec".to_owned(), time)]);
        assert_eq!(rate(&of(100, 1000), &of(300, 1100)), Some(200.0));
        assert_eq!(rate(&of(100, 1000), &of(50, 1100)), None);
        assert_eq!(rate(&of(100, 1000), &of(100, 1000)), None);
        assert_eq!(rate(&Figures::new(), &of(1, 1)), None);
    }
}

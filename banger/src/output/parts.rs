//! What goes on at once within a job, as the layers of an image: a line each.

use std::collections::BTreeMap;
use std::time::Instant;

use banger_bus::JobPart;
use serde::Serialize;

use super::rate::Rate;
use super::{bytes, plain};

/// Where one part is; the fields are those of [`JobPart`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Part {
    name: String,
    state: String,
    done: u64,
    total: u64,
}

/// All parts of a job, and what is remembered of them.
#[derive(Debug, Default)]
pub(crate) struct Parts {
    rows: Vec<Row>,
    /// The bytes that came for each part; what was here already is not among them.
    fetched: BTreeMap<String, u64>,
    rate: Rate,
}

#[derive(Debug)]
struct Row {
    part: Part,
    rate: Rate,
    /// Its end was told, or shall not be.
    told: bool,
}

/// The states in the order in which a part goes through them.
const STATES: [&str; 6] = [WAITING, FETCHING, CACHED, FETCHED, UNPACKING, DONE];
const WAITING: &str = "waiting";
const FETCHING: &str = "fetching";
const CACHED: &str = "cached";
const FETCHED: &str = "fetched";
const UNPACKING: &str = "unpacking";
const DONE: &str = "done";

/// The names are short digests; a longer one loses its end.
const NAME: usize = 20;
const SHORT_NAME: usize = 12;
/// A bar's inside.
const BAR: usize = 24;
/// What a line has beside its bar, at most.
const BESIDE_BAR: usize = 66;
const SMALLEST_BAR: usize = 8;

impl From<JobPart> for Part {
    fn from((name, state, done, total): JobPart) -> Self {
        Self {
            name,
            state,
            done,
            total,
        }
    }
}

impl Part {
    fn is_active(&self) -> bool {
        [FETCHING, UNPACKING].contains(&self.state.as_str())
    }
}

impl Parts {
    /// Takes where the parts are at a moment.
    pub(super) fn update(&mut self, parts: &[Part], now: Instant) {
        self.rows.truncate(parts.len());
        for (i, part) in parts.iter().enumerate() {
            match self.rows.get_mut(i) {
                Some(row) if row.part.name == part.name => row.update(part, now),
                Some(row) => *row = Row::new(part, now),
                None => self.rows.push(Row::new(part, now)),
            }
            self.count(part);
        }
        self.rate.sample(self.fetched_bytes(), now);
    }

    /// The parts that have ended since the last call, a text each.
    pub(super) fn ended(&mut self) -> Vec<String> {
        let mut texts = Vec::new();
        for row in &mut self.rows {
            if row.part.state == DONE && !row.told {
                row.told = true;
                let how = match self.fetched.get(&row.part.name) {
                    Some(&fetched) => format!("{} fetched", bytes(fetched)),
                    None => CACHED.to_owned(),
                };
                texts.push(format!("{}: {DONE} ({how})", plain(&row.part.name)));
            }
        }
        texts
    }

    /// How many parts were fetched, at least in part.
    pub(crate) fn fetched(&self) -> usize {
        self.fetched.len()
    }

    pub(crate) fn fetched_bytes(&self) -> u64 {
        self.fetched
            .values()
            .fold(0, |sum, &more| sum.saturating_add(more))
    }

    /// What is fetched at this moment, for the line of the stage; often empty.
    pub(super) fn summary(&self, now: Instant) -> String {
        let fetching = self.rows.iter().any(|row| row.part.state == FETCHING);
        match self.rate.at(now) {
            Some(rate) if fetching => format!("  {}  {}/s", bytes(self.fetched_bytes()), bytes(rate)),
            _ => String::new(),
        }
    }

    /// The lines for a terminal, at most `height` of less than `width` columns. Where not all
    /// fit, they are those at which something happens, and a count of the others.
    pub(super) fn lines(&self, width: usize, height: usize, now: Instant) -> Vec<String> {
        let all = self.rows.len() <= height;
        let places = if all { height } else { height.saturating_sub(1) };
        let shown = self.rows.iter().filter(|row| all || row.part.is_active());
        let (shown, more): (Vec<_>, Vec<_>) = shown.enumerate().partition(|(i, _)| *i < places);
        let mut lines: Vec<String> = shown.iter().map(|(_, row)| row.line(width, now)).collect();
        if !all && height > 0 {
            let quiet = self.rows.iter().filter(|row| !row.part.is_active());
            let hidden: Vec<&Row> = quiet.chain(more.into_iter().map(|(_, row)| row)).collect();
            lines.push(others(&hidden));
        }
        for line in &mut lines {
            cut(line, width.saturating_sub(1));
        }
        lines
    }

    fn count(&mut self, part: &Part) {
        let came = match part.state.as_str() {
            FETCHING => part.done,
            FETCHED => part.total,
            _ => return,
        };
        let counted = self.fetched.entry(part.name.clone()).or_default();
        *counted = came.max(*counted);
    }
}

impl Row {
    fn new(part: &Part, now: Instant) -> Self {
        let mut row = Self {
            part: part.clone(),
            rate: Rate::default(),
            told: false,
        };
        row.rate.sample(part.done, now);
        row
    }

    fn update(&mut self, part: &Part, now: Instant) {
        if self.part.state != part.state {
            self.rate = Rate::default();
        }
        self.part = part.clone();
        self.rate.sample(part.done, now);
    }

    fn line(&self, width: usize, now: Instant) -> String {
        let Part {
            name,
            state,
            done,
            total,
        } = &self.part;
        let mut name = plain(name);
        cut(&mut name, NAME);
        let mut line = format!("  {name:<SHORT_NAME$}  {:<9}", plain(state));
        let known = *total > 0;
        if self.part.is_active() {
            let inside = width.saturating_sub(BESIDE_BAR).min(BAR);
            if known && inside >= SMALLEST_BAR {
                line.push_str(&format!("  [{}]", bar(*done, *total, inside)));
            }
            line.push_str(&format!("  {:>10}", bytes(*done)));
            if known {
                line.push_str(&format!(" / {}", bytes(*total)));
            }
            if let Some(rate) = self.rate.at(now) {
                line.push_str(&format!("  {}/s", bytes(rate)));
            }
        } else if known {
            line.push_str(&format!("  {:>10}", bytes(*total)));
        }
        line.truncate(line.trim_end().len());
        line
    }
}

/// `  95 more: 60 done, 3 cached, 32 waiting`.
fn others(rows: &[&Row]) -> String {
    let mut counts = [0_usize; STATES.len()];
    for row in rows {
        if let Some(i) = STATES.iter().position(|state| *state == row.part.state) {
            counts[i] += 1;
        }
    }
    let words: Vec<String> = STATES
        .iter()
        .zip(counts)
        .rev()
        .filter(|(_, count)| *count > 0)
        .map(|(state, count)| format!("{count} {state}"))
        .collect();
    format!("  {} more: {}", rows.len(), words.join(", "))
}

/// `=====>    `.
fn bar(done: u64, total: u64, inside: usize) -> String {
    let share = done.min(total) as f64 / total as f64;
    // From 0 to `inside`: the share is at most 1.
    let full = (share * inside as f64) as usize;
    let mut bar = "=".repeat(full);
    if full < inside {
        bar.push('>');
    }
    format!("{bar:<inside$}")
}

/// Cuts a text to so many characters.
fn cut(text: &mut String, most: usize) {
    if let Some((end, _)) = text.char_indices().nth(most) {
        text.truncate(end);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const MIB: u64 = 1 << 20;

    fn part(name: &str, state: &str, done: u64, total: u64) -> Part {
        Part::from((name.to_owned(), state.to_owned(), done, total))
    }

    #[test]
    fn each_part_has_a_line_while_all_fit() {
        let mut parts = Parts::default();
        let start = Instant::now();
        let now = start + Duration::from_secs(1);
        let fetching = |done| {
            [
                part("aaaaaaaaaaaa", CACHED, 0, 3 * MIB),
                part("bbbbbbbbbbbb", FETCHING, done, 4 * MIB),
                part("cccccccccccc", WAITING, 0, 0),
            ]
        };
        parts.update(&fetching(0), start);
        parts.update(&fetching(MIB), now);
        assert_eq!(
            parts.lines(100, 20, now),
            [
                "  aaaaaaaaaaaa  cached        3.0 MiB",
                "  bbbbbbbbbbbb  fetching   [======>                 ]     1.0 MiB / 4.0 MiB  1.0 MiB/s",
                "  cccccccccccc  waiting",
            ]
        );
        assert_eq!(parts.summary(now), "  1.0 MiB  1.0 MiB/s");
        // Narrow: without a bar, and never a line that the terminal would break.
        let narrow = parts.lines(40, 20, now);
        assert_eq!(narrow[1], "  bbbbbbbbbbbb  fetching      1.0 MiB /");
        assert_eq!((parts.fetched(), parts.fetched_bytes()), (1, MIB));
    }

    #[test]
    fn a_hundred_parts_are_the_active_ones_and_a_count() {
        let mut parts = Parts::default();
        let now = Instant::now();
        let all: Vec<Part> = (0..100)
            .map(|i| {
                let state = match i {
                    0..60 => DONE,
                    60..63 => UNPACKING,
                    63..68 => FETCHING,
                    _ => WAITING,
                };
                part(&format!("{i:012}"), state, 1, 2)
            })
            .collect();
        parts.update(&all, now);
        let lines = parts.lines(80, 20, now);
        assert_eq!(lines.len(), 9);
        assert!(lines[0].starts_with("  000000000060  unpacking"), "{lines:?}");
        assert_eq!(lines[8], "  92 more: 60 done, 32 waiting");
        let few = parts.lines(80, 4, now);
        assert_eq!(few.len(), 4);
        assert_eq!(few[3], "  97 more: 60 done, 5 fetching, 32 waiting");
        assert!(parts.lines(80, 0, now).is_empty());
        assert_eq!(parts.lines(80, 1, now).len(), 1);
        assert!(parts.lines(0, 100, now).iter().all(String::is_empty));
    }

    #[test]
    fn an_end_is_told_once_and_says_where_the_bytes_came_from() {
        let mut parts = Parts::default();
        let now = Instant::now();
        let mut go = |a: (&str, u64), b: (&str, u64)| {
            parts.update(&[part("a", a.0, a.1, 9), part("b", b.0, b.1, 7)], now);
            parts.ended()
        };
        assert!(go((FETCHING, 5), (CACHED, 0)).is_empty());
        assert!(go((FETCHED, 0), (UNPACKING, 3)).is_empty());
        assert_eq!(go((UNPACKING, 1), (DONE, 7)), ["b: done (cached)"]);
        assert_eq!(go((DONE, 9), (DONE, 7)), ["a: done (9 B fetched)"]);
        assert!(go((DONE, 9), (DONE, 7)).is_empty());
        // The next stage has parts of its own; what came stays counted.
        parts.update(&[], now);
        assert_eq!((parts.fetched(), parts.fetched_bytes()), (1, 9));
    }

    #[test]
    fn hostile_numbers_and_names_stay_in_their_line() {
        let mut parts = Parts::default();
        let now = Instant::now();
        let name = format!("\x1b[2J\n{}", "x".repeat(500));
        let all = [
            part(&name, FETCHING, u64::MAX, 1),
            part("b", FETCHING, u64::MAX, u64::MAX),
            part("c", "odd\nstate", 1, 1),
        ];
        parts.update(&all, now);
        parts.update(&all, now + Duration::from_secs(1));
        for line in parts.lines(80, 20, now) {
            assert!(line.len() < 80 && !line.contains(char::is_control), "{line:?}");
        }
        assert_eq!(parts.fetched_bytes(), u64::MAX);
    }
}

//! Columns of text.

use super::style::Style;
use super::text::plain;

/// What a cell says beside its words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tone {
    Good,
    Warn,
    Bad,
    Faint,
}

/// A table with a header, or the two columns of `show`.
#[derive(Debug, Default)]
pub(crate) struct Table {
    header: Vec<&'static str>,
    rows: Vec<Vec<Cell>>,
}

#[derive(Debug)]
struct Cell {
    text: String,
    tone: Option<Tone>,
}

const GAP: usize = 3;
/// The least that is shown of a cell that is cut.
const LEAST: usize = 8;

impl Table {
    pub(crate) fn new(header: &[&'static str]) -> Self {
        Self {
            header: header.to_vec(),
            rows: Vec::new(),
        }
    }

    /// A row of plain words. What comes from elsewhere cannot move the cursor: control
    /// characters are taken out.
    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = impl AsRef<str>>) -> &mut Self {
        let cells = cells.into_iter().map(|cell| Cell {
            text: plain(cell.as_ref()),
            tone: None,
        });
        self.rows.push(cells.collect());
        self
    }

    /// Gives a cell of the last row a tone.
    pub(crate) fn tone(&mut self, column: usize, tone: Option<Tone>) -> &mut Self {
        if let Some(cell) = self.rows.last_mut().and_then(|row| row.get_mut(column)) {
            cell.tone = tone;
        }
        self
    }

    /// The lines, without trailing blanks.
    pub(crate) fn render(&self, style: Style) -> String {
        let widths = self.widths();
        let mut out = String::new();
        if !self.header.is_empty() {
            let cells = self.header.iter().map(|text| ((*text).to_owned(), width(text)));
            push_line(&mut out, cells, &widths);
        }
        for row in &self.rows {
            let cells = row.iter().map(|cell| (paint(cell, style), width(&cell.text)));
            push_line(&mut out, cells, &widths);
        }
        out
    }

    /// The lines, with the last column cut where it does not fit a terminal of so many columns.
    /// The others are names and numbers, which nobody can use in part.
    pub(crate) fn fitted(mut self, style: Style, columns: Option<usize>) -> String {
        let widths = self.widths();
        if let (Some(columns), Some((_, before))) = (columns, widths.split_last()) {
            let taken: usize = before.iter().map(|width| width + GAP).sum();
            let room = columns.saturating_sub(taken).max(LEAST);
            let last = before.len();
            for cell in self.rows.iter_mut().filter_map(|row| row.get_mut(last)) {
                if width(&cell.text) > room {
                    cell.text = cell.text.chars().take(room - 1).chain(['…']).collect();
                }
            }
        }
        self.render(style)
    }

    fn widths(&self) -> Vec<usize> {
        let mut widths: Vec<usize> = self.header.iter().map(|text| width(text)).collect();
        for row in &self.rows {
            for (i, cell) in row.iter().enumerate() {
                let needed = width(&cell.text);
                match widths.get_mut(i) {
                    Some(width) => *width = needed.max(*width),
                    None => widths.push(needed),
                }
            }
        }
        widths
    }
}

fn push_line(out: &mut String, cells: impl Iterator<Item = (String, usize)>, widths: &[usize]) {
    let mut pending = 0;
    for ((text, width), column) in cells.zip(widths) {
        if width > 0 {
            out.extend(std::iter::repeat_n(' ', pending));
            out.push_str(&text);
            pending = 0;
        }
        pending += column - width + GAP;
    }
    out.push('\n');
}

fn paint(cell: &Cell, style: Style) -> String {
    match cell.tone {
        None => cell.text.clone(),
        Some(Tone::Good) => style.good(&cell.text),
        Some(Tone::Warn) => style.warn(&cell.text),
        Some(Tone::Bad) => style.bad(&cell.text),
        Some(Tone::Faint) => style.faint(&cell.text),
    }
}

/// Names are ASCII; a wide character in a label only costs a crooked column.
fn width(text: &str) -> usize {
    text.chars().count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_nothing_trails() {
        let mut table = Table::new(&["NAME", "STATE", "AGE"]);
        table.row(["a", "running", "2 m"]);
        table.row(["longer-name", "", "1 h"]).tone(0, Some(Tone::Good));
        table.row(["b", "stopped", ""]);
        assert_eq!(
            table.render(Style::none()),
            "NAME          STATE     AGE\n\
             a             running   2 m\n\
             longer-name             1 h\n\
             b             stopped\n"
        );
    }

    #[test]
    fn only_the_last_column_is_cut() {
        let table = || {
            let mut table = Table::new(&["NAME", "ORIGIN"]);
            table.row(["ghcr.io/owner/tool:1", "ghcr.io/owner/tool:1"]);
            table.row(["b", "short"]);
            table
        };
        let lines = |columns| table().fitted(Style::none(), columns);
        assert_eq!(lines(None), table().render(Style::none()));
        assert_eq!(lines(Some(80)), lines(None));
        assert_eq!(
            lines(Some(40)),
            "NAME                   ORIGIN\n\
             ghcr.io/owner/tool:1   ghcr.io/owner/to…\n\
             b                      short\n"
        );
        assert!(lines(Some(10)).contains("tool:1   ghcr.io…\n"));
    }

    #[test]
    fn hostile_words_stay_words() {
        let mut table = Table::default();
        table.row(["key", "a\x1b]0;title\x07b\nc"]);
        assert_eq!(table.render(Style::none()), "key   ab c\n");
    }
}

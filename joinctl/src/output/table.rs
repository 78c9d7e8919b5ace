//! Aligned columns without lines: easy on the eyes, and one row a line for `grep` and `awk`.

use comfy_table::{ContentArrangement, presets};

use super::printable;

/// A table whose rows come page by page: the headings are there once, and columns never become narrower.
pub(crate) struct Table {
    /// As wide as their columns were so far.
    headings: Vec<String>,
    is_headed: bool,
}

impl Table {
    pub(crate) fn new(headings: &[&str]) -> Self {
        Self { headings: headings.iter().map(ToString::to_string).collect(), is_headed: false }
    }

    /// The next rows, each with its line break. An empty cell shows a dash, so that columns can be counted.
    pub(crate) fn rows(&mut self, rows: impl IntoIterator<Item = Vec<String>>) -> String {
        let mut table = comfy_table::Table::new();
        table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
        table.set_header(&self.headings);
        for row in rows {
            table.add_row(row.iter().map(|text| cell(text)));
        }
        for column in table.column_iter_mut() {
            column.set_padding((0, 2));
        }
        for (heading, width) in self.headings.iter_mut().zip(table.column_max_content_widths()) {
            *heading = format!("{heading:0$}", usize::from(width));
        }
        let text = table.trim_fmt() + "\n";
        match text.split_once('\n') {
            Some((_, rows)) if std::mem::replace(&mut self.is_headed, true) => rows.to_owned(),
            _ => text,
        }
    }
}

/// A text as a cell: on one line, and a dash when it is empty.
pub(crate) fn cell(text: &str) -> String {
    if text.is_empty() { "-".to_owned() } else { printable(text).replace('\n', " ") }
}

/// At most so many characters; `…` stands for the rest.
pub(crate) fn cut(text: &str, length: usize) -> String {
    if text.chars().count() <= length {
        text.to_owned()
    } else {
        text.chars().take(length - 1).chain(['…']).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::Table;

    #[test]
    fn columns_line_up_and_empty_cells_are_seen() {
        let text = Table::new(&["NAME", "ROLES"])
            .rows([vec!["example".into(), String::new()], vec!["é".into(), "a\nb\u{7}".into()]]);
        assert_eq!(text, "NAME     ROLES\nexample  -\né        a b\\u{7}\n");
    }

    #[test]
    fn pages_have_one_heading_and_the_same_columns() {
        let mut table = Table::new(&["NAME", "ROLES"]);
        let mut page = |name: &str| table.rows([vec![name.into(), "a".into()]]);
        assert_eq!(page("example"), "NAME     ROLES\nexample  a\n");
        assert_eq!(page("web"), "web      a\n");
        assert_eq!(page("longer-one"), "longer-one  a\n");
    }
}

//! Aligned columns without lines: easy on the eyes, and one row a line for `grep` and `awk`.

use comfy_table::{ContentArrangement, Table, presets};

use super::printable;

/// A table that ends with a line break. An empty cell shows a dash, so that columns can be counted.
pub(crate) fn table(headings: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(headings.iter().copied());
    for row in rows {
        table.add_row(row.iter().map(|cell| one_line(cell)));
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    let mut text = table.trim_fmt();
    text.push('\n');
    text
}

fn one_line(cell: &str) -> String {
    if cell.is_empty() { "-".to_owned() } else { printable(cell).replace('\n', " ") }
}

#[cfg(test)]
mod tests {
    use super::table;

    #[test]
    fn columns_line_up_and_empty_cells_are_seen() {
        let text =
            table(&["NAME", "ROLES"], [vec!["example".into(), String::new()], vec!["é".into(), "a\nb\u{7}".into()]]);
        assert_eq!(text, "NAME     ROLES\nexample  -\né        a b\\u{7}\n");
    }
}

//! Any number of values, printed as they come: nothing is kept, however many there are.

use std::io::{self, Write};

use serde_yaml_ng::Value;

use super::{Format, json};

/// A JSON array or a row of YAML documents in the making. [`Items::end`] completes it; without, a reader sees that
/// something is missing.
pub(crate) struct Items<W> {
    out: W,
    format: Format,
    count: usize,
}

impl<W: Write> Items<W> {
    /// Begins; [`Format::Text`] prints YAML, for those who have no table.
    pub(crate) fn begin(out: W, format: Format) -> Self {
        Self { out, format, count: 0 }
    }

    pub(crate) fn push(&mut self, item: &Value) -> io::Result<()> {
        let first = self.count == 0;
        self.count += 1;
        if self.format == Format::Json {
            let json = json(item)?.replace('\n', "\n  ");
            return write!(self.out, "{}{json}", if first { "[\n  " } else { ",\n  " });
        }
        if !first {
            writeln!(self.out, "---")?;
        }
        self.out.write_all(serde_yaml_ng::to_string(item).map_err(io::Error::other)?.as_bytes())
    }

    /// Shows what is there so far.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }

    pub(crate) fn end(mut self) -> io::Result<()> {
        if self.format == Format::Json {
            writeln!(self.out, "{}", if self.count == 0 { "[]" } else { "\n]" })?;
        }
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printed(format: Format, items: &[&str]) -> String {
        printed_values(format, items.iter().map(|item| serde_yaml_ng::from_str(item).unwrap()))
    }

    fn printed_values(format: Format, items: impl IntoIterator<Item = Value>) -> String {
        let mut out = Vec::new();
        let mut list = Items::begin(&mut out, format);
        for item in items {
            list.push(&item).unwrap();
        }
        list.end().unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn json_is_always_an_array() {
        assert_eq!(printed(Format::Json, &[]), "[]\n");
        assert_eq!(printed(Format::Json, &["{a: 1}"]), "[\n  {\n    \"a\": 1\n  }\n]\n");
        let two: Vec<Value> = serde_json::from_str(&printed(Format::Json, &["{a: \"x\\ny\"}", "{}"])).unwrap();
        assert_eq!(two[0]["a"], "x\ny");
        assert_eq!(two.len(), 2);
    }

    #[test]
    fn no_item_steers_a_terminal() {
        let said = Value::from("\u{1b}[2J\u{7f}\u{85}\u{9b}1m");
        for format in [Format::Json, Format::Yaml] {
            let printed = printed_values(format, [said.clone()]);
            assert!(!printed.replace('\n', "").contains(char::is_control), "{printed:?}");
            let read: Value = serde_yaml_ng::from_str(&printed).unwrap();
            assert!(read == said || read[0] == said, "{printed}");
        }
    }

    #[test]
    fn yaml_is_one_document_an_item() {
        assert_eq!(printed(Format::Yaml, &["{a: 1}", "{b: 2}"]), "a: 1\n---\nb: 2\n");
    }
}

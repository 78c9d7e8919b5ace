//! Words of others, on a terminal: names, messages and addresses must not steer it.

/// The text with its control characters made visible. Line breaks stay.
pub fn printable(text: &str) -> String {
    escaped(text, |control| control.escape_default().to_string())
}

/// The same for JSON, which stays what it is: U+007F to U+009F may stand in its strings as they are.
pub fn printable_json(json: &str) -> String {
    escaped(json, |control| format!("\\u{:04x}", u32::from(control)))
}

fn escaped(text: &str, escape: impl Fn(char) -> String) -> String {
    let mut printable = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() && c != '\n' {
            printable.push_str(&escape(c));
        } else {
            printable.push(c);
        }
    }
    printable
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_shown_not_obeyed() {
        assert_eq!(printable("a\u{1b}[2Jb\r\u{9b}1m\nc"), "a\\u{1b}[2Jb\\r\\u{9b}1m\nc");
    }

    #[test]
    fn json_says_the_same_without_control_characters() {
        let said = "a\u{1b}[2Jb\u{7f}\u{9b}1m\nc\u{a0}";
        let json = printable_json(&serde_json::to_string_pretty(&[said]).unwrap());
        assert!(!json.replace('\n', "").contains(char::is_control), "{json:?}");
        assert_eq!(serde_json::from_str::<[String; 1]>(&json).unwrap(), [said]);
    }
}

//! Progress on stderr; nothing is shown when that is no terminal.

use indicatif::{ProgressBar, ProgressStyle};

/// A bar of something that is counted, as far as the total is known.
pub(super) fn bar(what: &'static str, total: Option<u64>) -> ProgressBar {
    let template = match total {
        Some(_) => "{msg} {wide_bar} {human_pos}/{human_len}, {eta} left",
        None => "{msg} {spinner} {human_pos}",
    };
    let style = ProgressStyle::with_template(template).expect("the template is sound");
    total.map_or_else(ProgressBar::no_length, ProgressBar::new).with_style(style).with_message(what)
}

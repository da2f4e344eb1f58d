//! How far it is, on standard error, where that is a terminal.

use indicatif::{ProgressBar, ProgressStyle};

/// A bar of so many items; without their number, a count of them.
pub fn of_items(what: &'static str, items: Option<u64>) -> ProgressBar {
    let (bar, template) = match items {
        Some(items) => {
            (ProgressBar::new(items), "{msg} {bar:40} {human_pos} of {human_len} items, {eta} left")
        }
        None => (ProgressBar::new_spinner(), "{msg} {spinner} {human_pos} items"),
    };
    styled(bar, template, what)
}

/// A bar of so many bytes of a file; of a pipe, a count of them.
pub fn of_bytes(what: &'static str, bytes: Option<u64>) -> ProgressBar {
    let (bar, template) = match bytes {
        Some(bytes) => {
            (ProgressBar::new(bytes), "{msg} {bar:40} {bytes} of {total_bytes}, {eta} left")
        }
        None => (ProgressBar::new_spinner(), "{msg} {spinner} {bytes}"),
    };
    styled(bar, template, what)
}

fn styled(bar: ProgressBar, template: &str, what: &'static str) -> ProgressBar {
    // The templates are constants; a typo in one shows as the default style.
    let style =
        ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    bar.with_style(style).with_message(what)
}

//! Text from the bucket in a form that is safe for a terminal.

/// Replaces the characters that could control a terminal. Anyone who may write to the bucket chooses the text.
pub(super) fn printable(text: &str) -> String {
    text.chars().map(|letter| if letter.is_ascii_graphic() { letter } else { '?' }).collect()
}

//! Replaces generated sections in pages of `docs/`. Each section is between two markers.

use std::{error::Error, fs};

use crate::subject::project_root;

/// Replaces the named sections of a page.
pub(crate) fn update(page: &str, sections: &[(&str, String)]) -> Result<(), Box<dyn Error>> {
    let path = project_root().join(page);
    let mut text = fs::read_to_string(&path)?;
    for (name, content) in sections {
        text = replace(&text, name, content).ok_or_else(|| format!("{page} has no markers for {name}"))?;
    }
    Ok(fs::write(path, text)?)
}

/// Returns the text with a replaced section, or `None` if the text has no such section.
pub(crate) fn replace(text: &str, name: &str, content: &str) -> Option<String> {
    let (begin, end) = (format!("<!-- {name} -->\n"), format!("<!-- end of {name} -->"));
    let (before, rest) = text.split_once(&begin)?;
    let (_, after) = rest.split_once(&end)?;
    Some(format!("{before}{begin}{content}{end}{after}"))
}

#[cfg(test)]
mod tests {
    use super::replace;

    #[test]
    fn only_the_named_section_is_replaced() {
        let page = "a\n<!-- x -->\nold\n<!-- end of x -->\nb\n";
        assert_eq!(replace(page, "x", "new\n").unwrap(), "a\n<!-- x -->\nnew\n<!-- end of x -->\nb\n");
        assert_eq!(replace(page, "y", ""), None);
    }
}

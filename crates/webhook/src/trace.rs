//! Converts the X-Ray tracing header of an invocation to the tracing header of its messages, which SQS passes to consumers.

/// The tracing header for the messages of an invocation. `None` if the trace is not sampled or the header is malformed.
///
/// SQS rejects a message with a malformed header, so only the parts `Root`, `Parent` and `Sampled` are copied.
/// Source: <https://docs.aws.amazon.com/xray/latest/devguide/xray-concepts.html#xray-concepts-tracingheader>
#[must_use]
pub fn header(invocation_header: &str) -> Option<String> {
    let part = |name| invocation_header.split(';').find_map(|part| part.trim().strip_prefix(name));
    let root = part("Root=").filter(|root| is_trace_id(root))?;
    let parent = part("Parent=");
    if part("Sampled=") != Some("1") || parent.is_some_and(|parent| !is_hex(parent, 16)) {
        return None;
    }
    let parent = parent.map(|parent| format!(";Parent={parent}")).unwrap_or_default();
    Some(format!("Root={root}{parent};Sampled=1"))
}

/// Whether a text is a trace id: the version 1, the start time in seconds, and a unique number. Time and number are hexadecimal.
fn is_trace_id(text: &str) -> bool {
    text.strip_prefix("1-")
        .and_then(|rest| rest.split_once('-'))
        .is_some_and(|(second, number)| is_hex(second, 8) && is_hex(number, 24))
}

fn is_hex(text: &str, digits: usize) -> bool {
    text.len() == digits && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOT: &str = "Root=1-5759e988-bd862e3fe1be46a994272793";

    #[test]
    fn sampled_trace_keeps_root_and_parent() {
        for (invocation_header, rest) in [
            (format!("{ROOT};Sampled=1"), ";Sampled=1"),
            (format!("{ROOT};Parent=53995c3f42cd8ad8;Sampled=1"), ";Parent=53995c3f42cd8ad8;Sampled=1"),
            (
                format!("Sampled=1; Parent=53995C3F42CD8AD8; {ROOT};Lineage=1:a87bd80c:0"),
                ";Parent=53995C3F42CD8AD8;Sampled=1",
            ),
            (format!("Self=1-67891234-12456789abcdef012345678;{ROOT};Sampled=1;A=b"), ";Sampled=1"),
        ] {
            assert_eq!(header(&invocation_header), Some(format!("{ROOT}{rest}")), "{invocation_header}");
        }
    }

    #[test]
    fn unsampled_or_malformed_header_is_dropped() {
        for invocation_header in [
            ROOT.to_owned(),
            format!("{ROOT};Sampled=0"),
            format!("{ROOT};Sampled=?"),
            format!("{ROOT};Sampled=10"),
            format!("{ROOT};Sampled=1;Parent="),
            format!("{ROOT};Sampled=1;Parent=53995c3f42cd8ad"),
            format!("{ROOT};Sampled=1;Parent=53995c3f42cd8adg"),
            format!("{ROOT}0;Sampled=1"),
            format!("{};Sampled=1", ROOT.replace("1-", "2-")),
            format!("{};Sampled=1", ROOT.replace("988-", "98-8")),
            format!("{};Sampled=1", ROOT.replace('b', "é")),
            "Root=dummy;Parent=53995c3f42cd8ad8;Sampled=1".to_owned(),
            "Sampled=1".to_owned(),
            String::new(),
        ] {
            assert_eq!(header(&invocation_header), None, "{invocation_header}");
        }
    }
}

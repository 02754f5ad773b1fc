//! The X-Ray trace of an invocation, in the form in which SQS hands it on to consumers.

/// The tracing header for the messages of an invocation, made of its own; none if the trace is not recorded.
///
/// SQS refuses a message whose header is not well-formed, so nothing is passed on but the parts that make one. What is
/// not recorded, and the lineage by which Lambda finds loops, SQS knows from the SDK's own header of the call.
#[must_use]
pub fn header(of_invocation: &str) -> Option<String> {
    let part = |name| of_invocation.split(';').find_map(|part| part.trim().strip_prefix(name));
    let root = part("Root=").filter(|root| is_trace_id(root))?;
    let parent = part("Parent=");
    if part("Sampled=") != Some("1") || parent.is_some_and(|parent| !is_hex(parent, 16)) {
        return None;
    }
    let parent = parent.map(|parent| format!(";Parent={parent}")).unwrap_or_default();
    Some(format!("Root={root}{parent};Sampled=1"))
}

/// Version 1, the second in which the trace began, and its number.
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
    fn a_recorded_trace_is_passed_on_without_what_is_not_needed() {
        for (of_invocation, rest) in [
            (format!("{ROOT};Sampled=1"), ";Sampled=1"),
            (format!("{ROOT};Parent=53995c3f42cd8ad8;Sampled=1"), ";Parent=53995c3f42cd8ad8;Sampled=1"),
            (
                format!("Sampled=1; Parent=53995C3F42CD8AD8; {ROOT};Lineage=1:a87bd80c:0"),
                ";Parent=53995C3F42CD8AD8;Sampled=1",
            ),
            (format!("Self=1-67891234-12456789abcdef012345678;{ROOT};Sampled=1;A=b"), ";Sampled=1"),
        ] {
            assert_eq!(header(&of_invocation), Some(format!("{ROOT}{rest}")), "{of_invocation}");
        }
    }

    #[test]
    fn nothing_is_made_of_what_is_not_recorded_or_no_trace() {
        for of_invocation in [
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
            assert_eq!(header(&of_invocation), None, "{of_invocation}");
        }
    }
}

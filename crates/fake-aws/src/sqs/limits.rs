//! The limits of SQS, each with the error of SQS.
//!
//! The limits and allowed characters are those of [`SendMessageBatch`] and of [Message metadata]. Public projects have
//! recorded responses of SQS in their tests and issues. The messages come from there, and so does the distinction between
//! errors of the call and of an entry.
//!
//! [`SendMessageBatch`]: https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_SendMessageBatch.html
//! [Message metadata]: https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-message-metadata.html

use super::entry::{Attribute, Entry, TRACE_HEADER};
use super::error::{CallError, EntryError};
use super::queue::{MAX_MESSAGE_SIZE, QueueState};
use std::collections::HashSet;

const MAX_ENTRIES: usize = 10;
const MAX_ATTRIBUTES: usize = 10;

/// Checks the limits whose violation fails the whole batch.
pub(super) fn check_batch(entries: &[Entry], is_fifo: bool) -> Result<(), CallError> {
    let count = entries.len();
    if count == 0 {
        let message = "There should be at least one SendMessageBatchRequestEntry in the request.";
        return Err(CallError::batch("EmptyBatchRequest", message));
    }
    if count > MAX_ENTRIES {
        let message = format!("Maximum number of entries per request are {MAX_ENTRIES}. You have sent {count}.");
        return Err(CallError::batch("TooManyEntriesInBatchRequest", message));
    }
    if entries.iter().any(|entry| !is_batch_id(&entry.id)) {
        let message = "A batch entry id can only contain alphanumeric characters, hyphens and underscores. \
                       It can be at most 80 letters long.";
        return Err(CallError::batch("InvalidBatchEntryId", message));
    }
    let mut ids = HashSet::new();
    if let Some(entry) = entries.iter().find(|entry| !ids.insert(&entry.id)) {
        return Err(CallError::batch("BatchEntryIdsNotDistinct", format!("Id {} repeated.", entry.id)));
    }
    let size: usize = entries.iter().map(Entry::size).sum();
    if size > MAX_MESSAGE_SIZE {
        let message =
            format!("Batch requests cannot be longer than {MAX_MESSAGE_SIZE} bytes. You have sent {size} bytes.");
        return Err(CallError::batch("BatchRequestTooLong", message));
    }
    if is_fifo { check_fifo(entries, CallError::invalid_parameter) } else { Ok(()) }
}

/// Checks the limits whose violation fails a call with a single message.
pub(super) fn check_single(entries: &[Entry], is_fifo: bool) -> Result<(), CallError> {
    if is_fifo { check_fifo(entries, CallError::missing_parameter) } else { Ok(()) }
}

/// Checks that every entry for a FIFO queue has a group id and a deduplication id. One entry without them fails the call.
///
/// Without a group id, SQS [responds with `MissingParameter`](https://github.com/aws/aws-sdk-js-v3/issues/5031) to a single message.
/// For a batch, no recorded response was found.
fn check_fifo(entries: &[Entry], missing_group: impl Fn(&'static str) -> CallError) -> Result<(), CallError> {
    if entries.iter().any(|entry| entry.group_id.is_none()) {
        return Err(missing_group("The request must contain the parameter MessageGroupId."));
    }
    if entries.iter().any(|entry| entry.deduplication_id.is_none()) {
        let message = "The queue should either have ContentBasedDeduplication enabled or MessageDeduplicationId \
                       provided explicitly";
        return Err(CallError::invalid_parameter(message));
    }
    Ok(())
}

/// Checks the limits whose violation rejects one entry. All errors are attributed to the sender.
pub(super) fn check_entry(entry: &Entry, queue: &QueueState) -> Result<(), EntryError> {
    if entry.body.is_empty() {
        return Err(EntryError::missing_body());
    }
    if entry.size() > queue.maximum_message_size {
        let message = format!(
            "One or more parameters cannot be validated. Reason: Message must be shorter than {} bytes.",
            queue.maximum_message_size
        );
        return Err(EntryError::invalid_parameter(message));
    }
    if let Some(found) = forbidden_character(&entry.body) {
        let message = format!(
            "Invalid binary character '#x{:X}' was found in the message body, the set of allowed characters is \
             #x9 | #xA | #xD | #x20 to #xD7FF | #xE000 to #xFFFD | #x10000 to #x10FFFF",
            u32::from(found)
        );
        return Err(EntryError::invalid_contents(message));
    }
    check_id("MessageGroupId", entry.group_id.as_deref())?;
    if !queue.is_fifo && entry.deduplication_id.is_some() {
        let message = "The request include parameter that is not valid for this queue type";
        return Err(EntryError::invalid_parameter(message));
    }
    check_id("MessageDeduplicationId", entry.deduplication_id.as_deref())?;
    let count = entry.attributes.len();
    if count > MAX_ATTRIBUTES {
        let message = format!("Number of message attributes [{count}] exceeds the allowed maximum [{MAX_ATTRIBUTES}].");
        return Err(EntryError::invalid_parameter(message));
    }
    entry.attributes.iter().try_for_each(|(name, attribute)| {
        check_name(name)?;
        check_value(name, attribute)
    })?;
    entry.system_attributes.iter().try_for_each(|(name, attribute)| check_system_attribute(name, attribute))
}

/// The API reference allows one name, the type `String` and "a correctly formatted X-Ray trace header". It does not quote the
/// error messages, so these are not those of SQS.
fn check_system_attribute(name: &str, attribute: &Attribute) -> Result<(), EntryError> {
    let invalid = |message: &str| Err(EntryError::invalid_parameter(format!("{name}: {message}")));
    match attribute.text.as_deref() {
        _ if name != TRACE_HEADER => invalid("unknown message system attribute"),
        _ if attribute.data_type != "String" => invalid("the type of a message system attribute must be String"),
        Some(header) if is_trace_header(header) => Ok(()),
        _ => invalid("the value is not an X-Ray trace header"),
    }
}

/// Returns whether the text is a [tracing header] that starts with a trace id.
///
/// [tracing header]: https://docs.aws.amazon.com/xray/latest/devguide/xray-concepts.html#xray-concepts-tracingheader
fn is_trace_header(header: &str) -> bool {
    let is_hex = |text: &str, digits: usize| text.len() == digits && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let is_trace_id = |text: &str| match text.split('-').collect::<Vec<_>>()[..] {
        ["1", time, unique] => is_hex(time, 8) && is_hex(unique, 24),
        _ => false,
    };
    let is_member = |member: &str| match member.split_once('=') {
        Some(("Root", root)) => is_trace_id(root),
        Some(("Parent", parent)) => is_hex(parent, 16),
        Some(("Sampled", sampled)) => ["0", "1", "?"].contains(&sampled),
        Some((name, value)) => !name.is_empty() && !value.is_empty(),
        None => false,
    };
    header.starts_with("Root=") && header.split(';').all(is_member)
}

fn is_batch_id(id: &str) -> bool {
    (1..=80).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
}

/// Finds the first character that SQS does not allow in bodies and text attributes.
fn forbidden_character(text: &str) -> Option<char> {
    text.chars().find(|character| match character {
        '\t' | '\n' | '\r' => false,
        _ => *character < ' ' || ('\u{fffe}'..='\u{ffff}').contains(character),
    })
}

/// Checks a group id or deduplication id: 1 to 128 ASCII letters, digits and punctuation marks.
fn check_id(parameter: &str, value: Option<&str>) -> Result<(), EntryError> {
    let is_id = |value: &str| (1..=128).contains(&value.len()) && value.bytes().all(|byte| byte.is_ascii_graphic());
    match value {
        Some(value) if !is_id(value) => Err(EntryError::invalid_parameter(format!(
            "Value {value} for parameter {parameter} is invalid. Reason: {parameter} can only include alphanumeric and \
             punctuation characters. 1 to 128 in length."
        ))),
        _ => Ok(()),
    }
}

fn check_name(name: &str) -> Result<(), EntryError> {
    let lower = name.to_ascii_lowercase();
    let reason = if name.is_empty() {
        "The request must contain non-empty message attribute name."
    } else if name.len() > 256 {
        "Message (user) attribute name must be shorter than 256 bytes."
    } else if lower.starts_with("aws.") || lower.starts_with("amazon.") {
        "You cannot use message attribute names beginning with 'AWS.' or 'Amazon.'."
    } else if !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte)) {
        "Message (user) attribute name can contain A-Z, a-z, 0-9, underscore (_), hyphen (-) and period (.) only."
    } else if name.starts_with('.') || name.ends_with('.') || name.contains("..") {
        "Message (user) attribute name can neither start nor end with a period nor have periods in succession."
    } else {
        return Ok(());
    };
    Err(EntryError::invalid_parameter(reason))
}

fn check_value(name: &str, attribute: &Attribute) -> Result<(), EntryError> {
    let invalid = |message: String| Err(EntryError::invalid_parameter(message));
    let base_type = attribute.data_type.split('.').next().unwrap_or_default();
    if attribute.data_type.is_empty() {
        return invalid(format!("The message attribute '{name}' must contain non-empty message attribute type."));
    }
    if attribute.data_type.len() > 256 || !["String", "Number", "Binary"].contains(&base_type) {
        return invalid(format!(
            "The message attribute '{name}' has an invalid message attribute type, the set of supported type prefixes \
             is Binary, Number, and String."
        ));
    }
    let value =
        if base_type == "Binary" { attribute.bytes.as_deref() } else { attribute.text.as_deref().map(str::as_bytes) };
    if value.is_none_or(<[u8]>::is_empty) {
        return invalid(format!(
            "Message (user) attribute '{name}' must contain a non-empty value of type '{base_type}'."
        ));
    }
    match attribute.text.as_deref() {
        Some(text) if base_type == "String" => match forbidden_character(text) {
            Some(found) => invalid(format!(
                "Invalid binary character '#x{:X}' was found in the message attribute '{name}' value.",
                u32::from(found)
            )),
            None => Ok(()),
        },
        Some(text) if base_type == "Number" && !is_number(text) => {
            invalid(format!("Can't cast the value of message (user) attribute '{name}' to a number."))
        }
        _ => Ok(()),
    }
}

/// Returns whether the text is a decimal number with at most 38 significant digits. A fraction and an exponent are optional.
fn is_number(text: &str) -> bool {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let (mantissa, exponent) = unsigned.split_once(['e', 'E']).unwrap_or((unsigned, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = format!("{whole}{fraction}");
    let significant = digits.trim_start_matches('0').len();
    !digits.is_empty()
        && digits.bytes().all(|byte| byte.is_ascii_digit())
        && significant <= 38
        && exponent.parse::<i16>().is_ok_and(|exponent| (-128..=126).contains(&exponent))
}

#[cfg(test)]
mod tests {
    use super::{forbidden_character, is_number};

    #[test]
    fn allowed_characters_match_the_api_reference() {
        let allowed = "\t\n\r \u{7f}\u{d7ff}\u{e000}\u{fffd}\u{10000}\u{1ffff}\u{10ffff}";
        assert_eq!(forbidden_character(allowed), None);
        for forbidden in ['\0', '\u{8}', '\u{b}', '\u{c}', '\u{e}', '\u{1f}', '\u{fffe}', '\u{ffff}'] {
            assert_eq!(forbidden_character(&format!("a{forbidden}b")), Some(forbidden));
        }
    }

    #[test]
    fn numbers_are_decimal() {
        for number in ["0", "-1", "+1.5", "1e10", ".5", "1048577", "1E-128"] {
            assert!(is_number(number), "{number}");
        }
        for other in ["", "-", "1 ", "0x10", "1.2.3", "e5", "NaN", "1e", "1e999", &"1".repeat(39)] {
            assert!(!is_number(other), "{other}");
        }
    }
}

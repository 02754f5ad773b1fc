//! Generates notifications of any size in the format of Meta.

/// Makes a body with these changes in one entry.
#[must_use]
pub fn notification(changes: &[String]) -> String {
    let changes = changes.join(",");
    format!(r#"{{"object":"whatsapp_business_account","entry":[{{"id":"102290129340398","changes":[{changes}]}}]}}"#)
}

/// Makes a change with a message text of this many bytes, with the escapes that Meta uses.
#[must_use]
pub fn message(index: usize, bytes: usize) -> String {
    const WORDS: &str = r"Gr\u00fc\u00dfe aus M\u00fcnchen, wir sehen uns um 8\/9 Uhr wieder. ";
    let text = WORDS.repeat(bytes / WORDS.len()) + &"x".repeat(bytes % WORDS.len());
    change(&format!(
        r#""contacts":[{{"profile":{{"name":"Kerry Fisher"}},"wa_id":"16505551234"}}],"messages":[{{"from":"16505551234","id":"wamid.HBgLMTY1MDU1NTEyMzQVAgASGBQz{index:016}AA==","timestamp":"1739321024","text":{{"body":"{text}"}},"type":"text"}}]"#
    ))
}

/// Makes a change with a receipt.
#[must_use]
pub fn receipt(index: usize) -> String {
    change(&format!(
        r#""statuses":[{{"id":"wamid.HBgLMTY1MDU1NTEyMzQVAgARGBI5{index:016}AA==","status":"delivered","timestamp":"1739321024","recipient_id":"16505551234","conversation":{{"id":"6b1f5f0ad2bc2b4c7e0e0a0f7a6c3b6e","origin":{{"type":"utility"}}}},"pricing":{{"billable":true,"pricing_model":"CBP","category":"utility"}}}}]"#
    ))
}

fn change(members: &str) -> String {
    format!(
        r#"{{"value":{{"messaging_product":"whatsapp","metadata":{{"display_phone_number":"15550783881","phone_number_id":"106540352242922"}},{members}}},"field":"messages"}}"#
    )
}

/// Makes a notification with `count` changes of about `bytes` bytes each.
#[must_use]
pub fn notification_of_size(count: usize, bytes: usize) -> String {
    let envelope = message(0, 0).len() + 1;
    notification(&(0..count).map(|index| message(index, bytes.saturating_sub(envelope))).collect::<Vec<_>>())
}

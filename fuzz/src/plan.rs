//! Generates JSON bodies from a plan: similar to those of Meta, with unusual JSON.

use libfuzzer_sys::arbitrary::{Result, Unstructured};

/// Names of members that the parsers read, some with escapes, and one with a lone surrogate.
const NAMES: [&str; 24] = [
    r#""entry""#,
    r#""changes""#,
    r#""field""#,
    r#""value""#,
    r#""id""#,
    r#""time""#,
    r#""object""#,
    r#""metadata""#,
    r#""phone_number_id""#,
    r#""messages""#,
    r#""statuses""#,
    r#""errors""#,
    r#""contacts""#,
    r#""message_echoes""#,
    r#""wa_id""#,
    r#""from""#,
    r#""to""#,
    r#""recipient_id""#,
    r#""from_user_id""#,
    r#""\u0065ntry""#,
    r#""ch\u0061nges""#,
    r#""\ud800""#,
    r#""""#,
    "\"\u{ffff}\"",
];

/// Values without nested values.
const SCALARS: [&str; 16] = [
    "null",
    "true",
    "0",
    "-0.0e+1",
    "12345678901234567890123",
    r#""""#,
    r#""messages""#,
    r#""1""#,
    r#""106540352242922""#,
    r#""\ud83d\ude00""#,
    r#""\udc00""#,
    r#""\u0000\ufffe""#,
    "\"\u{fffe}\u{ffff}\u{fffd}\u{fffe}\"",
    r#""]},{\"\\""#,
    "[]",
    "{}",
];

const WHITE_SPACE: [&str; 8] = ["", "", "", "", " ", "\n", "\t\r", "  "];

/// Generates a body.
pub fn body(plan: &mut Unstructured<'_>) -> Result<String> {
    let mut text = String::new();
    white_space(plan, &mut text)?;
    match plan.int_in_range(0..=9)? {
        0 => array(plan, &mut text, 3, envelope)?,
        1 => value(plan, &mut text, 4)?,
        _ => envelope(plan, &mut text)?,
    }
    white_space(plan, &mut text)?;
    Ok(text)
}

fn envelope(plan: &mut Unstructured<'_>, text: &mut String) -> Result<()> {
    object_with(plan, text, r#""entry""#, |plan, text| array(plan, text, 4, entry))
}

fn entry(plan: &mut Unstructured<'_>, text: &mut String) -> Result<()> {
    object_with(plan, text, r#""changes""#, |plan, text| {
        // Rarely generates more changes than the function splits. A plan that has ended reads as zeros, so it does not match.
        if plan.arbitrary::<[u8; 2]>()? == [1, 255] {
            let count = plan.int_in_range(9_990..=10_010)?;
            text.push('[');
            text.push_str(&"0,".repeat(count));
            text.push_str("0]");
            return Ok(());
        }
        array(plan, text, 6, change)
    })
}

fn change(plan: &mut Unstructured<'_>, text: &mut String) -> Result<()> {
    object_with(plan, text, r#""field""#, |plan, text| {
        scalar(plan, text)?;
        text.push_str(r#","value":"#);
        value(plan, text, 4)
    })
}

/// Generates an object with this member among random members. Rarely generates a random value instead.
fn object_with(
    plan: &mut Unstructured<'_>,
    text: &mut String,
    name: &str,
    inner: impl FnOnce(&mut Unstructured<'_>, &mut String) -> Result<()>,
) -> Result<()> {
    if plan.ratio(1, 12)? {
        return value(plan, text, 2);
    }
    text.push('{');
    for _ in 0..plan.int_in_range(0..=3)? {
        member(plan, text, 1)?;
        text.push(',');
    }
    white_space(plan, text)?;
    text.push_str(name);
    white_space(plan, text)?;
    text.push(':');
    white_space(plan, text)?;
    inner(plan, text)?;
    white_space(plan, text)?;
    for _ in 0..plan.int_in_range(0..=2)? {
        text.push(',');
        member(plan, text, 1)?;
    }
    text.push('}');
    Ok(())
}

fn array(
    plan: &mut Unstructured<'_>,
    text: &mut String,
    max_count: usize,
    element: fn(&mut Unstructured<'_>, &mut String) -> Result<()>,
) -> Result<()> {
    text.push('[');
    for index in 0..plan.int_in_range(0..=max_count)? {
        if index > 0 {
            text.push(',');
        }
        white_space(plan, text)?;
        element(plan, text)?;
        white_space(plan, text)?;
    }
    text.push(']');
    Ok(())
}

fn member(plan: &mut Unstructured<'_>, text: &mut String, depth: usize) -> Result<()> {
    white_space(plan, text)?;
    text.push_str(plan.choose(&NAMES)?);
    white_space(plan, text)?;
    text.push(':');
    white_space(plan, text)?;
    value(plan, text, depth)?;
    white_space(plan, text)
}

fn value(plan: &mut Unstructured<'_>, text: &mut String, depth: usize) -> Result<()> {
    if depth == 0 {
        return scalar(plan, text);
    }
    match plan.int_in_range(0..=5)? {
        0 | 1 => scalar(plan, text),
        2 => {
            text.push('[');
            for index in 0..plan.int_in_range(0..=2)? {
                if index > 0 {
                    text.push(',');
                }
                value(plan, text, depth - 1)?;
            }
            text.push(']');
            Ok(())
        }
        _ => {
            text.push('{');
            for index in 0..plan.int_in_range(0..=4)? {
                if index > 0 {
                    text.push(',');
                }
                member(plan, text, depth - 1)?;
            }
            text.push('}');
            Ok(())
        }
    }
}

fn scalar(plan: &mut Unstructured<'_>, text: &mut String) -> Result<()> {
    if plan.ratio(1, 6)? {
        let any: &str = plan.arbitrary()?;
        text.push_str(&serde_json::to_string(any).expect("a string is JSON"));
    } else {
        text.push_str(plan.choose(&SCALARS)?);
    }
    Ok(())
}

fn white_space(plan: &mut Unstructured<'_>, text: &mut String) -> Result<()> {
    text.push_str(plan.choose(&WHITE_SPACE)?);
    Ok(())
}

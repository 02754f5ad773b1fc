//! A time in UTC, as text. Such texts sort by time, so nothing here converts them to numbers.

use std::{str::FromStr, time::SystemTime};

use aws_sdk_sqs::primitives::{DateTime, DateTimeFormat};
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// The form of a complete time, as in an archive header.
const FORM: &str = "0000-00-00T00:00:00.000Z";
/// The largest two digits at a place of the form.
const MAXIMA: [(usize, u8); 5] = [(5, 12), (8, 31), (11, 23), (14, 59), (17, 59)];

/// A time in UTC, in the form `2026-01-02T03:04:05.678Z`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub struct Time(String);

/// The text is not a time.
#[derive(Debug, Error)]
#[error("not a time in UTC such as 2026-01-02, 2026-01-02T03 or 2026-01-02T03:04:05Z")]
pub struct TimeError;

impl Time {
    /// Returns the current time.
    #[must_use]
    pub fn now() -> Self {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let seconds = DateTime::from_secs(i64::try_from(now.as_secs()).unwrap_or_default());
        let seconds = seconds.fmt(DateTimeFormat::DateTime).unwrap_or_default();
        Self(format!("{}.{:03}Z", seconds.trim_end_matches('Z'), now.subsec_millis()))
    }

    /// Returns the text, with milliseconds.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the text without milliseconds.
    #[must_use]
    pub fn to_seconds(&self) -> String {
        format!("{}Z", &self.0[..19])
    }

    /// Returns the date.
    #[must_use]
    pub fn date(&self) -> &str {
        &self.0[..10]
    }
}

impl FromStr for Time {
    type Err = TimeError;

    /// Reads a date, or a date with a time of any precision. Missing parts are zero.
    fn from_str(text: &str) -> Result<Self, TimeError> {
        let text = text.strip_suffix('Z').unwrap_or(text);
        let is_complete_part = matches!(text.len(), 10 | 13 | 16 | 19 | 23);
        let has_form = text.bytes().zip(FORM.bytes()).all(|(byte, form)| match form {
            b'0' => byte.is_ascii_digit(),
            _ => byte == form,
        });
        if !is_complete_part || !has_form {
            return Err(TimeError);
        }
        let is_in_range = |(at, max): (usize, u8)| {
            text.get(at..at + 2).is_none_or(|part| part.parse::<u8>().is_ok_and(|part| part <= max))
        };
        let has_day = text[5..7] != *"00" && text[8..10] != *"00";
        if !has_day || !MAXIMA.into_iter().all(is_in_range) {
            return Err(TimeError);
        }
        Ok(Self(format!("{text}{}", &FORM[text.len()..])))
    }
}

impl TryFrom<String> for Time {
    type Error = TimeError;

    fn try_from(text: String) -> Result<Self, TimeError> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_parts_of_a_time_are_zero() {
        for (text, expected) in [
            ("2026-01-02", "2026-01-02T00:00:00.000Z"),
            ("2026-12-31T23", "2026-12-31T23:00:00.000Z"),
            ("2026-01-02T03:04", "2026-01-02T03:04:00.000Z"),
            ("2026-01-02T03:04:05Z", "2026-01-02T03:04:05.000Z"),
            ("2026-01-02T03:04:05.678Z", "2026-01-02T03:04:05.678Z"),
        ] {
            assert_eq!(text.parse::<Time>().unwrap().as_str(), expected);
        }
    }

    #[test]
    fn other_text_is_not_a_time() {
        for text in [
            "",
            "Z",
            "2026",
            "2026-01",
            "2026-00-01",
            "2026-01-00",
            "2026-13-01",
            "2026-01-32",
            "2026-01-02T24",
            "2026-01-02T03:60",
            "2026-01-02 03:04",
            "2026-01-02T03:04+01:00",
            "2026-01-02T03:04:05.6",
            "2026-01-02T03:04:05.678ZZ",
            "2026-01-0\u{661}",
        ] {
            assert!(text.parse::<Time>().is_err(), "{text}");
        }
    }

    #[test]
    fn now_has_the_form_of_a_time() {
        let now = Time::now();
        assert_eq!(now.as_str().parse::<Time>().unwrap(), now);
        assert_eq!(now.to_seconds().len(), "2026-01-02T03:04:05Z".len());
        assert!(now > "2026-01-02".parse().unwrap());
    }
}

//! Moments, lengths of time and sizes as they are typed. What could be meant in two ways is refused, with an example.

use std::time::Duration;

use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};

/// Fewer milliseconds than these since 1970 are more likely seconds: they end in March 1973.
const EPOCH_MS_MIN: u64 = 100_000_000_000;
/// The longest that anything takes.
const LONG: Duration = Duration::from_hours(24 * 365);
/// The largest record that any server takes.
const RECORD_BYTES_MAX: u64 = 32 << 20;

/// A moment in milliseconds since 1970, rounded up to a whole one: RFC 3339 with its offset from UTC, a date, which begins in UTC, or
/// the milliseconds themselves.
pub(crate) fn moment(text: &str) -> Result<u64, String> {
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return epoch_ms(text);
    }
    if text.len() == "2026-11-28".len()
        && let Ok(date) = text.parse::<Date>()
    {
        let begin: Zoned = date.to_zoned(TimeZone::UTC).map_err(|error| error.to_string())?;
        return Ok(ms_of(begin.timestamp()));
    }
    text.parse::<Timestamp>().map(ms_of).map_err(|_| {
        if text.parse::<DateTime>().is_ok() {
            return format!("its offset from UTC is missing: write {text}Z, or an offset such as {text}+02:00");
        }
        "a moment such as 2026-11-28T12:00:00+02:00 or 2026-11-28T10:00:00Z is expected, a date such as 2026-11-28, which begins in \
         UTC, or milliseconds since 1970 such as 1795860000000"
            .to_owned()
    })
}

fn epoch_ms(text: &str) -> Result<u64, String> {
    let ms: u64 = text.parse().map_err(|_| "it is too large for milliseconds since 1970".to_owned())?;
    if ms == 0 || ms >= EPOCH_MS_MIN {
        return Ok(ms);
    }
    Err(format!("milliseconds since 1970 are expected, and these end before 1974: if it is seconds, write {text}000"))
}

/// No record is older than 1970.
fn ms_of(timestamp: Timestamp) -> u64 {
    let nanos = timestamp.as_nanosecond();
    u64::try_from(nanos.max(0)).map_or(u64::MAX, |nanos| nanos.div_ceil(1_000_000))
}

/// A length of time.
pub(crate) fn span(text: &str) -> Result<Duration, String> {
    let span: Result<humantime::Duration, _> = text.parse();
    span.map(Into::into)
        .map_err(|error| format!("{error}: a length of time such as 500ms, 90s, 15m or 36h is expected"))
}

/// A length of time within bounds.
fn within(text: &str, min: Duration, max: Duration) -> Result<Duration, String> {
    let found = span(text)?;
    if (min..=max).contains(&found) {
        return Ok(found);
    }
    Err(format!("it must be from {} to {}", humantime::format_duration(min), humantime::format_duration(max)))
}

/// The time for which something goes on.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    within(text, Duration::from_millis(1), LONG)
}

/// The length of a window of a measurement.
pub(crate) fn window(text: &str) -> Result<Duration, String> {
    within(text, Duration::from_millis(10), LONG)
}

/// A leader's silence.
pub(crate) fn detection_time(text: &str) -> Result<Duration, String> {
    within(text, zue_controller::DETECTION_TIME_MIN, zue_controller::DETECTION_TIME_MAX)
}

/// The time in which no controller has acted.
pub(crate) fn standby_after(text: &str) -> Result<Duration, String> {
    within(text, zue_controller::STANDBY_AFTER_MIN, zue_controller::STANDBY_AFTER_MAX)
}

/// The bytes of a value: a number, or a size such as 4KiB.
pub(crate) fn value_bytes(text: &str) -> Result<u32, String> {
    let bytes = match text.parse::<u64>() {
        Ok(bytes) => bytes,
        Err(_) => text.parse::<zue_settings::ByteSize>().map_err(|error| error.to_string())?.0,
    };
    let is_in = |bytes: &u32| u64::from(*bytes) <= RECORD_BYTES_MAX;
    u32::try_from(bytes).ok().filter(is_in).ok_or_else(|| "it must be 32MiB at most".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOON: u64 = 1_795_860_000_000;

    #[test]
    fn one_moment_is_the_same_however_its_offset_is_written() {
        for text in [
            "2026-11-28T12:00:00+02:00",
            "2026-11-28T10:00:00Z",
            "2026-11-28t10:00:00z",
            "2026-11-28 10:00:00+00:00",
            "2026-11-28T05:00:00-05:00",
            "2026-11-28T23:45:00.000+13:45",
            "2026-11-28T10:00:00,000000000+00:00",
            "2026-11-28T12:00+02:00",
            "1795860000000",
        ] {
            assert_eq!(moment(text), Ok(NOON), "{text}");
        }
    }

    #[test]
    fn a_date_begins_in_utc_and_nothing_is_older_than_1970() {
        assert_eq!(moment("2026-11-28"), Ok(NOON - 10 * 3_600_000));
        assert_eq!((moment("1969-07-20T20:17:40Z"), moment("0")), (Ok(0), Ok(0)));
    }

    #[test]
    fn a_part_of_a_millisecond_is_rounded_up() {
        assert_eq!(moment("2026-11-28T10:00:00.000000001Z"), Ok(NOON + 1));
        assert_eq!(moment("2026-11-28T10:00:00.001Z"), Ok(NOON + 1));
    }

    #[test]
    fn what_could_mean_several_moments_is_refused_with_an_example() {
        for (text, example) in [
            ("2026-11-28T12:00:00", "2026-11-28T12:00:00Z"),
            ("2026-11-28 12:00:00", "+02:00"),
            ("1795860000", "1795860000000"),
            ("yesterday", "2026-11-28T12:00:00+02:00"),
            ("2026-13-01", "2026-11-28"),
            ("2026-02-30T00:00:00Z", "2026-11-28"),
            ("28.11.2026", "2026-11-28"),
            ("12:00", "2026-11-28T10:00:00Z"),
            ("", "2026-11-28"),
            ("99999999999999999999", "too large"),
            ("-5", "1970"),
        ] {
            let error = moment(text).unwrap_err();
            assert!(error.contains(example), "{text}: {error}");
        }
    }

    #[test]
    fn lengths_of_time_and_sizes_have_bounds_and_their_errors_examples() {
        assert_eq!(span("1h 30m"), Ok(Duration::from_mins(90)));
        assert!(span("15").unwrap_err().contains("15m"));
        assert!(duration("0s").is_err() && duration("90000y").is_err() && duration("1s").is_ok());
        assert!(window("9ms").unwrap_err().contains("10ms"));
        assert_eq!((value_bytes("4KiB"), value_bytes("100")), (Ok(4096), Ok(100)));
        assert!(value_bytes("33MiB").is_err() && value_bytes("1 KB").unwrap_err().contains("KiB"));
    }
}

//! Sizes and times as people write them: `"64MiB"`, `"500ms"`. One number, one unit.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;
use std::str::FromStr;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::Visitor;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

pub(crate) const KIB: u64 = 1 << 10;
pub(crate) const MIB: u64 = 1 << 20;
pub(crate) const GIB: u64 = 1 << 30;

/// A number of bytes, written as `"64MiB"`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct ByteSize(pub u64);

/// A length of time in whole milliseconds, written as `"500ms"`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Time(pub Duration);

const SIZE_UNITS: [(&str, u64); 4] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];
const TIME_UNITS: [(&str, u64); 4] = [("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];

/// A text that is no size or time.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BadUnit {
    /// No size.
    #[error("{0:?} is not a size: write a whole number and B, KiB, MiB or GiB, as in \"64MiB\"")]
    Size(String),
    /// No length of time.
    #[error("{0:?} is not a duration: write a whole number and ms, s, m or h, as in \"500ms\"")]
    Time(String),
}

/// The number times its unit.
fn parse(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let digits_end = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(digits_end);
    let (_, factor) = units.iter().find(|(name, _)| *name == unit)?;
    number.parse::<u64>().ok()?.checked_mul(*factor)
}

/// The number in the largest unit that leaves no rest.
fn write(f: &mut fmt::Formatter<'_>, value: u64, mut units: Vec<(&'static str, u64)>) -> fmt::Result {
    units.sort_by_key(|(_, factor)| std::cmp::Reverse(*factor));
    let fits = |(_, factor): &&(&str, u64)| value.is_multiple_of(*factor) && (value > 0 || *factor == 1);
    let (unit, factor) = units.iter().find(fits).copied().unwrap_or(("", 1));
    write!(f, "{}{unit}", value / factor)
}

impl FromStr for ByteSize {
    type Err = BadUnit;

    fn from_str(text: &str) -> Result<Self, BadUnit> {
        parse(text, &SIZE_UNITS).map(Self).ok_or_else(|| BadUnit::Size(text.to_owned()))
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write(f, self.0, SIZE_UNITS.to_vec())
    }
}

impl ByteSize {
    /// As a length in memory; one that no memory holds is the greatest there is.
    pub fn length(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

impl Time {
    /// A number of milliseconds.
    pub const fn from_millis(ms: u64) -> Self {
        Self(Duration::from_millis(ms))
    }

    /// In milliseconds.
    pub fn millis(self) -> u64 {
        u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX)
    }
}

impl FromStr for Time {
    type Err = BadUnit;

    fn from_str(text: &str) -> Result<Self, BadUnit> {
        parse(text, &TIME_UNITS).map(Self::from_millis).ok_or_else(|| BadUnit::Time(text.to_owned()))
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write(f, self.millis(), TIME_UNITS.to_vec())
    }
}

/// Takes what is written as text.
struct Text<T>(PhantomData<T>);

impl<T: FromStr<Err = BadUnit>> Visitor<'_> for Text<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text of a number and a unit, as in \"64MiB\" or \"500ms\"")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<T, E> {
        text.parse().map_err(E::custom)
    }
}

macro_rules! text_in_files {
    ($type:ty, $pattern:literal) => {
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                // Through a visitor, so that the error names the field.
                deserializer.deserialize_str(Text(PhantomData))
            }
        }

        impl JsonSchema for $type {
            fn schema_name() -> Cow<'static, str> {
                stringify!($type).into()
            }

            fn inline_schema() -> bool {
                true
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": "string", "pattern": $pattern, "maxLength": 24 })
            }
        }
    };
}

text_in_files!(ByteSize, "^[0-9]+(B|KiB|MiB|GiB)$");
text_in_files!(Time, "^[0-9]+(ms|s|m|h)$");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_and_a_time_survive_their_text() {
        for text in ["64MiB", "1GiB", "4KiB", "4097B", "0B"] {
            assert_eq!(text.parse::<ByteSize>().unwrap().to_string(), text);
        }
        for text in ["500ms", "2s", "1m", "90s", "3h", "0ms"] {
            assert_eq!(text.parse::<Time>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn what_is_no_size_or_time_is_refused_with_what_to_write() {
        for text in
            ["", "64", "64MB", "MiB", "-1B", "1.5MiB", "64 MiB", "99999999999999999999B", "18446744073709551615KiB"]
        {
            assert_eq!(text.parse::<ByteSize>(), Err(BadUnit::Size(text.to_owned())));
        }
        for text in ["", "5", "5 s", "5sec", "1us", "1h30m"] {
            assert_eq!(text.parse::<Time>(), Err(BadUnit::Time(text.to_owned())));
        }
    }
}

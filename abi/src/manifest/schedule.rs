use std::fmt;
use std::time::Duration;

use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::limits::Span;

/// The shortest interval: jobs are no loops.
const SHORTEST: Duration = Duration::from_secs(1);

/// The most bytes in the name of a job: hosts keep by it when the job was due.
const NAME: usize = 128;

/// Whether a job can be named so.
pub(super) fn check_name(name: &str) -> Result<(), String> {
    match (1..=NAME).contains(&name.len()) && !name.chars().any(char::is_control) {
        true => Ok(()),
        false => Err(format!("the name of a job has 1 to {NAME} bytes, and no control characters")),
    }
}

/// `[schedule.NAME]`: work that the extension does by the clock.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Job {
    /// The exported method that is called. Its argument is a map: `job`, the name; `due`, when it was due
    /// (RFC 3339, in UTC); `missed`, how many times before that it was not called.
    pub method: String,
    /// When: five fields, for minute, hour, day of the month, month and day of the week, as in crontab(5).
    /// This or `every`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cron: Option<CronText>,
    /// How often, from the first load on: `"10min"`. One second at least.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub every: Option<Span>,
    /// The time zone of `cron`, by its IANA name; `"UTC"` if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timezone: Option<String>,
    /// How much later than due a call may begin: a random part of this is waited, so that not all of them
    /// begin at the full minute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jitter: Option<Span>,
    /// What becomes of a call that is due while the one before it is under way.
    #[serde(default)]
    pub overlap: Overlap,
    /// What becomes of calls that could not be made when they were due: the extension was paused, or the
    /// host or the machine was not running.
    #[serde(default)]
    pub missed: Missed,
    /// How long a call may take; what `[limits] call-timeout` says if it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<Span>,
}

/// What becomes of a call that is due while the one before it is under way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Overlap {
    /// It is left out.
    #[default]
    Skip,
    /// It waits until that has ended. One waits; more are left out.
    Wait,
    /// It begins beside it.
    Allow,
}

/// What becomes of calls that could not be made when they were due.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Missed {
    /// They are left out.
    #[default]
    Skip,
    /// One call is made for all of them.
    Once,
}

/// An expression of crontab(5) with five fields, or a nickname such as `@daily`.
#[derive(Clone, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct CronText(Box<Cron>, String);

/// When a job is due.
#[derive(Debug, Clone)]
pub enum Timing {
    /// By the calendar of a time zone.
    Cron(CronText, TimeZone),
    /// So often.
    Every(Duration),
}

impl Job {
    /// The rules that look at more than one key.
    ///
    /// # Errors
    /// The key to blame, and why.
    pub fn check(&self) -> Result<(), (&'static str, String)> {
        match (&self.cron, &self.every) {
            (Some(_), Some(_)) => return Err(("every", "expected cron or every, not both".into())),
            (None, None) => return Err(("method", "expected cron or every beside it".into())),
            (None, Some(every)) if every.0 < SHORTEST => {
                return Err(("every", format!("expected \"1s\" or more, not \"{every}\"")));
            }
            _ => {}
        }
        if self.timezone.is_some() && self.cron.is_none() {
            return Err(("timezone", "it is for cron alone".into()));
        }
        if self.deadline.is_some_and(|deadline| deadline.0.is_zero()) {
            return Err(("deadline", "nothing is done in no time".into()));
        }
        self.timing().map(drop)
    }

    /// When it is due.
    ///
    /// # Errors
    /// The key to blame, and why: for a time zone that nobody knows.
    pub fn timing(&self) -> Result<Timing, (&'static str, String)> {
        if let Some(Span(every)) = self.every {
            return Ok(Timing::Every(every));
        }
        let name = self.timezone.as_deref().unwrap_or("UTC");
        let zone = TimeZone::get(name).map_err(|_| {
            ("timezone", format!("{name:?} is no time zone: expected a name such as \"Europe/Berlin\""))
        })?;
        match &self.cron {
            Some(cron) => Ok(Timing::Cron(cron.clone(), zone)),
            None => Err(("method", "expected cron or every beside it".into())),
        }
    }
}

impl Timing {
    /// The first time after `time`; `None` if there is none any more.
    pub fn after(&self, time: Timestamp) -> Option<Timestamp> {
        match self {
            Self::Cron(CronText(cron, _), zone) => {
                let next = cron.find_next_occurrence(&time.to_zoned(zone.clone()), false).ok()?;
                Some(next.timestamp())
            }
            Self::Every(every) => time.checked_add(*every).ok(),
        }
    }

    /// The last time that is not later than `now`, counted on from `time`; `None` if there is none after that.
    pub fn latest(&self, time: Timestamp, now: Timestamp) -> Option<Timestamp> {
        let first = self.after(time).filter(|first| *first <= now)?;
        match self {
            Self::Cron(CronText(cron, _), zone) => {
                let last = cron.find_previous_occurrence(&now.to_zoned(zone.clone()), true).ok()?;
                Some(last.timestamp().max(first))
            }
            Self::Every(every) => {
                let times = now.duration_since(time).as_nanos() / i128::try_from(every.as_nanos()).ok()?;
                let since = every.checked_mul(u32::try_from(times).ok()?)?;
                time.checked_add(since).ok()
            }
        }
    }
}

impl fmt::Display for CronText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.1)
    }
}

impl fmt::Debug for CronText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.1)
    }
}

impl PartialEq for CronText {
    fn eq(&self, other: &Self) -> bool {
        self.1 == other.1
    }
}

impl TryFrom<String> for CronText {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let parser = CronParser::builder().seconds(Seconds::Disallowed).year(Year::Disallowed).build();
        match parser.parse(&text) {
            Ok(cron) => Ok(Self(Box::new(cron), text)),
            Err(error) => Err(format!(
                "{text:?} is no time for cron: {error}; expected five fields, such as \"30 3 * * *\" for half past three every day"
            )),
        }
    }
}

impl From<CronText> for String {
    fn from(text: CronText) -> Self {
        text.1
    }
}

impl JsonSchema for CronText {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Cron".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "string", "examples": ["30 3 * * *", "@daily"] })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(more: &str) -> Result<Job, String> {
        let job: Job =
            toml::from_str(&format!("method = 'm'\n{more}")).map_err(|error| error.message().to_owned())?;
        job.check().map_err(|(key, why)| format!("{key}: {why}"))?;
        Ok(job)
    }

    #[test]
    fn what_is_no_job() {
        for (more, why) in [
            ("", "method: expected cron or every"),
            ("cron = '@daily'\nevery = '1h'", "every: expected cron or every, not both"),
            ("every = '999ms'", "every: expected \"1s\" or more"),
            ("every = '1 hour'", "is no time span"),
            ("every = '1h'\ntimezone = 'UTC'", "timezone: it is for cron alone"),
            ("cron = '@daily'\ntimezone = 'Mars/Olympus'", "timezone: \"Mars/Olympus\" is no time zone"),
            ("cron = 'noon'", "is no time for cron"),
            ("cron = '* * * * * *'", "is no time for cron"),
            ("cron = '61 * * * *'", "is no time for cron"),
            ("cron = '@daily'\ndeadline = '0s'", "deadline: nothing is done in no time"),
            ("cron = '@daily'\noverlap = 'queue'", "unknown variant `queue`"),
            ("cron = '@daily'\nmissed = 'all'", "unknown variant `all`"),
            ("cron = '@daily'\nat = 'noon'", "unknown field `at`"),
        ] {
            let error = job(more).unwrap_err();
            assert!(error.contains(why), "{more}: {error}");
        }
    }

    #[test]
    fn what_is_no_name() {
        let [longest, longer] = [NAME, NAME + 1].map(|size| "x".repeat(size));
        for (name, fits) in [
            ("tidy", true),
            ("at night", true),
            (&longest, true),
            (&longer, false),
            ("", false),
            ("a\nb", false),
        ] {
            assert_eq!(check_name(name).is_ok(), fits, "{name:?}");
        }
    }

    #[test]
    fn when_it_is_due() {
        let time = |text: &str| text.parse::<Timestamp>().unwrap();
        for (more, from, expected) in [
            ("cron = '30 3 * * *'", "2026-01-01T00:00:00Z", "2026-01-01T03:30:00Z"),
            ("cron = '30 3 * * *'", "2026-01-01T03:30:00Z", "2026-01-02T03:30:00Z"),
            ("cron = '*/15 * * * MON-FRI'", "2026-01-02T23:46:00Z", "2026-01-05T00:00:00Z"),
            ("cron = '0 0 29 2 *'", "2026-01-01T00:00:00Z", "2028-02-29T00:00:00Z"),
            ("cron = '@monthly'", "2026-01-01T00:00:00Z", "2026-02-01T00:00:00Z"),
            ("cron = '0 9 * * *'\ntimezone = 'Asia/Kolkata'", "2026-01-01T00:00:00Z", "2026-01-01T03:30:00Z"),
            // The clocks went forward in between.
            (
                "cron = '0 12 * * *'\ntimezone = 'Europe/Berlin'",
                "2026-03-28T12:00:00Z",
                "2026-03-29T10:00:00Z",
            ),
            ("every = '90s'", "2026-01-01T00:00:07Z", "2026-01-01T00:01:37Z"),
        ] {
            let timing = job(more).unwrap().timing().unwrap();
            assert_eq!(timing.after(time(from)), Some(time(expected)), "{more} after {from}");
            assert_eq!(timing.latest(time(from), time(expected)), Some(time(expected)), "{more}");
            let early = time(expected) - std::time::Duration::from_secs(1);
            assert_eq!(timing.latest(time(from), early), None, "{more}");
        }
    }

    #[test]
    fn written_out_it_reads_back() {
        let job =
            job("cron = '0 12 * * *'\ntimezone = 'Europe/Berlin'\njitter = '30s'\nmissed = 'once'").unwrap();
        let json = serde_json::to_value(&job).unwrap();
        assert_eq!(json["cron"], "0 12 * * *");
        assert_eq!(serde_json::from_value::<Job>(json).unwrap(), job);
    }
}

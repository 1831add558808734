//! The only reader of clocks. State machines take the time as an argument; shells ask here.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use crate::types::TimestampMs;

/// Where shells read the time: the system's clocks, or a test's.
#[derive(Clone, Debug)]
pub struct Clock(Source);

#[derive(Clone, Debug)]
enum Source {
    System { start: Instant },
    Manual(Arc<AtomicI64>),
}

impl Clock {
    pub fn system() -> Self {
        Self(Source::System {
            start: Instant::now(),
        })
    }

    /// A clock that stands still until [`Clock::advance`] moves it.
    pub fn manual(now_ms: TimestampMs) -> Self {
        Self(Source::Manual(Arc::new(AtomicI64::new(now_ms))))
    }

    /// Milliseconds since the Unix epoch. May jump; use it for timestamps that leave the process.
    pub fn wall_ms(&self) -> TimestampMs {
        match &self.0 {
            Source::System { .. } => SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0, |since| since.as_millis() as i64),
            Source::Manual(now) => now.load(Ordering::Relaxed),
        }
    }

    /// Milliseconds since some fixed point; never jumps. Use it for timeouts.
    pub fn monotonic_ms(&self) -> i64 {
        match &self.0 {
            Source::System { start } => start.elapsed().as_millis() as i64,
            Source::Manual(now) => now.load(Ordering::Relaxed),
        }
    }

    /// Moves a manual clock; the system's cannot be moved.
    pub fn advance(&self, by_ms: i64) {
        match &self.0 {
            Source::System { .. } => panic!("only a manual clock can be advanced"),
            Source::Manual(now) => {
                now.fetch_add(by_ms, Ordering::Relaxed);
            }
        }
    }
}

/// A point in time as people read it, in UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Civil {
    year: i64,
    month: usize,
    day: i64,
    weekday: usize,
    hour: i64,
    minute: i64,
    second: i64,
    ms: i64,
}

/// Proleptic Gregorian calendar (Howard Hinnant's days-to-civil).
fn civil(wall_ms: TimestampMs) -> Civil {
    let days = wall_ms.div_euclid(86_400_000);
    let in_day = wall_ms.rem_euclid(86_400_000);
    let shifted = days + 719_468; // days since 0000-03-01
    let era = shifted.div_euclid(146_097);
    let of_era = shifted.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * of_year + 2) / 153;
    let month = if from_march < 10 {
        from_march + 3
    } else {
        from_march - 9
    };
    Civil {
        year: year_of_era + era * 400 + i64::from(month <= 2),
        month: month as usize,
        day: of_year - (153 * from_march + 2) / 5 + 1,
        weekday: (days + 4).rem_euclid(7) as usize,
        hour: in_day / 3_600_000,
        minute: in_day / 60_000 % 60,
        second: in_day / 1_000 % 60,
        ms: in_day % 1_000,
    }
}

/// The form of `java.util.Date.toString`, as properties files carry it: `Mon Nov 23 22:34:27 UTC 2026`.
pub fn date_text(wall_ms: TimestampMs) -> String {
    const DAYS: [&str; 7] = ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"];
    const MONTHS: [&str; 12] = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    let c = civil(wall_ms);
    format!(
        "{} {} {:02} {:02}:{:02}:{:02} UTC {}",
        DAYS[c.weekday],
        MONTHS[c.month - 1],
        c.day,
        c.hour,
        c.minute,
        c.second,
        c.year
    )
}

/// The form of Kafka's log lines: `2026-11-23 22:34:27,123`.
pub fn log_time_text(wall_ms: TimestampMs) -> String {
    let c = civil(wall_ms);
    format!(
        "{:04}-{:02}-{:02} {:02}:{:02}:{:02},{:03}",
        c.year, c.month, c.day, c.hour, c.minute, c.second, c.ms
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        assert_eq!(log_time_text(0), "1970-01-01 00:00:00,000");
        assert_eq!(date_text(1_795_473_267_123), "Mon Nov 23 22:34:27 UTC 2026");
        assert_eq!(log_time_text(951_782_400_000), "2000-02-29 00:00:00,000");
        assert_eq!(log_time_text(-1), "1969-12-31 23:59:59,999");
    }
}

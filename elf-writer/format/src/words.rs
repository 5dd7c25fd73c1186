//! Numbers in words, for those who tell of an image.

use core::fmt;

/// Seconds since the epoch, shown as `YYYY-MM-DD hh:mm:ss UTC`.
#[derive(Clone, Copy, Debug)]
pub struct Utc(pub u64);

impl fmt::Display for Utc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (days, secs) = (self.0 / 86400, self.0 % 86400);
        // Days from March 1 of year 0, in eras of 400 years (Hinnant, "chrono-compatible low-level
        // date algorithms", civil_from_days).
        let z = days + 719_468;
        let (era, doe) = (z / 146_097, z % 146_097);
        let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
        let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
        let mp = (5 * doy + 2) / 153;
        let day = doy - (153 * mp + 2) / 5 + 1;
        let month = if mp < 10 { mp + 3 } else { mp - 9 };
        let year = yoe + era * 400 + u64::from(month <= 2);
        let (h, m, s) = (secs / 3600, secs / 60 % 60, secs % 60);
        write!(f, "{year:04}-{month:02}-{day:02} {h:02}:{m:02}:{s:02} UTC")
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::Utc;
    use std::string::ToString;

    #[test]
    fn dates() {
        assert_eq!(Utc(0).to_string(), "1970-01-01 00:00:00 UTC");
        assert_eq!(Utc(951_827_696).to_string(), "2000-02-29 12:34:56 UTC");
        assert_eq!(Utc(1_795_217_945).to_string(), "2026-11-20 23:39:05 UTC");
    }
}

//! Dates for `strftime_now`. The time is given by the caller; nothing here reads a clock.

/// A time of day on a date of the calendar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Moment {
    year: i64,
    /// From 1.
    month: usize,
    /// From 1.
    day: i64,
    /// From 1.
    day_of_year: i64,
    /// From 0, which is Sunday.
    weekday: usize,
    hour: i64,
    minute: i64,
    second: i64,
}

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const WEEKDAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];

impl Moment {
    /// The moment so many seconds after the start of 1970, by the calendar of today.
    fn new(seconds: i64) -> Moment {
        let (days, second_of_day) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
        // Years of 400 repeat; within them count from the 1st of March, so that the leap day is the last one.
        let from_march = days + 719_468;
        let (era, day_of_era) = (from_march.div_euclid(146_097), from_march.rem_euclid(146_097));
        let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_from_march = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let month_from_march = (5 * day_from_march + 2) / 153;
        let day = day_from_march - (153 * month_from_march + 2) / 5 + 1;
        let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
        let year = year_of_era + 400 * era + i64::from(month <= 2);
        let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
        let before_march = if month <= 2 { day_from_march - 306 } else { day_from_march + 59 + i64::from(leap) };
        Moment {
            year,
            month: month as usize,
            day,
            day_of_year: before_march + 1,
            weekday: (days + 4).rem_euclid(7) as usize,
            hour: second_of_day / 3_600,
            minute: second_of_day / 60 % 60,
            second: second_of_day % 60,
        }
    }

    /// What one letter of a format stands for.
    fn field(&self, letter: char) -> Option<String> {
        let hour_12 = (self.hour + 11) % 12 + 1;
        Some(match letter {
            'Y' => self.year.to_string(),
            'y' => format!("{:02}", self.year.rem_euclid(100)),
            'm' => format!("{:02}", self.month),
            'B' => MONTHS[self.month - 1].into(),
            'b' | 'h' => MONTHS[self.month - 1][..3].into(),
            'd' => format!("{:02}", self.day),
            'e' => format!("{:2}", self.day),
            'j' => format!("{:03}", self.day_of_year),
            'A' => WEEKDAYS[self.weekday].into(),
            'a' => WEEKDAYS[self.weekday][..3].into(),
            'w' => self.weekday.to_string(),
            'H' => format!("{:02}", self.hour),
            'I' => format!("{hour_12:02}"),
            'M' => format!("{:02}", self.minute),
            'S' => format!("{:02}", self.second),
            'p' => if self.hour < 12 { "AM" } else { "PM" }.into(),
            'D' => format!("{:02}/{:02}/{:02}", self.month, self.day, self.year.rem_euclid(100)),
            'F' => format!("{}-{:02}-{:02}", self.year, self.month, self.day),
            'T' => format!("{:02}:{:02}:{:02}", self.hour, self.minute, self.second),
            'R' => format!("{:02}:{:02}", self.hour, self.minute),
            'f' => "000000".into(),
            'z' | 'Z' => String::new(),
            '%' => "%".into(),
            'n' => "\n".into(),
            't' => "\t".into(),
            _ => return None,
        })
    }
}

/// A moment in the words of a format of C's `strftime`. `-` before a letter takes leading zeros away; a letter that is
/// not known stays as it is.
pub(super) fn strftime(seconds: i64, format: &str) -> String {
    let moment = Moment::new(seconds.clamp(-1 << 40, 1 << 40));
    let mut out = String::new();
    let mut chars = format.chars().peekable();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let bare = chars.next_if_eq(&'-').is_some();
        let Some(letter) = chars.next() else {
            out.push('%');
            break;
        };
        match moment.field(letter) {
            Some(text) if bare => {
                let trimmed = text.trim_start_matches(['0', ' ']);
                out.push_str(if trimmed.is_empty() { "0" } else { trimmed });
            }
            Some(text) => out.push_str(&text),
            None => out.extend(['%', letter]),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_of_the_calendar() {
        let cases = [
            (0, "1970-01-01 00:00:00 Thu 001"),
            (951_782_400, "2000-02-29 00:00:00 Tue 060"),
            (1_721_995_199, "2024-07-26 11:59:59 Fri 208"),
            (1_735_689_599, "2024-12-31 23:59:59 Tue 366"),
            (-1, "1969-12-31 23:59:59 Wed 365"),
            (4_107_542_400, "2100-03-01 00:00:00 Mon 060"),
        ];
        for (seconds, expected) in cases {
            assert_eq!(strftime(seconds, "%Y-%m-%d %H:%M:%S %a %j"), expected);
        }
    }

    #[test]
    fn formats_of_templates() {
        assert_eq!(strftime(1_721_995_199, "%d %b %Y"), "26 Jul 2024");
        assert_eq!(
            strftime(1_720_000_000, "%B %-d, %Y at %I:%M %p, %A%%%Q%"),
            "July 3, 2024 at 09:46 AM, Wednesday%%Q%"
        );
    }
}

//! Decimal text to a whole number of units of its last digit, and back. Exact: no float in between.
//!
//! Knows neither records nor columns. Invariant: what [`write()`] makes of a value within a precision, [`parse`] reads as
//! the same value.

/// Reads `-12.30`, also with an exponent (`1.23e1`), as the number of `10^-scale`. Zeros beyond the scale are no digits
/// lost and pass. `Err` continues a sentence that begins with the text.
pub fn parse(text: &str, precision: u8, scale: i8) -> Result<i128, String> {
    let written = Written::read(text).ok_or("is not a decimal number")?;
    let digits = written.digits();
    // The place of the last digit, counted from the last one that the type keeps.
    let shift = i64::from(scale) - written.fraction + written.exponent;
    let (kept, dropped) = match usize::try_from(-shift) {
        Ok(drop) if drop > 0 => digits.split_at(digits.len().saturating_sub(drop)),
        _ => (&digits[..], &[][..]),
    };
    if dropped.iter().any(|&digit| digit != b'0') {
        return Err(format!(
            "has more than {scale} digits behind the point (decimal({precision},{scale}))"
        ));
    }
    let kept = &kept[kept.iter().take_while(|&&d| d == b'0').count()..];
    if kept.is_empty() {
        return Ok(0);
    }
    let zeros = usize::try_from(shift.max(0)).unwrap_or(usize::MAX);
    if kept.len().saturating_add(zeros) > usize::from(precision) {
        let whole = i64::from(precision) - i64::from(scale);
        return Err(format!(
            "has more than {whole} digits before the point (decimal({precision},{scale}))"
        ));
    }
    let value = kept
        .iter()
        .fold(0_i128, |value, digit| value * 10 + i128::from(digit - b'0'));
    let value = value * 10_i128.pow(zeros as u32);
    Ok(if written.negative { -value } else { value })
}

/// Appends `value` units of `10^-scale` with all digits of the scale: `-0.05`.
pub fn write(value: i128, scale: i8, out: &mut Vec<u8>) {
    if value < 0 {
        out.push(b'-');
    }
    let mut buffer = itoa::Buffer::new();
    let digits = buffer.format(value.unsigned_abs()).as_bytes();
    let Ok(scale) = usize::try_from(scale) else {
        out.extend_from_slice(digits);
        if value != 0 {
            out.resize(out.len() + usize::from(scale.unsigned_abs()), b'0');
        }
        return;
    };
    if scale == 0 {
        out.extend_from_slice(digits);
        return;
    }
    let whole = digits.len().saturating_sub(scale);
    match whole {
        0 => out.push(b'0'),
        _ => out.extend_from_slice(&digits[..whole]),
    }
    out.push(b'.');
    out.resize(out.len() + scale - (digits.len() - whole), b'0');
    out.extend_from_slice(&digits[whole..]);
}

/// A number as it is written.
struct Written<'t> {
    negative: bool,
    before: &'t [u8],
    behind: &'t [u8],
    /// How many digits stand behind the point.
    fraction: i64,
    exponent: i64,
}

impl<'t> Written<'t> {
    fn read(text: &'t str) -> Option<Self> {
        let (negative, rest) = match text.as_bytes() {
            [b'-', rest @ ..] => (true, rest),
            [b'+', rest @ ..] => (false, rest),
            rest => (false, rest),
        };
        let (before, rest) = digits(rest);
        let (behind, rest) = match rest {
            [b'.', rest @ ..] => digits(rest),
            _ => (&[][..], rest),
        };
        if before.is_empty() && behind.is_empty() {
            return None;
        }
        Some(Self {
            negative,
            before,
            behind,
            fraction: behind.len() as i64,
            exponent: exponent(rest)?,
        })
    }

    fn digits(&self) -> Vec<u8> {
        [self.before, self.behind].concat()
    }
}

fn digits(text: &[u8]) -> (&[u8], &[u8]) {
    text.split_at(text.iter().take_while(|b| b.is_ascii_digit()).count())
}

/// The exponent that is all of `text`; 0 if there is none. One beyond any decimal is as good as one of its size.
fn exponent(text: &[u8]) -> Option<i64> {
    const BEYOND: i64 = 1 << 40;
    let rest = match text {
        [] => return Some(0),
        [b'e' | b'E', rest @ ..] => rest,
        _ => return None,
    };
    let (sign, rest) = match rest {
        [b'-', rest @ ..] => (-1, rest),
        [b'+', rest @ ..] => (1, rest),
        rest => (1, rest),
    };
    let (found, behind) = digits(rest);
    if found.is_empty() || !behind.is_empty() {
        return None;
    }
    let add = |value: i64, digit: &u8| (value * 10 + i64::from(digit - b'0')).min(BEYOND);
    Some(sign * found.iter().fold(0, add))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_exactly_or_says_why_not() {
        let table: &[(&str, Result<i128, &str>)] = &[
            ("0", Ok(0)),
            ("-0.00", Ok(0)),
            ("1", Ok(100)),
            ("12.3", Ok(1_230)),
            ("-12.34", Ok(-1_234)),
            ("+12.34", Ok(1_234)),
            ("12.3400", Ok(1_234)),
            (".5", Ok(50)),
            ("1.234e1", Ok(1_234)),
            ("1234E-2", Ok(1_234)),
            ("0e99999999999999999999", Ok(0)),
            ("000000000000000012.30", Ok(1_230)),
            // Where a float would have lost it.
            ("0.1", Ok(10)),
            ("999.99", Ok(99_999)),
            ("1000", Err("more than 3 digits before")),
            ("1e5", Err("more than 3 digits before")),
            ("1e99999999999999999999", Err("more than 3 digits before")),
            ("12.345", Err("more than 2 digits behind")),
            ("1e-3", Err("more than 2 digits behind")),
            ("1e-99999999999999999999", Err("more than 2 digits behind")),
            ("", Err("not a decimal")),
            (".", Err("not a decimal")),
            ("-", Err("not a decimal")),
            ("1e", Err("not a decimal")),
            ("1e5x", Err("not a decimal")),
            ("1,5", Err("not a decimal")),
            ("NaN", Err("not a decimal")),
        ];
        for (text, expected) in table {
            match (parse(text, 5, 2), expected) {
                (Ok(got), Ok(expected)) => assert_eq!(got, *expected, "{text}"),
                (Err(got), Err(part)) => assert!(got.contains(part), "{text}: {got}"),
                (got, _) => panic!("{text}: {got:?}"),
            }
        }
        let nines = "9".repeat(38);
        assert_eq!(parse(&nines, 38, 0), Ok(10_i128.pow(38) - 1));
        assert!(parse(&format!("{nines}9"), 38, 0).is_err());
    }

    #[test]
    fn writes_all_digits_of_the_scale() {
        let table = [
            (0, 0, "0"),
            (0, 2, "0.00"),
            (5, 2, "0.05"),
            (-5, 2, "-0.05"),
            (123, 2, "1.23"),
            (-12_300, 2, "-123.00"),
            (7, 0, "7"),
            (7, -2, "700"),
            (1, 38, "0.00000000000000000000000000000000000001"),
        ];
        for (value, scale, expected) in table {
            let mut out = Vec::new();
            write(value, scale, &mut out);
            assert_eq!(String::from_utf8(out).unwrap(), expected);
        }
    }

    proptest! {
        #[test]
        fn reads_back_what_it_wrote(value in -(10_i128.pow(20))..10_i128.pow(20), scale in 0_i8..=20) {
            let mut out = Vec::new();
            write(value, scale, &mut out);
            prop_assert_eq!(parse(std::str::from_utf8(&out).unwrap(), 38, scale), Ok(value));
        }

        #[test]
        fn no_text_makes_it_panic(text in "[-+0-9.eE]{0,60}", precision in 1_u8..=38) {
            let _ = parse(&text, precision, precision.min(4) as i8);
        }
    }
}

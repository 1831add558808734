//! Texts as Java reads and shows them, where Rust differs: `String.trim`, `Double.parseDouble`, `Double.toString`,
//! `Pattern.compile`.

use regex_syntax::ast::ErrorKind;
use regex_syntax::ast::parse::Parser;

/// Letters after a backslash that mean something in Java's patterns only: quotations, named references, classes, anchors.
const JAVA_ESCAPES: &[char] = &[
    'Q', 'E', 'k', 'h', 'H', 'R', 'V', 'X', 'N', 'Z', 'G', 'e', 'c',
];

/// Without the blanks around it: all characters up to U+0020, and no others.
pub(super) fn trim(text: &str) -> &str {
    text.trim_matches(|c| c <= ' ')
}

/// `text` has no blanks around it. A number in digits or in hexadecimal digits with an exponent of two, `NaN` or `Infinity`,
/// with a sign or none; a last `d` or `f` is taken with the numbers.
pub(super) fn parse_double(text: &str) -> Option<f64> {
    let (negative, size) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let size = match size {
        "NaN" => f64::NAN,
        "Infinity" => f64::INFINITY,
        _ => {
            let digits = size.strip_suffix(['d', 'D', 'f', 'F']).unwrap_or(size);
            match digits.strip_prefix("0x").or(digits.strip_prefix("0X")) {
                Some(_) => parse_hex(size)?,
                // Rust's words for infinity and NaN begin with a letter, and a second sign is no digit either.
                None if digits.starts_with(|c: char| c.is_ascii_digit() || c == '.') => {
                    digits.parse().ok()?
                }
                None => return None,
            }
        }
    };
    Some(if negative { -size } else { size })
}

/// `0x1.8p3`: the exponent is a must, so that a last `d` or `f` is one of the type and no digit.
fn parse_hex(text: &str) -> Option<f64> {
    let (digits, exponent) = text[2..].split_once(['p', 'P'])?;
    let exponent = exponent
        .strip_suffix(['d', 'D', 'f', 'F'])
        .unwrap_or(exponent);
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let mut exponent: i64 = exponent.parse().ok()?;
    let mut mantissa: u64 = 0;
    for (at, digit) in whole.chars().chain(fraction.chars()).enumerate() {
        let digit = u64::from(digit.to_digit(16)?);
        let is_fraction = i64::from(at >= whole.len());
        if mantissa >> 60 == 0 {
            mantissa = mantissa << 4 | digit;
            exponent = exponent.checked_sub(4 * is_fraction)?;
        } else {
            // More than a double holds: what is left only says which way to round.
            mantissa |= u64::from(digit != 0);
            exponent = exponent.checked_add(4 - 4 * is_fraction)?;
        }
    }
    if mantissa == 0 {
        return Some(0.0);
    }
    // In two steps: the power alone may be out of range where the product is not.
    let exponent = exponent.clamp(-4000, 4000) as i32;
    let half = exponent / 2;
    Some(mantissa as f64 * 2f64.powi(half) * 2f64.powi(exponent - half))
}

/// As `Double.toString` shows it.
pub(super) fn show_double(value: f64) -> String {
    let size = value.abs();
    if size.is_infinite() {
        return if value < 0.0 { "-Infinity" } else { "Infinity" }.to_owned();
    }
    if size.is_nan() || size == 0.0 || (1e-3..1e7).contains(&size) {
        return format!("{value:?}");
    }
    let text = format!("{value:e}").replace('e', "E");
    match text.split_once('E') {
        Some((digits, exponent)) if !digits.contains('.') => format!("{digits}.0E{exponent}"),
        _ => text,
    }
}

/// Whether `Pattern.compile` takes `text`. What Java has and Rust's expressions lack is taken unseen, together with what
/// follows it.
pub(super) fn is_pattern(text: &str) -> bool {
    let Err(error) = Parser::new().parse(text) else {
        return true;
    };
    let rest = text.get(error.span().start.offset..).unwrap_or_default();
    match error.kind() {
        ErrorKind::UnsupportedLookAround | ErrorKind::UnsupportedBackreference => true,
        // An atomic group.
        ErrorKind::FlagUnrecognized => rest.starts_with('>'),
        ErrorKind::EscapeUnrecognized => {
            let letter = rest.strip_prefix('\\');
            letter.is_some_and(|letter| letter.starts_with(JAVA_ESCAPES))
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_what_java_takes_for_them() {
        for good in [
            "",
            "a.*",
            "[a-z&&[^b]]+",
            "(?<name>x)\\k<name>",
            "(?=x)",
            "(a)\\1",
            "(?>a)b",
            "\\Q[\\E",
            "a++",
        ] {
            assert!(is_pattern(good), "{good}");
        }
        for bad in ["[", "(", ")", "*", "a{", "\\", "\\y", "(?y)", "[z-a]"] {
            assert!(!is_pattern(bad), "{bad}");
        }
    }

    #[test]
    fn doubles_are_what_java_takes_for_them() {
        let shown = |text| parse_double(text).map(show_double);
        for (text, value) in [
            ("0.5", "0.5"),
            ("0.5f", "0.5"),
            ("5D", "5.0"),
            (".5", "0.5"),
            ("+1.", "1.0"),
            ("-1e-5", "-1.0E-5"),
            ("1e400", "Infinity"),
            ("NaN", "NaN"),
            ("-NaN", "NaN"),
            ("-Infinity", "-Infinity"),
            ("0x1p3", "8.0"),
            ("-0X1.8P1f", "-3.0"),
            ("0x.8p0", "0.5"),
            ("0xfp0", "15.0"),
            ("0x1fffffffffffffff8p-4", "2.305843009213694E18"),
            ("0x0p9999", "0.0"),
            ("0x1p99999", "Infinity"),
        ] {
            assert_eq!(shown(text).as_deref(), Some(value), "{text}");
        }
        assert_eq!(parse_double("0x1p-1074"), Some(f64::from_bits(1)));
        for bad in [
            "", "-", "+-1", "nan", "inf", "infinity", "INFINITY", "f", ".", "1e", "0x1", "0xp1",
            "0x1p", "0x1p1.5", "1 f", "1ff", "0x1g0p1", "NaNf",
        ] {
            assert_eq!(shown(bad), None, "{bad}");
        }
    }
}

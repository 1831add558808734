//! Tests of the properties parser: cases that were tried on `java.util.Properties`, and properties of any text.

use std::fmt::Write as _;

use proptest::prelude::*;

use super::{decode, parse};

fn check(text: &str, expected: &[(&str, &str)]) {
    let got = parse(text);
    let got: Vec<(&str, &str)> = got.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    assert_eq!(got, expected, "{text:?}");
}

#[test]
fn parses_as_java_does() {
    check("a=b", &[("a", "b")]);
    check("a = b \r\nc:d\re f", &[("a", "b "), ("c", "d"), ("e", "f")]);
    check(
        "  # comment\n! comment \\\n\n\x0c\t a\t=\t b",
        &[("a", "b")],
    );
    check("a=b\\\n   c\\\n  # d\nx", &[("a", "bc# d"), ("x", "")]);
    check("a=b\\\\\nc=d", &[("a", "b\\"), ("c", "d")]);
    check("a\\=\\ b\\:c==d", &[("a= b:c", "=d")]);
    check("a\\tb=\\n\\r\\f\\q\\u0041", &[("a\tb", "\n\r\x0cqA")]);
    check("a=\\uD83D\\uDE00", &[("a", "\u{1f600}")]);
    check("a", &[("a", "")]);
    check("=b", &[("", "b")]);
    check("a  :  = b", &[("a", "= b")]);
    check("a=1\na=2", &[("a", "1"), ("a", "2")]);
    check("a=b\\", &[("a", "b")]);
    check("a=b\\\n\n\nc=d", &[("a", "b"), ("c", "d")]);
    check("a=\\u00zz", &[("a", "\\u00zz")]);
    check("", &[]);
    assert_eq!(decode(b"a=\xe9"), "a=\u{e9}");
    assert_eq!(decode("a=\u{e9}".as_bytes()), "a=\u{e9}");
}

/// Writes `text` so that it reads back the same, as `Properties.store` does.
fn escape(text: &str, key: bool) -> String {
    let mut out = String::new();
    for (i, c) in text.chars().enumerate() {
        match c {
            ' ' if key || i == 0 => out.push_str("\\ "),
            '\t' => out.push_str("\\t"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\x0c' => out.push_str("\\f"),
            '=' | ':' | '#' | '!' | '\\' => out.extend(['\\', c]),
            c if (' '..'\x7f').contains(&c) => out.push(c),
            c => c.encode_utf16(&mut [0; 2]).iter().for_each(|unit| {
                let _ = write!(out, "\\u{unit:04X}");
            }),
        }
    }
    out
}

proptest! {
    #[test]
    fn what_is_stored_reads_back(pairs in prop::collection::vec((".*", "(?s).*"), 0..8)) {
        let mut text = String::new();
        for (k, v) in &pairs {
            let _ = writeln!(text, "{}={}", escape(k, true), escape(v, false));
        }
        prop_assert_eq!(parse(&text), pairs);
    }

    #[test]
    fn any_text_is_read_without_panic(text in "(?s)[a-c=:#!\\\\ \t\r\nu0-9\\PC]*") {
        for (key, value) in parse(&text) {
            prop_assert!(key.len() + value.len() <= 3 * text.len());
        }
    }
}

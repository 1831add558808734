//! Java's `.properties` syntax, as `java.util.Properties.load` reads it. Pure: text in, pairs out.

/// Parses `text` into its pairs, in order; a later pair of the same key is meant to win. Never fails: every text is a
/// properties file (a bad `\u` escape is kept as it stands, where Java throws).
pub fn parse(text: &str) -> Vec<(String, String)> {
    let mut pairs = Vec::new();
    for line in logical_lines(text) {
        let (key, value) = split(&line);
        pairs.push((unescape(key), unescape(value)));
    }
    pairs
}

/// Joins continued lines and drops blank and comment lines. A comment cannot be continued.
fn logical_lines(text: &str) -> Vec<String> {
    let mut lines = Vec::new();
    let mut current: Option<String> = None;
    for natural in natural_lines(text) {
        let stripped = natural.trim_start_matches([' ', '\t', '\x0c']);
        if current.is_none() && (stripped.is_empty() || stripped.starts_with(['#', '!'])) {
            continue;
        }
        let mut line = current.take().unwrap_or_default();
        line.push_str(stripped);
        let backslashes = stripped.bytes().rev().take_while(|b| *b == b'\\').count();
        if backslashes % 2 == 1 {
            line.pop();
            current = Some(line);
        } else {
            lines.push(line);
        }
    }
    lines.extend(current.filter(|line| !line.is_empty()));
    lines
}

/// Lines end at `\n`, `\r` or `\r\n`.
fn natural_lines(text: &str) -> impl Iterator<Item = &str> {
    text.split('\n')
        .flat_map(|line| line.strip_suffix('\r').unwrap_or(line).split('\r'))
}

/// The key ends at the first unescaped `=`, `:` or blank; blanks around one separator belong to neither side.
fn split(line: &str) -> (&str, &str) {
    let blank = |c: char| matches!(c, ' ' | '\t' | '\x0c');
    let mut escaped = false;
    let end = line
        .char_indices()
        .find(|(_, c)| {
            let stop = !escaped && (blank(*c) || matches!(c, '=' | ':'));
            escaped = *c == '\\' && !escaped;
            stop
        })
        .map_or(line.len(), |(at, _)| at);
    let rest = line[end..].trim_start_matches(blank);
    let rest = rest.strip_prefix(['=', ':']).unwrap_or(rest);
    (&line[..end], rest.trim_start_matches(blank))
}

fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut units: Vec<u16> = Vec::new(); // pending \u escapes: two of them may be one character
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            flush(&mut units, &mut out);
            out.push(c);
            continue;
        }
        match chars.next() {
            Some('u') => {
                let digits: String = chars.clone().take(4).collect();
                match u16::from_str_radix(&digits, 16) {
                    Ok(unit) if digits.len() == 4 && !digits.starts_with('+') => {
                        units.push(unit);
                        chars.by_ref().take(4).for_each(drop);
                    }
                    _ => {
                        flush(&mut units, &mut out);
                        out.push_str("\\u");
                    }
                }
            }
            Some(c) => {
                flush(&mut units, &mut out);
                out.push(match c {
                    't' => '\t',
                    'r' => '\r',
                    'n' => '\n',
                    'f' => '\x0c',
                    other => other,
                });
            }
            None => {}
        }
    }
    flush(&mut units, &mut out);
    out
}

fn flush(units: &mut Vec<u16>, out: &mut String) {
    if !units.is_empty() {
        out.push_str(&String::from_utf16_lossy(units));
        units.clear();
    }
}

/// Decodes the bytes of a file: UTF-8, or else ISO-8859-1, the charset of `Properties.load`.
pub fn decode(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) => text.to_owned(),
        Err(_) => bytes.iter().map(|b| char::from(*b)).collect(),
    }
}

#[cfg(test)]
mod tests;

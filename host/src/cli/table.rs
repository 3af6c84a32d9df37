//! Tables for people: columns padded to their widest cell, cut to a width. Text in, text out.

/// What stands in front of every line.
const INDENT: &str = "  ";
const GAP: &str = "  ";

/// Which side of a column its cells lean to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Align {
    Left,
    Right,
}

/// Lines of a table with a head; cells must hold no control characters. Lines longer than `width` are cut.
pub fn render(head: &[(&str, Align)], rows: &[Vec<String>], width: Option<usize>) -> String {
    let mut widths: Vec<usize> = head.iter().map(|(name, _)| cells(name)).collect();
    for row in rows {
        for (w, cell) in widths.iter_mut().zip(row) {
            *w = (*w).max(cells(cell));
        }
    }
    let names: Vec<String> = head.iter().map(|(name, _)| (*name).to_owned()).collect();
    let mut out = String::new();
    for row in std::iter::once(&names).chain(rows) {
        let padded = row
            .iter()
            .zip(head)
            .zip(&widths)
            .map(|((cell, (_, align)), w)| {
                let fill = " ".repeat(w.saturating_sub(cells(cell)));
                match align {
                    Align::Left => format!("{cell}{fill}"),
                    Align::Right => format!("{fill}{cell}"),
                }
            });
        let line = format!("{INDENT}{}", padded.collect::<Vec<_>>().join(GAP));
        out.push_str(&cut(line.trim_end(), width));
        out.push('\n');
    }
    out
}

/// `line`, or its beginning and `…` if it is wider.
pub fn cut(line: &str, width: Option<usize>) -> String {
    match width {
        Some(width) if cells(line) > width => {
            let mut left = width.saturating_sub(1);
            let fits = |c: &char| {
                let w = cell(*c);
                let fits = w <= left;
                left = if fits { left - w } else { 0 };
                fits
            };
            line.chars().take_while(fits).chain(['…']).collect()
        }
        _ => line.to_owned(),
    }
}

fn cells(text: &str) -> usize {
    text.chars().map(cell).sum()
}

/// Terminal cells of a character: two for East Asian wide ones and emoji, none for marks that combine. Coarse, by block.
fn cell(c: char) -> usize {
    match u32::from(c) {
        0x0300..=0x036f | 0x200b..=0x200d | 0xfe00..=0xfe0f => 0,
        0x1100..=0x115f | 0x2e80..=0xa4cf | 0xac00..=0xd7a3 | 0xf900..=0xfaff => 2,
        0xfe30..=0xfe6f
        | 0xff00..=0xff60
        | 0xffe0..=0xffe6
        | 0x1f300..=0x1faff
        | 0x20000..=0x3fffd => 2,
        _ => 1,
    }
}

/// `1234567` as `1,234,567`.
pub fn thousands(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// Bytes in the unit that leaves at most four digits before the point.
pub fn bytes(n: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = n as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    match unit {
        0 => format!("{n} B"),
        _ => format!("{value:.1} {}", UNITS[unit]),
    }
}

/// The beginning of a digest, enough to tell versions apart.
pub fn short(digest: &str) -> String {
    digest.chars().take(12).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_lean_and_lines_are_cut() {
        let head = [("name", Align::Left), ("rows", Align::Right)];
        let rows = [
            vec!["clicks".into(), "12".into()],
            vec!["漢字".into(), "1,204".into()],
        ];
        insta::assert_snapshot!(render(&head, &rows, None), @r"
          name     rows
          clicks     12
          漢字    1,204
        ");
        for line in render(&head, &rows, Some(10)).lines() {
            assert!(cells(line) <= 10, "{line:?}");
            assert!(line.ends_with('…'), "{line:?}");
        }
    }

    #[test]
    fn numbers_for_people() {
        for (n, expected) in [
            (0, "0"),
            (999, "999"),
            (1_000, "1,000"),
            (1_234_567, "1,234,567"),
        ] {
            assert_eq!(thousands(n), expected);
        }
        for (n, expected) in [
            (0, "0 B"),
            (1_023, "1023 B"),
            (1_536, "1.5 KiB"),
            (3 << 30, "3.0 GiB"),
        ] {
            assert_eq!(bytes(n), expected);
        }
    }
}

//! As much of Markdown as the rules need: prose without code, spans of code, and headings.

/// A page, taken apart. Blanking keeps line numbers.
pub(crate) struct Page {
    /// The text with fenced blocks and spans of code blanked.
    pub(crate) prose: String,
    /// Spans of code, with their lines; fenced blocks are not among them.
    pub(crate) spans: Vec<(usize, String)>,
    /// The anchors of headings, as GitHub makes them.
    pub(crate) anchors: Vec<String>,
}

impl Page {
    pub(crate) fn parse(text: &str) -> Self {
        let unfenced = without_fences(text);
        let headings = unfenced.lines().filter(|line| line.starts_with('#'));
        let anchors = headings.map(|line| anchor(line.trim_start_matches('#'))).collect();
        let (mut prose, mut spans) = (String::new(), Vec::new());
        let mut line = 1;
        // A span never crosses an empty line, so a stray backtick spoils one paragraph at most.
        for paragraph in unfenced.split_inclusive("\n\n") {
            let pieces = pieces(paragraph);
            for (is_code, piece) in pieces {
                if is_code {
                    spans.push((line, piece.trim_matches('`').trim().replace('\n', " ")));
                    prose.extend(piece.chars().map(|c| if c == '\n' { '\n' } else { ' ' }));
                } else {
                    prose.push_str(piece);
                }
                line += piece.matches('\n').count();
            }
        }
        Self { prose, spans, anchors }
    }
}

fn without_fences(text: &str) -> String {
    let mut fence = None;
    let mut kept = String::new();
    for line in text.lines() {
        let marker = ["```", "~~~"].into_iter().find(|marker| line.trim_start().starts_with(marker));
        match (fence, marker) {
            (None, None) => kept.push_str(line),
            (None, Some(_)) => fence = marker,
            (Some(open), Some(close)) if open == close => fence = None,
            (Some(_), _) => {}
        }
        kept.push('\n');
    }
    kept
}

/// Splits a paragraph into text and spans of code: a run of backticks up to the next run as long.
fn pieces(paragraph: &str) -> Vec<(bool, &str)> {
    let mut pieces = Vec::new();
    let mut rest = paragraph;
    while let Some((text, from)) = rest.find('`').and_then(|at| rest.split_at_checked(at)) {
        let ticks = from.len() - from.trim_start_matches('`').len();
        let (code, after) = from.split_at(closing(from, ticks).unwrap_or(ticks));
        pieces.extend([(false, text), (code.len() > ticks, code)]);
        rest = after;
    }
    pieces.push((false, rest));
    pieces
}

/// Where the span that opens with `ticks` backticks ends.
fn closing(from: &str, ticks: usize) -> Option<usize> {
    let mut at = ticks;
    loop {
        at += from.get(at..)?.find('`')?;
        let run = from.get(at..)?.bytes().take_while(|b| *b == b'`').count();
        at += run;
        if run == ticks {
            return Some(at);
        }
    }
}

fn anchor(heading: &str) -> String {
    let kept = heading.trim().chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c.to_ascii_lowercase() }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_found_with_their_lines_and_blanked_in_the_prose() {
        let page = Page::parse("a `b` c\n`d\ne` f\n\n``g ` h`` i\n");
        let spans: Vec<_> = page.spans.iter().map(|(line, span)| (*line, span.as_str())).collect();
        assert_eq!(spans, [(1, "b"), (2, "d e"), (5, "g ` h")]);
        assert_eq!(page.prose.split_whitespace().collect::<String>(), "acfi");
        assert_eq!(page.prose.lines().count(), 5);
    }

    #[test]
    fn fenced_blocks_are_no_prose_and_no_spans() {
        let page = Page::parse("a\n```rust\n# no heading\nlet `b` = [c](d);\n```\n`e`\n~~~\n```\n~~~\nf\n");
        assert_eq!(page.prose.split_whitespace().collect::<String>(), "af");
        assert_eq!(page.spans, [(6, "e".to_owned())]);
        assert!(page.anchors.is_empty());
    }

    #[test]
    fn a_stray_backtick_spoils_one_paragraph_only() {
        assert_eq!(Page::parse("it`s\n\n`a`\n").spans, [(3, "a".to_owned())]);
    }

    #[test]
    fn headings_have_anchors() {
        assert_eq!(Page::parse("## One, two: `Three`\n# A-b_c\n").anchors, ["one-two-three", "a-b_c"]);
    }
}

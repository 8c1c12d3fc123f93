//! The two formats of a scrape. OpenMetrics is what we have; the older text format is for whoever does not ask for it:
//! scrapers that know no other, `promtool check metrics`, and people with curl.

/// How metrics are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// OpenMetrics 1.0.0.
    OpenMetrics,
    /// The text format of Prometheus, 0.0.4.
    Text,
}

impl Format {
    /// What a scraper with this Accept header gets.
    #[must_use]
    pub fn accepted(accept: Option<&str>) -> Self {
        match accept {
            Some(accept) if accept.contains("application/openmetrics-text") => Self::OpenMetrics,
            _ => Self::Text,
        }
    }

    /// The Content-Type of it.
    #[must_use]
    pub fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
        }
    }

    /// OpenMetrics in this format.
    #[must_use]
    pub fn text(self, open_metrics: String) -> String {
        match self {
            Self::OpenMetrics => open_metrics,
            Self::Text => to_text(&open_metrics),
        }
    }
}

/// The samples are the same. What is said about them differs: the older format names a counter as its sample is named,
/// with `_total`, has no `info`, no units and no end.
fn to_text(open_metrics: &str) -> String {
    let mut text = String::with_capacity(open_metrics.len());
    let mut help = None;
    for line in open_metrics.lines() {
        let mut words = line.splitn(4, ' ');
        match (words.next(), words.next(), words.next(), words.next()) {
            // Its name depends on its type, which comes next.
            (Some("#"), Some("HELP"), Some(name), Some(said)) => help = Some((name, said)),
            (Some("#"), Some("TYPE"), Some(name), Some(kind)) => {
                let (suffix, kind) = match kind {
                    "counter" => ("_total", "counter"),
                    "info" => ("_info", "gauge"),
                    other => ("", other),
                };
                if let Some((_, said)) = help.take().filter(|(of, _)| *of == name) {
                    text.push_str(&format!("# HELP {name}{suffix} {said}\n"));
                }
                text.push_str(&format!("# TYPE {name}{suffix} {kind}\n"));
            }
            (Some("#"), ..) => {}
            _ => {
                text.push_str(line);
                text.push('\n');
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_older_format_is_for_who_does_not_ask_for_the_newer() {
        let open = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3";
        assert_eq!(Format::accepted(Some(open)), Format::OpenMetrics);
        assert_eq!(Format::accepted(Some("*/*")), Format::Text);
        assert_eq!(Format::accepted(None), Format::Text);
    }

    #[test]
    fn the_older_format_names_counters_as_their_samples_are_named() {
        let open = "# HELP a Some of a b.\n# TYPE a counter\na_total{x=\"# TYPE\"} 1\n# HELP t_seconds T.\n\
            # TYPE t_seconds histogram\n# UNIT t_seconds seconds\nt_seconds_sum 0.5\n# HELP build V.\n\
            # TYPE build info\nbuild_info{version=\"1\"} 1\n# EOF\n";
        let text = "# HELP a_total Some of a b.\n# TYPE a_total counter\na_total{x=\"# TYPE\"} 1\n# HELP t_seconds T.\n\
            # TYPE t_seconds histogram\nt_seconds_sum 0.5\n# HELP build_info V.\n# TYPE build_info gauge\n\
            build_info{version=\"1\"} 1\n";
        assert_eq!(Format::Text.text(open.to_owned()), text);
        assert_eq!(Format::OpenMetrics.text(open.to_owned()), open);
    }
}

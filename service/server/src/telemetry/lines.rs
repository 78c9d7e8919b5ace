//! How an event is written as a line of the log: one JSON object, or text, in both cases with the id of the request that
//! is running.
//!
//! The JSON of tracing-subscriber reads a span's fields back from text for each line, which cost a request more than all
//! else that is said of it. Here the fields go from the event to the line.

use std::fmt::{self, Debug, Write};

use tracing::{
    Event, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{
    fmt::{
        FmtContext, FormatEvent, FormatFields,
        format::Writer,
        time::{FormatTime as _, SystemTime},
    },
    registry::LookupSpan,
};

use super::current_request;
use crate::config::LogFormat;

impl<S, N> FormatEvent<S, N> for LogFormat
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut line: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        match self {
            Self::Json => json(&mut line, event),
            Self::Text => text(context, line, event),
        }
    }
}

fn json(line: &mut Writer<'_>, event: &Event<'_>) -> fmt::Result {
    line.write_str(r#"{"timestamp":""#)?;
    SystemTime.format_time(line)?;
    write!(line, r#"","level":"{}""#, event.metadata().level())?;
    let mut fields = JsonFields { line: &mut *line, written: Ok(()) };
    event.record(&mut fields);
    fields.written?;
    if let Some(request) = current_request() {
        write!(line, r#","request.id":"{request}""#)?;
    }
    writeln!(line, r#","target":"{}"}}"#, event.metadata().target())
}

fn text<S, N>(context: &FmtContext<'_, S, N>, mut line: Writer<'_>, event: &Event<'_>) -> fmt::Result
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    let level = event.metadata().level();
    SystemTime.format_time(&mut line)?;
    if line.has_ansi_escapes() {
        let colour = match *level {
            tracing::Level::ERROR => 31,
            tracing::Level::WARN => 33,
            tracing::Level::INFO => 32,
            _ => 34,
        };
        write!(line, " \x1b[{colour}m{level:>5}\x1b[0m ")?;
    } else {
        write!(line, " {level:>5} ")?;
    }
    context.format_fields(line.by_ref(), event)?;
    if let Some(request) = current_request() {
        write!(line, " request.id={request}")?;
    }
    writeln!(line)
}

/// Writes `,"name":value` for each field.
struct JsonFields<'a, W> {
    line: &'a mut W,
    written: fmt::Result,
}

impl<W: Write> JsonFields<'_, W> {
    /// A number or a truth.
    fn bare(&mut self, field: &Field, value: impl fmt::Display) {
        self.written = self.written.and_then(|()| write!(self.line, r#","{}":{value}"#, field.name()));
    }
}

impl<W: Write> Visit for JsonFields<'_, W> {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.written = self.written.and_then(|()| {
            write!(self.line, r#","{}":""#, field.name())?;
            write!(Escaped(self.line), "{value:?}")?;
            self.line.write_char('"')
        });
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.bare(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.bare(field, value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        // JSON has no other numbers.
        if value.is_finite() { self.bare(field, value) } else { self.record_debug(field, &value) }
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.bare(field, value);
    }
}

/// Text within a JSON string (RFC 8259, section 7).
struct Escaped<'a, W>(&'a mut W);

impl<W: Write> Write for Escaped<'_, W> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut rest = text;
        while let Some(at) = rest.find(|c: char| c < ' ' || c == '"' || c == '\\') {
            let (plain, special) = rest.split_at(at);
            self.0.write_str(plain)?;
            let mut characters = special.chars();
            match characters.next() {
                Some('\n') => self.0.write_str("\\n")?,
                Some(c @ ('"' | '\\')) => write!(self.0, "\\{c}")?,
                Some(c) => write!(self.0, "\\u{:04x}", u32::from(c))?,
                None => {}
            }
            rest = characters.as_str();
        }
        self.0.write_str(rest)
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io,
        sync::{Arc, Mutex},
    };

    use tracing_subscriber::{fmt::MakeWriter, layer::SubscriberExt as _};

    use super::super::in_request;
    use super::*;

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("no writer panicked").write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl MakeWriter<'_> for Written {
        type Writer = Self;

        fn make_writer(&self) -> Self {
            self.clone()
        }
    }

    fn written(format: LogFormat, work: impl FnOnce()) -> String {
        let written = Written::default();
        let lines = tracing_subscriber::fmt::layer().with_ansi(false).event_format(format).with_writer(written.clone());
        let subscriber = tracing_subscriber::registry().with(lines);
        tracing::subscriber::with_default(subscriber, work);
        let bytes = written.0.lock().expect("no writer panicked").clone();
        String::from_utf8(bytes).expect("UTF-8")
    }

    fn object(line: &str) -> serde_json::Map<String, serde_json::Value> {
        serde_json::from_str(line).unwrap_or_else(|e| panic!("{line} is no JSON object: {e}"))
    }

    #[test]
    fn a_line_is_one_json_object_whatever_a_stranger_says() {
        let said = "a \"quoted\" back\\slash,\n a second line, \u{1b}[31m, \0 and ü";
        let line = written(LogFormat::Json, || {
            tracing::warn!(
                join.token = said,
                request.micros = 12_u64,
                change = -3_i64,
                share = 0.5,
                proven = true,
                "{said}"
            );
            tracing::warn!(share = f64::NAN);
        });
        let [line, other] = line.lines().map(object).collect::<Vec<_>>().try_into().expect("two lines");
        assert_eq!(line["message"], said);
        assert_eq!(line["join.token"], said);
        assert_eq!((&line["request.micros"], &line["change"]), (&12.into(), &(-3).into()));
        assert_eq!((&line["proven"], &line["share"], &other["share"]), (&true.into(), &0.5.into(), &"NaN".into()));
        assert_eq!((&line["level"], &line["target"]), (&"WARN".into(), &module_path!().into()));
        assert!(!line.contains_key("request.id"));
        chrono::DateTime::parse_from_rfc3339(line["timestamp"].as_str().expect("text")).expect("a time");
    }

    #[test]
    fn every_line_of_a_request_has_its_id() {
        let work = || in_request("77-01".into(), || tracing::info!("something happens"));
        assert_eq!(object(&written(LogFormat::Json, work))["request.id"], "77-01");
        let line = written(LogFormat::Text, work);
        assert!(line.ends_with("  INFO something happens request.id=77-01\n"), "{line}");
    }
}

//! How a line is written: the event's own fields, then what its spans tell and it does not say itself.

use std::fmt;

use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::{Format, FormatEvent, FormatFields, Json, Writer};
use tracing_subscriber::fmt::time::{FormatTime as _, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormattedFields};
use tracing_subscriber::registry::{LookupSpan, SpanRef};

/// Lines for people.
pub(super) struct InText;

impl<S, N> FormatEvent<S, N> for InText
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut line: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let level = *event.metadata().level();
        if line.has_ansi_escapes() {
            line.write_str("\x1b[2m")?;
            SystemTime.format_time(&mut line)?;
            write!(line, "\x1b[0m \x1b[{}m{level:>5}\x1b[0m ", colour(level))?;
        } else {
            SystemTime.format_time(&mut line)?;
            write!(line, " {level:>5} ")?;
        }
        context.format_fields(line.by_ref(), event)?;
        for fields in told_by_spans(context, event) {
            write!(line, " {fields}")?;
        }
        writeln!(line)
    }
}

/// The number of a terminal's colour.
fn colour(level: Level) -> u8 {
    match level {
        Level::ERROR => 31,
        Level::WARN => 33,
        Level::INFO => 32,
        Level::DEBUG => 34,
        Level::TRACE => 35,
    }
}

/// Lines for programs: JSON objects, without objects in them.
pub(super) struct InJson(Format<Json>);

impl Default for InJson {
    fn default() -> Self {
        Self(
            tracing_subscriber::fmt::format().json().flatten_event(true).with_current_span(false).with_span_list(false),
        )
    }
}

impl<S, N> FormatEvent<S, N> for InJson
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut line: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut object = String::new();
        self.0.format_event(context, Writer::new(&mut object), event)?;
        line.write_str(object.trim_end().strip_suffix('}').ok_or(fmt::Error)?)?;
        for fields in told_by_spans(context, event) {
            let members = fields.strip_prefix('{').and_then(|fields| fields.strip_suffix('}')).ok_or(fmt::Error)?;
            write!(line, ",{members}")?;
        }
        writeln!(line, "}}")
    }
}

/// The fields of our own spans that the event is in, the outermost first. A span whose fields the event names itself is left
/// out: its own word counts, and an object has no member twice.
fn told_by_spans<S, N>(context: &FmtContext<'_, S, N>, event: &Event<'_>) -> Vec<String>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    let told = |name: &str| event.metadata().fields().field(name).is_some();
    let Some(scope) = context.event_scope() else { return Vec::new() };
    let is_ours = |span: &SpanRef<'_, S>| span.metadata().target().starts_with(env!("CARGO_CRATE_NAME"));
    let is_new = |span: &SpanRef<'_, S>| !span.metadata().fields().iter().any(|field| told(field.name()));
    let fields = |span: SpanRef<'_, S>| Some(span.extensions().get::<FormattedFields<N>>()?.fields.clone());
    scope.from_root().filter(is_ours).filter(is_new).filter_map(fields).collect()
}

//! Log lines on stderr, in the form of Kafka's: `[2026-11-23 22:34:27,123] INFO message key=value (ottla::server)`.

use std::fmt;
use std::io;

use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::{FormatEvent, FormatFields, Writer};
use tracing_subscriber::fmt::{FmtContext, Layer};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::{LookupSpan, Registry};

use crate::clock::{Clock, log_time_text};
use crate::config::LoggerFilter;

struct KafkaFormat(Clock);

impl<S, N> FormatEvent<S, N> for KafkaFormat
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let meta = event.metadata();
        let time = log_time_text(self.0.wall_ms());
        write!(writer, "[{time}] {} ", meta.level())?;
        context
            .field_format()
            .format_fields(writer.by_ref(), event)?;
        writeln!(writer, " ({})", meta.target())
    }
}

/// Sends log lines to stderr from here on. A second call changes nothing.
pub(super) fn init() {
    let lines = Layer::default()
        .event_format(KafkaFormat(Clock::system()))
        .with_writer(io::stderr);
    let subscriber = Registry::default().with(LoggerFilter).with(lines);
    let _ = tracing::subscriber::set_global_default(subscriber);
}

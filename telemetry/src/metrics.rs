//! Metrics: each is registered and described by one call, with every value that a label of a closed set can have. So the page
//! of all metrics, and whoever checks what is asked of them, need no scrape. Also what every program counts of itself.

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{
    Counter, Encoder as _, Gauge, GaugeVec, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec,
    Opts, Registry, TextEncoder,
};

/// The kind of a metric.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// It only grows, until the program ends.
    Counter,
    /// It goes up and down.
    Gauge,
    /// Counts of values, each at most as large as one of some bounds.
    Histogram,
}

impl Kind {
    /// As Prometheus names it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// A label: its name, and the values that it can have, if they are known beforehand.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Label {
    /// Its name.
    pub name: &'static str,
    /// All values that it can have; none where they are not known beforehand.
    pub values: Vec<&'static str>,
}

/// A label whose values are not known beforehand.
pub const fn open(name: &'static str) -> Label {
    Label { name, values: Vec::new() }
}

/// A label that has one of these values.
pub fn closed(name: &'static str, values: &[&'static str]) -> Label {
    Label { name, values: values.to_vec() }
}

/// A metric, as people are told of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Described {
    /// Its name.
    pub name: String,
    /// Its value.
    pub kind: Kind,
    /// Its value.
    pub help: String,
    /// Its labels, in their order.
    pub labels: Vec<Label>,
}

impl Described {
    /// The names of its series: those of a histogram are told apart by what follows its name.
    pub fn series(&self) -> Vec<String> {
        let suffixes: &[&str] = if self.kind == Kind::Histogram { &["_bucket", "_sum", "_count"] } else { &[""] };
        suffixes.iter().map(|suffix| format!("{}{suffix}", self.name)).collect()
    }
}

/// Makes metrics, and keeps what it has made.
#[derive(Debug, Default)]
pub struct Maker {
    registry: Registry,
    described: Vec<Described>,
}

impl Maker {
    fn keep<C: Collector + Clone + 'static>(
        &mut self,
        kind: Kind,
        metric: prometheus::Result<C>,
        labels: &[Label],
    ) -> prometheus::Result<C> {
        let metric = metric?;
        self.registry.register(Box::new(metric.clone()))?;
        let described = |desc: &&Desc| Described {
            name: desc.fq_name.clone(),
            kind,
            help: desc.help.clone(),
            labels: labels.to_vec(),
        };
        self.described.extend(metric.desc().iter().map(described));
        Ok(metric)
    }

    /// A whole number that goes up and down.
    ///
    /// # Errors
    /// When the name is no name, or another metric has it; so it is for all that follow.
    pub fn gauge(&mut self, name: &str, help: &str) -> prometheus::Result<IntGauge> {
        self.keep(Kind::Gauge, IntGauge::new(name, help), &[])
    }

    /// A number that goes up and down, such as seconds.
    ///
    /// # Errors
    /// As for [`Maker::gauge`].
    pub fn measure(&mut self, name: &str, help: &str) -> prometheus::Result<Gauge> {
        self.keep(Kind::Gauge, Gauge::new(name, help), &[])
    }

    /// One for each value of the labels.
    ///
    /// # Errors
    /// As for [`Maker::gauge`].
    pub fn gauges(&mut self, name: &str, help: &str, labels: &[Label]) -> prometheus::Result<IntGaugeVec> {
        let gauges = IntGaugeVec::new(Opts::new(name, help), &names(labels));
        let gauges = self.keep(Kind::Gauge, gauges, labels)?;
        for values in combinations(labels) {
            gauges.with_label_values(&values).set(0);
        }
        Ok(gauges)
    }

    /// The same for numbers that are not whole.
    ///
    /// # Errors
    /// As for [`Maker::gauge`].
    pub fn measures(&mut self, name: &str, help: &str, labels: &[Label]) -> prometheus::Result<GaugeVec> {
        let measures = self.keep(Kind::Gauge, GaugeVec::new(Opts::new(name, help), &names(labels)), labels)?;
        for values in combinations(labels) {
            measures.with_label_values(&values).set(0.0);
        }
        Ok(measures)
    }

    /// Makes a counter.
    ///
    /// # Errors
    /// As for [`Maker::gauge`].
    pub fn counter(&mut self, name: &str, help: &str) -> prometheus::Result<IntCounter> {
        self.keep(Kind::Counter, IntCounter::new(name, help), &[])
    }

    /// Makes a counter that does not grow by whole numbers alone, such as one of seconds.
    ///
    /// # Errors
    /// As for [`Maker::gauge`].
    pub fn total(&mut self, name: &str, help: &str) -> prometheus::Result<Counter> {
        self.keep(Kind::Counter, Counter::new(name, help), &[])
    }

    /// One for each value of the labels; each that can be known is there from the start, since what is born with 1 is no increase.
    ///
    /// # Errors
    /// As for [`Maker::gauge`].
    pub fn counters(&mut self, name: &str, help: &str, labels: &[Label]) -> prometheus::Result<IntCounterVec> {
        let counters = IntCounterVec::new(Opts::new(name, help), &names(labels));
        let counters = self.keep(Kind::Counter, counters, labels)?;
        for values in combinations(labels) {
            counters.with_label_values(&values).inc_by(0);
        }
        Ok(counters)
    }

    /// Makes a histogram of times in seconds, with these bounds.
    ///
    /// # Errors
    /// As for [`Maker::gauge`].
    pub fn durations(&mut self, name: &str, help: &str, bounds: &[f64]) -> prometheus::Result<Histogram> {
        let histogram = Histogram::with_opts(HistogramOpts::new(name, help).buckets(bounds.to_vec()));
        self.keep(Kind::Histogram, histogram, &[])
    }

    /// Processor time, memory and open files of the process, where the system tells them.
    ///
    /// # Errors
    /// As for [`Maker::gauge`].
    #[cfg_attr(not(target_os = "linux"), expect(clippy::unnecessary_wraps, reason = "Linux alone tells them"))]
    pub fn process(&mut self) -> prometheus::Result<()> {
        #[cfg(target_os = "linux")]
        {
            let process = prometheus::process_collector::ProcessCollector::for_self();
            let described = |desc: &&Desc| Described {
                name: desc.fq_name.clone(),
                kind: if desc.fq_name.ends_with("_total") { Kind::Counter } else { Kind::Gauge },
                help: desc.help.clone(),
                labels: Vec::new(),
            };
            self.described.extend(process.desc().iter().map(described));
            self.registry.register(Box::new(process))?;
        }
        Ok(())
    }

    /// The log lines of this process that nobody will read.
    ///
    /// # Errors
    /// As for [`Maker::gauge`].
    pub fn lines_left_out(&mut self, name: &str) -> prometheus::Result<LinesLeftOut> {
        let help = "Log lines that this process left out: unwritten, as standard error did not take them, or repeated, as they \
                    said what others had said.";
        let whys = crate::LeftOut::default().by_reason().map(|(why, _)| why);
        self.counters(name, help, &[closed("why", &whys)]).map(LinesLeftOut)
    }

    /// The metrics that were made, to be shown and to be described.
    pub fn finish(self) -> (Registry, Vec<Described>) {
        (self.registry, self.described)
    }
}

/// Counts the log lines that were left out.
#[derive(Debug)]
pub struct LinesLeftOut(IntCounterVec);

impl LinesLeftOut {
    /// Takes note of those of late.
    pub fn look(&self) {
        for (why, so_far) in crate::left_out().by_reason() {
            let counter = self.0.with_label_values(&[why]);
            counter.inc_by(so_far.saturating_sub(counter.get()));
        }
    }
}

fn names(labels: &[Label]) -> Vec<&'static str> {
    labels.iter().map(|label| label.name).collect()
}

/// All values that the labels can have together; none where those of one are not known.
fn combinations(labels: &[Label]) -> Vec<Vec<&'static str>> {
    labels.iter().fold(vec![Vec::new()], |begun, label| {
        let with = |begun: &Vec<&'static str>| {
            let begun = begun.clone();
            label.values.iter().map(move |value| begun.iter().copied().chain([*value]).collect::<Vec<_>>())
        };
        begun.iter().flat_map(with).collect()
    })
}

/// In the text format of Prometheus.
///
/// # Errors
/// When a metric cannot be written as text.
pub fn text(families: &[MetricFamily]) -> prometheus::Result<String> {
    let mut text = Vec::new();
    TextEncoder::new().encode(families, &mut text)?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_of_a_closed_set_is_there_from_the_start_and_none_of_an_open_one() {
        let mut make = Maker::default();
        make.counters("a_total", "A.", &[closed("x", &["1", "2"]), closed("y", &["3"])]).unwrap();
        make.gauges("b", "B.", &[open("peer"), closed("y", &["3"])]).unwrap();
        make.durations("c_seconds", "C.", &[1.0]).unwrap();
        make.lines_left_out("d_total").unwrap();
        assert!(make.gauge("b", "Again.").is_err());
        let (registry, described) = make.finish();
        let text = text(&registry.gather()).unwrap();
        for line in ["a_total{x=\"1\",y=\"3\"} 0", "a_total{x=\"2\",y=\"3\"} 0", "d_total{why=\"unwritten\"} 0"] {
            assert!(text.lines().any(|found| found == line), "{line} is not in {text}");
        }
        assert!(!text.contains("b{"), "{text}");
        let series: Vec<_> = described.iter().flat_map(Described::series).collect();
        assert_eq!(series, ["a_total", "b", "c_seconds_bucket", "c_seconds_sum", "c_seconds_count", "d_total"]);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_process_tells_what_it_takes() {
        let mut make = Maker::default();
        make.process().unwrap();
        let (registry, described) = make.finish();
        let text = text(&registry.gather()).unwrap();
        assert!(
            described.iter().all(|one| text.contains(&format!("# TYPE {} {}", one.name, one.kind.name()))),
            "{text}"
        );
        assert!(described.iter().any(|one| one.name == "process_resident_memory_bytes"), "{described:?}");
    }
}

//! What came out: a table, a JSON file, and a page that stands by itself.

mod figures;
mod page;
mod plot;

use std::{
    collections::BTreeMap,
    fmt::{self, Write as _},
    fs,
    path::Path,
    time::Instant,
};

use comfy_table::{Table, presets};
use figures::{judged, rank};
use serde::{Deserialize, Serialize};

use crate::{floor::median, measured::Measured, process, profiles::nobody_refused};

/// Everything that came out of a run.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    command: String,
    seed: u64,
    at: String,
    #[serde(skip)]
    begun: Instant,
    /// How long it took, until it was written.
    took_s: f64,
    /// What the measured service says of its version.
    service: Option<String>,
    /// Of its sources; none when it doesn't say.
    commit: Option<String>,
    /// The version of a PostgreSQL that the run started for itself.
    postgres: Option<String>,
    machine: String,
    /// The figures that others go by.
    figures: BTreeMap<String, f64>,
    /// Which of them are of another run, and of which.
    from: BTreeMap<String, Origin>,
    /// Least, median and most of those that were measured more than once.
    spreads: BTreeMap<String, [f64; 3]>,
    /// What was asserted, and held.
    checked: Vec<String>,
    notes: BTreeMap<String, String>,
    settings: serde_json::Value,
    measured: Vec<Measured>,
}

/// A run that gave a figure.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct Origin {
    command: String,
    at: String,
    commit: Option<String>,
}

/// What matters of a report that is there already. One of a build that kept no origins is not read: its figures may be of
/// any run.
#[derive(Debug, Deserialize)]
struct Earlier {
    #[serde(flatten)]
    origin: Origin,
    figures: BTreeMap<String, f64>,
    from: BTreeMap<String, Origin>,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let commit = self.commit.as_deref().unwrap_or("an unknown commit");
        write!(f, "`{}` of {}, {commit}", self.command, self.at)
    }
}

impl Report {
    pub(crate) fn new(command: &str, seed: u64) -> Self {
        Self {
            command: command.to_owned(),
            seed,
            at: chrono::Utc::now().to_rfc3339_opts(chrono::SecondsFormat::Secs, true),
            begun: Instant::now(),
            took_s: 0.0,
            service: None,
            commit: None,
            postgres: None,
            // A run knows nothing of the machine that the authority is on.
            machine: if command == "run" { format!("generator on {}", process::machine()) } else { process::machine() },
            figures: BTreeMap::new(),
            from: BTreeMap::new(),
            spreads: BTreeMap::new(),
            checked: Vec::new(),
            notes: BTreeMap::new(),
            settings: serde_json::Value::Null,
            measured: Vec::new(),
        }
    }

    pub(crate) fn settings(&mut self, settings: serde_json::Value) {
        self.settings = settings;
    }

    /// What the measured service says of its version, such as `joind 0.1.0 (1a2b3c4)`.
    pub(crate) fn service(&mut self, version: String) {
        self.commit = commit_in(&version);
        self.service = Some(version);
    }

    pub(crate) fn postgres(&mut self, version: &str) {
        self.postgres = Some(version.to_owned());
    }

    pub(crate) fn add(&mut self, measured: Measured) {
        self.measured.push(measured);
    }

    /// Whether anything was measured.
    pub(crate) fn has_rows(&self) -> bool {
        !self.measured.is_empty()
    }

    pub(crate) fn figure(&mut self, name: &str, value: f64) {
        self.figures.insert(name.to_owned(), value);
    }

    /// A figure that was measured more than once: its median counts.
    pub(crate) fn spread(&mut self, name: &str, values: Vec<f64>) {
        let least = values.iter().copied().fold(f64::INFINITY, f64::min);
        let most = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let middle = median(values);
        self.spreads.insert(name.to_owned(), [least, middle, most]);
        self.figure(name, middle);
    }

    /// Joins a second and latencies of something that was measured once or more often.
    pub(crate) fn rates(&mut self, of: &str, measured: &[Measured]) {
        let mut spread = |name: &str, value: fn(&Measured) -> f64| {
            self.spread(&format!("{of}_{name}"), measured.iter().map(value).collect());
        };
        spread("joins_per_s", |one| one.joins_per_s);
        spread("p50_ms", |one| one.p50_ms);
        spread("p99_ms", |one| one.p99_ms);
    }

    /// Renewals while administrators were at work, and how long their calls took.
    ///
    /// # Errors
    /// When a bot was refused meanwhile.
    pub(crate) fn work(&mut self, renewals: Measured, calls: Vec<Measured>) -> anyhow::Result<()> {
        nobody_refused(&renewals)?;
        self.rates("administrators_renewal", std::slice::from_ref(&renewals));
        self.add(renewals);
        calls.into_iter().for_each(|call| self.add(call));
        Ok(())
    }

    /// A figure, or 0 when there is none.
    pub(crate) fn value(&self, name: &str) -> f64 {
        self.figures.get(name).copied().unwrap_or_default()
    }

    pub(crate) fn checked(&mut self, what: &str) {
        eprintln!("checked: {what}");
        self.checked.push(what.to_owned());
    }

    pub(crate) fn note(&mut self, name: &str, text: &str) {
        self.notes.insert(name.to_owned(), text.to_owned());
    }

    /// A figure that could not be taken.
    pub(crate) fn left_out(&mut self, name: &str, why: &str) {
        eprintln!("left out: {name}: {why}");
        self.note(name, &format!("left out: {why}"));
    }

    /// Writes `report.json`, `report.html` and the plots, and adds figures of earlier runs of other commands, so that
    /// one file has them all.
    ///
    /// # Errors
    /// When they can't be written.
    pub(crate) fn write(&mut self, directory: &Path) -> anyhow::Result<()> {
        self.took_s = self.begun.elapsed().as_secs_f64();
        fs::create_dir_all(directory)?;
        let file = directory.join("report.json");
        if let Some(earlier) = fs::read(&file).ok().and_then(|text| serde_json::from_slice(&text).ok()) {
            self.take(earlier);
        }
        fs::write(&file, serde_json::to_vec_pretty(self)?)?;
        // None stays behind with numbers of an earlier run.
        for entry in fs::read_dir(directory)? {
            let path = entry?.path();
            let is_svg = path.extension().is_some_and(|extension| extension == "svg");
            if is_svg && path.file_stem().and_then(|name| name.to_str()).is_some_and(plot::is_one) {
                fs::remove_file(path)?;
            }
        }
        for (name, svg) in plot::all(&self.measured, &self.figures) {
            fs::write(directory.join(format!("{name}.svg")), svg)?;
        }
        fs::write(directory.join("report.html"), page::of(self))?;
        Ok(())
    }

    /// Figures of other commands, each with the run that it is of, however many reports it went through.
    fn take(&mut self, earlier: Earlier) {
        for (name, value) in earlier.figures {
            let origin = earlier.from.get(&name).unwrap_or(&earlier.origin);
            if origin.command != self.command && !self.figures.contains_key(&name) {
                self.from.insert(name.clone(), origin.clone());
                self.figures.insert(name, value);
            }
        }
    }

    /// Figures of this run, and those of others by their run; what matters most comes first.
    fn by_origin(&self) -> BTreeMap<Option<&Origin>, Vec<(&str, f64)>> {
        let mut groups: BTreeMap<_, Vec<_>> = BTreeMap::from([(None, Vec::new())]);
        for (name, value) in &self.figures {
            groups.entry(self.from.get(name)).or_default().push((name.as_str(), *value));
        }
        groups.values_mut().for_each(|group| group.sort_by(|(one, _), (other, _)| rank(one).cmp(&rank(other))));
        groups
    }

    /// What was measured.
    fn version(&self) -> String {
        let service = self.service.as_deref().unwrap_or("a service of an unknown version");
        match &self.commit {
            Some(_) => service.to_owned(),
            None => format!("{service}, of an unknown commit"),
        }
    }

    /// What ran where, and for how long.
    fn about(&self) -> [String; 3] {
        let postgres = self.postgres.iter().map(|version| format!(", PostgreSQL {version}"));
        let service = [self.version()].into_iter().chain(postgres).collect();
        [service, self.machine.clone(), format!("begun at {}, took {:.0} s, seed {}", self.at, self.took_s, self.seed)]
    }

    /// A row under `FIGURE`.
    fn figure_row(&self, name: &str, value: f64) -> [String; FIGURE.len()] {
        let spread = self.spreads.get(name);
        let of = |index: usize| spread.map_or(String::new(), |spread| short(spread[index]));
        [name.to_owned(), short(value), of(0), of(2), judged(name, value, |whole| self.figures.contains_key(whole))]
    }

    /// For a terminal.
    pub(crate) fn table(&self) -> String {
        let mut text = self.about().join("\n") + "\n";
        for (origin, group) in self.by_origin() {
            let mut figures = Table::new();
            figures.load_style(presets::NOTHING).set_header(FIGURE);
            figures.add_rows(group.into_iter().map(|(name, value)| self.figure_row(name, value)));
            let heading = origin.map(|origin| format!("Not of this run, but of {origin}:\n")).unwrap_or_default();
            let _ = writeln!(text, "\n{heading}{figures}");
        }
        let mut runs = Table::new();
        runs.load_style(presets::NOTHING).set_header(RUN).add_rows(self.measured.iter().map(run_row));
        format!("{text}\n{runs}\n")
    }
}

/// What is told of a figure.
const FIGURE: [&str; 5] = ["figure", "median", "least", "most", "target"];

/// What is told of a run.
const RUN: [&str; 11] = [
    "what",
    "load",
    "joins/s",
    "p50 ms",
    "p99 ms",
    "p99.9 ms",
    "max ms",
    "joind µs",
    "postgres µs",
    "generator µs",
    "refused",
];

/// A row under `RUN`.
fn run_row(run: &Measured) -> [String; RUN.len()] {
    let refused: Vec<String> = run.refusals.iter().map(|(code, count)| format!("{count} {code}")).collect();
    [
        run.what.clone(),
        run.load.clone(),
        short(run.joins_per_s),
        short(run.p50_ms),
        short(run.p99_ms),
        short(run.p999_ms),
        short(run.max_ms),
        short_or_blank(run.cpu.joind_us),
        short_or_blank(run.cpu.postgres_us),
        short_or_blank(run.cpu.generator_us),
        refused.join(", "),
    ]
}

/// The commit that a version names in brackets.
fn commit_in(version: &str) -> Option<String> {
    let commit = version.split_once('(')?.1.split([')', ' ']).next()?;
    let hash = commit.strip_suffix("-dirty").unwrap_or(commit);
    (hash.len() >= 7 && hash.bytes().all(|byte| byte.is_ascii_hexdigit())).then(|| commit.to_owned())
}

/// The same as `short`, and nothing for what nobody looked at.
fn short_or_blank(value: Option<f64>) -> String {
    value.map(short).unwrap_or_default()
}

/// Three digits that matter.
pub(crate) fn short(value: f64) -> String {
    match value.abs() {
        large if large >= 100.0 => format!("{value:.0}"),
        middle if middle >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measured::histogram;

    fn report(command: &str, figures: &[(&str, f64)]) -> Report {
        let mut report = Report::new(command, 1);
        figures.iter().for_each(|(name, value)| report.figure(name, *value));
        report
    }

    fn after(earlier: &Report, mut report: Report) -> anyhow::Result<Report> {
        report.take(serde_json::from_slice(&serde_json::to_vec(earlier)?)?);
        Ok(report)
    }

    #[test]
    fn a_commit_is_that_of_the_service_or_unknown() {
        let of = |version: &str| {
            let mut report = report("bench", &[]);
            report.service(version.to_owned());
            (report.commit.clone(), report.version())
        };
        let version = "joind 0.1.0 (9c45d22-dirty)";
        assert_eq!(of(version), (Some("9c45d22-dirty".to_owned()), version.to_owned()));
        assert_eq!(of("joind 0.1.0 (9c45d22 2026-11-28)").0.as_deref(), Some("9c45d22"));
        for version in ["joind 0.1.0", "joind 0.1.0 (unknown)"] {
            assert_eq!(of(version), (None, format!("{version}, of an unknown commit")));
        }
    }

    #[test]
    fn a_figure_keeps_the_run_that_it_is_of() -> anyhow::Result<()> {
        let mut bench = report("bench", &[("peak", 1.0), ("append", 2.0)]);
        bench.at = "long ago".to_owned();
        let growth = after(&bench, report("growth", &[("rss", 3.0)]))?;
        let growth = after(&growth, report("growth", &[("rss", 4.0)]))?;
        assert_eq!((growth.value("peak"), growth.value("rss")), (1.0, 4.0));
        assert_eq!(growth.from.len(), 2);
        assert_eq!(growth.from["append"].at, "long ago");
        assert!(growth.table().contains("Not of this run, but of `bench` of long ago"), "{}", growth.table());

        // A part of a benchmark doesn't take the rest from an older one.
        let part = after(&growth, report("bench", &[("append", 5.0)]))?;
        assert_eq!(part.from.keys().collect::<Vec<_>>(), ["rss"]);
        assert_eq!(part.value("append"), 5.0);
        assert!(!part.figures.contains_key("peak"));
        Ok(())
    }

    #[test]
    fn terminal_and_page_tell_figures_first_with_their_targets_then_runs() {
        let mut report = report("bench", &[("empty_call_cpu_us", 16.2), ("recovery_cpu_vs_floor", 2.4)]);
        report.spread("append_vs_one_tx", vec![8.2, 8.1, 8.3]);
        report.postgres("15.18");
        let mut run = Measured::of("renewals", "closed, 64 at once".to_owned(), 5.0, &histogram());
        run.refusals = BTreeMap::from([("LOCKED".to_owned(), 3)]);
        report.add(run);
        for text in [report.table(), page::of(&report)] {
            let told = [
                "PostgreSQL 15.18",
                "append_vs_one_tx",
                "8.20",
                "8.10",
                "8.30",
                "8 or more: met",
                "recovery_cpu_vs_floor",
                "1.5 or less: not met",
                "empty_call_cpu_us",
                "p99.9 ms",
                "refused",
                "renewals",
                "3 LOCKED",
            ];
            let mut rest = text.as_str();
            for part in told {
                let (_, after) = rest.split_once(part).unwrap_or_else(|| panic!("no {part} at its place in {text}"));
                rest = after;
            }
        }
    }

    #[test]
    fn no_plot_of_an_earlier_run_stays_and_other_files_do() -> anyhow::Result<()> {
        let directory = tempfile::tempdir()?;
        let file = |name: &str| directory.path().join(name);
        for name in ["time-07-cpu.svg", "cost.svg", "logo.svg", "time-07-cpu.txt"] {
            fs::write(file(name), "old")?;
        }
        report("bench", &[]).write(directory.path())?;
        assert!(!file("time-07-cpu.svg").exists());
        assert!(fs::read_to_string(file("cost.svg"))?.starts_with("<svg"));
        assert!(file("logo.svg").exists() && file("time-07-cpu.txt").exists());
        Ok(())
    }
}

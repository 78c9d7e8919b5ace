//! What came out: a table, a JSON file, and a page that stands by itself.

mod page;
mod plot;

use std::{collections::BTreeMap, fs, path::Path};

use comfy_table::{Table, presets};
use serde::Serialize;

use crate::{
    floor::median,
    pace::Measured,
    process::{self},
};

/// Everything that came out of a run.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    command: String,
    seed: u64,
    at: String,
    machine: String,
    /// The figures that others go by.
    figures: BTreeMap<String, f64>,
    /// Least, median and most of those that were measured more than once.
    spreads: BTreeMap<String, [f64; 3]>,
    /// What was asserted, and held.
    checked: Vec<String>,
    notes: BTreeMap<String, String>,
    settings: serde_json::Value,
    measured: Vec<Measured>,
}

impl Report {
    pub(crate) fn new(command: &str, seed: u64) -> Self {
        Self {
            command: command.to_owned(),
            seed,
            at: chrono::Utc::now().to_rfc3339_opts(chrono::SecondsFormat::Secs, true),
            machine: process::machine(),
            figures: BTreeMap::new(),
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

    pub(crate) fn add(&mut self, measured: Measured) {
        self.measured.push(measured);
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

    /// Writes `report.json`, `report.html` and the plots, and adds figures of earlier runs of other commands, so that
    /// one file has them all.
    ///
    /// # Errors
    /// When they can't be written.
    pub(crate) fn write(&mut self, directory: &Path) -> anyhow::Result<()> {
        fs::create_dir_all(directory)?;
        let file = directory.join("report.json");
        if let Some(earlier) =
            fs::read(&file).ok().and_then(|text| serde_json::from_slice::<serde_json::Value>(&text).ok())
            && earlier["command"] != self.command.as_str()
            && let Some(figures) = earlier["figures"].as_object()
        {
            for (name, value) in figures {
                if let Some(value) = value.as_f64() {
                    self.figures.entry(name.clone()).or_insert(value);
                }
            }
        }
        fs::write(&file, serde_json::to_vec_pretty(self)?)?;
        for (name, svg) in plot::all(&self.measured) {
            fs::write(directory.join(format!("{name}.svg")), svg)?;
        }
        fs::write(directory.join("report.html"), page::of(self))?;
        Ok(())
    }

    /// For a terminal.
    pub(crate) fn table(&self) -> String {
        let mut figures = Table::new();
        figures.load_style(presets::NOTHING).set_header(["figure", "median", "least", "most"]);
        for (name, value) in &self.figures {
            let spread = self.spreads.get(name);
            let of = |index: usize| spread.map_or(String::new(), |spread| short(spread[index]));
            figures.add_row([name.clone(), short(*value), of(0), of(2)]);
        }
        let mut runs = Table::new();
        runs.load_style(presets::NOTHING).set_header([
            "what",
            "load",
            "joins/s",
            "p50 ms",
            "p99 ms",
            "max ms",
            "joind µs",
            "postgres µs",
            "generator µs",
            "refused",
        ]);
        for one in &self.measured {
            let refused: Vec<String> = one.refusals.iter().map(|(code, count)| format!("{count} {code}")).collect();
            runs.add_row([
                one.what.clone(),
                one.load.clone(),
                short(one.joins_per_s),
                short(one.p50_ms),
                short(one.p99_ms),
                short(one.max_ms),
                short(one.cpu.joind_us),
                short(one.cpu.postgres_us),
                short(one.cpu.generator_us),
                refused.join(", "),
            ]);
        }
        format!("{}\n{runs}\n{figures}", self.machine)
    }
}

/// Three digits that matter.
pub(crate) fn short(value: f64) -> String {
    match value.abs() {
        large if large >= 100.0 => format!("{value:.0}"),
        middle if middle >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}
